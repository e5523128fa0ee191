"""Which messages are taken and how fast: masks, ages, sizes, rates, placement, dialects."""

from __future__ import annotations

import base64
import hashlib
import time

import pytest
import xxhash
from flowkit import Site, sha512
from servers import MS

from sarrapipe.shm.slots import Counter
from sarrapipe.units import format_time

pytestmark = pytest.mark.broker

DATA = b"some data"


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


def test_masks_decide_and_place(site):
    # R36, R51
    tap = site.tap()
    flow = site.run(
        lines=f"""
        reject .*/secret/.*
        directory {site.dest}/one
        accept .*/a/.*
        strip 1
        directory {site.dest}/two
        accept .*/b/.*
        acceptUnmatched off
        """
    )
    for name in ("a/f", "b/f", "a/secret/f", "c/f"):
        site.announce(name, DATA)
    flow.until_settled(4)
    files = {name: data for name, data in site.files().items() if data is not None}
    assert files == {"one/a/f": DATA, "two/f": DATA}
    assert tap.paths() == ["one/a/f", "two/f"]
    assert flow.count(Counter.MESSAGES_ACCEPTED) == 2
    assert flow.count(Counter.MESSAGES_REJECTED) == 2
    site.assert_clean(flow)


def test_many_rejected_messages_cost_no_time(site):
    flow = site.run(lines="reject .*\nbatch 10\nprefetch 200")
    count = site.publish_all(site.fields(f"f{number}") for number in range(150))
    began = time.monotonic()
    flow.until_settled(count)
    assert time.monotonic() - began < 5 * MS  # 15 batches: not a pause in each
    site.assert_clean(flow)


def test_log_reject_names_what_masks_refused(site, caplog):
    flow = site.run(lines="logReject on\nreject .*f1\naccept .*")
    site.announce("f1", DATA)
    site.announce("f2", DATA)
    flow.until_settled(2)
    assert "rejected f1 code=404: refused by" in caplog.text
    assert "t.conf" in caplog.text
    site.assert_clean(flow)


def test_placement_by_the_rename_field(site):
    tap, flow = site.tap(), site.run()
    site.announce("a/f", DATA, rename="else/where")
    flow.until_settled(1)
    assert site.files() == {"else": None, "else/where": DATA}
    message = tap.one()
    assert message["relPath"] == "else/where"
    assert "rename" not in message
    site.assert_clean(flow)


def test_retrieve_path_is_a_url_and_used_for_fetching_only(site):
    tap, flow = site.tap(), site.run(lines="segmentSize 1MiB")
    large = bytes(range(256)) * 4096 * 3
    for name, data in (("real name #1", DATA), ("real large %41", large)):
        site.put(name, data)
    site.announce("small", DATA, put=False, retrievePath="real%20name%20%231")
    site.announce("large", large, put=False, retrievePath="real%20large%20%2541?x=1")
    flow.until_settled(2)
    assert site.files() == {"small": DATA, "large": large}
    assert all("retrievePath" not in message for message in tap.take())
    site.assert_clean(flow)


def test_messages_that_are_too_old(site, caplog):
    flow = site.run(lines="messageAgeMax 60")
    site.announce("old", DATA, pubTime="20240101T000000")
    site.announce("new", DATA)
    flow.until_settled(2)
    assert list(site.files()) == ["new"]
    assert "code=504" in caplog.text
    assert "messageAgeMax is 60 s" in caplog.text
    site.assert_clean(flow)


def test_files_that_are_too_young_wait_and_too_old_go(site):
    tap = site.tap()
    flow = site.run(lines="fileAgeMin 60\nfileAgeMax 1d")
    now_ns = site.clock.wall_ns()
    site.announce("young", DATA, mtime=format_time(now_ns - 10 * 10**9))
    site.announce("right", DATA, mtime=format_time(now_ns - 100 * 10**9))
    site.announce("old", DATA, mtime=format_time(now_ns - 100_000 * 10**9))
    flow.until_settled(2)
    flow.until(flow.kept, "the young one is kept")
    assert tap.paths() == ["right"]
    flow.advance(80)
    flow.until_settled(3)
    assert tap.paths() == ["young"]
    assert flow.count(Counter.MESSAGES_REJECTED) == 1
    site.assert_clean(flow)


def test_files_that_are_too_large(site, caplog):
    flow = site.run(lines="fileSizeMax 1k")
    site.announce("large", bytes(1001))
    site.announce("small", bytes(1000))
    flow.until_settled(2)
    assert list(site.files()) == ["small"]
    assert "code=413" in caplog.text
    assert flow.count(Counter.ERRORS_TOO_LARGE) == 1
    site.assert_clean(flow)


def test_the_byte_rate_is_about_what_was_asked_for(site):
    rate = 4 << 20
    flow = site.run(limiter=site.limiter(rate))
    for number in range(6):
        site.announce(f"f{number}", bytes(1_600_000))
    began = time.monotonic()
    flow.until_settled(6)
    seconds = time.monotonic() - began
    # A bucket of up to a second may be full at the start, and nobody waits for what each stream got last.
    assert 9_600_000 / rate - 1.3 < seconds < 9_600_000 / rate + 5 * MS
    site.assert_clean(flow)


def test_the_source_is_who_owns_the_exchange(site):
    # R54, R84, R112
    tap, flow = site.tap(), site.run(lines="sourceFromExchange on")
    site.announce("f", DATA, source="forged")
    site.announce("g", DATA, source=None)
    flow.until_settled(2)
    assert [message["source"] for message in tap.take()] == ["tsource", "tsource"]
    site.assert_clean(flow)


def test_v02_in_and_out(site):
    # R60: headers; both directions
    site.put("d/a file #1", DATA)
    hexes = hashlib.sha512(DATA).hexdigest()
    tap = site.tap()
    flow = site.run(lines="post_format v02")
    body = f"20240101000000.0 {site.docroot.url} d/a%20file%20%231".encode()
    headers = {
        "sum": f"s,{hexes}",
        "parts": f"1,{len(DATA)},1,0,0",
        "mtime": "20240102030405.5",
        "mode": "640",
        "source": "tsource",
        "to_clusters": "ALL",
        "mine": "travels on",
    }
    site.publish(body, headers=headers, content_type="text/plain")
    link = hashlib.sha512(b"target").hexdigest()
    site.publish(
        f"20240101000001.0 {site.docroot.url} d/l".encode(),
        headers={"sum": f"L,{link}", "link": "target"},
        content_type="text/plain",
    )
    flow.until_settled(2)
    assert site.files() == {"d": None, "d/a file #1": DATA, "d/l": "target"}
    assert (site.dest / "d/a file #1").stat().st_mtime == 1704164645.5
    tap.take()
    (file_body, file_headers, content_type), (_, link_headers, _) = sorted(tap.raw, key=lambda raw: raw[0])
    assert file_body.split()[1:3] == [b"http://example.com/data/", b"d/a%20file%20%231"]
    assert content_type == "text/plain"
    assert {name: file_headers[name] for name in headers} == headers
    assert link_headers["sum"] == f"L,{link}"
    assert link_headers["link"] == "target"
    assert tap.keys == ["v02.post.d", "v02.post.d"]
    site.assert_clean(flow)


def test_v03_from_v02_and_back(site):
    tap, flow = site.tap(), site.run()
    site.put("f", DATA)
    headers = {"sum": f"d,{hashlib.md5(DATA).hexdigest()}", "parts": f"1,{len(DATA)},1,0,0"}
    body = f"20240101000000.123 {site.docroot.url} /f".encode()
    site.publish(body, headers=headers, content_type="text/plain")
    flow.until_settled(1)
    message = tap.one()
    assert message["pubTime"] == "20240101T000000.123"
    assert message["relPath"] == "f"
    assert message["identity"]["method"] == "md5"
    assert message["size"] == len(DATA)
    assert tap.raw[0][2] == "application/json"
    site.assert_clean(flow)


def test_what_a_dialect_cannot_say_is_told_and_settled(site, caplog):
    """xxh3_128 has no letter in v02: the file stays, its announcement cannot be made, nothing waits."""
    value = base64.b64encode(xxhash.xxh3_128_digest(DATA)).decode()
    tap, flow = site.tap(), site.run(lines="post_format v02")
    site.announce("f", DATA, identity={"method": "xxh3_128", "value": value})
    site.announce("g", DATA)
    flow.until_settled(2)
    assert tap.paths() == ["g"]
    assert "cannot be announced: f" in caplog.text
    assert flow.count(Counter.MESSAGES_REJECTED) == 1
    assert flow.flow.refusals
    site.assert_clean(flow)


def test_names_of_all_kinds(site):
    names = [
        "with blank",
        "50%",
        "100%25",
        "a#b?c&d=e",
        "naïve/中文/файл",
        "quote'\"`$x",
        "-rf",
        "a:b",
        "[x]{y}",
        "é" * 127,
        "+",
        "semi;colon,comma",
        "~tilde",
        "back\\slash",
    ]
    tap, flow = site.tap(), site.run()
    for name in names:
        site.announce(name, name.encode())
    flow.until_settled(len(names))
    assert {name: data for name, data in site.files().items() if data is not None} == {
        name: name.encode() for name in names
    }
    assert tap.paths() == sorted(names)
    assert flow.count(Counter.FILES_VERIFIED) == len(names)
    site.assert_clean(flow)


def test_topics_and_properties_of_announcements(site):
    tap, flow = site.tap(), site.run()
    site.announce("a/b c/d.e/f", DATA)
    site.announce("top", DATA)
    site.announce("x/" * 120 + "deep", DATA)
    flow.until_settled(3)
    tap.take()
    assert sorted(tap.keys)[:2] == ["v03", "v03.a.b c.d.e"]
    assert len(max(tap.keys, key=len)) <= 255
    assert all(headers == {} for _, headers, _ in tap.raw)
    site.assert_clean(flow)


def test_subscribe_announces_nothing_and_flattens_trees(site):
    tap = site.tap()
    flow = site.run("subscribe", "mirror off")
    site.announce("a/b/f", DATA)
    flow.until_settled(1)
    assert site.files() == {"f": DATA}
    assert tap.take() == []
    assert flow.count(Counter.MESSAGES_PUBLISHED) == 0
    site.assert_clean(flow)


def test_file_urls_beneath_base_dir(site, caplog):
    tree = site.directory / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "d/f").write_bytes(DATA)
    (site.directory / "secret").write_bytes(b"secret")
    (tree / "d/out").symlink_to(site.directory / "secret")
    tap = site.tap()
    flow = site.run(lines=f"baseDir {tree}\nattempts 1\ndelete on")
    url = f"file:{tree}/"
    site.announce("d/f", DATA, put=False, baseUrl=url)
    site.announce("d/out", b"secret", put=False, baseUrl=url)
    site.announce("secret", b"secret", put=False, baseUrl=f"file:{site.directory}/")
    site.announce("d/missing", DATA, put=False, baseUrl=url)
    flow.until_settled(4)
    assert {name: data for name, data in site.files().items() if data is not None} == {"d/f": DATA}
    assert tap.one()["identity"] == sha512(DATA)
    assert flow.count(Counter.ERRORS_UNSAFE_PATH) == 2
    assert flow.count(Counter.ERRORS_GONE) == 1
    assert not (tree / "d/f").exists(), "delete on: it was fetched and announced"
    assert (site.directory / "secret").exists()
    site.assert_clean(flow)

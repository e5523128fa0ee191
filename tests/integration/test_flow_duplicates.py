"""Repetitions: the same content again, the same message again, two sources of one file."""

from __future__ import annotations

import pytest
from flowkit import Site
from standins import RecordingServer, StallingServer, StatusServer

from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

DATA = b"some data"


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


def later(site, rel_path, data=DATA, **changes):
    """Another announcement of the same: a later pubTime."""
    site.clock.advance(1)
    site.announce(rel_path, data, **changes)


def test_without_suppression_every_message_is_announced(site):
    tap, flow = site.tap(), site.run()
    site.announce("f", DATA)
    flow.until_settled(1)
    later(site, "f")
    flow.until_settled(2)
    assert tap.paths() == ["f", "f"]
    assert flow.count(Counter.MESSAGES_DUPLICATE) == 0
    site.assert_clean(flow)


def test_duplicates_are_suppressed_while_they_are_known(site):
    tap, flow = site.tap(), site.run(lines="nodupe_ttl 300")
    site.announce("f", DATA)
    flow.until_settled(1)
    for count in (2, 3):
        later(site, "f")
        flow.until_settled(count)
    assert tap.paths() == ["f"]
    assert flow.count(Counter.MESSAGES_DUPLICATE) == 2
    assert flow.count(Counter.FILES_OK) == 1
    later(site, "g")  # the same content under another name is another file
    later(site, "f", b"other data")
    flow.until_settled(5)
    assert tap.paths() == ["f", "g"]
    flow.advance(301)
    later(site, "f", b"other data")
    flow.until_settled(6)
    assert tap.paths() == ["f"]
    site.assert_clean(flow)


def test_many_copies_at_once_are_announced_once(site):
    tap, flow = site.tap(), site.run(lines="nodupe_ttl 300")
    for _ in range(20):
        later(site, "f")
    flow.until_settled(20)
    assert tap.paths() == ["f"]
    assert flow.count(Counter.FILES_OK) == 1
    site.assert_clean(flow)


@pytest.mark.parametrize(
    ("basis", "same", "other"),
    [("path", [], ["b/g", "c/f"]), ("name", ["c/f"], ["b/g"]), ("data", ["b/g", "c/f"], [])],
)
def test_what_is_compared(site, basis, same, other):
    # wire.md 3.4
    tap, flow = site.tap(), site.run(lines=f"nodupe_ttl 300\nnodupe_basis {basis}")
    site.announce("a/f", DATA)
    flow.until_settled(1)
    for name in ("b/g", "c/f"):
        later(site, name)
    flow.until_settled(3)
    assert tap.paths() == sorted(["a/f", *other])
    assert flow.count(Counter.MESSAGES_DUPLICATE) == len(same)
    site.assert_clean(flow)


def test_a_removed_file_that_comes_back_is_no_duplicate(site):
    tap, flow = site.tap(), site.run(lines="nodupe_ttl 300")
    site.announce("f", DATA)
    flow.until_settled(1)
    site.event("f", remove="")
    flow.until_settled(2)
    later(site, "f")
    flow.until_settled(3)
    assert site.files() == {"f": DATA}
    assert len(tap.take()) == 3
    site.assert_clean(flow)


def test_a_message_delivered_again_is_not_its_own_duplicate(site):
    """Its announcement could not be made before the broker lost us: it comes again, and is announced."""
    tap, flow = site.tap(), site.run(lines="nodupe_ttl 300")
    for number in range(20):
        site.announce(f"f{number}", b"%d" % number)
    flow.until(lambda: flow.flow.in_hand, "in hand")
    flow.close(stop=False)  # nothing was acknowledged
    again = site.run(lines="nodupe_ttl 300")
    again.until_settled(20)
    names = tap.paths()
    assert sorted(set(names)) == sorted(f"f{number}" for number in range(20))
    assert again.count(Counter.MESSAGES_DUPLICATE) == 0
    site.assert_clean(again)


def test_an_older_version_never_replaces_a_newer_one(site):
    tap, flow = site.tap(), site.run()
    old = site.fields("f", b"old", mtime="20240101T000000")
    site.announce("f", b"newer", mtime="20240101T000001")
    flow.until_settled(1)
    site.publish(old)
    flow.until_settled(2)
    assert site.files() == {"f": b"newer"}
    assert flow.count(Counter.MESSAGES_OVERTAKEN) == 1
    later(site, "f", b"newest", mtime="20240101T000002")
    flow.until_settled(3)
    assert site.files() == {"f": b"newest"}
    assert tap.paths() == ["f", "f"]
    site.assert_clean(flow)


def test_a_newer_version_overtakes_an_older_one_under_way(site):
    tap, flow = site.tap(), site.run()
    with StallingServer(b"old data") as stalling:
        old = site.fields("f", b"old data", mtime="20240101T000000", baseUrl=stalling.url)
        site.publish(old)
        flow.until(lambda: flow.count(Counter.MESSAGES_ACCEPTED), "under way")
        site.announce("f", b"newer", mtime="20240101T000001")
        flow.until_settled(1)
        assert (site.dest / "f").read_bytes() == b"newer"
    flow.until(lambda: flow.kept() or flow.assembled.settlement.answered == 2, "the old one has ended")
    flow.advance(5)
    flow.until_settled(2)
    assert site.files() == {"f": b"newer"}
    assert tap.paths() == ["f"]
    site.assert_clean(flow)


def test_between_contents_of_one_time_the_later_announcement_wins(site):
    tap, flow = site.tap(), site.run()
    first = site.fields("f", b"first")
    later(site, "f", b"second")
    flow.until_settled(1)
    site.publish(first)
    flow.until_settled(2)
    assert site.files() == {"f": b"second"}
    assert tap.paths() == ["f"]
    site.assert_clean(flow)


def test_two_sources_of_one_file(site):
    tap, flow = site.tap(), site.run(lines="nodupe_ttl 300")
    with RecordingServer(DATA) as one, RecordingServer(DATA) as two:
        site.publish(site.fields("f", DATA, baseUrl=one.url))
        site.publish(site.fields("f", DATA, baseUrl=two.url))
        flow.until_settled(2)
        assert len(one.requests) + len(two.requests) == 1
    assert tap.paths() == ["f"]
    site.assert_clean(flow)


@pytest.mark.parametrize("status", [403, 404])
def test_the_second_source_serves_what_the_first_refuses(site, status):
    """A permanent rejection ends one message, not the file."""
    tap, flow = site.tap(), site.run(lines="nodupe_ttl 300\nattempts 1")
    with StatusServer(status) as one, RecordingServer(DATA) as two:
        site.publish(site.fields("f", DATA, baseUrl=one.url))
        site.publish(site.fields("f", DATA, baseUrl=two.url))
        flow.until_settled(2)
        assert len(one.requests) == len(two.requests) == 1
    assert tap.paths() == ["f"]
    assert site.files() == {"f": DATA}
    assert flow.count(Counter.MESSAGES_REJECTED) == 1
    site.assert_clean(flow)


def test_the_announcement_carries_the_latest_of_the_times_it_stands_for(site):
    """A removal announced between two announcements of one content must not be newer for the next hop."""
    tap, flow = site.tap(), site.run(lines="nodupe_ttl 300")
    first = site.fields("f", DATA)
    site.clock.advance(10)
    second = site.fields("f", DATA)
    site.put("f", DATA)
    site.publish(first)
    site.publish(second)
    flow.until_settled(2)
    assert tap.one()["pubTime"] == second["pubTime"]
    site.assert_clean(flow)


def test_duplicates_are_known_to_the_next_start(site):
    tap, flow = site.tap(), site.run(lines="nodupe_ttl 300")
    site.announce("f", DATA)
    flow.until_settled(1)
    flow.close()
    again = site.run(lines="nodupe_ttl 300")
    later(site, "f")
    again.until_settled(1)
    assert tap.paths() == ["f"]
    assert again.count(Counter.MESSAGES_DUPLICATE) == 1
    site.assert_clean(again)

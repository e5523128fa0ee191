"""Where files go: nothing leaves the destination; what the file system refuses is told, and tried again."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from pathlib import Path

import pytest
import servers
from flowkit import Site

from sarrapipe.errors import NoSpace
from sarrapipe.shm.slots import Counter, Phase

pytestmark = pytest.mark.broker

DATA = b"some data"
LARGE = bytes(range(256)) * 4096 * 4
BOTH = pytest.mark.parametrize("data", [DATA, LARGE], ids=["in one piece", "in segments"])


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


@contextlib.contextmanager
def mounted(directory: Path, *options: str):
    """A tmpfs of its own at a directory."""
    directory.mkdir(exist_ok=True)
    if os.geteuid() != 0:
        servers.missing("the right to mount a tmpfs")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", directory], capture_output=True, text=True
    )
    if made.returncode:
        servers.missing(f"a tmpfs ({made.stderr.strip()})")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


@BOTH
@pytest.mark.parametrize("mode", ["native", ".tmp", ".", "partial/", "none"])
def test_inflight_forms(site, mode, data):
    tap, flow = site.tap(), site.run(lines=f"inflight {mode}\nsegmentSize 1MiB")
    (site.dest / "d").mkdir()
    (site.dest / "d/f").write_bytes(LARGE + b"an older version, and longer")
    os.utime(site.dest / "d/f", (1, 1))
    site.announce("d/f", data)
    site.announce("d/g", data)
    flow.until_settled(2)
    assert tap.paths() == ["d/f", "d/g"]
    left = site.files()
    left.pop("d/partial", None)
    assert left == {"d": None, "d/f": data, "d/g": data}
    site.assert_clean(flow)


@pytest.mark.parametrize("mode", ["native", ".tmp", ".", "partial/", "none"])
def test_entries_are_made_beside_what_is_in_place(site, mode):
    tap, flow = site.tap(), site.run(lines=f"inflight {mode}")
    site.announce("d/f", DATA)
    flow.until_settled(1)
    older = site.fields("d/f", fileOp={"link": "elsewhere"}, pubTime="20200101T000000")
    site.publish(older)
    flow.until_settled(2)
    assert flow.count(Counter.MESSAGES_OVERTAKEN) == 1
    site.event("d/f", link="g")
    flow.until_settled(3)
    assert site.files()["d/f"] == "g"
    assert len(tap.take()) == 2
    site.assert_clean(flow)


@pytest.mark.parametrize(
    ("planted", "name"), [("d", "d/f"), ("d/e", "d/e/f"), ("f", "f")], ids=["first", "second", "last"]
)
def test_links_planted_in_the_destination_lead_nowhere(site, caplog, planted, name):
    outside = site.directory / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"precious")
    link = site.dest / planted
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside / "f" if planted == name else outside)
    tap, flow = site.tap(), site.run()
    site.announce(name, DATA)
    site.event(f"{planted}/removed", remove="") if planted != name else None
    site.event(f"{planted}/made", directory="") if planted != name else None
    site.event(f"{planted}/linked", link="f") if planted != name else None
    flow.until_settled(1 if planted == name else 4)
    assert site.files(outside) == {"f": b"precious"}
    if planted == name:  # the link itself is replaced by the file
        assert site.files() == {"f": DATA}
        assert tap.paths() == ["f"]
    else:
        assert flow.count(Counter.ERRORS_UNSAFE_PATH) == 4
        assert "code=422" in caplog.text
        assert f"{site.dest}/{planted}" in caplog.text
        assert tap.take() == []
    site.assert_clean(flow)


def test_a_loop_of_links_in_the_destination(site):
    (site.dest / "a").symlink_to("a")
    tap, flow = site.tap(), site.run()
    site.announce("a/f", DATA)
    site.announce("b/f", DATA)
    flow.until_settled(2)
    assert tap.paths() == ["b/f"]
    site.assert_clean(flow)


@BOTH
def test_a_directory_bears_the_name_of_a_file(site, data):
    (site.dest / "f").mkdir()
    tap, flow = site.tap(), site.run(lines="segmentSize 1MiB")
    site.announce("f", data)
    flow.until(flow.kept, "kept")
    assert "f: Is a directory" in flow.kept()[0].reason
    assert tap.take() == []
    (site.dest / "f").rmdir()
    flow.advance(2)
    flow.until_settled(1)
    assert site.files() == {"f": data}
    assert tap.paths() == ["f"]
    site.assert_clean(flow)


def test_a_file_bears_the_name_of_a_directory(site):
    (site.dest / "d").write_bytes(b"")
    tap, flow = site.tap(), site.run()
    site.announce("d/f", DATA)
    flow.until(flow.kept, "kept")
    assert "Not a directory" in flow.kept()[0].reason
    (site.dest / "d").unlink()
    flow.advance(2)
    flow.until_settled(1)
    assert tap.paths() == ["d/f"]
    site.assert_clean(flow)


def test_a_directory_that_cannot_be_written(site):
    with mounted(site.dest / "ro", "size=1m"):
        subprocess.run(["mount", "-o", "remount,ro", site.dest / "ro"], check=True)
        tap, flow = site.tap(), site.run()
        site.announce("ro/f", DATA)
        site.announce("rw/f", DATA)
        flow.until(flow.kept, "kept")
        flow.until_settled(1)
        assert "ro/f: Read-only file system" in flow.kept()[0].reason
        assert flow.count(Counter.ERRORS_STORAGE) >= 1
        assert tap.paths() == ["rw/f"]
        subprocess.run(["mount", "-o", "remount,rw", site.dest / "ro"], check=True)
        flow.advance(2)
        flow.until_settled(2)
        assert tap.paths() == ["ro/f"]
        site.assert_clean(flow)


@BOTH
def test_a_full_disk_pauses_the_flow_until_there_is_room(site, data):
    data = data if len(data) > 100 else os.urandom(600_000)
    with mounted(site.dest / "full", "size=8m"):
        filler = site.dest / "full/filler"
        filler.write_bytes(bytes(7_900_000))
        tap, flow = site.tap(), site.run(lines="segmentSize 1MiB")
        site.announce("full/f", data)
        flow.until(lambda: flow.assembled.housekeeping.paused, "paused")
        flow.until(flow.kept, "kept")
        assert flow.slot.phase is Phase.PAUSED
        assert "full" in flow.slot.note
        assert flow.count(Counter.ERRORS_NO_SPACE) == 1
        site.announce("full/g", b"later")
        for _ in range(5):
            flow.advance(1.0, turns=1)
        assert tap.take() == []
        queue = flow.config.subscriptions[0].queue_name
        flow.until(lambda: site.depth(queue) == 1, "what is not begun is in the queue")
        filler.unlink()
        flow.advance(2)
        flow.until_settled(2)
        assert flow.slot.phase is Phase.RUNNING
        assert tap.paths() == ["full/f", "full/g"]
        assert (site.dest / "full/f").read_bytes() == data
        site.assert_clean(flow)


def test_a_full_disk_under_the_ledger_ends_the_instance_and_loses_nothing(site):
    """Its parent starts another one, after a pause; what was not acknowledged comes again."""
    with mounted(site.directory / "state", "size=4m"):
        flow = site.run()
        site.announce("first", DATA)
        flow.until_settled(1)
        filler = site.directory / "state/filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        tap = site.tap()
        for number in range(100):
            site.announce(f"f{number:03d}", b"%d" % number)
        with pytest.raises(NoSpace, match="state/sarra/t/ledger"):
            flow.until(lambda: flow.count(Counter.FILES_OK) > 100, "it ends")
        flow.close(stop=False)
        filler.unlink()
        again = site.run()
        queue = again.config.subscriptions[0].queue_name
        again.until(lambda: len(site.files()) == 101 and not again.flow.in_hand, "all are there")
        again.until(lambda: site.depth(queue) == 0, "all are answered")
        assert set(tap.paths()) == {f"f{number:03d}" for number in range(100)}
        site.assert_clean(again)


@pytest.mark.parametrize("size", [100 << 40, 2**63 - 1])
def test_a_file_that_can_never_fit_is_rejected(site, caplog, size):
    with mounted(site.dest / "d", "size=8m"):
        tap, flow = site.tap(), site.run()
        site.announce("d/f", DATA, size=size, identity=None)
        flow.until_settled(1)
        assert tap.take() == []
        assert flow.count(Counter.ERRORS_TOO_LARGE) == 1
        assert "code=413" in caplog.text
        assert not flow.assembled.housekeeping.paused
        site.assert_clean(flow)


def test_permissions_and_times(site):
    tap, flow = site.tap(), site.run()
    site.announce("f", DATA, mode="4751", mtime="20200102T030405.123456789", atime="20210102T030405")
    site.announce("g", DATA, mode=None, mtime=None)
    site.publish(site.fields("d", fileOp={"directory": ""}, mode="2700"))
    flow.until_settled(3)
    status = (site.dest / "f").stat()
    assert stat.S_IMODE(status.st_mode) == 0o751, "who may be set by a message's bits is not its business"
    assert status.st_mtime_ns == 1577934245_123456789
    assert status.st_atime_ns == 1609556645_000000000
    assert stat.S_IMODE((site.dest / "d").stat().st_mode) == 0o700
    assert tap.paths() == ["d", "f", "g"]
    site.assert_clean(flow)


def test_permissions_and_times_of_our_own(site):
    flow = site.run(lines="permCopy off\ntimeCopy off\npermDefault 604\npermDirDefault 711")
    site.announce("new/f", DATA)
    flow.until_settled(1)
    status = (site.dest / "new/f").stat()
    assert stat.S_IMODE(status.st_mode) == 0o604
    assert status.st_mtime > 1_700_000_000
    assert stat.S_IMODE((site.dest / "new").stat().st_mode) == 0o711
    site.assert_clean(flow)


def test_discard_keeps_nothing(site):
    for mode in ("native", "none"):
        tap, flow = site.tap(), site.run(lines=f"discard on\ninflight {mode}", name=mode)
        site.announce(mode, DATA)
        flow.until_settled(1)
        assert tap.paths() == [mode]
        assert site.files() == {}
        site.assert_clean(flow)


def test_overwrite_off_leaves_what_is_there(site):
    tap, flow = site.tap(), site.run(lines="overwrite off")
    (site.dest / "same").write_bytes(DATA)
    (site.dest / "other").write_bytes(b"some DATA")
    os.utime(site.dest / "other", (1, 1))
    before = (site.dest / "same").stat()
    site.announce("same", DATA)
    site.announce("other", DATA)
    flow.until_settled(2)
    assert (site.dest / "same").stat().st_ino == before.st_ino
    assert (site.dest / "other").read_bytes() == DATA
    assert tap.paths() == ["other"]
    site.assert_clean(flow)


@BOTH
def test_what_others_put_there_later_is_not_replaced_by_something_older(site, data):
    tap, flow = site.tap(), site.run(lines="segmentSize 1MiB")
    (site.dest / "f").write_bytes(b"edited by hand")
    site.announce("f", data)  # of 2024
    flow.until_settled(1)
    assert site.files() == {"f": b"edited by hand"}
    assert flow.count(Counter.MESSAGES_OVERTAKEN) == 1
    assert tap.take() == []
    site.assert_clean(flow)


def test_a_file_replaces_a_link_that_was_made_later_than_the_file(site):
    _, flow = site.tap(), site.run()
    site.event("f", link="g")
    flow.until_settled(1)
    site.announce("f", DATA)  # modified in 2024, the link was made just now
    flow.until_settled(2)
    assert site.files() == {"f": DATA}
    site.event("f", link="h")
    flow.until_settled(3)
    site.event("f", link="i")
    flow.until_settled(4)
    assert site.files() == {"f": "i"}
    site.assert_clean(flow)


@BOTH
def test_durability_host(site, data):
    tap, flow = site.tap(), site.run(lines="durability host\nsegmentSize 1MiB")
    for number in range(20 if data is DATA else 2):
        site.announce(f"d{number % 3}/f{number}", data)
    site.event("l", link="d0/f0")
    site.event("d0/f0", remove="")
    count = 22 if data is DATA else 4
    flow.until_settled(count)
    assert len(tap.take()) == count - flow.count(Counter.MESSAGES_OVERTAKEN)
    site.assert_clean(flow)


def test_a_newer_file_of_another_flow_is_not_replaced(site):
    """Two flows with one destination: the mark on a file in place tells whose ledger has judged it."""
    tap = site.tap()
    one = site.run(name="one")
    two = site.run(name="two")
    versions = {n: b"version %d" % n for n in (1, 2, 3)}

    def send(flow, number):
        # To the queue of one flow alone.
        fields = site.fields("f", versions[number], mtime=f"2024010{number}T000000")
        site.put("f", versions[number])
        settled = flow.assembled.settlement.answered
        site.publish(fields, exchange="", key=flow.config.subscriptions[0].queue_name)
        flow.until_settled(settled + 1)

    send(one, 1)
    send(two, 3)
    send(one, 2)  # older than what the other flow put there since
    assert site.files() == {"f": versions[3]}
    assert len(tap.take()) == 2
    assert one.count(Counter.MESSAGES_OVERTAKEN) == 1
    send(two, 2)
    assert site.files() == {"f": versions[3]}
    site.assert_clean(one)
    site.assert_clean(two)

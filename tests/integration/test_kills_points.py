"""A process is killed at each instant between two steps that belong together (design: guarantees 1, 2 and 6).

Whatever the instant, in the end every file equals its source, every announcement has left, and nothing is
left behind: no message, no row, no inflight file. The points are those of `sarrapipe.crashpoints`.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from killkit import COMMAND, PROBE, REPOSITORY, Mover, Place, UnwillingServer, Wire, counted
from servers import MS, DocRoot, Vhost

from sarrapipe.crashpoints import POINTS

pytestmark = [pytest.mark.chaos, pytest.mark.broker, pytest.mark.nginx]

AFTER_REMOVALS = ("tombstone", "removed")
OF_KEPT = ("kept", "deferred", "leased")
OF_SLOTS = ("slot_filled", "slot_drained")
OF_STRAGGLERS = ("hedge_started", "hedge_won")
OF_OLDER_VERSIONS = ("block_equal", "block_kept")
OF_OTHERS = OF_KEPT + OF_SLOTS + OF_STRAGGLERS + OF_OLDER_VERSIONS
OF_FILES = [point for point in POINTS if point not in AFTER_REMOVALS + OF_OTHERS]
MAY_REPEAT = ("published", "confirmed")
"""Between the broker's taking an announcement and our record of its confirm (design: guarantee 1)."""


@pytest.fixture
def place(vhost: Vhost, docroot: DocRoot, tmp_path: Path) -> Place:
    return Place(vhost, docroot, tmp_path)


def some_files(place: Place) -> list[Wire]:
    """Small files, an empty one, a link, a directory, and two of several segments."""
    messages = [place.write(f"d{n % 3}/file{n}", os.urandom(1000 * n)) for n in range(12)]
    messages += [place.write_large(f"large{n}", 4_500_000 + n, seed=n) for n in range(2)]
    return [*messages, place.link("d1/link", "file1"), place.directory("empty")]


def some_changes(place: Place) -> list[Wire]:
    """Removals, renames and newer versions of what `some_files` made."""
    messages = [place.remove(f"d0/file{n}") for n in (0, 3, 6)]
    messages += [place.rename(f"d1/file{n}", f"moved/file{n}") for n in (4, 7)]
    messages += [place.write(f"d2/file{n}", b"newer" * n) for n in (2, 5)]
    return [*messages, place.remove("large1")]


def check_announced(place: Place, sent: list[Wire], *, once: bool) -> None:
    got, wanted = counted(place.announced()), counted(sent)
    assert set(got) == set(wanted)
    if once:
        assert got == wanted


def options(**more: object) -> dict[str, object]:
    return {"segmentSize": "1Mi", "housekeeping": 1, **more}


@pytest.mark.parametrize(
    ("point", "instances"),
    # A sibling goes on; with one instance, whoever is started in its place.
    [*((point, 2) for point in OF_FILES), ("segment_marked", 1), ("committed", 1)],
)
def test_killed_while_files_come(place: Place, point: str, instances: int) -> None:
    """The first file is alone when the kill comes, so what may be repeated is known exactly."""
    first = place.write_large("first", 3_500_000) if "segment" in point else place.write("first", b"x" * 3000)
    files = some_files(place)
    mover = Mover(place, instances=instances, crash_at=point, **options())
    with mover:
        place.send([first])
        mover.wait(lambda: mover.crashed() == {point}, 20, f"a process was killed when {point}")
        place.send(files)
        mover.settle(1 + len(files))
    place.check()
    mover.check_nothing_left()
    check_announced(place, [first, *files], once=point not in MAY_REPEAT)


@pytest.mark.parametrize("instances", [1, 2])
@pytest.mark.parametrize("point", [*OF_SLOTS, "segment_written"])
def test_killed_while_bytes_are_staged(place: Place, point: str, instances: int) -> None:
    """What the dead had in slots is fetched again; the slots are free, and the next hold others' bytes."""
    files = [place.write_large(f"large{n}", 4_500_000 + n, seed=n) for n in range(4)]
    mover = Mover(
        place, instances=instances, crash_at=f"{point}:3", **options(staging="slots", stagingBytes="1Mi")
    )
    with mover:
        place.send(files)
        mover.wait(lambda: mover.crashed() == {point}, 20, f"a process was killed when {point}")
        mover.settle(len(files))
        assert mover.status().totals["bytes_staged"] > 0
    place.check()
    mover.check_nothing_left()
    check_announced(place, files, once=True)


@pytest.mark.parametrize(
    ("point", "kind"),
    [
        ("tombstone", "rename"), ("removed", "remove"), ("published", "rename"),
        ("confirmed", "remove"), ("settled", "rename"), ("acknowledged", "remove"),
    ],
)  # fmt: skip
def test_killed_while_files_are_removed_and_renamed(place: Place, point: str, kind: str) -> None:
    files = [place.write("first", b"first"), *some_files(place)]
    with Mover(place, instances=2, **options()) as quiet:
        place.send(files)
        quiet.settle(len(files))
    place.announced()
    mover = Mover(place, instances=2, crash_at=point, **options())
    with mover:
        first = place.remove("first") if kind == "remove" else place.rename("first", "d9/moved")
        place.send([first])
        mover.wait(lambda: mover.crashed() == {point}, 20, f"a process was killed when {point}")
        changes = some_changes(place)
        place.send(changes)
        mover.settle(1 + len(changes))
    place.check()
    mover.check_nothing_left()
    check_announced(place, [first, *changes], once=point not in MAY_REPEAT)


@pytest.mark.parametrize(
    ("point", "instances"), [("kept", 2), ("acknowledged", 2), ("leased", 2), ("leased", 1)]
)
def test_killed_while_messages_are_kept(
    vhost: Vhost, docroot: DocRoot, tmp_path: Path, point: str, instances: int
) -> None:
    """The source answers 503 at first: messages are kept and acknowledged, and tried again later."""
    with UnwillingServer(docroot.path / "source") as server:
        place = Place(vhost, docroot, tmp_path, base_url=server.url)
        sent = [place.write(f"d/file{n}", os.urandom(1000)) for n in range(8)]
        mover = Mover(place, instances=instances, crash_at=point, **options(attempts=1))
        with mover:
            place.send(sent)
            mover.wait(lambda: mover.crashed() == {point}, 20, f"a process was killed when {point}")
            server.willing.set()
            mover.settle(len(sent))
        place.check()
        mover.check_nothing_left()
        check_announced(place, sent, once=True)


def test_everything_killed_while_messages_are_kept(vhost: Vhost, docroot: DocRoot, tmp_path: Path) -> None:
    """Parent and all: what a former life of the flow had leased is tried again by the next one."""
    with UnwillingServer(docroot.path / "source") as server, ExitStack() as stack:
        place = Place(vhost, docroot, tmp_path, base_url=server.url)
        sent = [place.write(f"d/file{n}", os.urandom(1000)) for n in range(8)]
        mover = stack.enter_context(Mover(place, instances=2, **options(attempts=1)))
        place.send(sent)
        mover.wait(lambda: mover.kept() == len(sent), 20, "all messages are kept")
        server.slow.set()  # answers come late: what is tried again is under way when the kill comes
        mover.wait(lambda: server.waiting >= 4, 20, "kept messages are tried again")
        mover.kill_parent()
        server.slow.clear()
        server.willing.set()
        mover.start()
        mover.settle(len(sent))
        mover.stop()
        place.check()
        mover.check_nothing_left()
        check_announced(place, sent, once=True)


def test_every_point_in_one_life(place: Place) -> None:
    """Processes die one after the other at all points that a mixed load passes."""
    points = {point for point in POINTS if point not in OF_OTHERS}
    crash_at = ",".join(f"{point}:{1 + number % 3}" for number, point in enumerate(sorted(points)))
    mover = Mover(place, instances=4, crash_at=crash_at, **options())
    with mover:
        place.send(some_files(place))
        mover.settle_trees()
        place.send(some_changes(place))
        for round_ in range(20):
            mover.settle_trees()
            if mover.crashed() == points:
                break
            place.send([
                *(place.write(f"more/{round_}-{n}", b"x" * n) for n in range(8)),
                *(place.remove(f"more/{round_ - 1}-{n}") for n in range(8) if round_),
                place.write_large("large0", 4_500_100 + round_, seed=round_),
            ])  # fmt: skip
        assert mover.crashed() == points
    place.check()
    mover.check_nothing_left()


@pytest.fixture
def posting(place: Place) -> Iterator[dict[str, str]]:
    """The environment of `sarrapipe post post/source`, whose announcements go to the probe's queue."""
    config = place.home / "config"
    (config / "post").mkdir(parents=True)
    (config / "credentials.conf").touch(mode=0o600)
    (config / "credentials.conf").write_text(f"{place.vhost.url('tsource')}\n")
    (config / "post" / "source.conf").write_text(
        f"post_broker {place.vhost.url('tsource', password=False)}\n"
        f"post_exchange xs_tsource\npost_baseUrl {place.base_url}\npost_baseDir {place.source}\n"
    )
    with place.vhost.connect("admin") as connection:
        connection.channel().queue_bind(PROBE, "xs_tsource", "#")
    state = place.home / "state"
    yield {**os.environ, "SARRA_CONFIG_HOME": str(config), "SARRA_STATE_HOME": str(state)}


def test_post_killed_before_the_confirms(place: Place, posting: dict[str, str]) -> None:
    sent = [place.write(f"d{n % 3}/file{n}", b"x" * n) for n in range(300)]
    command = [*COMMAND, "post", "post/source", str(place.source)]

    def post(crash_at: str) -> int:
        environment = {**posting, "SARRAPIPE_CRASH_AT": crash_at}
        done = subprocess.run(
            command, env=environment, cwd=REPOSITORY, capture_output=True, check=False, timeout=30 * MS
        )
        return done.returncode

    assert post("published:1") == -signal.SIGKILL  # how many batches there are depends on the machine
    assert post("") == 0
    got = counted(message for message in place.announced() if "size" in message)
    assert set(got) == set(counted(sent))
    assert max(got.values()) <= 2

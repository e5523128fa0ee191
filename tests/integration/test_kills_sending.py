"""A process is killed at each instant while files are sent, relayed, removed and renamed at a server.

The server is another directory of this machine (`sendTo file:`), as what counts is who asks for what, and
when; large files are relayed from nginx to OpenSSH.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from killkit import Mover, Place
from servers import DocRoot, Vhost
from sshserver import Sshd
from test_kills_points import MAY_REPEAT, OF_FILES, check_announced, options, some_changes, some_files

pytestmark = [pytest.mark.chaos, pytest.mark.broker]

OF_SENDING = [point for point in OF_FILES if "segment" not in point and point != "inflight_made"]


@pytest.fixture
def place(vhost: Vhost, docroot: DocRoot, tmp_path) -> Place:
    made = Place(vhost, docroot, tmp_path)
    made.pump.mkdir()
    return made


def sender(place: Place, **more: object) -> Mover:
    return Mover(
        place,
        instances=2,
        **options(sendTo=f"file://{place.pump}", baseDir=place.source, inflight=".tmp", **more),
    )


@pytest.mark.parametrize("point", OF_SENDING)
def test_killed_while_files_are_sent(place: Place, point: str) -> None:
    first = place.write("first", b"x" * 3000)
    files = some_files(place)
    mover = sender(place)
    mover.crash_at = point
    with mover:
        place.send([first])
        mover.wait(lambda: mover.crashed() == {point}, 20, f"a process was killed when {point}")
        place.send(files)
        mover.settle(1 + len(files))
    place.check()
    mover.check_nothing_left()
    check_announced(place, [first, *files], once=point not in MAY_REPEAT)


@pytest.mark.parametrize(
    ("point", "kind"),
    [("tombstone", "rename"), ("tombstone", "remove"), ("removed", "rename"), ("published", "remove")],
)
def test_killed_while_files_are_removed_and_renamed(place: Place, point: str, kind: str) -> None:
    files = [place.write("first", b"first"), *some_files(place)]
    with sender(place) as quiet:
        place.send(files)
        quiet.settle(len(files))
    place.announced()
    mover = sender(place)
    mover.crash_at = point
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


@pytest.mark.nginx
@pytest.mark.parametrize("point", ["admitted", "verified", "committed", "placed", "confirmed"])
def test_killed_while_files_are_relayed(place: Place, point: str) -> None:
    first = place.write("first", b"x" * 3000)
    files = some_files(place)
    mover = Mover(
        place,
        instances=2,
        crash_at=point,
        **options(sendTo=f"file://{place.pump}", download="stream", inflight=".tmp", stagingBytes="4Mi"),
    )
    with mover:
        place.send([first])
        mover.wait(lambda: mover.crashed() == {point}, 20, f"a process was killed when {point}")
        place.send(files)
        mover.settle(1 + len(files))
    place.check()
    mover.check_nothing_left()
    check_announced(place, [first, *files], once=point not in MAY_REPEAT)


@pytest.mark.parametrize("instances", [1, 2])
@pytest.mark.parametrize("point", ["segment_written", "segment_marked"])
def test_killed_while_a_large_file_is_sent(place: Place, point: str, instances: int) -> None:
    """Whoever takes it over sends what the server had not answered, or the ledger had not heard of."""
    segment, segments, streams = 1 << 20, 12, 2
    large = place.write_large("large", segments * segment - 5)
    mover = Mover(
        place,
        instances=instances,
        crash_at=f"{point}:4",
        **options(sendTo=f"file://{place.pump}", baseDir=place.source, inflight=".tmp", streams=streams),
    )
    with mover:
        place.send([large])
        mover.wait(lambda: mover.crashed() == {point}, 20, f"a process was killed when {point}")
        mover.settle(1)
        totals = mover.status().totals
        assert totals["files_resumed"] == 1
        assert totals["bytes_sent"] <= (segments + streams) * segment
    place.check()
    mover.check_nothing_left()
    check_announced(place, [large], once=True)


RELAYED = ["segment_written", "segment_marked", "verified", "committed", "placed", "published", "confirmed"]


@pytest.mark.nginx
@pytest.mark.sftp
@pytest.mark.parametrize(
    ("point", "instances"), [*((point, 2) for point in (*RELAYED, "settled")), ("segment_written", 1),
                             ("segment_marked", 1)],
)  # fmt: skip
def test_killed_while_a_large_file_is_relayed(
    place: Place, tmp_path: Path, point: str, instances: int
) -> None:
    """From nginx to OpenSSH: what the server has answered, and the ledger has heard of, is not sent again."""
    segment, segments, streams = 1 << 20, 12, 2
    place.write_large("large", segments * segment - 5)
    os.utime(place.source / "large", (1_700_000_000, 1_700_000_000))  # SFTP has whole seconds
    large = place.announce("large")
    place.pump.chmod(0o777)
    with Sshd(tmp_path / "ssh") as far:
        mover = Mover(
            place,
            instances=instances,
            crash_at=f"{point}:4" if "segment" in point else point,
            credentials=f"{far.url('/')} ssh_keyfile={far.key_file}\n",
            **options(
                sendTo=far.url(str(place.pump)),
                sftpKnownHosts=far.known_hosts,
                download="stream",
                inflight=".tmp",
                stagingBytes="4Mi",
                streams=streams,
            ),
        )
        with mover:
            place.send([large])
            mover.wait(lambda: mover.crashed() == {point}, 20, f"a process was killed when {point}")
            mover.settle(1)
            totals = mover.status().totals
            # The next segment's write is begun before the last one of another is answered.
            assert totals["bytes_sent"] <= (segments + 3) * segment
            if "segment" in point:
                assert totals["files_resumed"] == 1
                assert totals["bytes_sent"] >= (segments - 4) * segment
                assert totals["bytes_received"] >= segments * segment - 5, "the digest is over all of it"
            else:
                assert totals["bytes_received"] <= 2 * segments * segment
    place.check()
    mover.check_nothing_left()
    check_announced(place, [large], once=point not in MAY_REPEAT)

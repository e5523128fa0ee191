"""Processes are killed at each instant while a file in blocks is brought up to date from the one in place.

Whatever the instant: the file equals its source, it is announced whole and, outside the window that may
repeat it, once; nothing is left behind.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from killkit import Mover, Place
from servers import DocRoot, Vhost
from test_kills_blocks import BLOCK_BYTES, answer_the_rest, in_blocks

from sarrapipe.crashpoints import POINTS
from sarrapipe.segment.inplace import WRITING_XATTR

pytestmark = [pytest.mark.chaos, pytest.mark.broker, pytest.mark.nginx]

OF_BLOCKS = ("block_equal", "block_kept", "segment_written", "segment_marked")
OF_FILES = ("admitted", "inflight_made", "verified", "committed", "placed", "published", "settled")
SLOW = [pytest.param(point, marks=pytest.mark.slow) for point in OF_FILES]
IN_PLACE = ("block_kept", "segment_written", "verified", "committed")
SLOW_IN_PLACE = [
    pytest.param(point, marks=pytest.mark.slow)
    for point in (*OF_BLOCKS, *OF_FILES)
    if point not in (*IN_PLACE, "block_equal")
]
MAY_REPEAT = ("published", "confirmed")


@pytest.fixture
def place(vhost: Vhost, docroot: DocRoot, tmp_path: Path) -> Place:
    return Place(vhost, docroot, tmp_path)


def put_an_older_version(mover: Mover, data: bytes) -> None:
    """Where the pump has it: all but two blocks are those of the new one."""
    old = bytearray(data)
    for number in (2, 7):
        old[number * BLOCK_BYTES] ^= 255
    target = mover.pump / "d/first"
    target.parent.mkdir(parents=True)
    target.write_bytes(old)
    os.utime(target, (1e9, 1e9))


@pytest.mark.parametrize("point", [*OF_BLOCKS, *SLOW])
def test_killed_while_blocks_are_kept(place: Place, point: str) -> None:
    kill(place, point)


@pytest.mark.parametrize("point", [*IN_PLACE, *SLOW_IN_PLACE])
def test_killed_while_it_is_written_in_place(place: Place, point: str) -> None:
    kill(place, point, inplace="on")
    target = place.pump / "d/first"
    assert WRITING_XATTR not in os.listxattr(target)


def kill(place: Place, point: str, **options: object) -> None:
    assert point in POINTS
    whole = place.write_large("d/first", 950_001)
    mover = Mover(place, instances=2, crash_at=point, housekeeping=1, prefetch=4, batch=4, **options)
    put_an_older_version(mover, (place.source / "d/first").read_bytes())
    with mover:
        place.send(in_blocks(place, whole))
        mover.wait(lambda: mover.crashed() == {point}, 20, f"a process was killed when {point}")
        mover.settle(1)
        totals = mover.status().totals
    place.check()
    answer_the_rest(place, mover)
    announced = place.announced()
    assert {(m["size"], m["identity"]["value"]) for m in announced} == {
        (whole["size"], whole["identity"]["value"])
    }
    if point not in MAY_REPEAT:
        assert len(announced) == 1
    assert totals["blocks_kept"] >= 1

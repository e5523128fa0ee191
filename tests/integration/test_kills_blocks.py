"""Processes are killed at each instant while blocks of a file come (design: guarantees 1, 2 and 6).

Whatever the instant: the file equals its source, it is announced whole and, outside the window that may
repeat it, once; nothing is left behind.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from flowkit import sha512
from killkit import Mover, Place, Wire
from servers import DocRoot, Vhost

from sarrapipe.crashpoints import POINTS

pytestmark = [pytest.mark.chaos, pytest.mark.broker, pytest.mark.nginx]

NOT_PASSED = (
    "tombstone", "removed", "leased", "kept", "deferred", "slot_filled", "slot_drained", "hedge_started",
    "hedge_won", "block_equal", "block_kept",
)  # fmt: skip
MAY_REPEAT = ("published", "confirmed")
BLOCK_BYTES = 100_000


@pytest.fixture
def place(vhost: Vhost, docroot: DocRoot, tmp_path: Path) -> Place:
    return Place(vhost, docroot, tmp_path)


def in_blocks(place: Place, whole: Wire) -> list[Wire]:
    """Announce a file in blocks, in an order of its own."""
    data = (place.source / whole["relPath"]).read_bytes()
    count = -(-len(data) // BLOCK_BYTES)
    messages = []
    for number in range(count):
        part = data[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]
        blocks = {
            "method": "inplace", "size": BLOCK_BYTES, "count": count, "number": number,
            "remainder": len(data) % BLOCK_BYTES, "id": whole["identity"]["value"][:8],
        }  # fmt: skip
        messages.append({**whole, "size": len(part), "blocks": blocks, "identity": sha512(part)})
    return messages[1::2] + messages[::2]


def answer_the_rest(place: Place, mover: Mover) -> None:
    """Let a second life answer what a stop gave back: blocks of a file that a sibling has just settled."""
    left = place.vhost.depth(mover.queue)
    if left:
        with Mover(place, instances=1, housekeeping=1) as again:
            again.wait(
                lambda: again.status().totals.get("messages_acknowledged", 0) >= left, 20, "all is answered"
            )
    mover.check_nothing_left()


@pytest.mark.parametrize("point", [point for point in POINTS if point not in NOT_PASSED])
def test_killed_while_blocks_come(place: Place, point: str) -> None:
    whole = place.write_large("d/first", 950_001)
    second = place.write_large("d/second", 420_000, seed=5)
    mover = Mover(place, instances=2, crash_at=point, housekeeping=1, prefetch=4, batch=4)
    with mover:
        place.send(in_blocks(place, whole))
        mover.wait(lambda: mover.crashed() == {point}, 20, f"a process was killed when {point}")
        place.send(in_blocks(place, second))
        mover.settle(2)
    place.check()
    answer_the_rest(place, mover)
    announced = place.announced()
    assert {m["relPath"]: (m["size"], m["identity"]) for m in announced} == {
        m["relPath"]: (m["size"], m["identity"]) for m in (whole, second)
    }
    assert not any("blocks" in message for message in announced)
    if point not in MAY_REPEAT:
        assert len(announced) == 2


def test_killed_when_a_written_block_is_kept(place: Place) -> None:
    """Between its keeping and its acknowledgement; the file is too large for what instances hold."""
    whole = place.write_large("d/first", 2_950_001)
    mover = Mover(place, instances=2, crash_at="kept", housekeeping=1, prefetch=2, batch=2)
    with mover:
        place.send(in_blocks(place, whole))
        mover.wait(lambda: mover.crashed() == {"kept"}, 20, "a process was killed when it kept a block")
        mover.settle(1)
    place.check()
    answer_the_rest(place, mover)
    assert [m["identity"] for m in place.announced()] == [whole["identity"]]

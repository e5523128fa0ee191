"""A process is killed while a straggling segment is fetched twice: the segment is free, nothing is left."""

from __future__ import annotations

from pathlib import Path

import pytest
from killkit import Mover, Place, counted
from rangeservers import Stalling
from servers import DocRoot, Vhost

pytestmark = [pytest.mark.chaos, pytest.mark.broker]

SEGMENT_BYTES = 1 << 18
SEGMENTS = 8


@pytest.mark.parametrize(
    ("point", "instances"),
    # Two instances share the segments, so which one writes its eighth cannot be said.
    [
        ("hedge_started", 1),
        ("hedge_started", 2),
        ("hedge_won", 1),
        ("hedge_won", 2),
        ("segment_written:8", 1),
    ],
)
def test_killed_while_a_straggler_is_fetched_twice(
    vhost: Vhost, docroot: DocRoot, tmp_path: Path, point: str, instances: int
) -> None:
    """The first transfer of the last segment stalls for ever, so the last one written is its second."""
    last = (SEGMENTS - 1) * SEGMENT_BYTES
    with Stalling(b"", bad={last: 1}) as server:
        place = Place(vhost, docroot, tmp_path, base_url=server.url)
        sent = place.write_large("d/large", SEGMENTS * SEGMENT_BYTES)
        server.body = (place.source / "d/large").read_bytes()
        mover = Mover(place, instances=instances, crash_at=point, housekeeping=1, segmentSize=SEGMENT_BYTES)
        with mover:
            place.send([sent])
            name = point.partition(":")[0]
            mover.wait(lambda: mover.crashed() == {name}, 20, f"a process was killed when {name}")
            mover.settle(1)
        # The first, its second, unless the kill came before the request left, and once more after the kill.
        assert server.asked[last] in ((2, 3) if name == "hedge_started" else (3,))
    place.check()
    mover.check_nothing_left()
    assert counted(place.announced()) == counted([sent])

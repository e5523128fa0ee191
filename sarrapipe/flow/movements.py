"""How far the large files are that one instance moves, told to whoever looks, about once a second.

The ledger knows which segments of a file are written, for all instances together; each instance hears that
number whenever it marks or claims some, and knows the bytes of its own transfers. Both go into a page of
shared memory (`shm.moving`), from which `status` puts files together that several instances work on. So
nobody who looks opens the ledger, and looking disturbs nobody.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from sarrapipe.clock import Clock
from sarrapipe.segment.plan import SegmentPlan
from sarrapipe.shm.moving import MOST_ROWS, Board, Moving

__all__ = ["Movement", "Movements", "host_of", "in_one_piece", "in_segments"]

_EVERY_S: Final = 1.0
_LARGE_BYTES: Final = 1 << 20
"""Smaller files are not worth a row."""
_SMOOTHING: Final = 0.5
"""Weight of the last interval in a rate."""


class Movement(NamedTuple):
    """One file that this instance has a hand in.

    Attributes:
        row: What is told of it, but for its rate.
        moved: Bytes that this instance has moved for it since it took it up; never falls.
    """

    row: Moving
    moved: int


def in_one_piece(target: str, url: str, size: int, *, came: int, done: int = 0, streams: int = 1) -> Movement:
    """Return what is told of a file whose segments the ledger does not count.

    Args:
        target: Path of its final name.
        url: Where it comes from.
        size: Bytes; -1 while unknown.
        came: Bytes moved so far.
        done: Of those, bytes that are there for certain.
        streams: Transfers.
    """
    done = min(done, size) if size >= 0 else done
    partial = max((min(came, size) if size >= 0 else came) - done, 0)
    return Movement(Moving(target, host_of(url), size, done, partial, 1, 0, streams, 0), came)


def in_segments(
    target: str, url: str, plan: SegmentPlan, *, missing: int, running: Iterable[int], moved: int
) -> Movement:
    """Return what is told of a file of several segments.

    Args:
        target: Path of its final name.
        url: Where it comes from.
        plan: How it is cut.
        missing: Segments that nobody has written.
        running: Bytes so far of each transfer of this instance.
        moved: Bytes of its transfers that have ended.
    """
    running = list(running)
    written = len(plan) - missing
    done = min(written * plan.segment_bytes, plan.size)
    partial = min(sum(running), plan.size - done)
    row = Moving(target, host_of(url), plan.size, done, partial, len(plan), written, len(running), 0)
    return Movement(row, moved + sum(running))


class Movements:
    """Writes this instance's page.

    Args:
        board: The page.
        look: Returns what is under way.
        clock: Source of time.
    """

    def __init__(self, board: Board, look: Callable[[], Iterable[Movement]], clock: Clock) -> None:
        self._board = board
        self._look = look
        self._clock = clock
        self._looked_s = clock.monotonic_s()
        self._due_s = -math.inf
        self._rates: dict[str, tuple[int, float]] = {}
        self._is_blank = False

    def tick(self) -> None:
        """Look, if it is time."""
        now_s = self._clock.monotonic_s()
        if now_s < self._due_s:
            return
        self._due_s = now_s + _EVERY_S
        found = [one for one in self._look() if one.row.size < 0 or one.row.size >= _LARGE_BYTES]
        passed_s, self._looked_s = now_s - self._looked_s, now_s
        if found or not self._is_blank:
            self._is_blank = not found
            largest = heapq.nlargest(MOST_ROWS, found, key=lambda one: one.row.size)
            self._rates = {one.row.target: self._rate(one, passed_s) for one in largest}
            rates = [int(self._rates[one.row.target][1]) for one in largest]
            self._board.write(
                [one.row._replace(bytes_per_s=rate) for one, rate in zip(largest, rates, strict=True)]
            )

    def _rate(self, one: Movement, passed_s: float) -> tuple[int, float]:
        """Return what was moved by now, and bytes per second; of a file that is new, since the last look."""
        moved, rate = self._rates.get(one.row.target, (0, math.nan))
        if passed_s <= 0 or one.moved < moved:
            return one.moved, 0.0 if math.isnan(rate) else rate
        now = (one.moved - moved) / passed_s
        return one.moved, now if math.isnan(rate) else rate + _SMOOTHING * (now - rate)


def host_of(url: str) -> str:
    """Return scheme and host of a URL, without credentials; nothing where it has none."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    if not host:
        return f"{parts.scheme}:" if parts.scheme else ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")

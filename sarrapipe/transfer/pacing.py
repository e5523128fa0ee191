"""Holding up the senders when the byte rate of the flow is used up.

The limiter itself is shared by all instances (`sarrapipe.shm`); a `Pacer` is one engine's view of it. Bytes
are reported in steps, so that the shared words are not touched for each 16 KiB that libcurl hands over.
"""

from __future__ import annotations

from sarrapipe.clock import Clock
from sarrapipe.transfer.base import RateLimiter

__all__ = ["STEP_BYTES", "Pacer"]

STEP_BYTES = 262_144
"""Bytes between two questions to the limiter; s3transfer's `bandwidth.py` uses the same step."""


class Pacer:
    """Counts received bytes and remembers how long to receive nothing.

    Args:
        limiter: The rate all instances of the flow share.
        clock: Monotonic time.
    """

    __slots__ = ("_clock", "_limiter", "_unreported", "held_until_s")

    def __init__(self, limiter: RateLimiter, clock: Clock) -> None:
        self._limiter = limiter
        self._clock = clock
        self._unreported = 0
        self.held_until_s = 0.0
        """Monotonic time before which nothing new is started."""

    def spend(self, count: int) -> float:
        """Account for `count` bytes just received.

        While one stream pauses the others are told to as well: each of them would else go on for a step of
        its own, which with many streams is far from what was asked for.

        Returns:
            Seconds for the stream that received them to pause; 0 to go on.
        """
        self._unreported += count
        if self._unreported >= STEP_BYTES:
            return self._report()
        return max(self.held_until_s - self._clock.monotonic_s(), 0.0) if self.held_until_s else 0.0

    def _report(self) -> float:
        now = self._clock.monotonic_s()
        wait_s = self._limiter.take(self._unreported, int(now * 1e9))
        self._unreported = 0
        if wait_s > 0:
            self.held_until_s = max(self.held_until_s, now + wait_s)
        return wait_s

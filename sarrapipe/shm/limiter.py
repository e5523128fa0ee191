"""One rate for a whole flow, whatever the number of its instances.

A token bucket needs one number: the time at which the bucket is, was or will be empty. Each instance moves
that word forward by what it uses, with compare-and-swap, and waits until then if it lies in the future.
Nobody holds a lock, so a killed or stopped instance delays no other; it takes with it at most what it had
just reserved.

    limiter = Limiter(arena, Limit.BYTES, rate=config.byte_rate_max)
    delay_s = limiter.take(len(chunk), now_ns)     # 0.0: go on; else pause this transfer so long
"""

from __future__ import annotations

import enum
from typing import Final

from sarrapipe import native
from sarrapipe.shm.arena import Arena

__all__ = ["Limit", "Limiter", "reserve"]

DEFAULT_BURST_S: Final = 1.0
"""How much unused allowance is kept, in seconds of the rate."""


class Limit(enum.IntEnum):
    """What is limited; the value is the word in the arena."""

    BYTES = 0
    MESSAGES = 1


def reserve(
    empty_at_ns: int, amount: float, now_ns: int, *, rate: float, burst_s: float
) -> tuple[int, float]:
    """Take `amount` from the bucket; pure.

    Args:
        empty_at_ns: When the bucket is empty; in the future if more was taken than there was.
        amount: Bytes or messages to take; may exceed the bucket, the delay then covers all of it.
        now_ns: Monotonic time.
        rate: Amount per second, above 0.
        burst_s: Size of the bucket, in seconds of the rate.

    Returns:
        The new `empty_at_ns`, and how many seconds to wait before using what was taken.
    """
    full_at_ns = now_ns - int(burst_s * 1e9)
    empty_at_ns = max(empty_at_ns, full_at_ns) + int(amount * 1e9 / rate)
    return empty_at_ns, max(0.0, (empty_at_ns - now_ns) / 1e9)


class Limiter:
    """The token bucket of one flow, seen from one instance.

    Args:
        arena: Where the bucket is.
        limit: Which one.
        rate: Amount per second for the flow; 0 for no limit.
        burst_s: Unused allowance that is kept, in seconds.
    """

    def __init__(self, arena: Arena, limit: Limit, rate: float, burst_s: float = DEFAULT_BURST_S) -> None:
        self._buffer, offset = arena.limit_words
        self._offset = offset + 8 * limit
        self._rate = rate
        self._burst_s = burst_s

    @property
    def unlimited(self) -> bool:
        """Whether there is no limit, so that callers may skip the bookkeeping."""
        return self._rate <= 0

    def take(self, amount: float, now_ns: int) -> float:
        """Take from the flow's allowance.

        Args:
            amount: Bytes or messages.
            now_ns: `time.monotonic_ns()`, the same clock in all processes of a host.

        Returns:
            Seconds to wait before using them; 0.0 for at once. What was taken is taken: do not ask again.
        """
        if self._rate <= 0:
            return 0.0
        while True:
            seen = native.atomic_load(self._buffer, self._offset)
            empty_at_ns, delay_s = reserve(seen, amount, now_ns, rate=self._rate, burst_s=self._burst_s)
            # Right after boot full_at may lie before 0; the word is unsigned.
            if native.compare_and_swap(self._buffer, self._offset, seen, max(0, empty_at_ns)):
                return delay_s

"""How long to wait before the next attempt to reach a broker. Pure: takes no time, sleeps never.

>>> backoff = Backoff(spread=0.0)
>>> [backoff.next_delay_s() for _ in range(8)]
[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
"""

from __future__ import annotations

import random
from typing import Final

__all__ = ["FIRST_DELAY_S", "LAST_DELAY_S", "Backoff"]

FIRST_DELAY_S: Final = 1.0
"""First delay in seconds (design.md 3: 1, 2, 4 ... 60 s)."""
LAST_DELAY_S: Final = 60.0
"""Longest delay in seconds."""


class Backoff:
    """Truncated exponential back-off with jitter.

    Args:
        first_s: First delay in seconds.
        last_s: Longest delay in seconds.
        spread: Each delay is multiplied by a random factor in 1 - spread .. 1 + spread, so that sixteen
            instances do not come back in the same millisecond; the result stays in first_s .. last_s.
        rng: Source of randomness; the module's own if None.
    """

    def __init__(
        self,
        first_s: float = FIRST_DELAY_S,
        last_s: float = LAST_DELAY_S,
        spread: float = 0.25,
        rng: random.Random | None = None,
    ) -> None:
        self._first_s = first_s
        self._last_s = last_s
        self._spread = spread
        self._rng = rng or random.Random()
        self.failures = 0

    def next_delay_s(self) -> float:
        """Count one more failure and return how long to wait, in seconds."""
        # The exponent is bounded: 2.0 ** 1100 would overflow after a day of failures.
        delay_s = min(self._first_s * 2.0 ** min(self.failures, 30), self._last_s)
        self.failures += 1
        jittered_s = delay_s * self._rng.uniform(1.0 - self._spread, 1.0 + self._spread)
        return min(max(jittered_s, self._first_s), self._last_s)

    def reset(self) -> None:
        """Begin anew: the last attempt succeeded."""
        self.failures = 0

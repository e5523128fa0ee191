"""The only place that reads clocks or sleeps, so that tests can put another clock in its stead.

Durations inside a process use `monotonic_s`; what is written on the wire or compared with file times uses
`wall_ns`. A clock that jumps moves the second, never the first.
"""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "SystemClock"]


class Clock(Protocol):
    """What the rest of the program knows of time."""

    def monotonic_s(self) -> float:
        """Seconds since some fixed point; never goes back."""

    def wall_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The clocks of this machine."""

    monotonic_s = staticmethod(time.monotonic)
    wall_ns = staticmethod(time.time_ns)
    sleep = staticmethod(time.sleep)


SYSTEM_CLOCK: Clock = SystemClock()

"""A clock that is set by hand: no time passes unless the test lets it."""

from __future__ import annotations

__all__ = ["HandClock"]


class HandClock:
    """As `sarrapipe.clock.Clock`; both its times go together.

    Args:
        now_s: What it shows at first.
    """

    def __init__(self, now_s: float = 100.0) -> None:
        self.now_s = now_s

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ns(self) -> int:
        return int(self.now_s * 1e9)

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

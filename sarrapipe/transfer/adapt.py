"""How many streams to one remote still gain something: a pure decision from rates that were measured.

    control = StreamControl(start=4, most=16)
    control.update(now_s, received=..., flowing=..., wanted=True)     # now and then; time is an argument
    control.limit                                                     # ranges of large files at a time

It begins with a few streams and doubles them while that makes the whole faster. What gained nothing is taken
back. After a while it looks again, downwards first: a line on which others stopped sending, or a server that
became busy, wants another number. A rate is measured over a window that begins when the streams of the last
change are flowing, so that neither connecting nor slow start is taken for a slow line.

Where the first streams have nothing to show after 50 ms the remote is far, or sends slowly: all are opened
at once, unmeasured, since waiting for rates would cost more there than a few connections too many
(docs/explanation/pipeline.md has the figures).
"""

from __future__ import annotations

import enum
from typing import Final

__all__ = ["GAIN", "StreamControl"]

GAIN: Final = 1.1
"""Twice the streams have to make the whole faster by this factor, half as many again by half as much; less is
noise."""
_KEEPS: Final = 0.95
"""Half the streams are enough if the whole stays this fast."""
_WINDOW_S: Final = 0.1
_WINDOW_BYTES: Final = 524_288
"""Of each stream in a window: streams hand over 256 KiB at a time (`httpstream.GATHER_BYTES`), so fewer would
measure how they take turns."""
_LONGEST_WINDOW_S: Final = 5.0
_FAR_S: Final = 0.05
_SETTLE_S: Final = 1.0
"""After a change, streams that have nothing to show for so long are counted as they are."""
_FIRST_HOLD_S: Final = 20.0
_LONGEST_HOLD_S: Final = 320.0


class _Phase(enum.Enum):
    MEASURE = "measure"
    """At the number that is known best."""
    MORE = "more"
    """More are tried."""
    FEWER = "fewer"
    """Fewer are tried."""
    HOLD = "hold"
    """Nothing is tried for a while."""


class StreamControl:
    """The number of streams to one remote.

    Args:
        start: To begin with, 1 or more.
        most: Never more than this, 1 or more; with `most <= start` the number is fixed.
    """

    def __init__(self, start: int, most: int) -> None:
        self.limit = min(start, most)
        self._start = self.limit
        self._most = most
        self._phase = _Phase.MEASURE if most > start else _Phase.HOLD
        self._best = self.limit
        self._best_rate = 0.0
        self._hold_s = _FIRST_HOLD_S
        self._hold_until_s = float("inf") if most <= start else 0.0
        self._changed_s: float | None = None
        self._since_s: float | None = None
        self._from_bytes = 0

    @property
    def next_due_s(self) -> float:
        """Monotonic time at which an update may decide something; infinite while none can."""
        if self._phase is _Phase.HOLD:
            return self._hold_until_s
        if self._since_s is not None:
            return self._since_s + _WINDOW_S
        return 0.0 if self._changed_s is None else self._changed_s + _FAR_S

    def update(self, now_s: float, received: int, flowing: int, *, wanted: bool) -> None:
        """Look at what has come.

        Args:
            now_s: Monotonic time.
            received: Bytes from this remote so far; it only grows.
            flowing: Streams that run and have had bytes.
            wanted: There is more to fetch than the streams that run: only then the limit is what limits.
        """
        if self._phase is _Phase.HOLD:
            self._look_again(now_s, wanted=wanted)
            return
        if not wanted:
            self._changed_s = self._since_s = None
            return
        if self._changed_s is None:
            self._changed_s = now_s
        if self._since_s is None:
            self._begin_window(now_s, received, flowing)
            return
        elapsed_s, came = now_s - self._since_s, received - self._from_bytes
        enough = came >= _WINDOW_BYTES * self.limit or elapsed_s >= _LONGEST_WINDOW_S
        if elapsed_s >= _WINDOW_S and enough:
            self._decide(now_s, came / elapsed_s)

    def _look_again(self, now_s: float, *, wanted: bool) -> None:
        if wanted and now_s >= self._hold_until_s:
            self._phase = _Phase.MEASURE
            self._changed_s = self._since_s = None

    def _begin_window(self, now_s: float, received: int, flowing: int) -> None:
        assert self._changed_s is not None
        settled = 4 * flowing >= 3 * self.limit
        if self._phase is _Phase.FEWER:
            settled = flowing <= self.limit
        waited_s = now_s - self._changed_s
        if settled or waited_s >= _SETTLE_S:
            self._since_s, self._from_bytes = now_s, received
        elif waited_s >= _FAR_S and not self._best_rate and self.limit < self._most:
            self.limit = self._best = self._most
            self._changed_s = now_s

    def _decide(self, now_s: float, rate: float) -> None:
        self._changed_s, self._since_s = now_s, None
        if self._phase is _Phase.MEASURE:
            self._best_rate = rate
            looks_again = self._hold_until_s > 0
            if self.limit > self._start and looks_again:
                self._phase, self.limit = _Phase.FEWER, max(self.limit // 2, self._start)
            else:
                self._grow(now_s)
        elif self._phase is _Phase.MORE:
            wanted = 1 + (GAIN - 1) * (self.limit / self._best - 1)
            if rate >= wanted * self._best_rate:
                self._best, self._best_rate = self.limit, rate
                self._grow(now_s)
            else:
                self._hold(now_s)
        elif rate >= _KEEPS * self._best_rate:
            self._best = self.limit
            self._hold(now_s)
        else:
            self.limit = self._best
            self._grow(now_s)

    def _grow(self, now_s: float) -> None:
        if self._best >= self._most:
            self._hold(now_s)
        else:
            self._phase, self.limit = _Phase.MORE, min(2 * self._best, self._most)

    def _hold(self, now_s: float) -> None:
        self.limit = self._best
        self._phase = _Phase.HOLD
        self._hold_until_s = now_s + self._hold_s
        self._hold_s = min(2 * self._hold_s, _LONGEST_HOLD_S)

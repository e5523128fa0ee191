"""How far a transfer is: a live line on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from sarrapipe.units import format_bytes, format_duration

__all__ = ["Done", "Progress", "estimate_s"]

_LINE_EVERY_S: Final = 3.0


def estimate_s(done: float, wanted: float, elapsed_s: float) -> float | None:
    """Return the seconds left at the mean rate so far; None while nothing is done."""
    if done <= 0:
        return None
    return max(0.0, elapsed_s * (wanted - done) / done)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How much of a tree has arrived somewhere."""

    entries: int
    size_bytes: int


class Progress:
    """Shows entries, bytes, rates and time left.

    The time left follows from what every hop has done, and is that of entries or of bytes, whichever is
    further behind.

    Args:
        wanted: The whole tree.
    """

    def __init__(self, wanted: Done) -> None:
        self._wanted = wanted
        self._live = sys.stdout.isatty()
        self._started_s = 0.0
        self._shown_s = 0.0

    def __enter__(self) -> Self:
        self._started_s = self._shown_s = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            sys.stdout.write("\n")

    def show(self, *hops: Done) -> None:
        """Show the state, if it is time to.

        Args:
            hops: What each hop has; the first is the last of the chain.
        """
        now_s = time.monotonic()
        finished = hops[0].entries >= self._wanted.entries
        if not self._live and now_s - self._shown_s < _LINE_EVERY_S and not finished:
            return
        self._shown_s = now_s
        line = self._line(hops, max(now_s - self._started_s, 1e-3))
        sys.stdout.write(f"\r{line:<100}" if self._live else f"{line}\n")
        sys.stdout.flush()

    def _line(self, hops: Sequence[Done], elapsed_s: float) -> str:
        wanted, last = self._wanted, hops[0]
        left = (
            estimate_s(sum(hop.entries for hop in hops), len(hops) * wanted.entries, elapsed_s),
            estimate_s(sum(hop.size_bytes for hop in hops), len(hops) * wanted.size_bytes, elapsed_s),
        )
        known = [seconds for seconds in left if seconds is not None]
        return (
            f"{last.entries:,} of {wanted.entries:,} entries, {format_bytes(last.size_bytes)} of "
            f"{format_bytes(wanted.size_bytes)}, {last.entries / elapsed_s:,.0f}/s, "
            f"{last.size_bytes / 1e6 / elapsed_s:,.0f} MB/s, "
            f"{format_duration(max(known)) if known else 'unknown'} left"
        )

"""What of a set of benchmarks fits into the time that is left: pure decisions.

An entry says how long it takes on two quiet cores. Each gets its share of the time left, by how long it would
take as wanted, but never so much that the others no longer fit at their smallest; the largest amount of which
one turn fits into the share is taken, and further turns as long as the share lasts (`RunOptions.until_s`).
What one does not use, the others have. So a slow machine runs all of the set with smaller files and fewer
turns, and only what does not fit at its smallest is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sarrapipe.units import parse_count, parse_size

__all__ = ["Choice", "Entry", "choose", "estimate_s", "updated_pace"]

_START_S: Final = 8.0  # broker, web server, interpreter, the machine's limits
_PACES: Final = (0.5, 8.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One scenario of a set.

    Args:
        name: The scenario's.
        runs: Turns wanted.
        sizes: The size wanted, and smaller ones to fall back to, as the command line takes them; the
            scenario's own if empty.
        files: Numbers of small files, likewise.
        only: The sides to run; all if empty.
        once_s: Seconds for what is done once (files made, digests computed), at the amount wanted.
        turn_s: Seconds of a turn.
    """

    name: str
    runs: int
    sizes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    once_s: float = 0.0
    turn_s: float = 10.0

    def amounts(self) -> tuple[str, ...]:
        """Return what can be asked for, the amount wanted first."""
        return self.sizes or self.files or ("",)

    def share_of(self, amount: str) -> float:
        """Return an amount as a share of the one wanted."""
        if not amount:
            return 1.0
        parse = parse_size if self.sizes else parse_count
        return parse(amount) / parse(self.amounts()[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How an entry is run.

    Args:
        entry: What.
        amount: Size or number of files.
        limit_s: Seconds after which no further turn is begun.
        end_s: Seconds after which it is ended, so that the others still fit at their smallest.
        full: Whether the amount is the one wanted.
    """

    entry: Entry
    amount: str
    limit_s: float
    end_s: float
    full: bool

    def arguments(self) -> list[str]:
        """Return the arguments of `perf run`."""
        entry = self.entry
        arguments = ["run", entry.name, "--runs", str(entry.runs), "--seconds", f"{self.limit_s:.0f}"]
        if self.amount:
            arguments += ["--size" if entry.sizes else "--files", self.amount]
        return arguments + [word for side in entry.only for word in ("--only", side)]


def estimate_s(entry: Entry, amount: str, turns: int) -> float:
    """Return how long an entry takes on two quiet cores."""
    return _START_S + (entry.once_s + turns * entry.turn_s) * entry.share_of(amount)


def choose(left: Sequence[Entry], left_s: float, pace: float) -> Choice | None:
    """Decide how the first of the entries that are left is run.

    Args:
        left: What is to be run yet, in order.
        left_s: Seconds for all of them.
        pace: How many times as long as estimated things take here.

    Returns:
        The choice; None if not even the smallest amount fits.
    """
    first = left[0]
    wanted_s = [estimate_s(entry, entry.amounts()[0], entry.runs) for entry in left]
    reserve_s = pace * sum(estimate_s(entry, entry.amounts()[-1], 1) for entry in left[1:])
    share_s = min(left_s * wanted_s[0] / sum(wanted_s), left_s - reserve_s)
    smallest = first.amounts()[-1]
    needed_s = pace * estimate_s(first, smallest, 1)
    if needed_s > left_s:
        return None
    fitting = [each for each in first.amounts() if pace * estimate_s(first, each, 1) <= share_s]
    amount = fitting[0] if fitting else smallest
    return Choice(
        entry=first,
        amount=amount,
        limit_s=share_s if fitting else needed_s,
        end_s=min(left_s, max(left_s - reserve_s, 2 * needed_s)),
        full=amount == first.amounts()[0],
    )


def updated_pace(estimated_s: float, taken_s: float) -> float:
    """Return the pace from what was estimated and taken so far, in all; 1 as long as nothing is known."""
    if estimated_s <= 0 or taken_s <= 0:
        return 1.0
    return min(_PACES[1], max(_PACES[0], taken_s / estimated_s))

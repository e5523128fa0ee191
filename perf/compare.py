"""Statistics and ratios: pure functions over the figures of runs.

Sides run in turns (A B A B ...), so that what the machine does at the time meets both; a ratio is taken
within each turn and its median over the turns is quoted. Above 1 we are better than the peer.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Ratio", "Run", "Spread", "ratio", "spread", "values"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of one side.

    Args:
        side: Which program with which settings, such as `sr3-16-tuned`.
        turn: Number of the turn, from 0.
        ok: Whether its output was right.
        wrong: What was wrong with it.
        settings: What it was told, for the reader.
        figures: Numbers by name; the name carries the unit.
        repeated: How many runs before it were thrown away because the host had taken the CPU away.
    """

    side: str
    turn: int
    ok: bool
    figures: dict[str, float]
    wrong: tuple[str, ...] = ()
    settings: dict[str, object] = field(default_factory=dict)
    repeated: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Smallest, median and largest of some runs."""

    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """How many times better we are than a peer; above 1 is better."""

    name: str
    spread: Spread
    turns: tuple[float, ...]


def spread(numbers: Sequence[float]) -> Spread:
    """Return minimum, median and maximum.

    Raises:
        ValueError: There are no numbers.
    """
    if not numbers:
        raise ValueError("no figures")
    return Spread(low=min(numbers), median=statistics.median(numbers), high=max(numbers))


def values(runs: Sequence[Run], side: str, figure: str) -> dict[int, float]:
    """Return one figure of one side by turn."""
    return {run.turn: run.figures[figure] for run in runs if run.side == side and figure in run.figures}


def ratio(
    name: str,
    runs: Sequence[Run],
    *,
    ours: str,
    peer: str | Sequence[str],
    figure: str,
    more_is_better: bool,
) -> Ratio | None:
    """Compare one figure of two sides turn by turn.

    Our own runs with wrong output have failed and yield no ratio; a peer's are timed, and marked where they
    are shown. Among several peers a wrong one is no candidate.

    Args:
        name: Key of the ratio.
        runs: All runs of the scenario.
        ours: Our side.
        peer: The other side; of several, the best of each turn.
        figure: Name of the figure both have.
        more_is_better: True for rates; False for times, CPU and memory.

    Returns:
        The ratio, or None if there is no turn in which both sides have the figure and neither is 0.
    """
    mine = values([run for run in runs if run.ok], ours, figure)
    if isinstance(peer, str):
        theirs = values(runs, peer, figure)
    else:
        theirs = _best([run for run in runs if run.ok], peer, figure, more_is_better=more_is_better)
    turns = [t for t in sorted(mine.keys() & theirs.keys()) if mine[t] > 0 and theirs[t] > 0]
    if not turns:
        return None
    each = tuple(mine[t] / theirs[t] if more_is_better else theirs[t] / mine[t] for t in turns)
    return Ratio(name=name, spread=spread(each), turns=each)


def _best(
    runs: Sequence[Run], sides: Sequence[str], figure: str, *, more_is_better: bool
) -> dict[int, float]:
    """Return the best figure of some sides by turn."""
    choose = max if more_is_better else min
    found: dict[int, float] = {}
    for side in sides:
        for turn, value in values(runs, side, figure).items():
            if value > 0:
                found[turn] = choose(value, found[turn]) if turn in found else value
    return found

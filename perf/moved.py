"""What moved between two sets of results by more than the noise: pure functions over their documents.

A figure of one side, or a ratio, has moved when its median lies outside the spread that the other set's turns
have, seen from both, and by more than a floor: with one turn there is no spread to speak of, and machines are
never quieter than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from perf.compare import Spread, spread, values
from perf.documents import Document, runs_of

__all__ = ["FLOOR", "Move", "moves"]

FLOOR: Final = 0.05
"""Least change of a median that counts (style: a change above 5 % needs a line in the change)."""

_FEWEST_TURNS: Final = 3
_FLOOR_FEW: Final = 0.15  # with fewer turns: figures of single runs were seen to move by so much and more
_UP_IS_BETTER: Final = ("files_per_s", "mb_per_s")
_NOT_OURS: Final = (
    "steal",
    "warm_mb_per_s",
    "make_file_us",
    "files",
    "size_mb",
    "rtt_ms",
    "instances",
    "processes",
)
_LEAST: Final = 0.02  # seconds, megabytes ...: below this a figure is the clock's own step


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One figure that is not what it was.

    Args:
        scenario: Where.
        what: `ratio KEY` or `SIDE FIGURE`.
        old: What it was.
        new: What it is.
        better: Whether that is for the better.
    """

    scenario: str
    what: str
    old: Spread
    new: Spread
    better: bool

    @property
    def change(self) -> float:
        """By what share the median moved, -0.2 for a fifth less."""
        return self.new.median / self.old.median - 1


def moves(old: Sequence[Document], new: Sequence[Document]) -> list[Move]:
    """Return what moved, ratios and our own figures, worst first; peers' figures are weather."""
    before = {document["name"]: document for document in old}
    found: list[Move] = []
    for document in new:
        if (earlier := before.get(document["name"])) is not None:
            found += _ratio_moves(earlier, document) + _figure_moves(earlier, document)
    return sorted(found, key=lambda move: (move.better, -abs(move.change)))


def _ratio_moves(old: Document, new: Document) -> list[Move]:
    turns = min(_turns(old), _turns(new))
    found = []
    for key in old["ratio_spread"].keys() & new["ratio_spread"].keys():
        a, b = Spread(**old["ratio_spread"][key]), Spread(**new["ratio_spread"][key])
        if _differs(a, b, turns):
            better = b.median > a.median
            found.append(Move(scenario=new["name"], what=f"ratio {key}", old=a, new=b, better=better))
    return found


def _figure_moves(old: Document, new: Document) -> list[Move]:
    turns = min(_turns(old), _turns(new))
    found = []
    for side in new.get("ours", ()):
        for figure in (name for name in new.get("shown", ()) if name not in _NOT_OURS):
            a = list(values(runs_of(old), side, figure).values())
            b = list(values(runs_of(new), side, figure).values())
            if a and b and max(*a, *b) > _LEAST and _differs(spread(a), spread(b), turns):
                better = (spread(b).median > spread(a).median) == (figure in _UP_IS_BETTER)
                what = f"{side} {figure}"
                move = Move(scenario=new["name"], what=what, old=spread(a), new=spread(b), better=better)
                found.append(move)
    return found


def _turns(document: Document) -> int:
    return 1 + max((each["turn"] for each in document["figures"]), default=0)


def _differs(a: Spread, b: Spread, turns: int) -> bool:
    """Tell whether two spreads lie apart by more than the floor."""
    floor = FLOOR if turns >= _FEWEST_TURNS else _FLOOR_FEW
    if min(a.median, b.median) <= 0 or abs(b.median / a.median - 1) <= floor:
        return False
    return not (a.low <= b.median <= a.high) and not (b.low <= a.median <= b.high)

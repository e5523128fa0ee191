"""Two plots as SVG text, without a library: bars with their spread, and lines on logarithmic axes.

A plotting library would be the largest dependency of the project, for two kinds of picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

__all__ = ["Bar", "bars", "lines"]

_WIDTH: Final = 760
_LABEL: Final = 170
_ROW: Final = 26
_HEIGHT: Final = 300
_MARGIN: Final = 60
_OURS: Final = "#1a6faf"
_PEER: Final = "#9aa5b1"
_FAILED: Final = "#c0392b"
_COLOURS: Final = ("#1a6faf", "#d1822b", "#3c8d5a", "#8b5fbf", "#c0392b", "#5d6d7e")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One side's figure: smallest, median and largest, what is written beside it, and how it is coloured."""

    label: str
    low: float
    median: float
    high: float
    text: str
    ours: bool = False
    failed: bool = False


def bars(sides: Sequence[Bar], title: str) -> str:
    """Return a horizontal bar for each side, its spread as a thin line."""
    top = max((side.high for side in sides), default=0.0) or 1.0
    room = _WIDTH - _LABEL - 110
    parts = [_text(0, 16, title, weight="bold")]
    for row, side in enumerate(sides):
        y = 26 + row * _ROW
        colour = _FAILED if side.failed else _OURS if side.ours else _PEER
        low, median, high = (_LABEL + room * value / top for value in (side.low, side.median, side.high))
        parts += [
            _text(_LABEL - 8, y + 15, side.label, anchor="end"),
            f'<rect x="{_LABEL}" y="{y + 3}" width="{median - _LABEL:.1f}" height="16" fill="{colour}"/>',
            f'<path d="M{low:.1f} {y + 11}H{high:.1f}" stroke="#222" stroke-width="1.5"/>',
            _text(high + 6, y + 15, side.text + (" FAILED" if side.failed else "")),
        ]
    return _document(26 + len(sides) * _ROW + 6, parts)


def lines(series: Mapping[str, Sequence[tuple[float, float]]], title: str, across: str) -> str:
    """Return lines over logarithmic axes.

    Args:
        series: Points (x, y) by name; those that are not above 0 are left out.
        title: What y is.
        across: What x is.
    """
    shown = {name: [p for p in sorted(points) if min(p) > 0] for name, points in series.items()}
    points = [point for each in shown.values() for point in each]
    if not points:
        return _document(24, [_text(0, 16, f"{title}: no figures")])
    across_axis = _Axis([x for x, _y in points], _MARGIN, _WIDTH - 150)
    up_axis = _Axis([y for _x, y in points], _HEIGHT - 40, 30)
    parts = [_text(0, 16, title, weight="bold"), _text(_WIDTH - 150, _HEIGHT - 8, across, anchor="end")]
    for value, place in across_axis.ticks():
        parts.append(f'<path d="M{place:.1f} 30V{_HEIGHT - 40}" stroke="#e4e7ea"/>')
        parts.append(_text(place, _HEIGHT - 24, f"{value:g}", anchor="middle"))
    for value, place in up_axis.ticks():
        parts.append(f'<path d="M{_MARGIN} {place:.1f}H{_WIDTH - 150}" stroke="#e4e7ea"/>')
        parts.append(_text(_MARGIN - 6, place + 4, f"{value:g}", anchor="end"))
    for number, (name, each) in enumerate(shown.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{across_axis.place(x):.1f},{up_axis.place(y):.1f}" for x, y in each)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{across_axis.place(x):.1f}" cy="{up_axis.place(y):.1f}" r="3.5" fill="{colour}"/>'
            for x, y in each
        ]
        parts.append(_text(_WIDTH - 140, 40 + 18 * number, name, colour=colour))
    return _document(_HEIGHT, parts)


class _Axis:
    """A logarithmic axis from the power of ten below the least value to that above the largest."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        self._low = math.floor(math.log10(min(values)))
        self._high = max(self._low + 1, math.ceil(math.log10(max(values))))
        self._start, self._end = start, end

    def place(self, value: float) -> float:
        """Return where a value is, in pixels."""
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[tuple[float, float]]:
        """Return the powers of ten and their places."""
        return [(10.0**power, self.place(10.0**power)) for power in range(self._low, self._high + 1)]


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", colour: str = "#222"
) -> str:
    style = f'text-anchor="{anchor}" font-weight="{weight}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def _document(height: int, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}"'
    return f'{head} font-family="sans-serif" font-size="13">{"".join(parts)}</svg>'

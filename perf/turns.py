"""Sides take turns, A B A B ...; a run that the host spoiled is repeated, and the figures say so."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from perf.bench import RunOptions, Say
from perf.compare import Run
from perf.meter import STEAL_LIMIT

__all__ = ["Measure", "run_turns"]

_REPEATS: Final = 3

Measure = Callable[[int], Run]
"""Measures one side once; takes the number of the turn."""


def run_turns(say: Say, options: RunOptions, sides: Mapping[str, Measure]) -> list[Run]:
    """Measure every side in each turn.

    Args:
        say: Where progress goes.
        options: How many turns, which sides, and until when: no turn is begun that would not be over by then
            if it took as long as the longest one so far.
        sides: How to measure each side, by name, in order.

    Returns:
        Every run that counts. `Run.repeated` is how many were thrown away before it since the host had taken
        more than `STEAL_LIMIT` of the CPU; after three the least spoiled one stays and its steal tells.
    """
    runs: list[Run] = []
    longest_s = 0.0
    for turn in range(options.runs):
        began_s = time.monotonic()
        if turn and began_s + longest_s > options.until_s:
            say(f"{turn} of {options.runs} turns: the time is over")
            break
        for name, measure in sides.items():
            if options.wants(name):
                runs.append(_unspoiled(say, name, measure, turn))
        longest_s = max(longest_s, time.monotonic() - began_s)
    return runs


def _unspoiled(say: Say, name: str, measure: Measure, turn: int) -> Run:
    tried: list[Run] = []
    while True:
        run = measure(turn)
        tried.append(run)
        steal = run.figures.get("steal", 0.0)
        if steal <= STEAL_LIMIT or len(tried) > _REPEATS:
            best = min(tried, key=lambda each: each.figures.get("steal", 0.0))
            wrong = tuple(fault for each in tried for fault in each.wrong)
            return replace(best, repeated=len(tried) - 1, ok=not wrong, wrong=wrong)
        say(f"turn {turn + 1}: {name}: the host took {steal:.0%} of the CPU away, once more")

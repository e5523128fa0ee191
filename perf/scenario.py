"""What a scenario is, and where to find each: one module a scenario, imported when asked for."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from perf import scenarios
from perf.bench import Bench, RunOptions
from perf.compare import Run
from perf.link.spec import LinkSpec

__all__ = ["NAMES", "Comparison", "Scenario", "load"]

NAMES: Final = tuple(
    sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(scenarios.__path__))
)
"""Every module of `perf/scenarios` is a scenario: `bulk_disk.py` is `bulk-disk`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One ratio that a scenario yields.

    Args:
        key: Its name in the JSON: the peer and the case.
        ours: Side that is ours.
        peer: Side that is the peer's, or several of which the best of each turn counts.
        figure: The figure compared.
        more_is_better: True for rates; False for times, CPU and memory.
    """

    key: str
    ours: str
    peer: str | tuple[str, ...]
    figure: str
    more_is_better: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One benchmark.

    Args:
        name: As the command line knows it.
        summary: One line for `list`.
        runs: Turns by default.
        files: Files by default.
        size_bytes: Size of each by default.
        in_memory: Whether everything lives in /dev/shm.
        comparisons: The ratios.
        ours: Names of our sides: their output decides `ok`.
        figures: Figures to print, in order.
        run: Yields the runs of all sides, turn by turn.
        link: The network between the bench and the far side's web server, if there is one (root only).
        tls: Whether what is fetched is offered over HTTPS.
        limits: Whether to measure the machine's own limits beside it (`perf/limits.py`).
        over: The figure that grows from side to side, for plots of how cost grows.
    """

    name: str
    summary: str
    runs: int
    files: int
    size_bytes: int
    in_memory: bool
    comparisons: tuple[Comparison, ...]
    ours: tuple[str, ...]
    figures: tuple[str, ...]
    run: Callable[[Bench, RunOptions], Sequence[Run]]
    link: LinkSpec | None = None
    tls: bool = False
    limits: bool = False
    over: str = ""


def load(name: str) -> Scenario:
    """Return a scenario by name.

    Raises:
        KeyError: There is none of that name.
    """
    if name not in NAMES:
        raise KeyError(name)
    scenario = importlib.import_module(f"perf.scenarios.{name.replace('-', '_')}").SCENARIO
    assert isinstance(scenario, Scenario)
    return scenario

"""What a scenario's runs amount to: the JSON document, and the tables a person reads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from rich.console import Console
from rich.table import Table

from perf.bench import RunOptions
from perf.compare import Ratio, Run, ratio, spread, values
from perf.scenario import Scenario

__all__ = ["UNITS", "build", "number", "print_report"]

UNITS: Final = {
    "files_per_s": "files/s",
    "mb_per_s": "MB/s",
    "seconds": "s",
    "cpu_s": "CPU s of the tool",
    "tool_user_s": "of it user",
    "tool_system_s": "of it system",
    "server_user_s": "server, user s",
    "server_system_s": "server, system s",
    "broker_user_s": "broker, user s",
    "broker_system_s": "broker, system s",
    "link_user_s": "link, user s",
    "link_system_s": "link, system s",
    "peak_pss_mb": "peak PSS, MB",
    "written_mb": "written to disk, MB",
    "moved_mb": "over the network, MB",
    "cpu_s_per_1000": "CPU s / 1,000 files",
    "machine_cpu_s_per_1000": "machine CPU s / 1,000 files",
    "first_file_s": "first file, s",
    "machine_cpu_s": "machine CPU s",
    "warm_mb_per_s": "memory before, MB/s",
    "ready_s": "all ready, s",
    "stop_s": "stop under load, s",
    "stop_idle_s": "stop idle, s",
    "pss_mb": "PSS, MB",
    "peak_rss_mb": "peak RSS of a process, MB",
    "make_file_us": "making a file before, us",
    "size_mb": "file, MB",
    "rtt_ms": "round trip, ms",
    "instances": "instances",
    "p50_ms": "median wait, ms",
    "p99_ms": "99 % wait, ms",
    "max_ms": "longest wait, ms",
    "steal": "steal",
}
"""What figures are called where people read them; a name that is not here is shown as it is."""


def build(
    scenario: Scenario,
    runs: Sequence[Run],
    facts: dict[str, object],
    pump: str,
    asked: RunOptions | None = None,
) -> dict[str, object]:
    """Return the JSON document of a run.

    Args:
        scenario: What was run.
        runs: Every run of every side.
        facts: The machine, from `procstat.machine_facts`.
        pump: What broker and server it ran against.
        asked: What was asked for, if that is to be kept.

    Returns:
        `name`, `ok` (our outputs were right), `figures` (every run), `ratios` (medians by key),
        `ratio_spread`, `machine`, `against`; and what a page needs: `summary`, `shown`, `compared` ...
    """
    ratios = _ratios(scenario, runs)
    ours = [run for run in runs if run.side in scenario.ours]
    return {
        "name": scenario.name,
        "ok": bool(ours) and all(run.ok for run in ours),
        "figures": [asdict(run) for run in runs],
        "ratios": {key: round(each.spread.median, 3) for key, each in ratios.items()},
        "ratio_spread": {key: asdict(each.spread) for key, each in ratios.items()},
        "machine": {**facts, "load_after": os.getloadavg()},
        "against": pump,
        "summary": scenario.summary,
        "link": scenario.link.described() if scenario.link is not None else "",
        "ours": list(scenario.ours),
        "shown": list(scenario.figures),
        "over": scenario.over,
        "asked": _asked(asked),
        "compared": [asdict(each) for each in scenario.comparisons],
    }


def _asked(options: RunOptions | None) -> dict[str, object]:
    if options is None:
        return {}
    return {name: getattr(options, name) for name in ("runs", "files", "size_bytes", "only")}


def print_report(
    console: Console, scenario: Scenario, runs: Sequence[Run], document: dict[str, object]
) -> None:
    """Print a table of figures (min / median / max), one of ratios, and what was wrong."""
    console.print(_figure_table(scenario, runs))
    ratios = _ratios(scenario, runs)
    if ratios:
        console.print(_ratio_table(scenario, ratios))
    for run in runs:
        if not run.ok:
            console.print(f"failed: {run.side}, turn {run.turn + 1}: {'; '.join(run.wrong)}", markup=False)
        if run.repeated:
            told = f"{run.repeated} runs thrown away since the host took the CPU away"
            console.print(f"{run.side}, turn {run.turn + 1}: {told}", markup=False)
    machine = document["machine"]
    assert isinstance(machine, dict)
    before, after = machine["load"][0], machine["load_after"][0]
    lines = (
        f"against {document['against']}",
        f"files in {machine['place']}; {machine['cpus']} CPUs ({machine['cpu']}), Linux {machine['kernel']}",
        f"commit {machine['commit']}; load {before:.1f} before, {after:.1f} after",
    )
    for line in lines:
        console.print(line, markup=False)
    console.print(f"{scenario.name}: {_verdict(scenario, runs, ok=bool(document['ok']))}", markup=False)


def _verdict(scenario: Scenario, runs: Sequence[Run], *, ok: bool) -> str:
    if not any(run.side in scenario.ours for run in runs):
        return "sarrapipe was not run"
    return "ok" if ok else "our output is WRONG"


def _ratios(scenario: Scenario, runs: Sequence[Run]) -> dict[str, Ratio]:
    found = {}
    for each in scenario.comparisons:
        result = ratio(
            each.key,
            runs,
            ours=each.ours,
            peer=each.peer,
            figure=each.figure,
            more_is_better=each.more_is_better,
        )
        if result is not None:
            found[each.key] = result
    return found


def _figure_table(scenario: Scenario, runs: Sequence[Run]) -> Table:
    table = Table(title=scenario.name, title_justify="left")
    for heading in ("side", "output", "figure"):
        table.add_column(heading)
    for heading in ("min", "median", "max"):
        table.add_column(heading, justify="right")
    for side in dict.fromkeys(run.side for run in runs):
        good = all(run.ok for run in runs if run.side == side)
        first = (side, "right" if good else "WRONG")
        shown = [name for name in scenario.figures if any(values(runs, side, name).values())]
        for name in shown:
            each = spread(list(values(runs, side, name).values()))
            numbers = (number(value) for value in (each.low, each.median, each.high))
            table.add_row(*first, UNITS.get(name, name), *numbers, end_section=name == shown[-1])
            first = ("", "")
    return table


def number(value: float) -> str:
    """Return a figure with as many digits as a reader can use."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _ratio_table(scenario: Scenario, ratios: dict[str, Ratio]) -> Table:
    table = Table(title="times better than the peer, turn by turn", title_justify="left")
    for heading in ("ratio", "of", "ours", "peer"):
        table.add_column(heading)
    for heading in ("min", "median", "max"):
        table.add_column(heading, justify="right")
    for each in scenario.comparisons:
        if each.key in ratios:
            result = ratios[each.key].spread
            peer = each.peer if isinstance(each.peer, str) else "best of " + ", ".join(each.peer)
            row = (each.key, UNITS.get(each.figure, each.figure), each.ours, peer)
            table.add_row(*row, *(f"{number:.2f}" for number in (result.low, result.median, result.high)))
    return table

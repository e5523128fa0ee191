"""Results as one HTML page: tables and SVG plots in it, nothing fetched from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from perf.compare import Run, spread, values
from perf.documents import Document, runs_of
from perf.musts import HEAD, judge, row
from perf.report import UNITS, number
from perf.svg import Bar, bars, lines

__all__ = ["page"]

_STYLE: Final = """
body { font: 15px/1.45 sans-serif; color: #222; max-width: 60em; margin: 2em auto; padding: 0 1em }
h2 { margin-top: 2.2em; border-bottom: 1px solid #ccc } p.note { color: #555 } .bad { color: #c0392b }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px }
td, th { border: 1px solid #ddd; padding: 2px 8px; text-align: right }
td:first-child, th:first-child, td.name { text-align: left } th { background: #f3f5f7 }
"""
_PLOTTED: Final = ("mb_per_s", "files_per_s", "seconds", "p99_ms", "first_file_s", "peak_pss_mb", "cpu_s")
_CPU: Final = ("tool", "server", "broker", "link")


def page(documents: Sequence[Document]) -> str:
    """Return the page for some documents, a section each."""
    links = ", ".join(f'<a href="#{escape(d["name"])}">{escape(d["name"])}</a>' for d in documents)
    parts = [
        "<!DOCTYPE html><html lang=en><meta charset=utf-8><title>sarrapipe benchmarks</title>",
        f"<style>{_STYLE}</style><h1>Benchmarks</h1>",
        f"<p>Ratios above 1: sarrapipe is better. Min / median / max over the turns. {links}</p>",
    ]
    parts.append(_musts(documents))
    parts += [_section(document) for document in documents]
    return "\n".join(parts) + "\n"


def _musts(documents: Sequence[Document]) -> str:
    """Return the table of promises, as far as these results say anything about them."""
    there = {document["name"] for document in documents}
    seen = [each for each in judge(documents) if each.must.scenario in there]
    return "<h2 id=musts>must / aim / seen</h2>" + _table(HEAD, [row(each) for each in seen]) if seen else ""


def _section(document: Document) -> str:
    runs = runs_of(document)
    verdict = "" if document["ok"] else " <span class=bad>our output is WRONG</span>"
    name = escape(document["name"])
    parts = [
        f"<h2 id={name}>{name}{verdict}</h2>",
        f"<p>{escape(document.get('summary', ''))} {escape(document.get('link', ''))}</p>",
        _ratio_table(document),
    ]
    shown = {figure for run in runs for figure in run.figures}
    if over := document.get("over"):
        parts += [_growth(document, runs, over, figure) for figure in _PLOTTED if figure in shown]
    else:
        parts += [_bars(document, runs, figure) for figure in _PLOTTED if figure in shown]
    parts += [_cpu_table(runs), _figure_table(document, runs), _faults(runs), _machine(document)]
    return "\n".join(part for part in parts if part)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>{body}</table>"


def _ratio_table(document: Document) -> str:
    compared = {each["key"]: each for each in document.get("compared", ())}
    rows = []
    for key, each in document["ratio_spread"].items():
        what = compared.get(key, {})
        peer = what.get("peer", key)
        rows.append([
            key, UNITS.get(what.get("figure", ""), what.get("figure", "")), what.get("ours", ""),
            peer if isinstance(peer, str) else "best of " + ", ".join(peer),
            *(f"{each[name]:.2f}" for name in ("low", "median", "high")),
        ])  # fmt: skip
    return _table(("ratio", "of", "ours", "peer", "min", "median", "max"), rows)


def _bars(document: Document, runs: Sequence[Run], figure: str) -> str:
    sides = []
    for side in dict.fromkeys(run.side for run in runs):
        if each := list(values(runs, side, figure).values()):
            found = spread(each)
            sides.append(
                Bar(
                    label=side,
                    low=found.low,
                    median=found.median,
                    high=found.high,
                    text=number(found.median),
                    ours=side in document.get("ours", ()),
                    failed=not all(run.ok for run in runs if run.side == side),
                )
            )
    return bars(sides, UNITS.get(figure, figure)) if sides else ""


def _growth(document: Document, runs: Sequence[Run], over: str, figure: str) -> str:
    """Return how a figure grows, a line for each program: sides are called PROGRAM-N there."""
    series: dict[str, list[tuple[float, float]]] = {}
    for run in runs:
        if over in run.figures and figure in run.figures:
            program = "sarrapipe" if run.side in document.get("ours", ()) else run.side.rpartition("-")[0]
            series.setdefault(program, []).append((run.figures[over], run.figures[figure]))
    if figure == "mb_per_s":
        across = sorted({run.figures[over] for run in runs if over in run.figures})
        for name, rate in document["machine"].get("limits_mb_per_s", {}).items():
            series[name] = [(x, rate) for x in across]
    return lines(series, UNITS.get(figure, figure), UNITS.get(over, over))


def _cpu_table(runs: Sequence[Run]) -> str:
    """Return who used the CPU: medians of user and system time by role."""
    roles = [role for role in _CPU if any(f"{role}_user_s" in run.figures for run in runs)]
    rows = []
    for side in dict.fromkeys(run.side for run in runs):
        cells = []
        for name in (f"{role}_{kind}_s" for role in roles for kind in ("user", "system")):
            each = list(values(runs, side, name).values())
            cells.append(f"{spread(each).median:.2f}" if each else "")
        rows.append([side, *cells])
    head = ["CPU s", *(f"{role} {kind}" for role in roles for kind in ("user", "system"))]
    return _table(head, rows) if roles else ""


def _figure_table(document: Document, runs: Sequence[Run]) -> str:
    rows = []
    for side in dict.fromkeys(run.side for run in runs):
        for figure in document.get("shown", ()):
            if figure.endswith(("_user_s", "_system_s")):
                continue
            each = list(values(runs, side, figure).values())
            if each and any(each):
                found = spread(each)
                numbers = (number(value) for value in (found.low, found.median, found.high))
                rows.append([side, UNITS.get(figure, figure), *numbers])
    table = _table(("side", "figure", "min", "median", "max"), rows)
    return f"<details><summary>all figures</summary>{table}</details>"


def _faults(runs: Sequence[Run]) -> str:
    told = [f"{run.side}, turn {run.turn + 1}: {'; '.join(run.wrong)}" for run in runs if not run.ok]
    bad = "".join(f"<p class=bad>failed: {escape(line)}</p>" for line in told)
    again = [f"{run.side}, turn {run.turn + 1}: {run.repeated}" for run in runs if run.repeated]
    note = "<p class=note>thrown away since the host took the CPU away: " + escape(", ".join(again)) + "</p>"
    return bad + (note if again else "")


def _machine(document: Document) -> str:
    machine = document["machine"]
    limits = ", ".join(f"{name} {rate:,.0f}" for name, rate in machine.get("limits_mb_per_s", {}).items())
    lines_ = [
        f"{machine['time']}, commit {machine['commit']}, {machine['cpus']} CPUs ({machine['cpu']}), "
        f"Linux {machine['kernel']}, Python {machine['python']}, files in {machine['place']}",
        f"against {document['against']}",
        *([f"limits of the machine, MB/s: {limits}"] if limits else []),
    ]
    return f"<p class=note>{'<br>'.join(escape(line) for line in lines_)}</p>"

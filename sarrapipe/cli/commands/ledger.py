"""`sarrapipe ledger show|check`: what flows have under way, and that their ledgers are consistent."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator

import click

from sarrapipe.cli.output import print_json, print_table, size
from sarrapipe.config.load import ConfigHome, find_flows, load_flow
from sarrapipe.config.model import FlowConfig
from sarrapipe.config.values import InflightMode
from sarrapipe.errors import UsageError
from sarrapipe.ledger.inspect import Report, inspect
from sarrapipe.segment.place import HIDDEN_DIRECTORY
from sarrapipe.units import format_bytes, format_duration

__all__ = ["command"]

_HEADER = ("Target", "Phase", "Owner", "Size", "Segments", "Missing", "Messages", "Age", "Fetched by")

_directories = click.option(
    "--dir",
    "directories",
    multiple=True,
    metavar="DIR",
    help="State directory of a flow, or a ledger itself.",
)
_json = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON array, one object for each flow."
)


@click.group()
def command() -> None:
    """Look into the ledgers of flows; a running flow is not disturbed."""


@command.command()
@click.argument("names", nargs=-1)
@_directories
@_json
def show(names: tuple[str, ...], directories: tuple[str, ...], *, as_json: bool) -> int:
    """Show what is under way: files, removals, and messages kept for later.

    NAMES are component/config, may hold * and ?; none means every flow that has a ledger.
    """
    reports = [(flow, report) for flow, report in _reports(names, directories)]
    if as_json:
        print_json([_plain(flow, report) for flow, report in reports])
        return 0
    for flow, report in reports:
        click.echo(f"{flow}: {_summary(report)}")
        if report.under_way:
            print_table(_HEADER, _rows(report), left=3)
        for path in report.removals:
            click.echo(f"removal not settled: {path}")
    return 0


@command.command()
@click.argument("names", nargs=-1)
@_directories
@_json
def check(names: tuple[str, ...], directories: tuple[str, ...], *, as_json: bool) -> int:
    """Prove that every table agrees with every other, and that no inflight file is unknown.

    Exit status 1 if something is not as it must be.
    """
    reports = [(flow, report) for flow, report in _reports(names, directories)]
    if as_json:
        print_json([_plain(flow, report) for flow, report in reports])
    for flow, report in reports if not as_json else ():
        click.echo(f"{flow}: {'consistent' if not report.problems else 'NOT CONSISTENT'}, {_summary(report)}")
        for problem in report.problems:
            click.echo(f"  {problem}")
    return int(any(report.problems for _, report in reports))


def _reports(names: tuple[str, ...], directories: tuple[str, ...]) -> Iterator[tuple[str, Report]]:
    now_ns = time.time_ns()
    for directory in directories:
        inner = os.path.join(directory, "ledger")
        is_state = os.path.isdir(inner)
        kept = os.path.join(directory, "kept") if is_state else None
        yield directory, inspect(inner if is_state else directory, kept, now_ns)
    if directories and not names:
        return
    home = ConfigHome.default()
    found = 0
    for component, name in find_flows(home, names):
        config = load_flow(home, component, name)
        ledger = os.path.join(config.state_dir, "ledger")
        if os.path.isdir(ledger):
            found += 1
            kept = os.path.join(config.state_dir, "kept")
            yield config.flow, inspect(ledger, kept, now_ns, _inflight(config))
    if names and not found:
        raise UsageError(f"no ledger for {' '.join(names)}: a flow makes one when it first receives messages")


def _inflight(config: FlowConfig) -> list[str]:
    """Hidden directories of a flow's inflight files; none where they lie beside their targets."""
    if config.inflight.mode is not InflightMode.HIDDEN:
        return []
    rules = [config.masks.default_rule, *(mask.rule for mask in config.masks.masks if mask.accept)]
    roots = set()
    for rule in rules:
        fixed, variable, _ = rule.directory.text.partition("${")
        roots.add((fixed.rpartition("/")[0] if variable else fixed.rstrip("/")) or "/")
    return [os.path.join(root, HIDDEN_DIRECTORY, config.flow.replace("/", "_")) for root in sorted(roots)]


def _rows(report: Report) -> Iterable[tuple[str, ...]]:
    for file in sorted(report.under_way, key=lambda file: file.target):
        amount = "?" if file.size < 0 else size(file.size)
        yield (
            file.target,
            file.phase,
            file.owner,
            amount,
            str(file.segments),
            str(file.missing),
            str(file.messages),
            format_duration(max(0.0, file.age_s)),
            " ".join(f"{instance}:{count}" for instance, count in file.fetching.items()),
        )


def _summary(report: Report) -> str:
    text = (
        f"{len(report.under_way)} under way, {len(report.removals)} removals, {report.paths} paths and "
        f"{report.seen} fingerprints remembered, {format_bytes(report.used_bytes)}"
    )
    if report.kept is not None:
        text += f", {report.kept.kept} messages kept ({report.kept.leased} being worked on)"
    return text


def _plain(flow: str, report: Report) -> dict[str, object]:
    return {
        "flow": flow,
        **report._asdict(),
        "under_way": [file._asdict() for file in report.under_way],
        "kept": report.kept._asdict() if report.kept is not None else None,
    }

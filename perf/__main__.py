"""`python -m perf`: run a benchmark beside its peers, or list what there is."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial

import click
from rich.console import Console

from perf import procstat
from perf.bench import MEMORY_DIR, Bench, RunOptions
from perf.benchset import MUSTS_SET, SET, SMOKE, run_set
from perf.budget import Entry
from perf.cage import CageError
from perf.documents import Document, DocumentError, read_documents
from perf.interrupt import end_like_ctrl_c
from perf.limits import measure_limits
from perf.link.tunlink import LinkError
from perf.moved import moves
from perf.musts import judge
from perf.musttable import print_musts
from perf.page import page
from perf.peers import sr3
from perf.probe import ProbeError
from perf.report import build, number, print_report
from perf.scenario import NAMES, load
from sarrapipe.errors import SarrapipeError
from sarrapipe.units import parse_count, parse_duration_s, parse_size

__all__ = ["cli"]

_AGAINST = ("nginx", "sr3", "curl", "wget", "aria2c", "axel", "lftp", "rclone", "rsync", "openssh")
_PLAIN_WIDTH = 110  # columns where there is no terminal to ask
_TABLE_WIDTH = 160  # of the table of musts there


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Measure sarrapipe beside its peers, in turns, on one private broker and web server."""


@cli.command("list")
def list_scenarios() -> None:
    """Name the benchmarks."""
    for name in NAMES:
        click.echo(f"{name:16} {load(name).summary}")


@cli.command("run")
@click.argument("name", type=click.Choice(NAMES))
@click.option("--runs", type=click.IntRange(1), help="Turns; each turn runs every side once.")
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, writable=True), help="Write all figures here."
)
@click.option("--files", help="How many small files, to shrink a benchmark: 2k.")
@click.option("--size", help="Size of each file: 64MiB.")
@click.option("--only", multiple=True, metavar="SIDE", help="Run only this side; may be given again.")
@click.option("--seconds", type=click.FloatRange(0), help="Begin no turn that would end later than this.")
@click.option("--memory", is_flag=True, help="Put pump and files into /dev/shm, to take the disk out.")
def run_scenario(
    name: str,
    runs: int | None,
    json_path: str | None,
    files: str | None,
    size: str | None,
    only: tuple[str, ...],
    seconds: float | None,
    *,
    memory: bool,
) -> None:
    """Run one benchmark; exit 1 if our output was wrong."""
    scenario = load(name)
    options = RunOptions(
        runs=runs or scenario.runs,
        files=parse_count(files) if files else scenario.files,
        size_bytes=parse_size(size) if size else scenario.size_bytes,
        only=only,
        until_s=math.inf if seconds is None else time.monotonic() + seconds,
    )
    place = MEMORY_DIR if scenario.in_memory or memory else tempfile.gettempdir()
    facts = procstat.machine_facts(place) | {"sr3": f"sr3 {sr3.version()}"}
    console = _console()
    say = partial(click.echo, err=True)
    with Bench(place, say=say, link=scenario.link, tls=scenario.tls) as bench:
        if scenario.limits:
            facts["limits_mb_per_s"] = measure_limits(bench.path())
        measured = scenario.run(bench, options)
    there = [str(facts[peer]) for peer in _AGAINST if facts[peer] != "absent"]
    document = build(scenario, measured, facts, f"RabbitMQ {facts['rabbitmq']}, " + ", ".join(there), options)
    if json_path:
        os.makedirs(os.path.dirname(os.path.abspath(json_path)), exist_ok=True)
        with open(json_path, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
            file.write("\n")
    print_report(console, scenario, measured, document)
    sys.exit(0 if document["ok"] else 1)


def _seconds(_context: click.Context, _option: click.Parameter, text: str) -> float:
    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


_BUDGET = click.option(
    "--budget",
    "budget_s",
    default="28m",
    show_default=True,
    callback=_seconds,
    help="How long it may take in all, as 20m; sizes and turns give way.",
)
_OUT = click.option(
    "--out", default="perf/results", type=click.Path(file_okay=False), help="Where results go."
)
_ONLY = click.option("--only", multiple=True, metavar="NAME", help="Only this scenario; may be given again.")


@cli.command("all")
@_OUT
@_BUDGET
@_ONLY
@click.option("--smoke", is_flag=True, help="Tiny sizes, one turn each: only to see that it works.")
def run_all(out: str, budget_s: float, only: tuple[str, ...], *, smoke: bool) -> None:
    """Run the set, a JSON each, and make a page of it; exit 1 if one failed."""
    there, failed = _run_set(SMOKE if smoke else SET, out, budget_s, only)
    sys.exit(1 if failed or not there else 0)


@cli.command("musts")
@click.argument("results", nargs=-1, type=click.Path(exists=True))
@_OUT
@_BUDGET
@_ONLY
def musts(results: tuple[str, ...], out: str, budget_s: float, only: tuple[str, ...]) -> None:
    """Hold results against what must be reached; without RESULTS, measure them first.

    RESULTS are files or directories. Exit 1 if something was missed, wrong or not measured.
    """
    if not results:
        results, _failed = _run_set(MUSTS_SET, out, budget_s, only)
    documents = read_documents(results) if results else []
    rows = [each for each in judge(documents) if not only or each.must.scenario in only]
    print_musts(_console(_TABLE_WIDTH), rows)
    sys.exit(0 if all(each.kept for each in rows) else 1)


def _run_set(
    entries: Sequence[Entry], out: str, budget_s: float, only: tuple[str, ...]
) -> tuple[tuple[str, ...], list[str]]:
    """Run a set, make its page, say what was cut, and return paths of results and names that failed."""
    entries = [each for each in entries if not only or each.name in only]
    say = partial(click.echo, err=True)
    outcome = run_set(entries, out, budget_s=budget_s, say=say)
    results = tuple(os.path.join(out, f"{each.name}.json") for each in entries)
    there = tuple(path for path in results if os.path.exists(path))
    if there:
        _write_page(read_documents(there), os.path.join(out, "report.html"))
    for name in outcome.failed:
        click.echo(f"{name}: FAILED, see {os.path.join(out, name)}.log")
    for line in outcome.cut:
        click.echo(f"cut: {line}")
    click.echo(f"took {outcome.seconds / 60:.1f} minutes of {budget_s / 60:.1f}")
    return there, outcome.failed


@cli.command("report")
@click.argument("results", nargs=-1, required=True, type=click.Path(exists=True))
@click.option("--out", default="report.html", type=click.Path(dir_okay=False), help="The page to write.")
def report(results: tuple[str, ...], out: str) -> None:
    """Make one HTML page of results: files, or directories of them."""
    _write_page(read_documents(results), out)


@cli.command("compare")
@click.argument("old", type=click.Path(exists=True))
@click.argument("new", type=click.Path(exists=True))
def compare(old: str, new: str) -> None:
    """Say what moved between two results, or directories of them, by more than the noise; exit 1 if worse."""
    found = moves(read_documents([old]), read_documents([new]))
    for move in found:
        a, b = (f"{number(s.median)} ({number(s.low)}-{number(s.high)})" for s in (move.old, move.new))
        word = "better" if move.better else "WORSE"
        click.echo(f"{word:6} {move.change:+.0%}  {move.scenario}: {move.what}: {a} -> {b}")
    if not found:
        click.echo("nothing moved by more than the noise")
    sys.exit(0 if all(move.better for move in found) else 1)


def _console(plain_width: int = _PLAIN_WIDTH) -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else plain_width)


def _write_page(documents: Sequence[Document], path: str) -> None:
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(page(documents))
    click.echo(f"wrote {path}: {', '.join(document['name'] for document in documents)}")


def main() -> int:
    """Run the command line; errors that are a person's to mend are one line each."""
    signal.signal(signal.SIGTERM, end_like_ctrl_c)
    try:
        cli.main(prog_name="python -m perf", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("ended before it was done; nothing was left running", err=True)
        return 130
    except (
        CageError,
        DocumentError,
        LinkError,
        ProbeError,
        SarrapipeError,
        sr3.Sr3Missing,
        TimeoutError,
    ) as error:
        click.echo(f"perf: {error}", err=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

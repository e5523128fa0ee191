"""The main job on real input: source -> post -> sarra with 16 instances -> subscribe with 4 -> compared.

    python -m perf.demo --size 1GiB

Everything happens in a temporary directory with a private RabbitMQ and nginx. It ends with a table and
`demo ok`, or with what differs and exit code 1, and leaves nothing running however it ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from perf import demo_source, trees
from perf.background import Background
from perf.cage import Cage, CageError, Completed
from perf.demo_source import Inventory
from perf.flowstatus import Counters, read_counters
from perf.interrupt import end_like_ctrl_c
from perf.probe import Probe, ProbeError
from perf.progress import Done, Progress
from perf.pumpsite import open_site
from perf.sarrapipe_side import Sarrapipe
from perf.side import Flow, Posting, Site
from sarrapipe.errors import SarrapipeError
from sarrapipe.units import parse_size

__all__ = ["main"]

_SOURCE: Final = "source"
_PUMP: Final = "pump"
_STALL_S: Final = 60.0
_READING_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chain:
    """Where each stage of the demonstration has its tree, and its configuration."""

    source: str
    pump: str
    subscriber: str
    posting: Posting
    sarra: Flow
    subscribe: Flow


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What the run came to."""

    inventory: Inventory
    seconds: float
    sarra: Counters
    subscribe: Counters
    differences: list[str]


def _chain(site: Site, directory: str) -> _Chain:
    source, pump = os.path.join(site.docroot, _SOURCE), os.path.join(site.docroot, _PUMP)
    subscriber = os.path.join(directory, "subscriber")
    return _Chain(
        source=source,
        pump=pump,
        subscriber=subscriber,
        posting=Posting(
            name="demo",
            user="tsource",
            exchange="xs_tsource",
            base_dir=source,
            base_url=f"{site.http_url}{_SOURCE}/",
        ),
        sarra=Flow(
            component="sarra",
            name="demo",
            user="feeder",
            instances=16,
            exchange="xs_tsource",
            destination=pump,
            post_exchange="xpublic",
            post_base_url=f"{site.http_url}{_PUMP}/",
        ),
        subscribe=Flow(
            component="subscribe",
            name="demo",
            user="tsub",
            instances=4,
            exchange="xpublic",
            destination=subscriber,
        ),
    )


@contextlib.contextmanager
def _directory(*, keep: bool) -> Iterator[str]:
    path = tempfile.mkdtemp(prefix="sarrapipe-demo-")
    try:
        yield path
    finally:
        if not keep:
            shutil.rmtree(path, ignore_errors=True)


def _run(directory: str, large_bytes: int, say: Callable[[str], None]) -> _Outcome:
    with open_site(os.path.join(directory, "server"), say) as site, Probe(site.secrets["feeder"]) as probe:
        chain = _chain(site, directory)
        say("copying a real tree of files")
        inventory = demo_source.make_source(chain.source, large_bytes)
        say(f"source: {inventory}")
        side = Sarrapipe(site, os.path.join(directory, "sarrapipe"))
        side.write_posting(chain.posting)
        flows = (chain.subscribe, chain.sarra)
        for flow in flows:
            side.write_flow(flow)
        with Cage(isolated=False) as cage:
            say("starting subscribe with 4 instances and sarra with 16")
            for flow in flows:
                side.start(cage, flow)
            started_s = time.monotonic()
            say("posting, fetching, announcing again, fetching again")
            posting = Background(partial(side.post, cage, chain.posting, [chain.source])).start()
            ended_s = _watch(posting, side, probe, chain, inventory)
            subscribed, pumped = read_counters(side, flows)
            for flow in reversed(flows):
                side.stop(cage, flow)
        say("comparing both trees with the source")
        differences = [
            f"{name}: {line}"
            for name, tree in (("pump", chain.pump), ("subscriber", chain.subscriber))
            for line in trees.compare_trees(chain.source, tree)
        ]
    return _Outcome(
        inventory=inventory,
        seconds=ended_s - started_s,
        subscribe=subscribed,
        sarra=pumped,
        differences=differences,
    )


def _watch(
    posting: Background[Completed], side: Sarrapipe, probe: Probe, chain: _Chain, wanted: Inventory
) -> float:
    """Show progress until the subscriber has everything or nothing moves any more; return when that was."""
    moved_s, last = time.monotonic(), (0, 0, 0)
    with Progress(Done(entries=wanted.entries, size_bytes=wanted.size_bytes)) as progress:
        while True:
            if not posting.running():
                posting.result()
            subscribed, pumped = read_counters(side, (chain.subscribe, chain.sarra))
            waiting = probe.count(chain.sarra.queue) + probe.count(chain.subscribe.queue)
            now_s = time.monotonic()
            state = (subscribed.entries, subscribed.bytes_received + pumped.bytes_received, waiting)
            if state != last:
                moved_s, last = now_s, state
            progress.show(_done(subscribed), _done(pumped))
            if subscribed.entries >= wanted.entries or now_s - moved_s > _STALL_S:
                return moved_s
            time.sleep(_READING_S)


def _done(counters: Counters) -> Done:
    return Done(entries=counters.entries, size_bytes=counters.bytes_received)


def _table(outcome: _Outcome) -> Table:
    table = Table(title="source -> post -> sarra x 16 -> subscribe x 4", title_justify="left")
    table.add_column("")
    table.add_column("sarra", justify="right")
    table.add_column("subscribe", justify="right")
    both = (outcome.sarra, outcome.subscribe)
    seconds = max(outcome.seconds, 0.001)
    rows: tuple[tuple[str, Callable[[Counters], str]], ...] = (
        ("files", lambda each: f"{each.files:,}"),
        ("directories, links", lambda each: f"{each.directories + each.links:,}"),
        ("bytes", lambda each: f"{each.bytes_received:,}"),
        ("seconds", lambda _each: f"{seconds:.1f}"),
        ("files/s", lambda each: f"{each.files / seconds:,.0f}"),
        ("MB/s", lambda each: f"{each.bytes_received / 1e6 / seconds:,.0f}"),
        ("segments", lambda each: f"{each.segments:,}"),
        ("verified", lambda each: f"{each.verified:,}"),
        ("retried", lambda each: f"{each.retried:,}"),
        ("duplicates", lambda each: f"{each.duplicates:,}"),
        ("problems", lambda each: ", ".join(f"{n} {count}" for n, count in each.problems.items()) or "none"),
    )
    for name, value in rows:
        table.add_row(name, *(value(each) for each in both))
    return table


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--size", default="1GiB", show_default=True, help="Size of the large file; 0 for none.")
@click.option("--keep", is_flag=True, help="Leave the directory with all trees and logs.")
def demo(size: str, *, keep: bool) -> None:
    """Move a real tree of files through a pump to a subscriber and compare what arrives."""
    console = Console(highlight=False)
    large_bytes = parse_size(size)
    with _directory(keep=keep) as directory:
        console.print(f"working in {directory}", markup=False, soft_wrap=True)
        outcome = _run(directory, large_bytes, lambda line: console.print(line, markup=False, soft_wrap=True))
    console.print(_table(outcome))
    for line in outcome.differences:
        console.print(f"differs: {line}", markup=False, soft_wrap=True)
    console.print("demo FAILED" if outcome.differences else "demo ok")
    sys.exit(1 if outcome.differences else 0)


def main() -> int:
    """Run the demonstration; Ctrl-C and SIGTERM end it in good order."""
    signal.signal(signal.SIGTERM, end_like_ctrl_c)
    try:
        demo.main(prog_name="python -m perf.demo", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("\nended before it was done; nothing was left running", err=True)
        return 130
    except (CageError, ProbeError, SarrapipeError, TimeoutError, ValueError) as error:
        click.echo(f"demo: {error}", err=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

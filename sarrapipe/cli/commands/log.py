"""`sarrapipe log`: the logs of one flow, its parent's and instances' together."""

from __future__ import annotations

import glob
import os
from collections import deque
from collections.abc import Iterable, Iterator

import click

from sarrapipe.config.load import ConfigHome
from sarrapipe.errors import UsageError
from sarrapipe.supervisor.flows import find

__all__ = ["command"]


@click.command()
@click.argument("name")
@click.option(
    "-n", "--lines", default=20, show_default=True, type=click.IntRange(0), help="So many last lines."
)
@click.option("-i", "--instance", type=click.IntRange(0), help="Of this instance only; 0 is the parent.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added; Ctrl-C ends.")
def command(name: str, lines: int, instance: int | None, *, follow: bool) -> None:
    """Show the last lines of a flow's logs, in order of time. Flows run in the foreground have none."""
    flows = find(ConfigHome.default(), [name])
    if len(flows) != 1:
        raise UsageError(f"{name} names {len(flows)} flows; name one")
    paths = flows[0]
    stem = glob.escape(paths.log().removesuffix(".log"))
    files = [paths.log(instance)] if instance is not None else [paths.log(), *glob.glob(f"{stem}_[0-9]*.log")]
    files = [file for file in files if os.path.exists(file)]
    if not files:
        raise UsageError(f"{paths.flow} has no log in {paths.log_dir}")
    last: list[tuple[str, str]] = []
    for file in files:
        with open(file, encoding="utf-8", errors="replace") as stream:
            last += deque(_timed(stream), lines)
    for _time, line in sorted(last, key=lambda entry: entry[0])[-lines if lines else len(last) :]:
        click.echo(line, nl=False)
    if follow:
        os.execvp("tail", ["tail", "-q", "-n", "0", "-F", *files])  # noqa: S606 - no shell is what is wanted


def _timed(stream: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Give each line with its time in UTC; what has none, a traceback, has that of the line before it."""
    time = ""
    for line in stream:
        time = line[:24] if line[:2] == "20" else time
        yield time, line

"""`sarrapipe scale`: more or fewer instances of running flows."""

from __future__ import annotations

import re

import click

from sarrapipe.cli.output import print_answers
from sarrapipe.config.load import ConfigHome
from sarrapipe.errors import UsageError
from sarrapipe.supervisor.flows import find
from sarrapipe.supervisor.paths import FlowPaths
from sarrapipe.supervisor.remote import ask, ask_all

__all__ = ["command"]


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("names", nargs=-1, required=True)
@click.argument("count")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def command(names: tuple[str, ...], count: str, *, as_json: bool) -> int:
    """Have COUNT instances of flows: a number, or +N or -N for so many more or fewer.

    It lasts until the next scale, a stop, or a reload that changes `instances`.
    """
    if not re.fullmatch(r"[+-]?\d{1,3}", count):
        raise UsageError(f"{count!r} is no number of instances: write N, +N or -N")

    def scale(paths: FlowPaths) -> str:
        wanted = int(count)
        if count[0] in "+-":
            status = ask(paths, do="status")
            wanted += int(str(status["wanted"]))
        return f"{ask(paths, do='scale', to=wanted)['wanted']} instances"

    return print_answers(ask_all(find(ConfigHome.default(), names), scale), as_json=as_json)

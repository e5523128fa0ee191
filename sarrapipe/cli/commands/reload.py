"""`sarrapipe reload`: have running flows take over their changed configuration."""

from __future__ import annotations

import click

from sarrapipe.cli.output import print_answers
from sarrapipe.config.load import ConfigHome
from sarrapipe.supervisor.flows import find
from sarrapipe.supervisor.paths import FlowPaths
from sarrapipe.supervisor.remote import ask, ask_all

__all__ = ["command"]


@click.command()
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def command(names: tuple[str, ...], *, as_json: bool) -> int:
    """Have flows read their configuration again; a wrong one is refused, and the old one stays in force.

    A new number of instances is taken over as it is; for other changes new instances start first, then the
    old ones finish what they have and end.

    Exit status: 0 taken over, 69 does not run, 78 refused.
    """

    def reload(paths: FlowPaths) -> str:
        return str(ask(paths, do="reload")["change"])

    return print_answers(ask_all(find(ConfigHome.default(), names), reload), as_json=as_json)

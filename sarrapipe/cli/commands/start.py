"""`sarrapipe start`: flows as daemons."""

from __future__ import annotations

import click

from sarrapipe.cli.output import print_answers
from sarrapipe.config.flags import flow_options
from sarrapipe.config.load import ConfigHome, Overrides
from sarrapipe.supervisor.flows import requests
from sarrapipe.units import parse_duration_s

__all__ = ["command"]


@click.command()
@click.argument("names", nargs=-1)
@click.option(
    "--wait", default="10s", show_default=True, metavar="DURATION", help="How long to wait for them."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@flow_options
def command(names: tuple[str, ...], wait: str, overrides: Overrides = (), *, as_json: bool) -> int:
    """Start flows as daemons, one parent each, and wait until their instances work.

    NAMES are component/config or a component, which means all its enabled configurations.

    Exit status: 0 started, 69 a flow runs already, 78 a configuration is at fault.
    """
    from sarrapipe.supervisor.launch import start_parents

    started = start_parents(requests(ConfigHome.default(), names, overrides), parse_duration_s(wait))
    return print_answers([daemon.answer() for daemon in started], as_json=as_json)

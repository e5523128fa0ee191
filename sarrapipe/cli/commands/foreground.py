"""`sarrapipe foreground`: one instance in this very process."""

from __future__ import annotations

import click

from sarrapipe.config.flags import flow_options
from sarrapipe.config.load import ConfigHome, Overrides
from sarrapipe.errors import UsageError
from sarrapipe.supervisor.flows import requests

__all__ = ["command"]


@click.command()
@click.argument("name")
@flow_options
def command(name: str, overrides: Overrides = ()) -> int:
    """Run one instance of one flow here, without a parent; the log goes to standard error.

    For looking at it, with a debugger if need be. Nobody starts it again. The exit status is the instance's.
    """
    wanted = requests(ConfigHome.default(), [name], overrides)
    if len(wanted) != 1:
        raise UsageError(f"{name} names {len(wanted)} flows; foreground runs one")
    from sarrapipe.supervisor.foreground import run_here

    return run_here(wanted[0])

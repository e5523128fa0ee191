"""`sarrapipe run`: flows in the foreground, for containers and people."""

from __future__ import annotations

import click

from sarrapipe.config.flags import flow_options
from sarrapipe.config.load import ConfigHome, Overrides
from sarrapipe.supervisor.flows import requests

__all__ = ["command"]


@click.command()
@click.argument("names", nargs=-1)
@flow_options
def command(names: tuple[str, ...], overrides: Overrides = ()) -> int:
    """Run flows and stay; the log goes to standard error.

    NAMES are component/config or a component, which means all its enabled configurations; names after a
    component are configurations of it. Without NAMES every enabled flow runs. TERM or Ctrl-C
    stops, a second one at once; HUP reloads; TTIN and TTOU start or stop one instance.

    Exit status: 0 stopped or done, 69 a flow runs already, 78 a configuration is at fault.
    """
    wanted = requests(ConfigHome.default(), names, overrides)
    from sarrapipe.supervisor.launch import run_parents

    return run_parents(wanted)

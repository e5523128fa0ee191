"""`sarrapipe restart`: stop and start daemons."""

from __future__ import annotations

import click

from sarrapipe.cli.output import print_answers
from sarrapipe.config.flags import flow_options
from sarrapipe.config.load import ConfigHome, Overrides
from sarrapipe.errors import UsageError
from sarrapipe.shm.arena import read_arena
from sarrapipe.supervisor.flows import paths_of, requests
from sarrapipe.supervisor.remote import ask_all, stop

__all__ = ["command"]


@click.command()
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@flow_options
def command(names: tuple[str, ...], overrides: Overrides = (), *, as_json: bool) -> int:
    """Stop flows and start them as daemons with the program, configuration and options of now.

    `sarrapipe reload` takes over a changed configuration without a gap.
    """
    from sarrapipe.supervisor.launch import start_parents

    home = ConfigHome.default()
    wanted = requests(home, names, overrides)
    flows = [paths_of(home, request.component, request.name) for request in wanted]
    for paths in flows:
        arena = read_arena(paths.arena)
        if arena is not None and arena.parent_alive and arena.foreground:
            raise UsageError(f"{paths.flow} runs in the foreground, pid {arena.parent_pid}: restart it there")
    stopped = ask_all(flows, lambda paths: stop(paths, None))
    if not all(answer.ok for answer in stopped):
        return print_answers(stopped, as_json=as_json)
    started = start_parents(wanted, wait_s=10.0)
    return print_answers([daemon.answer() for daemon in started], as_json=as_json)

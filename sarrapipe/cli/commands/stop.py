"""`sarrapipe stop`: end flows, and return when they are gone."""

from __future__ import annotations

import click

from sarrapipe.cli.output import print_answers
from sarrapipe.config.load import ConfigHome
from sarrapipe.supervisor.flows import find
from sarrapipe.supervisor.remote import ask_all, stop
from sarrapipe.units import parse_duration_s

__all__ = ["command"]


@click.command()
@click.argument("names", nargs=-1)
@click.option("--limit", metavar="DURATION", help="Time to finish what is under way.  [default: stopTimeout]")
@click.option("--drain", is_flag=True, help="Take as long as it takes to finish what is under way.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def command(names: tuple[str, ...], limit: str | None, *, drain: bool, as_json: bool) -> int:
    """Stop flows, however they were started, and return when all their processes are gone.

    NAMES are component/config, a component, or patterns; without any, every flow is stopped. What was under
    way is taken up again by the next start.
    """
    limit_s = parse_duration_s(limit) if limit is not None else None
    flows = find(ConfigHome.default(), names)
    return print_answers(ask_all(flows, lambda paths: stop(paths, limit_s, drain=drain)), as_json=as_json)

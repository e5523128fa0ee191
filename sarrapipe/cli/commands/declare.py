"""`sarrapipe declare`: create the queues, bindings and exchanges that configurations ask for."""

from __future__ import annotations

import click

from sarrapipe.cli.output import print_json
from sarrapipe.config.load import ConfigHome, find_flows, load_flow

__all__ = ["command"]


@click.command()
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def command(names: tuple[str, ...], *, as_json: bool) -> int:
    """Create queues, bindings and exchanges; remove bindings that configurations no longer name.

    NAMES are component/config, may hold * and ?; without any, all configurations are declared. Doing it again
    changes nothing.
    """
    from sarrapipe.flow.topology import declare_flow

    home = ConfigHome.default()
    result = []
    for component, name in find_flows(home, names):
        config = load_flow(home, component, name)
        for declared in declare_flow(config):
            messages = declared.depth.messages if declared.depth is not None else None
            result.append(
                {
                    "flow": config.flow,
                    "queue": declared.queue,
                    "messages": messages,
                    "bound": [list(binding) for binding in declared.bound],
                    "unbound": [list(binding) for binding in declared.unbound],
                }
            )
            if not as_json:
                click.echo(
                    f"{config.flow}: queue {declared.queue}, {messages} messages, "
                    f"{len(declared.bound)} bindings, {len(declared.unbound)} removed"
                )
    if as_json:
        print_json(result)
    return 0

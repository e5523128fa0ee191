"""`sarrapipe cleanup`: delete the queues of configurations."""

from __future__ import annotations

import click

from sarrapipe.cli.output import print_json
from sarrapipe.config.load import ConfigHome, find_flows, load_flow
from sarrapipe.errors import SupervisorError, UsageError
from sarrapipe.supervisor.flows import find
from sarrapipe.supervisor.status import read_status

__all__ = ["command"]


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Needed where more than one configuration is named.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def command(names: tuple[str, ...], *, yes: bool, as_json: bool) -> int:
    """Delete the queues of stopped configurations, with the messages in them. Exchanges stay.

    NAMES are component/config, may hold * and ?.
    """
    from sarrapipe.flow.topology import cleanup_flow

    home = ConfigHome.default()
    flows = find_flows(home, names)
    if len(flows) > 1 and not yes:
        listed = ", ".join(f"{component}/{name}" for component, name in flows)
        raise UsageError(f"{listed}: their queues and all messages in them would be deleted; add --yes")
    for status in (read_status(paths) for paths in find(home, names)):
        if status.parent_pid:
            raise SupervisorError(f"{status.flow} is running: stop it first (sarrapipe stop {status.flow})")
    result = []
    for component, name in flows:
        config = load_flow(home, component, name)
        for done in cleanup_flow(config):
            kept = [{"queue": queue, "why": why} for queue, why in done.removed.kept]
            result.append({"flow": config.flow, "deleted": list(done.removed.queues), "kept": kept})
            if not as_json:
                click.echo(f"{config.flow}: deleted {', '.join(done.removed.queues) or 'nothing'}")
                for entry in kept:
                    click.echo(f"{config.flow}: kept {entry['queue']}: {entry['why']}", err=True)
    if as_json:
        print_json(result)
    return 1 if any(entry["kept"] for entry in result) else 0

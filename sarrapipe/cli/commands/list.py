"""`sarrapipe list`: what there is: configurations, options, components."""

from __future__ import annotations

import click

from sarrapipe.cli.commands import list_options
from sarrapipe.cli.output import print_json
from sarrapipe.config.components import COMPONENTS
from sarrapipe.config.load import ConfigHome, find_flows, is_enabled

__all__ = ["command"]


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(context: click.Context, *, as_json: bool) -> None:
    """List the configurations and where they are; see also `list options`, `list components`."""
    if context.invoked_subcommand is not None:
        return
    home = ConfigHome.default()
    flows = [
        (f"{component}/{name}", is_enabled(home, component, name)) for component, name in find_flows(home)
    ]
    if as_json:
        listed = [{"flow": flow, "enabled": enabled} for flow, enabled in flows]
        print_json({"config_dir": home.config_dir, "state_dir": home.state_dir, "flows": listed})
        return
    click.echo(f"configurations: {home.config_dir}\nstate and logs: {home.state_dir}\n")
    for flow, enabled in flows:
        click.echo(flow if enabled else f"{flow} (disabled)")


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def components(*, as_json: bool) -> None:
    """List the components and what each does."""
    if as_json:
        print_json({name: spec.help for name, spec in COMPONENTS.items()})
        return
    for name, spec in COMPONENTS.items():
        click.echo(f"{name:<12} {spec.help}")


command.add_command(list_options.command)

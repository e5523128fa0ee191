"""`sarrapipe show`: the values of a configuration as they are after everything was read."""

from __future__ import annotations

import json

import click

from sarrapipe.config.flags import flow_options
from sarrapipe.config.load import ConfigHome, Overrides, find_flows, load_flow
from sarrapipe.config.report import Shown, show_flow

__all__ = ["command"]


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--origin", "with_origin", is_flag=True, help="Print the line that set each value.")
@click.option("--set", "only_set", is_flag=True, help="Leave out defaults.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with origins.")
@flow_options
def command(
    names: tuple[str, ...], overrides: Overrides = (), *, with_origin: bool, only_set: bool, as_json: bool
) -> int:
    """Print every value of configurations; passwords are masked.

    NAMES are component/config, may hold * and ?.
    """
    home = ConfigHome.default()
    result = {}
    for component, name in find_flows(home, names):
        config = load_flow(home, component, name, overrides)
        shown = [value for value in show_flow(config) if value.is_set or not only_set]
        result[config.flow] = [_as_json(value) for value in shown]
        if not as_json:
            click.echo(f"# {config.flow}")
            for value in shown:
                click.echo(_as_text(value, with_origin=with_origin))
    if as_json:
        click.echo(json.dumps(result, indent=1))
    return 0


def _as_text(value: Shown, *, with_origin: bool) -> str:
    text = f"{value.key} {value.value}".rstrip()
    return f"{text:<60} # {value.origin}" if with_origin else text


def _as_json(value: Shown) -> dict[str, object]:
    origin = value.origin
    place = {"file": origin.file, "line": origin.line, "column": origin.column}
    return {"option": value.key, "value": value.value, "origin": place}

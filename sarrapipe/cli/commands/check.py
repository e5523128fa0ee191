"""`sarrapipe check`: every problem of the configurations, as file:line:column."""

from __future__ import annotations

import dataclasses
import json

import click

from sarrapipe.config.flags import flow_options
from sarrapipe.config.load import ConfigHome, Overrides
from sarrapipe.config.report import check_flows
from sarrapipe.errors import ConfigError

__all__ = ["command"]


@click.command()
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@flow_options
def command(names: tuple[str, ...], overrides: Overrides = (), *, as_json: bool) -> int:
    """Say everything that is wrong with configurations; exit 78 if a flow could not run.

    NAMES are component/config, may hold * and ?; without any, all configurations are checked.
    """
    findings = check_flows(ConfigHome.default(), names, overrides)
    errors = sum(finding.severity == "error" for finding in findings)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            click.echo(str(finding))
        if not findings:
            click.echo("ok: nothing wrong")
    return ConfigError.code if errors else 0

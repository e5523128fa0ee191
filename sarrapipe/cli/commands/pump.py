"""`sarrapipe pump up|down|status`: a private broker and data server in one directory."""

from __future__ import annotations

import json
import os
from typing import Final

import click

from sarrapipe.pump.localpump import LocalPump, PumpInfo, PumpOptions, PumpStatus
from sarrapipe.units import parse_duration_s

__all__ = ["command"]

_DEFAULT_DIRECTORY: Final = "~/.cache/sarra/pump"
_PORT_NAMES: Final = ("amqp", "amqps", "management", "distribution", "epmd", "http")

_directory = click.option(
    "--dir",
    "directory",
    default=_DEFAULT_DIRECTORY,
    show_default=True,
    help="Where the pump lives: data, logs, accounts.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def command() -> None:
    """Run a private pump on loopback: RabbitMQ and nginx, with accounts, in one directory."""


@command.command()
@_directory
@click.option("--source", "sources", multiple=True, help="Account that may post.  [default: tsource]")
@click.option("--subscriber", "subscribers", multiple=True, help="Account that may read.  [default: tsub]")
@click.option(
    "--port", "ports", multiple=True, metavar="NAME=N", help=f"Fix a port: {', '.join(_PORT_NAMES)}."
)
@click.option("--tls", is_flag=True, help="Listen for amqps too, with a certificate made here.")
@click.option("--consumer-timeout", metavar="DURATION", help="End consumers that hold a message longer.")
@_json
def up(
    directory: str,
    *,
    sources: tuple[str, ...],
    subscribers: tuple[str, ...],
    ports: tuple[str, ...],
    tls: bool,
    consumer_timeout: str | None,
    as_json: bool,
) -> None:
    """Start what does not run and wait until it serves; safe to repeat."""
    options = PumpOptions(
        sources=sources,
        subscribers=subscribers,
        ports=tuple(_parse_port(text) for text in ports),
        tls=tls,
        consumer_timeout_s=None if consumer_timeout is None else _parse_duration(consumer_timeout),
    )
    info = _pump(directory).up(options)
    click.echo(json.dumps(info.to_json()) if as_json else _describe(info))


@command.command()
@_directory
@_json
def down(directory: str, *, as_json: bool) -> None:
    """Stop every process of the pump; its data stay."""
    pump = _pump(directory)
    pump.down()
    if as_json:
        click.echo(json.dumps(_status_json(pump, pump.status())))


@command.command()
@_directory
@_json
def status(directory: str, *, as_json: bool) -> int:
    """Tell what runs: exit status 0 all of it, 1 a part, 3 nothing."""
    pump = _pump(directory)
    found = pump.status()
    if as_json:
        click.echo(json.dumps(_status_json(pump, found)))
    else:
        for name, pid in found.running.items():
            click.echo(f"{name:<10} {'not running' if pid is None else f'running, pid {pid}'}")
        if found.exists:
            click.echo(_describe(pump.info()))
    return found.exit_code


def _pump(directory: str) -> LocalPump:
    return LocalPump(os.path.expanduser(directory), lambda line: click.echo(line, err=True))


def _status_json(pump: LocalPump, found: PumpStatus) -> dict[str, object]:
    details = pump.info().to_json() if found.exists else {"directory": pump.directory}
    return {"exists": found.exists, "running": dict(found.running), **details}


def _describe(info: PumpInfo) -> str:
    users = ", ".join(f"{name} ({account.role.value})" for name, account in info.users.items())
    lines = [
        f"broker     amqp://127.0.0.1:{info.amqp_port}/",
        f"data       {info.http_url} serves {info.document_root}",
        f"management http://127.0.0.1:{info.management_port}/",
        f"users      {users}",
        f"passwords  {info.config_home}/credentials.conf",
    ]
    if info.amqps_port is not None:
        lines.insert(1, f"with TLS   amqps://localhost:{info.amqps_port}/ (authority {info.authority})")
    return "\n".join(lines)


def _parse_port(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if name not in _PORT_NAMES or not number.isascii() or not number.isdigit() or not 0 < int(number) < 65536:
        raise click.BadParameter(
            f"{text!r}: NAME=N with {', '.join(_PORT_NAMES)} and 1-65535", param_hint="--port"
        )
    return name, int(number)


def _parse_duration(text: str) -> float:
    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--consumer-timeout") from error

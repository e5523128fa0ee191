"""`sarrapipe list options`: every option, with type, default and help."""

from __future__ import annotations

import json

import click

from sarrapipe.config.report import OptionRow, option_rows

__all__ = ["command"]


@click.command(name="options")
@click.argument("words", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def command(words: tuple[str, ...], *, as_json: bool) -> int:
    """List the options of the configuration files; WORDS keep those whose name or help holds one of them."""
    rows = option_rows(words)
    if as_json:
        click.echo(json.dumps([row._asdict() for row in rows], indent=1))
        return 0
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            click.echo(f"\n{section}\n")
        click.echo(_as_text(row))
    return 0 if rows else 1


def _as_text(row: OptionRow) -> str:
    head = f"  {row.key} {row.metavar}".rstrip()
    facts = f"default {row.default or 'none'}; {row.flag}" if row.flag else ""
    wrapped = click.wrap_text(row.help, width=100, initial_indent="      ", subsequent_indent="      ")
    return f"{head:<50} {facts}".rstrip() + f"\n{wrapped}"

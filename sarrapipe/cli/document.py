"""Write docs/reference/commands.md from the commands themselves.

python -m sarrapipe.cli.document > docs/reference/commands.md
"""

from __future__ import annotations

import inspect

import click

from sarrapipe.cli.main import COMMANDS, cli

__all__ = ["reference"]

_HEAD = """# Commands

Generated from the commands; `make docs` writes it, `make docs-check` compares it. `-h` after any command
prints the same. Options that set a value of a configuration are left out here: each option of [the
configuration](options.md) is a flag of `run`, `start`, `post`, `check` and `show` as well.

## Exit statuses

| status | meaning |
|---|---|
| 0 | done; all well |
| 1 | `status`: something is not well; `post`: something was not announced; `ledger check`: inconsistent |
| 2 | wrong usage; `status`: something is down |
| 69 | another parent runs, or nobody answers |
| 74 | the ledger or kept store cannot be used |
| 78 | the configuration is at fault |
| 128 + n | ended by signal n |
"""


def reference() -> str:
    """Return the page."""
    context = click.Context(cli, info_name="sarrapipe")
    parts = [_HEAD]
    for name in sorted(COMMANDS):
        command = cli.get_command(context, name)
        assert command is not None
        parts += _described(command, f"sarrapipe {name}", context)
    return "\n".join(parts).rstrip() + "\n"


def _described(command: click.Command, title: str, parent: click.Context) -> list[str]:
    """Return the sections of a command and of its subcommands."""
    context = click.Context(command, info_name=title.rpartition(" ")[2], parent=parent)
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [f"## {title}\n", f"    {title} {usage}\n", inspect.cleandoc(command.help or "") + "\n"]
    rows = [record for option in _own_options(command) if (record := option.get_help_record(context))]
    if rows:
        parts.append("| option | |\n|---|---|")
        parts += [f"| `{flags}` | {_one_line(text)} |" for flags, text in rows]
        parts.append("")
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            parts += _described(inner, f"{title} {name}", context)
    return parts


def _own_options(command: click.Command) -> list[click.Option]:
    """Return a command's options that are not values of a configuration."""
    return [
        option
        for option in command.params
        if isinstance(option, click.Option) and option.expose_value and not option.hidden
    ]


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    click.echo(reference(), nl=False)

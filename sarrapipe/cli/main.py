"""The `sarrapipe` command: verbs are found by name and imported when called.

Start-up time is part of the contract (`status` answers within 0.3 s), so this module imports nothing but
click and the errors. Exit codes: 0 done, 1 something is not well (`status`) or differs, 2 wrong usage, 69
another parent or nobody answers, 74 storage, 78 configuration (sysexits.h); a command ended by a signal exits
128 + n.
"""

from __future__ import annotations

import importlib
import sys
from typing import Final

import click

from sarrapipe import __version__
from sarrapipe.errors import ConfigError, SarrapipeError

__all__ = ["COMMANDS", "cli", "console", "main"]

# verb -> module that exports `command`
COMMANDS: Final = {
    "check": "sarrapipe.cli.commands.check",
    "cleanup": "sarrapipe.cli.commands.cleanup",
    "declare": "sarrapipe.cli.commands.declare",
    "foreground": "sarrapipe.cli.commands.foreground",
    "ledger": "sarrapipe.cli.commands.ledger",
    "list": "sarrapipe.cli.commands.list",
    "log": "sarrapipe.cli.commands.log",
    "post": "sarrapipe.cli.commands.post",
    "pump": "sarrapipe.cli.commands.pump",
    "reload": "sarrapipe.cli.commands.reload",
    "restart": "sarrapipe.cli.commands.restart",
    "run": "sarrapipe.cli.commands.run",
    "scale": "sarrapipe.cli.commands.scale",
    "show": "sarrapipe.cli.commands.show",
    "start": "sarrapipe.cli.commands.start",
    "status": "sarrapipe.cli.commands.status",
    "stop": "sarrapipe.cli.commands.stop",
}


class _LazyGroup(click.Group):
    """A group whose commands are imported only when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return every verb, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return one verb; None if there is no such verb."""
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        command = importlib.import_module(module).command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest verb when the one given does not exist."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "; see 'sarrapipe -h'"
            ctx.fail(f"no such command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="sarrapipe")
def cli() -> None:
    """Move very large numbers of files, and very large files, announced over AMQP."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command line; print errors that are a person's to mend as one line each.

    Args:
        arguments: What follows the program's name; None takes `sys.argv`.

    Returns:
        The exit status (see the module's head).
    """
    try:
        result = cli.main(arguments, prog_name="sarrapipe", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("sarrapipe: interrupted", err=True)
        return 130
    except ConfigError as error:
        click.echo(str(error), err=True)
        return error.code
    except SarrapipeError as error:
        click.echo(f"sarrapipe: {error}", err=True)
        return error.code if error.code < 128 else 1
    except BrokenPipeError:
        sys.stderr.close()  # the reader went away: nobody is left to tell
        return 141
    return result if isinstance(result, int) else 0


def console() -> None:
    """Entry point of the installed `sarrapipe` script."""
    sys.exit(main())

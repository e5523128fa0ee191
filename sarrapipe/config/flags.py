"""Every option as a flag of the command line, made from the same record as the file key.

    @click.command()
    @flow_options
    def command(overrides: Overrides) -> int: ...

The only module here that knows click; the path of a running flow does not import it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final, ParamSpec, Protocol, TypeVar

import click

from sarrapipe.config.model import option_specs
from sarrapipe.config.option import OptionSpec
from sarrapipe.config.statements import STATEMENTS, Statement

__all__ = ["flow_options"]

P = ParamSpec("P")
R = TypeVar("R")

_META_KEY: Final = "sarrapipe.config.overrides"


def flow_options(function: Callable[P, R]) -> Callable[P, R]:
    """Add a flag for each option; the function gets `overrides`, pairs of name and text in the order given.

    `post_baseUrl` is `--post-base-url` and, as sr3 has it, `--post_baseUrl`; a switch has `--no-...` as well.
    `-o NAME=VALUE` sets any option or statement. Flags that are not common are left out of the help, which
    would be pages long: `sarrapipe list options` shows them all.
    """

    @functools.wraps(function)
    def with_overrides(*args: P.args, **kwargs: P.kwargs) -> R:
        kwargs["overrides"] = tuple(click.get_current_context().meta.get(_META_KEY, ()))
        return function(*args, **kwargs)

    decorated: Callable[P, R] = with_overrides
    for spec in reversed(option_specs()):
        decorated = _option_flag(spec)(decorated)
    for statement in reversed(STATEMENTS.values()):
        if statement.flag:
            decorated = _statement_flag(statement)(decorated)
    return _any_option(decorated)


class _Entry(Protocol):
    """What click's parser keeps for the names of a flag."""

    process: Callable[[object, object], None]
    const: object

    @property
    def takes_value(self) -> bool:
        """False for a switch."""
        ...


class _InOrder(click.Option):
    """A flag that takes its place among the others as it was given.

    click hands all values of a repeated flag over at the place of its first one, but the first accept or
    reject line that matches decides, and a subtopic belongs to the exchange before it. So values are noted
    down where click's parser meets them.

    Args:
        declarations: Names, as click wants them.
        key: Option or statement it stands for; "" for `NAME=VALUE`.
        settings: For click.
    """

    def __init__(self, declarations: Sequence[str], key: str = "", **settings: Any) -> None:  # noqa: ANN401 - as click has them
        super().__init__(declarations, expose_value=False, **settings)
        self._key = key

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:  # noqa: ANN401 - no public type
        """Register with click's parser."""
        super().add_to_parser(parser, ctx)
        names = (*self.opts, *self.secondary_opts)
        met = [parser._long_opt.get(name) or parser._short_opt.get(name) for name in names]
        for entry in {id(entry): entry for entry in met}.values():
            self._listen(entry, ctx)

    def _listen(self, entry: _Entry, ctx: click.Context) -> None:
        pairs: list[tuple[str, str]] = ctx.meta.setdefault(_META_KEY, [])
        plain = entry.process

        def process(value: object, state: object) -> None:
            plain(value, state)
            text = str(value) if entry.takes_value else "on" if entry.const else "off"
            pairs.append(self._pair(text, ctx))

        entry.process = process

    def _pair(self, text: str, ctx: click.Context) -> tuple[str, str]:
        if self._key:
            return self._key, text
        key, equals, rest = text.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{text!r}: write NAME=VALUE", ctx, self)
        return key, rest


def _option_flag(spec: OptionSpec) -> Callable[[Callable[P, R]], Callable[P, R]]:
    names = dict.fromkeys((spec.flag, f"--{spec.key}"))
    parameter = f"option_{spec.attribute}"  # apart from the names of a command's own parameters
    if spec.kind.name == "flag":
        switches = [f"{name}/--no-{name[2:]}" for name in names]
        return click.option(
            *switches, parameter, cls=_InOrder, key=spec.key, default=None, hidden=not spec.common,
            help=spec.help,
        )  # fmt: skip
    return click.option(
        *names, parameter, cls=_InOrder, key=spec.key, default=None, metavar=spec.kind.metavar,
        hidden=not spec.common, multiple=spec.kind.accumulates, help=spec.help,
    )  # fmt: skip


def _statement_flag(statement: Statement) -> Callable[[Callable[P, R]], Callable[P, R]]:
    return click.option(
        f"--{statement.key}", f"statement_{statement.key}", cls=_InOrder, key=statement.key,
        metavar=statement.syntax, multiple=True, help=statement.help,
    )  # fmt: skip


def _any_option(function: Callable[P, R]) -> Callable[P, R]:
    return click.option(
        "-o", "--option", "any_options", cls=_InOrder, metavar="NAME=VALUE", multiple=True,
        help="Set any option of the configuration files ('sarrapipe list options').",
    )(function)  # fmt: skip

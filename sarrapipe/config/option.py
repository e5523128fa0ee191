"""The record of one declared option: from it come file key, flag, type, default, check, help and docs.

An option is a field of one of the `options_*` dataclasses, so that type checkers know its type:

    prefetch: int = option(count, 25, section="broker", help="Messages a consumer may hold unacknowledged.")

`declared()` lists the records of a class. Nothing here reads files or knows what an option is for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

__all__ = ["UNSET", "Kind", "OptionSpec", "by_key", "declared", "option"]

T = TypeVar("T")
_METADATA_KEY: Final = "sarrapipe.option"


class _Unset:
    """The type of `UNSET`: no value of its own."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = _Unset()


@dataclasses.dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """How the text of a value becomes a value, and back.

    Attributes:
        name: What the documentation calls it.
        metavar: What stands for a value in help texts.
        parse: Takes the text and the value so far (for lists and sets); raises ValueError.
        format: Writes a value as the configuration file would.
        bare: What an option without a value means; None where a value is needed.
        accumulates: A further line adds to the value instead of replacing it.
        template: The text may hold variables that only a message decides, such as `${SOURCE}`.
        literal: Variables are replaced late, once it is known for which broker (queue names).
        path: A path: `~` is the home directory, and a relative one begins at the current directory.
    """

    name: str
    metavar: str
    parse: Callable[[str, T], T]
    format: Callable[[T], str]
    bare: str | None = None
    accumulates: bool = False
    template: bool = False
    literal: bool = False
    path: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class OptionSpec:
    """One declared option.

    Attributes:
        attribute: Name of the field in `FlowConfig`.
        key: Name in configuration files.
        kind: Type of its values.
        default: Value of `defaults native` where no line sets another.
        sr3: Value of `defaults sr3`; the same unless sr3 3.03.01 differs.
        section: Heading in the documentation.
        help: What it does, with unit.
        common: Shown in the help of commands; the others are flags too, and listed by `list options`.
    """

    attribute: str
    key: str
    kind: Kind[Any]
    default: Any
    sr3: Any
    section: str
    help: str
    common: bool

    @property
    def flag(self) -> str:
        """The flag of the command line: `post_baseUrl` is `--post-base-url`."""
        return "--" + self.attribute.replace("_", "-")


def option(
    kind: Kind[T],
    default: T,
    *,
    section: str,
    help: str,
    key: str = "",
    sr3: T | _Unset = UNSET,
    common: bool = False,
) -> T:
    """Declare an option as a dataclass field.

    Args:
        kind: Type of its values.
        default: Its value where nothing sets another.
        section: Heading in the documentation.
        help: One or two sentences with unit and effect.
        key: Its name in configuration files, where that is not the field's name in camelCase.
        sr3: Its default under `defaults sr3`, where that differs.
        common: Show it in the help of commands.

    Returns:
        A dataclass field, typed as the value for the type checker's sake.
    """
    sr3_default = default if isinstance(sr3, _Unset) else sr3
    spec = OptionSpec("", key, kind, default, sr3_default, section, help, common)
    # A factory, because dataclasses refuse read-only mappings as plain defaults.
    field: T = dataclasses.field(
        default_factory=lambda: default, metadata={_METADATA_KEY: spec}, kw_only=True
    )
    return field


def _camel(attribute: str) -> str:
    """Return `topic_prefix` as `topicPrefix`; the prefix `post_` stays apart, as sr3 has it."""
    prefix, rest = ("post_", attribute[5:]) if attribute.startswith("post_") else ("", attribute)
    first, *others = rest.split("_")
    return prefix + first + "".join(word.capitalize() for word in others)


@lru_cache(maxsize=8)
def declared(owner: type) -> tuple[OptionSpec, ...]:
    """Return the options declared by a dataclass and its bases, in order of declaration."""
    found = []
    for field in dataclasses.fields(owner):
        spec = field.metadata.get(_METADATA_KEY)
        if isinstance(spec, OptionSpec):
            key = spec.key or _camel(field.name)
            found.append(dataclasses.replace(spec, attribute=field.name, key=key))
    return tuple(found)


@lru_cache(maxsize=8)
def by_key(owner: type) -> dict[str, OptionSpec]:
    """Return the options of a dataclass by their name in configuration files."""
    return {spec.key: spec for spec in declared(owner)}

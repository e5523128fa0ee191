"""What has been read so far of a configuration: mutable, owned by the evaluator, made final by build.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sarrapipe.config.parse import Line
from sarrapipe.config.urls import BrokerUrl
from sarrapipe.config.values import CallbackSpec, Origin, Problem, Role, Strip
from sarrapipe.errors import ConfigError

__all__ = ["Draft", "DraftBinding", "DraftMask", "DraftRule"]


@dataclass(frozen=True, slots=True)
class DraftRule:
    """Placement as it stood when an accept or reject line was read; texts may hold variables.

    Attributes:
        line: The line that set the directory, None for the default.
    """

    directory: str
    mirror: bool
    strip: Strip
    flatten: str
    filename: str | None
    line: Line | None


@dataclass(frozen=True, slots=True)
class DraftMask:
    """One accept or reject line and what it captured."""

    accept: bool
    regex: str
    rule: DraftRule
    arguments: tuple[str, ...]
    line: Line


@dataclass(frozen=True, slots=True)
class DraftBinding:
    """One subtopic line and what it captured.

    Attributes:
        broker: The broker above it; None means the first below it.
        exchange: The exchange above it; None means the default.
        queue_name: The queue name above it; None means the one below it, or the default.
        subtopic: The pattern; None binds nothing.
        whole: The pattern is the whole topic.
    """

    broker: BrokerUrl | None
    broker_origin: Origin
    exchange: str | None
    exchange_suffix: str | None
    queue_name: str | None
    topic_prefix: tuple[str, ...]
    subtopic: str | None
    whole: bool
    line: Line


@dataclass(slots=True)
class Draft:
    """Everything read so far.

    Attributes:
        values: Option values by field name.
        origins: Where each comes from.
        lines: The line that set each option set by a line.
        pinned: Fields that the command line has set: files no longer change them.
        env: Variables of `declare env`.
        options: Names of `declare option`.
    """

    values: dict[str, Any]
    origins: dict[str, Origin]
    lines: dict[str, Line] = field(default_factory=dict)
    pinned: set[str] = field(default_factory=set)
    env: dict[str, str] = field(default_factory=dict)
    options: set[str] = field(default_factory=set)
    masks: list[DraftMask] = field(default_factory=list)
    bindings: list[DraftBinding] = field(default_factory=list)
    callbacks: list[CallbackSpec] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    users: dict[str, Role] = field(default_factory=dict)
    exchanges: list[str] = field(default_factory=list)
    unknown: list[Line] = field(default_factory=list)
    errors: list[ConfigError] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def warn(self, what: str, line: Line) -> None:
        """Note something a person should know."""
        self.warnings.append(Problem(what, line.origin))

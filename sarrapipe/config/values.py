"""Values of options that are more than a number or a text, and what a configuration is made of.

Everything here is frozen and knows no files. Sources: sr3-surface.md 2.4, 3.3; wire.md 1.3, 4.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from sarrapipe.config.urls import BrokerUrl

__all__ = [
    "Binding",
    "CallbackSpec",
    "Fetching",
    "IdentityChoice",
    "Inflight",
    "InflightMode",
    "Origin",
    "Problem",
    "Role",
    "Strip",
    "Subscription",
]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from.

    Attributes:
        file: Path of a file, "command line", or the words for a default ("default", "subscribe default").
        line: Line number from 1; 0 where there is none.
        column: Column number from 1; 0 where there is none.
    """

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something a person should know about a configuration, though the flow can run with it."""

    what: str
    origin: Origin

    def __str__(self) -> str:
        return f"{self.origin}: {self.what}"


class Fetching(enum.IntEnum):
    """The value of `download`; true where files are fetched or sent."""

    OFF = 0
    ON = 1
    STREAM = 2
    """From server to server, through memory alone."""


class InflightMode(enum.Enum):
    """How a file under way is told from a whole one."""

    HIDDEN = "native"
    """In one hidden directory per destination file system (design: files appear when whole)."""
    SUFFIX = "suffix"
    """Beside the target, with a suffix such as `.tmp`."""
    PREFIX = "prefix"
    """Beside the target, hidden by a leading dot."""
    DIRECTORY = "directory"
    """In a directory: relative to the target's directory, or absolute."""
    AGE = "age"
    """In place; readers wait until the file has not changed for a while."""
    NONE = "none"
    """In place, under its final name."""


@dataclass(frozen=True, slots=True)
class Inflight:
    """The value of `inflight`.

    Attributes:
        mode: Which method.
        text: The suffix, prefix or directory.
        age_s: Seconds a file must be unchanged, with `AGE`.
    """

    mode: InflightMode
    text: str = ""
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class IdentityChoice:
    """The value of `identity`: how announced files are identified (wire.md 1.3).

    Attributes:
        method: none, md5, sha512, xxh3_128, random, arbitrary or cod.
        value: The text of `arbitrary`; the algorithm of `cod`.
    """

    method: str
    value: str = ""

    def __str__(self) -> str:
        return f"{self.method},{self.value}" if self.value else self.method


@dataclass(frozen=True, slots=True)
class Strip:
    """The value of `strip`: leading path elements to drop, or a regular expression to cut out.

    Attributes:
        count: Number of leading elements to drop.
        pattern: Regular expression whose first match in the path is cut out; "" if `count` rules.
    """

    count: int = 0
    pattern: str = ""

    def __str__(self) -> str:
        return self.pattern or str(self.count)


class Role(enum.Enum):
    """What an account of the broker is for (R27, R127-R131)."""

    ADMIN = "admin"
    FEEDER = "feeder"
    SOURCE = "source"
    SUBSCRIBER = "subscriber"


@dataclass(frozen=True, slots=True)
class CallbackSpec:
    """A callback a configuration asks for; loading it is the callbacks package's work.

    Attributes:
        name: What the line says: `log`, `accept.hourtree`, or a full class name.
        statement: callback, flowcb or import, the last only while a configuration is read.
        prepend: Goes before those named so far.
        origin: The line.
    """

    name: str
    statement: str
    prepend: bool
    origin: Origin


@dataclass(frozen=True, slots=True)
class Binding:
    """One binding of a queue to a topic exchange.

    Attributes:
        exchange: Name of the exchange.
        topic_prefix: Leading words of the topic, such as `("v03",)`.
        subtopic: The rest of the pattern, such as `20160504.#`.
    """

    exchange: str
    topic_prefix: tuple[str, ...]
    subtopic: str

    @property
    def routing_key(self) -> str:
        """The binding key (wire.md 1.6)."""
        return ".".join((*self.topic_prefix, self.subtopic))


@dataclass(frozen=True, slots=True)
class Subscription:
    """A queue at a broker, and what is bound to it.

    Attributes:
        broker: The broker, with password.
        queue_name: Name of the queue, every variable replaced.
        bindings: What the queue shall be bound to; none with `subtopic None`.
        origin: The line that named the broker.
    """

    broker: BrokerUrl
    queue_name: str
    bindings: tuple[Binding, ...]
    origin: Origin = field(compare=False)

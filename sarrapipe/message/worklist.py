"""What travels through gather, filter, work and post, and the lists it is on.

A `WorkItem` is one message under way with everything this process knows of it; callbacks see it as a
dictionary of the wire fields. Every item is on exactly one list of a `Worklist`.

>>> item = WorkItem(Message({"pubTime": "20231114T221320", "baseUrl": "http://h", "relPath": "a"}))
>>> item["relPath"] = "b"; item["_seen"] = True
>>> item.message.rel_path, item.local
('b', {'_seen': True})

Source: requirements R34-R38, sr3-surface.md 2.2 (what callbacks may set), wire.md 1.2 (what stays local).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from sarrapipe.errors import MessageError
from sarrapipe.message.fields import canonical, is_local
from sarrapipe.message.model import Message

__all__ = ["Delivery", "Report", "Shared", "Waited", "WorkItem", "Worklist"]


class Waited(NamedTuple):
    """How often a message failed and waited at the broker, and wall time of the first failure."""

    attempts: int
    since_ns: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as it came from a queue.

    Attributes:
        body: Undecoded.
        headers: The application headers, as the client library decoded them.
        content_type: The AMQP property, a hint only.
        exchange: The exchange it was published to.
        routing_key: The topic.
        redelivered: The broker says it may have been delivered before.
        tag: Delivery tag; valid on `broker` in `epoch` only.
        broker: Key of the session, without password.
        epoch: Number of the connection of that session.
        waited: Where it failed before and waited at the broker since; else None.
    """

    body: bytes
    headers: Mapping[str, object]
    content_type: str | None
    exchange: str
    routing_key: str
    redelivered: bool
    tag: int
    broker: str
    epoch: int
    waited: Waited | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """How an item ended: a code of wire.md 3.1 and a sentence."""

    code: int
    message: str


class Shared:
    """One delivery that several items stand for: it is answered with the last of them.

    Attributes:
        left: Items not yet answered.
        is_returned: It was kept or given back for one of them: the others have nothing left to acknowledge.
    """

    __slots__ = ("is_returned", "left")

    def __init__(self, items: int) -> None:
        self.left = items
        self.is_returned = False

    def answer(self) -> bool:
        """One of the items is answered: return whether the delivery is, now."""
        self.left -= 1
        return self.left == 0 and not self.is_returned

    def give_back(self) -> bool:
        """One of the items could not be announced: return whether the delivery is to be kept, now."""
        first, self.is_returned = not self.is_returned, True
        return first


class WorkItem(MutableMapping[str, object]):
    """One message under way.

    As a mapping it shows the wire fields and the local ones. Setting a wire field replaces `message`; setting
    a field that never goes on the wire (leading `_`, `new_*` and others, `fields.is_local`) goes to `local`.
    A value that cannot be a field's raises MessageError there and then, in the callback that set it. Setting
    `report` sets how the item ended; a report that came on the wire stays what it is.

    Attributes:
        message: The announcement as it stands now.
        delivery: How it arrived; None for what this process found itself.
        target: Absolute local path; "" until the filter chose it.
        attempts: Transfers tried.
        since_s: Monotonic time since which this process has it in hand.
        report: How it ended, once it did.
        kept: Key in the kept store, if it was put there.
        shared: Where a callback made several items of one message; None where it is the only one.
        local: Fields of callbacks, never sent.
    """

    __slots__ = ("attempts", "delivery", "kept", "local", "message", "report", "shared", "since_s", "target")

    def __init__(self, message: Message, delivery: Delivery | None = None, target: str = "") -> None:
        self.message = message
        self.delivery = delivery
        self.target = target
        self.attempts = 0
        self.since_s = 0.0
        self.report: Report | None = None
        self.kept: bytes | None = None
        self.shared: Shared | None = None
        self.local: dict[str, object] | None = None

    def __getitem__(self, key: str) -> object:
        if self.local is not None and key in self.local:
            return self.local[key]
        if key == "report" and self.report is not None:
            return {"code": self.report.code, "message": self.report.message}
        if key in self.message:
            return self.message[key]
        if key == "exchange" and self.delivery is not None:
            return self.delivery.exchange
        if key == "subtopic":
            return self.message.rel_path.split("/")[:-1]
        raise KeyError(key)

    def __setitem__(self, key: str, value: object) -> None:
        if key == "report":
            self.report = _as_report(value)
        elif not is_local(key):
            self.message = self.message.replace(**{key: canonical(key, value)})
        elif self.local is None:
            self.local = {key: value}
        else:
            self.local[key] = value

    def __delitem__(self, key: str) -> None:
        if self.local is not None and key in self.local:
            del self.local[key]
        elif key in self.message:
            self.message = self.message.replace(**{key: None})
        else:
            raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return chain(self.message, self.local) if self.local else iter(self.message)

    def __len__(self) -> int:
        return len(self.message) + len(self.local or ())

    def __contains__(self, key: object) -> bool:
        return key in self.message or (self.local is not None and key in self.local)

    # Items are told apart by identity, not by content: two may carry equal messages.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"WorkItem({self.message!r}, target={self.target!r}, attempts={self.attempts})"


def _as_report(value: object) -> Report | None:
    """Return the report that a callback sets as sr3's do, as `{code, message}`."""
    if value is None or isinstance(value, Report):
        return value
    if isinstance(value, Mapping):
        code, message = value.get("code"), value.get("message")
        if type(code) is int and isinstance(message, str):
            return Report(code, message)
    raise MessageError(f"report: {value!r:.60} is not code and message")


@dataclass(slots=True)
class Worklist:
    """The items of one turn of the flow; every item is on exactly one list.

    Attributes:
        incoming: To be filtered, then to be worked on.
        ok: Done; to be announced and acknowledged.
        rejected: Not wanted; to be acknowledged and counted.
        failed: To be tried again.
        directories_ok: Directories made on the way.
    """

    incoming: list[WorkItem] = field(default_factory=list)
    ok: list[WorkItem] = field(default_factory=list)
    rejected: list[WorkItem] = field(default_factory=list)
    failed: list[WorkItem] = field(default_factory=list)
    directories_ok: list[WorkItem] = field(default_factory=list)

    def __iter__(self) -> Iterator[WorkItem]:
        return chain(self.incoming, self.ok, self.rejected, self.failed, self.directories_ok)

    def __len__(self) -> int:
        return sum(map(len, (self.incoming, self.ok, self.rejected, self.failed, self.directories_ok)))

    def reject(self, item: WorkItem, code: int, message: str) -> None:
        """Put an item that the caller took from its list on `rejected`, with its report."""
        item.report = Report(code, message)
        self.rejected.append(item)

    def lost(self, before: Iterable[WorkItem]) -> list[WorkItem]:
        """Return the items of `before` that are on no list any more: a callback dropped them."""
        here = set(map(id, self))
        return [item for item in before if id(item) not in here]

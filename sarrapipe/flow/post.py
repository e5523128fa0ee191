"""Post: announce what was done to the next hop, and learn which announcements the broker has.

An announcement of a pump is the message it received, pointing to this pump: `baseUrl` becomes `post_baseUrl`,
`relPath` the path below `post_baseDir`, and the identity the one computed where that was asked for. All other
fields go on as they came (R64). Nothing is ever waited for: `publish` takes what the confirm window has room
for and keeps the rest, `outcomes` returns what was decided since the last call.

Source: C, Flow Algorithm (post); R45, R54-R56, R68; wire.md 1.2, 1.6, 1.7.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from sarrapipe.broker.publisher import Outgoing, Publisher
from sarrapipe.clock import Clock
from sarrapipe.config.model import FlowConfig
from sarrapipe.config.placement import Announcer
from sarrapipe.errors import MessageError
from sarrapipe.message import topics
from sarrapipe.message.codec import CONTENT_TYPES, FORMATS
from sarrapipe.message.model import Message
from sarrapipe.message.worklist import Report, WorkItem

__all__ = ["Outlet", "Posted", "Writer"]

_AGAIN_AFTER_S: Final = 1.0
"""Pause before an announcement that the broker did not take is sent once more."""


class Posted(NamedTuple):
    """What became of announcements."""

    confirmed: list[WorkItem]
    """The broker has them."""
    refused: list[WorkItem]
    """Can never be announced: the report says why."""
    unconfirmed: int
    """So many the broker did not take for now; they are announced again."""


class Writer:
    """How a flow's announcements look. Pure but for the clock.

    Args:
        config: The flow's configuration.
        clock: Source of time.
        relays: Whether items come from others and now point to this pump.
    """

    def __init__(self, config: FlowConfig, clock: Clock, *, relays: bool) -> None:
        self._config = config
        self._clock = clock
        self._relays = relays
        self._announcer = Announcer(config)
        self._encode = FORMATS[config.post_format]
        self._content_type = CONTENT_TYPES[config.post_format]
        self._prefix = config.post_topic_prefix or (
            ("v02", "post") if config.post_format == "v02" else ("v03",)
        )
        self._exchange = config.post_exchange or ""
        self._expiration_ms = int(config.post_message_age_max * 1000) or None
        self._directory: str | None = None  # consecutive announcements mostly share their directory
        self._topic_of_directory = ""

    def outgoing(self, item: WorkItem) -> Outgoing:
        """Return what is handed to the broker for an item.

        Raises:
            MessageError: The message cannot be written in the dialect asked for (final, not to be retried).
        """
        message = self._next_hop(item) if self._relays else item.message
        body, headers = self._encode(message)
        return Outgoing(
            self._exchange,
            self._topic(item, message),
            body,
            headers,
            self._content_type,
            self._config.persistent,
            self._expiration_ms,
            item,
        )

    def _next_hop(self, item: WorkItem) -> Message:
        """Return the announcement of a received item as this pump makes it."""
        message = item.message
        now_ns = self._clock.wall_ns()
        changes: dict[str, object] = {}
        base_url = self._announcer.base_url(message, (), now_ns)
        if base_url is not None:
            changes["baseUrl"] = base_url
        if item.target:
            rel_path = self._announcer.rel_path(item.target, message, (), now_ns)
            if rel_path != message.rel_path:
                changes["relPath"] = rel_path
        for name in ("retrievePath", "rename"):
            if name in message:
                changes[name] = None
        rename = self._announcer.rename(str(changes.get("relPath", message.rel_path)), message, now_ns)
        if rename is not None:
            changes["rename"] = rename
        return message.replace(**changes) if changes else message

    def _topic(self, item: WorkItem, message: Message) -> str:
        if self._config.topic_copy and item.delivery is not None:
            return item.delivery.routing_key
        directory = message.rel_path.rpartition("/")[0]
        if directory != self._directory:
            self._directory = directory
            self._topic_of_directory = topics.topic(self._prefix, message.rel_path)
        return self._topic_of_directory


class Outlet:
    """The publishing end of a flow.

    Args:
        writer: How announcements look.
        publisher: Where they go.
        clock: Source of time.
    """

    def __init__(self, writer: Writer, publisher: Publisher, clock: Clock) -> None:
        self._writer = writer
        self._publisher = publisher
        self._clock = clock
        self._waiting: deque[Outgoing] = deque()
        self._again: list[tuple[float, WorkItem]] = []
        self._refused: list[WorkItem] = []
        self.outstanding = 0

    @property
    def backlog(self) -> int:
        """Announcements not yet handed to the broker."""
        return len(self._waiting) + len(self._again)

    def publish(self, items: Iterable[WorkItem]) -> None:
        """Announce items; what cannot be expressed in the dialect comes out of `outcomes` as refused."""
        writer, waiting = self._writer, self._waiting
        for item in items:
            try:
                waiting.append(writer.outgoing(item))
            except MessageError as error:
                item.report = Report(error.code, str(error))
                self._refused.append(item)
            else:
                self.outstanding += 1
        self._flush()

    def outcomes(self) -> Posted:
        """Return what became of announcements since the last call, and hand the broker more.

        What was not confirmed is announced again: it may have reached the broker, so it may be announced
        twice, never not at all.
        """
        confirmed: list[WorkItem] = []
        refused, self._refused = self._refused, []
        unconfirmed = 0
        for item, was_confirmed, error in self._publisher.outcomes():
            assert isinstance(item, WorkItem)
            self.outstanding -= 1
            if was_confirmed:
                confirmed.append(item)
            elif isinstance(error, MessageError):
                item.report = Report(error.code, str(error))
                refused.append(item)
            else:
                unconfirmed += 1
                self._again.append((self._clock.monotonic_s() + _AGAIN_AFTER_S, item))
        self._try_again()
        self._flush()
        return Posted(confirmed, refused, unconfirmed)

    def _try_again(self) -> None:
        if not self._again or not self._publisher.room:
            return
        now = self._clock.monotonic_s()
        due = [item for due_s, item in self._again if due_s <= now]
        if due:
            self._again = [entry for entry in self._again if entry[0] > now]
            self.publish(due)

    def _flush(self) -> None:
        room = min(self._publisher.room, len(self._waiting))
        if room > 0:
            self._publisher.publish([self._waiting.popleft() for _ in range(room)])

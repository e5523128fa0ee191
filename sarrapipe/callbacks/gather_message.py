"""Gather notification messages from the queues of a flow.

Deliveries that cannot be decoded are not items: they come out of `take_refused` with the reason, to be
counted and acknowledged, so that a malformed message never blocks a queue (R92, R104).

Source: C, Flow Algorithm (gather.message); R35, R48, R54; wire.md 1.8.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from sarrapipe.broker.consumer import Consumer
from sarrapipe.broker.deadletter import restored
from sarrapipe.callbacks.base import FlowCallback, Gathered
from sarrapipe.config.model import FlowConfig
from sarrapipe.errors import MessageError
from sarrapipe.message.codec import decode
from sarrapipe.message.model import Message
from sarrapipe.message.worklist import Delivery, Report, WorkItem

__all__ = ["GatherMessage"]

# xs_<user> or xs_<user>_<suffix>: who the user is can only be told for the first, and for declared users.
_SOURCE_EXCHANGE_RE: Final = re.compile(r"xs_(.+)")


class GatherMessage(FlowCallback):
    """The queues of a flow.

    Args:
        config: The flow's configuration.
        consumers: One for each subscription.

    Attributes:
        exhausted: Never: a queue has no end.
    """

    exhausted = False

    def __init__(self, config: FlowConfig, consumers: Sequence[Consumer]) -> None:
        super().__init__(config)
        self._config = config
        self._consumers = consumers
        self._refused: list[WorkItem] = []
        self._next = 0
        self._rewrites_source = bool(
            config.source or config.source_from_exchange or not config.source_from_message
        )

    def gather(self, message_count_max: int) -> Gathered:
        """Return what the queues delivered, at most `message_count_max` items, from each queue in turn."""
        items: list[WorkItem] = []
        for _ in self._consumers:
            consumer = self._consumers[self._next]
            self._next = (self._next + 1) % len(self._consumers)
            for delivery in consumer.take(message_count_max - len(items)):
                item = self._received(delivery)
                if item.report is None:
                    items.append(item)
                else:
                    self._refused.append(item)
            if len(items) >= message_count_max:
                break
        return True, items

    def again(self, deliveries: Sequence[Delivery]) -> list[WorkItem]:
        """Return the items of deliveries that came before and were kept, one for each."""
        return [self._received(delivery) for delivery in deliveries]

    def _received(self, delivery: Delivery) -> WorkItem:
        """Return the item of a delivery; one that cannot be decoded has its report set."""
        delivery = restored(delivery)
        try:
            message = decode(delivery.body, delivery.headers, delivery.content_type, delivery.routing_key)
        except MessageError as error:
            item = WorkItem(Message({}), delivery)
            item.report = Report(error.code, str(error))
            return item
        item = WorkItem(message, delivery)
        if self._rewrites_source:
            self._set_source(item)
        return item

    def take_refused(self) -> list[WorkItem]:
        """Return what could not be decoded since the last call, each with its report."""
        refused, self._refused = self._refused, []
        return refused

    def _set_source(self, item: WorkItem) -> None:
        """Say who injected the data, where the message is not to be believed (R54, R84; wire.md 1.8)."""
        config = self._config
        if config.source_from_message and item.message.source is not None and not config.source_from_exchange:
            return
        source = config.source
        if config.source_from_exchange and item.delivery is not None:
            source = _user_of(item.delivery.exchange, config) or source
        if source != item.message.source:
            item.message = item.message.replace(source=source)


def _user_of(exchange: str, config: FlowConfig) -> str | None:
    """Return the user of `xs_<user>` or `xs_<user>_<suffix>`; a declared name decides where to cut."""
    match = _SOURCE_EXCHANGE_RE.fullmatch(exchange)
    if match is None:
        return None
    name = match.group(1)
    candidates = [user for user in config.users if name == user or name.startswith(user + "_")]
    return max(candidates, key=len, default=name)

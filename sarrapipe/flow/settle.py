"""Settle: acknowledge what is durable, keep what is to be tried again; one batch a turn.

A message is acknowledged only after its outcome is durable (design, guarantee 1): settled or rejected in the
ledger, or in the kept store, which is synced before the acknowledgement leaves. A kill between the two leaves
the message in both places; its redelivery is then recognised, or done twice with the same result.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from sarrapipe.clock import Clock
from sarrapipe.crashpoints import passing
from sarrapipe.flow.messageids import message_id
from sarrapipe.ledger.kept import KeptMessage, KeptStore, backoff_s
from sarrapipe.message import codec_v03
from sarrapipe.message.model import Message
from sarrapipe.message.worklist import Delivery, WorkItem

__all__ = ["Acknowledger", "Settlement", "as_delivered"]

_NO_EPOCH: Final = 0
"""The epoch of a delivery that was acknowledged already: no connection has it."""


_REST_S: Final = 60.0
_RESTS: Final = "written; waits for the other blocks of its file"


class Acknowledger(Protocol):
    """What takes acknowledgements: the broker thread."""

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge deliveries, each where it came from."""

    def requeue(self, deliveries: Sequence[Delivery]) -> None:
        """Give deliveries back, each where it came from."""


class Settlement:
    """The end of every item's way.

    Args:
        broker: Takes acknowledgements.
        kept: Keeps what is to be tried again; None for a flow that receives nothing.
        clock: Source of time.

    Attributes:
        acknowledged: Messages acknowledged at the broker, those kept for another attempt among them.
        answered: Messages whose outcome is durable.
    """

    def __init__(self, broker: Acknowledger, kept: KeptStore | None, clock: Clock) -> None:
        self._broker = broker
        self._kept = kept
        self._clock = clock
        self.acknowledged = 0
        self.answered = 0

    def answer(self, items: Iterable[WorkItem]) -> None:
        """Items whose outcome is durable: acknowledge them, or forget them where they are kept."""
        passing("settled")
        acks = []
        keys = []
        for item in items:
            if item.shared is not None and not item.shared.answer():
                continue
            self.answered += 1
            if item.kept is not None:
                keys.append(item.kept)
            elif item.delivery is not None:
                acks.append(item.delivery)
        if keys and self._kept is not None:
            self._kept.delete_many(keys)
        if acks:
            self._broker.ack(acks)
            self.acknowledged += len(acks)

    def retry_later(self, items: Sequence[WorkItem]) -> None:
        """Items that failed for now: keep them with a back-off, then acknowledge.

        Raises:
            NoSpace: Nothing was kept or acknowledged.
        """
        assert self._kept is not None
        items = _of_own_deliveries(items)
        held = [item for item in items if item.kept is not None]
        if held:
            self._kept.release_many([(item.kept, _why(item)) for item in held if item.kept is not None])
        fresh = [item for item in items if item.kept is None and item.delivery is not None]
        if fresh:
            now_ns = self._clock.wall_ns()
            wait_ns = int(backoff_s(1, random.random) * 1e9)
            self._kept.put_many(
                [_entry(item)._replace(attempts=1, due_ns=now_ns + wait_ns) for item in fresh], lease=False
            )
            passing("kept")
            self._ack(fresh)

    def rest(self, items: Sequence[WorkItem]) -> None:
        """Blocks that are written: keep them until their file is settled, then acknowledge.

        Asked about again each minute: a file is found whose owner died, and one that was settled meanwhile.

        Raises:
            NoSpace: Nothing was kept or acknowledged.
        """
        assert self._kept is not None
        held = [item.kept for item in items if item.kept is not None]
        if held:
            self._kept.release_many([(key, _RESTS) for key in held], wait_s=_REST_S)
        fresh = [item for item in items if item.kept is None and item.delivery is not None]
        if fresh:
            due_ns = self._clock.wall_ns() + int(_REST_S * 1e9)
            entries = [_entry(item)._replace(due_ns=due_ns, reason=_RESTS) for item in fresh]
            self._kept.put_many(entries, lease=False)
            passing("kept")
            self._ack(fresh)

    def forget(self, keys: Sequence[bytes]) -> None:
        """Messages that are answered, whoever keeps them."""
        if self._kept is not None:
            self._kept.delete_many(keys)

    def give_back(self, items: Sequence[WorkItem]) -> None:
        """Items that are not begun, or cannot be kept: the broker delivers them again, to whomever.

        Those that were kept before are due again at once.

        Raises:
            NoSpace: Those that were kept before stay leased.
        """
        items = _of_own_deliveries(items)
        fresh = [item.delivery for item in items if item.kept is None and item.delivery is not None]
        if fresh:
            self._broker.requeue(fresh)
        held = [(item.kept, _why(item)) for item in items if item.kept is not None]
        if held and self._kept is not None:
            self._kept.release_many(held, tried=False)

    def keep_early(self, items: Sequence[WorkItem]) -> None:
        """Items under way for so long that the broker would lose patience: keep them, then acknowledge.

        RabbitMQ closes the channel of a consumer that holds a message for `consumer_timeout`
        (https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout).
        """
        assert self._kept is not None
        entries = [_entry(item) for item in items]
        self._kept.put_many(entries, lease=True)
        passing("kept")
        for item, entry in zip(items, entries, strict=True):
            item.kept = entry.key
        self._ack(items)

    def _ack(self, items: Sequence[WorkItem]) -> None:
        deliveries = [item.delivery for item in items if item.delivery is not None]
        self._broker.ack(deliveries)
        self.acknowledged += len(deliveries)

    def take_due(self, limit: int) -> list[tuple[Delivery, KeptMessage]]:
        """Return kept messages that are due, leased, each with a delivery like the one it came with."""
        if self._kept is None or limit <= 0:
            return []
        due = [(_delivery(message), message) for message in self._kept.lease_due(limit)]
        if due:
            passing("leased")
        return due


def as_delivered(message: Message) -> Delivery:
    """Return a delivery like the one that would have brought a message, so that it can be kept.

    There is no connection that it could be acknowledged on.
    """
    body, headers = codec_v03.encode(message)
    return _delivery(KeptMessage(b"", body, headers, "application/json", "", ""))


def _of_own_deliveries(items: Sequence[WorkItem]) -> Sequence[WorkItem]:
    """Return items less those whose delivery goes back with another of them."""
    return [item for item in items if item.shared is None or item.shared.give_back()]


def _why(item: WorkItem) -> str:
    return item.report.message if item.report is not None else ""


def _entry(item: WorkItem) -> KeptMessage:
    delivery = item.delivery
    assert delivery is not None
    return KeptMessage(
        message_id(item.message, delivery.exchange),
        delivery.body,
        dict(delivery.headers),
        delivery.content_type,
        delivery.exchange,
        delivery.routing_key,
        reason=_why(item),
    )


def _delivery(message: KeptMessage) -> Delivery:
    return Delivery(
        body=message.body,
        headers=message.headers,
        content_type=message.content_type,
        exchange=message.exchange,
        routing_key=message.routing_key,
        redelivered=True,
        tag=0,
        broker="",
        epoch=_NO_EPOCH,
    )

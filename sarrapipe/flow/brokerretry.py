"""Messages that failed wait at the broker, so that another host of a shared queue gets them (`retry_driver`).

Each instant at which a process may end: before the broker has confirmed the copy, the message is
unacknowledged and comes again; between the confirm and the acknowledgement there are two of it, which one
host does once and two hosts may do twice; after it, the copy alone waits.
Nothing of it stays on this host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from sarrapipe.broker.consumer import Consumer
from sarrapipe.broker.deadletter import retry_queues, waiting
from sarrapipe.broker.publisher import Outgoing, Publisher
from sarrapipe.broker.topology import QueueSpec
from sarrapipe.clock import Clock
from sarrapipe.config.model import FlowConfig
from sarrapipe.config.values import Fetching
from sarrapipe.crashpoints import passing
from sarrapipe.errors import SarrapipeError
from sarrapipe.flow.settle import Acknowledger
from sarrapipe.log import get_logger
from sarrapipe.message.worklist import Delivery, WorkItem

__all__ = ["BrokerRetry", "Deferred", "queues_of", "uses_broker", "waits_at_broker"]

_log = get_logger(__name__)

_AGAIN_AFTER_S: Final = 1.0
"""Pause before a message that the broker did not take is sent once more; it stays unacknowledged."""


def uses_broker(config: FlowConfig) -> bool:
    """Return whether messages of a flow may wait at the broker.

    Movers of a shared-broker pump forward blocks as blocks, and any of them can fetch what another cannot.
    They read from the broker that they announce at; at somebody else's they could not publish.
    """
    if config.retry_driver != "auto":
        return config.retry_driver == "broker"
    moves_blocks = config.download is not Fetching.OFF and not config.reassemble and config.queue_declare
    own = config.post_broker
    return moves_blocks and own is not None and all(s.broker.key == own.key for s in config.subscriptions)


def waits_at_broker(item: WorkItem, config: FlowConfig) -> bool:
    """Return whether a message waits at the broker if it fails, and is not acknowledged before its end."""
    if item.kept is not None or item.delivery is None or not item.delivery.epoch:
        return False
    if config.retry_driver == "auto":
        return "blocks" in item.message.fields and uses_broker(config)
    return config.retry_driver == "broker"


def queues_of(config: FlowConfig, queue: str) -> tuple[QueueSpec, ...]:
    """Return the queues in which messages of one of the flow's queues wait; none where none do."""
    if not uses_broker(config):
        return ()
    return retry_queues(queue, config.retry_delay, declare=config.queue_declare)


class Deferred(NamedTuple):
    """What became of items that failed."""

    waiting: int
    """So many are on their way to the broker."""
    expired: list[WorkItem]
    """Tried for longer than `retry_ttl`."""
    kept: list[WorkItem]
    """To be kept here."""


class BrokerRetry:
    """The way of one instance's failed messages to the broker.

    Args:
        config: The flow's configuration.
        outlets: For each queue its consumer and the publisher that reaches the queues it waits in.
        broker: Takes acknowledgements.
        clock: Source of time.
    """

    def __init__(
        self,
        config: FlowConfig,
        outlets: Sequence[tuple[Consumer, Publisher]],
        broker: Acknowledger,
        clock: Clock,
    ) -> None:
        self._config = config
        self._outlets = outlets
        self._broker = broker
        self._clock = clock
        self._on_the_way = 0
        self._again: list[tuple[float, Delivery]] = []

    @property
    def held(self) -> int:
        """Messages that the broker has not taken back yet."""
        return self._on_the_way + len(self._again)

    def defer(self, items: Sequence[WorkItem]) -> Deferred:
        """Let items that failed wait at the broker, those that do."""
        expired, kept = [], []
        deliveries = []
        before_ns = self._clock.wall_ns() - int(self._config.retry_ttl * 1e9)
        for item in items:
            delivery = item.delivery
            if delivery is None or not waits_at_broker(item, self._config):
                kept.append(item)
            elif self._config.retry_ttl and delivery.waited and delivery.waited.since_ns < before_ns:
                expired.append(item)
            elif item.shared is None or item.shared.give_back():
                deliveries.append(delivery)
        self._send(deliveries)
        return Deferred(len(deliveries), expired, kept)

    def _send(self, deliveries: Sequence[Delivery]) -> None:
        now_ns = self._clock.wall_ns()
        for consumer, publisher in self._outlets:
            queues = queues_of(self._config, consumer.queue.name)
            epoch = consumer.state.epoch
            # Those of a connection that is gone come again by themselves.
            batch: list[Outgoing] = [
                waiting(delivery, queues, now_ns, delivery)
                for delivery in deliveries
                if delivery.epoch == epoch
            ]
            room = publisher.room
            publisher.publish(batch[:room])
            self._on_the_way += len(batch[:room])
            for outgoing in batch[room:]:
                self._later(outgoing.token)

    def _later(self, token: object) -> None:
        assert isinstance(token, Delivery)
        self._again.append((self._clock.monotonic_s() + _AGAIN_AFTER_S, token))

    def collect(self, count_error: Callable[[SarrapipeError], None]) -> int:
        """Acknowledge what waits at the broker now, and send again what it did not take.

        Args:
            count_error: Told why.

        Returns:
            How many were acknowledged.
        """
        confirmed: list[Delivery] = []
        for _, publisher in self._outlets:
            for token, was_confirmed, error in publisher.outcomes():
                self._on_the_way -= 1
                if was_confirmed:
                    assert isinstance(token, Delivery)
                    confirmed.append(token)
                    continue
                self._later(token)
                if error is not None:
                    count_error(error)
                    _log.warning("a message that failed cannot wait at the broker now: %s", error)
        if confirmed:
            passing("deferred")
            self._broker.ack(confirmed)
        if self._again:
            now_s = self._clock.monotonic_s()
            due = [delivery for due_s, delivery in self._again if due_s <= now_s]
            self._again = [entry for entry in self._again if entry[0] > now_s]
            self._send(due)
        return len(confirmed)

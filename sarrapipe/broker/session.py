"""The broker thread of one process: connections, consumers and publishers, and how they end.

One consume connection and one publish connection per broker: on a shared one, the push-back of RabbitMQ on
publishers would also delay acknowledgements (design.md 3).

    thread = BrokerThread()
    thread.start()                                        # after the fork
    consumer = thread.consumer(endpoint, queue, prefetch=100)
    publisher = thread.publisher(post_endpoint, window=1000)
    while running:
        select([thread.wakeup_fd, ...])
        thread.clear_wakeup()                             # before looking for results
        for outcome in publisher.outcomes(): ...
        for delivery in consumer.take(room): ...
    thread.close(2.0)
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Final

from sarrapipe.broker.channel import ConnectionState
from sarrapipe.broker.consumer import Consumer
from sarrapipe.broker.endpoint import Endpoint, connection_parameters
from sarrapipe.broker.link import Link
from sarrapipe.broker.loop import Loop
from sarrapipe.broker.publisher import BLOCKED_TIMEOUT_S, Publisher
from sarrapipe.broker.topology import ExchangeSpec, QueueSpec
from sarrapipe.log import get_logger
from sarrapipe.message.worklist import Delivery

__all__ = ["BrokerThread"]

_log = get_logger(__name__)

_CLOSE_STEP_S: Final = 0.02
"""How often closing looks whether the last confirm has come."""
_CUT_S: Final = 0.5
"""How long cutting the connections may take: no broker is asked, only our own sockets are closed."""


class BrokerThread:
    """Owns the loop, its thread and everything on it. Used from one thread, the flow's."""

    def __init__(self) -> None:
        self._loop = Loop()
        self._links: dict[tuple[str, str], Link] = {}
        self._consumers: list[Consumer] = []
        self._publishers: list[Publisher] = []
        self._epochs = itertools.count(1)
        self._closed = False
        self._closing: set[Link] | None = None
        """Links that are not closed yet; written by the loop's thread."""

    @property
    def wakeup_fd(self) -> int:
        """Readable when something arrived or was settled, or a state changed."""
        return self._loop.wakeup.fileno()

    def start(self) -> None:
        """Start the thread. After the fork: a thread does not survive one."""
        self._loop.start()

    def clear_wakeup(self) -> None:
        """Make `wakeup_fd` unreadable. Call it before `take` and `outcomes`, so that nothing is missed."""
        self._loop.wakeup.clear()

    def consumer(self, endpoint: Endpoint, queue: QueueSpec, prefetch: int) -> Consumer:
        """Consume a queue; connects at once, on the connection shared by all consumers of this broker.

        Args:
            endpoint: The broker.
            queue: What to consume.
            prefetch: How many messages may be unacknowledged.

        Raises:
            ConfigError: The endpoint cannot work (see `Endpoint.check`).
        """
        link = self._link(endpoint, "consume")
        consumer = Consumer(self._loop, link, partial(next, self._epochs), queue, prefetch)
        self._consumers.append(consumer)
        self._loop.post(partial(link.attach, consumer))
        return consumer

    def publisher(
        self,
        endpoint: Endpoint,
        window: int,
        *,
        exchanges: Sequence[ExchangeSpec] = (),
        queues: Sequence[QueueSpec] = (),
        mandatory: bool = False,
        blocked_timeout_s: float = BLOCKED_TIMEOUT_S,
    ) -> Publisher:
        """Return a publisher; it connects when first used.

        Args:
            endpoint: The broker.
            window: How many messages may be on their way without a confirm.
            exchanges: Declared on each new channel; empty where we may not declare (R12).
            queues: Declared likewise.
            mandatory: Messages that reach no queue count as not confirmed.
            blocked_timeout_s: How long messages are held for a broker that blocks publishers.

        Raises:
            ConfigError: The endpoint cannot work.
        """
        publisher = Publisher(
            self._loop,
            self._link(endpoint, "publish"),
            partial(next, self._epochs),
            window,
            exchanges=exchanges,
            queues=queues,
            mandatory=mandatory,
            blocked_timeout_s=blocked_timeout_s,
        )
        self._publishers.append(publisher)
        return publisher

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge deliveries of any consumer of this thread, each where it came from."""
        for owner, group in self._by_owner(deliveries):
            owner.ack(group)

    def requeue(self, deliveries: Sequence[Delivery]) -> None:
        """Give deliveries of any consumer of this thread back, each where it came from."""
        for owner, group in self._by_owner(deliveries):
            owner.requeue(group)

    def _by_owner(self, deliveries: Sequence[Delivery]) -> list[tuple[Consumer, Sequence[Delivery]]]:
        if not self._consumers:
            return []
        if len(self._consumers) == 1:
            return [(self._consumers[0], deliveries)]
        by_epoch: dict[int, list[Delivery]] = {}
        for delivery in deliveries:
            by_epoch.setdefault(delivery.epoch, []).append(delivery)
        # An epoch nobody has any more: any consumer drops and counts it.
        owners = {consumer.state.epoch: consumer for consumer in self._consumers}
        return [(owners.get(epoch, self._consumers[0]), group) for epoch, group in by_epoch.items()]

    def state(self, endpoint: Endpoint) -> ConnectionState:
        """Return the state of everything on one broker: connected only if all of it is."""
        key = endpoint.key
        users = [user for user in (*self._consumers, *self._publishers) if user.broker == key and user.in_use]
        states = [user.state for user in users]
        return ConnectionState(
            connected=bool(states) and all(state.connected for state in states),
            blocked=any(state.blocked for state in states),
            epoch=max((state.epoch for state in states), default=0),
            last_error=next((state.last_error for state in states if state.last_error), None),
        )

    def close(self, deadline_s: float) -> None:
        """Stop consuming, wait for confirms, close the connections, end the thread.

        What is not confirmed by then has a negative outcome; what was taken and not acknowledged is
        delivered again by the broker. May be called twice.

        Args:
            deadline_s: How long it may take, in seconds.
        """
        if self._closed:
            return
        self._closed = True
        if self._loop.failure is None:
            for consumer in self._consumers:
                consumer.pause()
            steps = max(int(deadline_s / 2 / _CLOSE_STEP_S), 1)
            self._loop.post(partial(self._close_when_idle, steps))
        if not self._loop.join(deadline_s):
            _log.warning("brokers did not answer within %.1f s, their connections are cut", deadline_s)
            self._loop.post(self._cut)
            self._loop.join(2 * _CUT_S)
        for publisher in self._publishers:
            publisher.abandon()

    def _link(self, endpoint: Endpoint, role: str) -> Link:
        key = (endpoint.key, role)
        if key not in self._links:
            connection_parameters(endpoint)  # tells now what is wrong with it
            self._links[key] = Link(self._loop, endpoint, role)
        return self._links[key]

    def _close_when_idle(self, steps_left: int) -> None:
        if steps_left and any(publisher.expects_confirms for publisher in self._publishers):
            self._loop.call_later(_CLOSE_STEP_S, partial(self._close_when_idle, steps_left - 1))
        else:
            self._close_links()

    def _close_links(self) -> None:
        if self._closing is not None:
            return
        self._closing = closing = set(self._links.values())
        for user in (*self._consumers, *self._publishers):
            user.stop()

        def closed(link: Link) -> None:
            closing.discard(link)
            if not closing:
                # Not at once: pika tells of the end before it has closed its sockets.
                self._loop.call_later(0.0, self._loop.stop)

        for link in list(closing):
            link.close(partial(closed, link))
        if not self._links:
            self._loop.stop()

    def _cut(self) -> None:
        self._close_links()
        for link in tuple(self._closing or ()):
            link.abort()
        self._loop.call_later(_CUT_S, self._loop.stop)

"""Messages that wait at the broker before they are tried again, by whichever host is next. Pure.

A message that failed is published to a queue without readers, beside the one it came from. When its time
to live is over, the broker dead-letters it back. Three such queues make the waits longer: a message's own
time to live would be looked at only at the head of the queue, behind those that wait longer.

    q_feeder.movers ──► a mover fails ──► q_feeder.movers.retry.10s ──► q_feeder.movers ──► another mover

The broker may end at any instant, so the queue is a quorum queue that dead-letters *at least once*: it lets
go of a message when the other queue has confirmed it. One of the classic type forgets first.

What the message was published with (exchange, topic), how often it waited and since when, is in headers. They
are believed only of what the default exchange delivers, to which sources cannot publish.

Sources: https://www.rabbitmq.com/docs/dlx, https://www.rabbitmq.com/docs/ttl,
https://www.rabbitmq.com/docs/quorum-queues#dead-lettering.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sarrapipe.broker.publisher import Outgoing
from sarrapipe.broker.topology import QueueSpec
from sarrapipe.message.worklist import Delivery, Waited

__all__ = ["DEFAULT_EXCHANGE", "restored", "retry_queues", "waiting"]

DEFAULT_EXCHANGE: Final = ""
"""Routes to the queue that the routing key names; its permissions are those of `amq.default`."""

_LONGER: Final = (1, 8, 64)
"""First, second and every further wait, in multiples of the option: 10 s, 80 s, 640 s by default, where the
kept store ends at 600 s."""
_PREFIX: Final = "x-sarrapipe-"
_EXCHANGE: Final = _PREFIX + "exchange"
_TOPIC: Final = _PREFIX + "topic"
_ATTEMPTS: Final = _PREFIX + "attempts"
_SINCE: Final = _PREFIX + "since-ms"
_BROKERS_OWN: Final = ("x-death", "x-first-death-", "x-last-death-")
_MS_IN_NS: Final = 10**6


def retry_queues(queue: str, delay_s: float, *, declare: bool = True) -> tuple[QueueSpec, ...]:
    """Return the queues in which messages of a queue wait, the shortest wait first.

    Args:
        queue: Its name.
        delay_s: The first wait; it is part of the names, since a queue's arguments cannot be changed.
        declare: Whether they may be created.
    """
    return tuple(_retry_queue(queue, max(int(delay_s * 1000), 1) * times, declare) for times in _LONGER)


def _retry_queue(queue: str, delay_ms: int, declare: bool) -> QueueSpec:  # noqa: FBT001 - one caller
    seconds = f"{delay_ms / 1000:g}s"
    return QueueSpec(
        name=f"{queue}.retry.{seconds}",
        message_ttl_ms=delay_ms,
        queue_type="quorum",
        arguments={
            "x-dead-letter-exchange": DEFAULT_EXCHANGE,
            "x-dead-letter-routing-key": queue,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",  # at-least-once asks for it
        },
        declare=declare,
        bind=False,
    )


def waiting(delivery: Delivery, queues: tuple[QueueSpec, ...], now_ns: int, token: object) -> Outgoing:
    """Return a message as it is published to wait.

    Args:
        delivery: As it came.
        queues: `retry_queues` of the queue it came from.
        now_ns: Wall time.
        token: Given back in the outcome.
    """
    waited = delivery.waited or Waited(0, now_ns)
    headers = dict(delivery.headers)
    headers[_EXCHANGE] = delivery.exchange
    headers[_TOPIC] = delivery.routing_key
    headers[_ATTEMPTS] = waited.attempts + 1
    headers[_SINCE] = waited.since_ns // _MS_IN_NS
    queue = queues[min(waited.attempts, len(queues) - 1)]
    return Outgoing(DEFAULT_EXCHANGE, queue.name, delivery.body, headers, delivery.content_type, token=token)


def restored(delivery: Delivery) -> Delivery:
    """Return a delivery as it came first, if it has waited at the broker since; others as they are."""
    if delivery.exchange != DEFAULT_EXCHANGE or _EXCHANGE not in delivery.headers:
        return delivery
    told = delivery.headers
    attempts, since_ms = told.get(_ATTEMPTS), told.get(_SINCE)
    if not isinstance(attempts, int) or not isinstance(since_ms, int):
        attempts, since_ms = 0, 0
    headers = {key: value for key, value in told.items() if not key.startswith((_PREFIX, *_BROKERS_OWN))}
    return replace(
        delivery,
        exchange=str(told[_EXCHANGE]),
        routing_key=str(told.get(_TOPIC, "")),
        headers=headers,
        waited=Waited(attempts, since_ms * _MS_IN_NS),
    )

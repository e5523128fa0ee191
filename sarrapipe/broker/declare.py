"""Make, change and remove exchanges, queues and bindings, over a connection that lives as long as it takes.

For `declare`, `cleanup` and a reload. Consumers and publishers declare again by themselves on each new
channel; what they never do is unbind or delete.

Sources: wire.md 4; R12, R48-R53; https://www.rabbitmq.com/docs/queues.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import pika
from pika import exceptions
from pika.adapters.blocking_connection import BlockingChannel
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from sarrapipe.broker.endpoint import Endpoint, connection_parameters
from sarrapipe.broker.faults import ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED, reply_code, translate
from sarrapipe.broker.topology import Binding, BindingStore, ExchangeSpec, QueueSpec, difference
from sarrapipe.log import get_logger

__all__ = [
    "Declared",
    "Depth",
    "Removed",
    "cleanup",
    "declare_topology",
    "delete_drained",
    "queue_depths",
    "unbind_all",
    "unbind_removed",
]

_log = get_logger(__name__)

_PIKA_ERRORS: Final = (exceptions.AMQPError, AMQPConnectorException, OSError)


class Depth(NamedTuple):
    """What a queue holds: messages ready for delivery, and consumers."""

    messages: int
    consumers: int


@dataclass(frozen=True, slots=True)
class Declared:
    """What became of one queue.

    Attributes:
        queue: Its name.
        depth: What it held; None if it was not declared.
        bound: Bindings made, or made again.
        unbound: Bindings removed.
    """

    queue: str
    depth: Depth | None
    bound: tuple[Binding, ...]
    unbound: tuple[Binding, ...]


@dataclass(frozen=True, slots=True)
class Removed:
    """What `cleanup` did.

    Attributes:
        queues: Names deleted.
        exchanges: Names deleted.
        kept: What is still there, with the reason.
    """

    queues: tuple[str, ...]
    exchanges: tuple[str, ...]
    kept: tuple[tuple[str, str], ...]


def declare_topology(
    endpoint: Endpoint,
    queues: Sequence[QueueSpec] = (),
    exchanges: Sequence[ExchangeSpec] = (),
    *,
    state_path: str | None = None,
    unbind: bool = True,
) -> list[Declared]:
    """Declare exchanges, then queues with their bindings. Doing it again changes nothing.

    Args:
        endpoint: The broker.
        queues: Declared, checked or left alone as each says.
        exchanges: Declared first, so that queues can be bound to them.
        state_path: File that remembers what was bound (`BindingStore`); None forgets.
        unbind: Remove what was bound before and is not wanted any more. False while instances of the
            earlier configuration still run: they would bind it again; `unbind_removed` does it later.

    Raises:
        TopologyError: Something exists with other properties.
        BrokerError: The broker refuses or is away; everything done so far is remembered.
    """
    store = BindingStore(state_path) if state_path else None
    declared = []
    with _connection(endpoint) as connection:
        channel = connection.channel()
        for exchange in exchanges:
            channel.exchange_declare(
                exchange.name, exchange.kind, durable=exchange.durable, auto_delete=exchange.auto_delete
            )
        for queue in queues:
            depth = _declare_queue(channel, queue)
            bound, unbound = (
                _bind(connection, endpoint, queue, store, unbind=unbind) if queue.bind else ((), ())
            )
            declared.append(Declared(queue.name, depth, bound, unbound))
    return declared


def unbind_removed(endpoint: Endpoint, queues: Sequence[QueueSpec], state_path: str) -> list[Declared]:
    """Remove the bindings that were made before and that `queues` no longer name.

    Raises:
        BrokerError: The broker refuses or is away.
    """
    store = BindingStore(state_path)
    result = []
    with _connection(endpoint) as connection:
        for queue in queues:
            _, removed = difference(store.load(endpoint.key, queue.name), queue.bindings)
            unbound = _unbind(connection, endpoint, queue, removed)
            store.save(endpoint.key, queue.name, {*queue.bindings, *set(removed).difference(unbound)})
            result.append(Declared(queue.name, None, (), unbound))
    return result


def unbind_all(endpoint: Endpoint, queue: str, state_path: str) -> None:
    """Remove every binding that was made of a queue; what is known of it stays, until it is deleted.

    Raises:
        BrokerError: The broker refuses or is away.
    """
    known = BindingStore(state_path).load(endpoint.key, queue)
    with _connection(endpoint) as connection:
        _unbind(connection, endpoint, QueueSpec(name=queue), known)


def delete_drained(endpoint: Endpoint, queue: str, state_path: str) -> bool:
    """Delete a queue that holds nothing and that nobody reads, and forget it.

    Returns:
        False if it holds something, or is read: it stays.

    Raises:
        BrokerError: The broker refuses or is away.
    """
    with _connection(endpoint) as connection:
        channel = connection.channel()
        try:
            channel.queue_delete(queue, if_unused=True, if_empty=True)
        except exceptions.ChannelClosedByBroker as error:
            if error.reply_code == PRECONDITION_FAILED:
                return False
            if error.reply_code != NOT_FOUND:
                raise
    BindingStore(state_path).save(endpoint.key, queue, ())
    return True


def cleanup(
    endpoint: Endpoint,
    queues: Sequence[str],
    exchanges: Sequence[str] = (),
    *,
    state_path: str | None = None,
) -> Removed:
    """Delete queues with all that is in them, and exchanges nothing is bound to.

    What is not there counts as deleted; what may not be deleted is kept and told.

    Args:
        endpoint: The broker.
        queues: Names.
        exchanges: Names; only those asked for, and only if unused.
        state_path: File of the bindings, which are forgotten with their queue.

    Raises:
        BrokerError: The broker is away.
    """
    gone: dict[str, list[str]] = {"queue": [], "exchange": []}
    kept = []
    store = BindingStore(state_path) if state_path else None
    with _connection(endpoint) as connection:
        for kind, name in [("queue", name) for name in queues] + [("exchange", name) for name in exchanges]:
            channel = connection.channel()  # a refusal closes it: one each
            try:
                if kind == "queue":
                    channel.queue_delete(name)
                else:
                    channel.exchange_delete(name, if_unused=True)
            except exceptions.ChannelClosedByBroker as error:
                if error.reply_code not in (ACCESS_REFUSED, PRECONDITION_FAILED):
                    raise
                kept.append((name, str(error.reply_text)))
                continue
            channel.close()
            gone[kind].append(name)
            if store is not None and kind == "queue":
                store.save(endpoint.key, name, ())
    return Removed(tuple(gone["queue"]), tuple(gone["exchange"]), tuple(kept))


def queue_depths(endpoint: Endpoint, names: Sequence[str]) -> dict[str, Depth]:
    """Return what each queue holds; queues that do not exist or may not be seen are left out.

    Raises:
        BrokerError: The broker is away.
    """
    depths = {}
    with _connection(endpoint) as connection:
        for name in names:
            channel = connection.channel()
            try:
                answer = channel.queue_declare(name, passive=True).method
            except exceptions.ChannelClosedByBroker as error:
                if error.reply_code not in (ACCESS_REFUSED, NOT_FOUND):
                    raise
                continue
            channel.close()
            depths[name] = Depth(int(answer.message_count), int(answer.consumer_count))
    return depths


@contextlib.contextmanager
def _connection(endpoint: Endpoint) -> Iterator[pika.BlockingConnection]:
    parameters = connection_parameters(endpoint, "declare")
    try:
        connection = pika.BlockingConnection(parameters)
        try:
            yield connection
        finally:
            if connection.is_open:
                connection.close()
    except _PIKA_ERRORS as error:
        raise translate(error, endpoint.key) from error


def _declare_queue(channel: BlockingChannel, queue: QueueSpec) -> Depth | None:
    if not (queue.declare or queue.passive):
        return None
    answer = channel.queue_declare(
        queue.name,
        passive=queue.passive,
        durable=queue.durable,
        auto_delete=queue.auto_delete,
        arguments=None if queue.passive else queue.declare_arguments(),
    ).method
    return Depth(int(answer.message_count), int(answer.consumer_count))


def _bind(
    connection: pika.BlockingConnection,
    endpoint: Endpoint,
    queue: QueueSpec,
    store: BindingStore | None,
    *,
    unbind: bool,
) -> tuple[tuple[Binding, ...], tuple[Binding, ...]]:
    known = store.load(endpoint.key, queue.name) if store else []
    wanted, removed = difference(known, queue.bindings)
    if store:
        # Before the broker knows: killed in between, we remember one binding too many, never one too few.
        store.save(endpoint.key, queue.name, {*known, *wanted})
    channel = connection.channel()
    for binding in wanted:
        channel.queue_bind(queue.name, binding.exchange, binding.routing_key)
    channel.close()
    if not (unbind and store and removed):
        return tuple(wanted), ()
    unbound = _unbind(connection, endpoint, queue, removed)
    store.save(endpoint.key, queue.name, {*wanted, *set(removed).difference(unbound)})
    return tuple(wanted), unbound


def _unbind(
    connection: pika.BlockingConnection, endpoint: Endpoint, queue: QueueSpec, removed: Sequence[Binding]
) -> tuple[Binding, ...]:
    unbound = []
    for binding in removed:
        channel = connection.channel()
        try:
            channel.queue_unbind(queue.name, binding.exchange, binding.routing_key)
        except exceptions.ChannelClosedByBroker as error:
            if reply_code(error) != NOT_FOUND:  # queue or exchange is gone, and the binding with it
                _log.warning(
                    "queue=%s exchange=%s routing_key=%s stays bound: %s; tried again with the next declare",
                    queue.name,
                    binding.exchange,
                    binding.routing_key,
                    translate(error, endpoint.key),
                )
                continue
        else:
            channel.close()
        unbound.append(binding)
    return tuple(unbound)

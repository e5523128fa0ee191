"""The benchmarks' own hand on the broker: lays out work, counts arrivals, reads what arrived.

Arrivals are counted by asking a bound queue for its length, which costs the broker next to nothing, and not
by consuming, which would take CPU from both sides under test. The messages are read after the clock stopped.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import pika
from pika.adapters.blocking_connection import BlockingChannel

__all__ = ["Arrivals", "Probe", "ProbeError"]

_DRAIN_PREFETCH: Final = 1000
_QUIET_S: Final = 5.0


class ProbeError(RuntimeError):
    """What was waited for did not come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """How a queue filled, monotonic seconds.

    `files_per_s` leaves out what came with the first reading, so it does not depend on how often was read.
    """

    count: int
    first_s: float
    first_count: int
    last_s: float

    @property
    def seconds(self) -> float:
        """From the first arrival seen to the last."""
        return self.last_s - self.first_s

    @property
    def files_per_s(self) -> float:
        """The rate between the first and the last reading; 0 if all came at once."""
        return (self.count - self.first_count) / self.seconds if self.seconds > 0 else 0.0


class Probe:
    """One connection to the broker under test.

    Args:
        url: Broker URL with password of an account that may do everything.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: pika.BlockingConnection | None = None
        self._channel: BlockingChannel | None = None

    def __enter__(self) -> Self:
        parameters = pika.URLParameters(self._url)
        parameters.heartbeat = 0  # the benchmark waits for long spells without looking at the connection
        self._connection = pika.BlockingConnection(parameters)
        self._channel = self._connection.channel()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None and self._connection.is_open:
            self._connection.close()

    @property
    def channel(self) -> BlockingChannel:
        """The open channel."""
        assert self._channel is not None, "enter the context first"
        return self._channel

    def declare_exchange(self, name: str) -> None:
        """Make a durable topic exchange, as publishers of such pumps do (wire.md 4)."""
        self.channel.exchange_declare(name, exchange_type="topic", durable=True)

    def declare_queue(self, name: str, *, exchange: str) -> None:
        """Make a durable queue that gets everything an exchange gets."""
        self.channel.queue_declare(name, durable=True)
        self.channel.queue_bind(name, exchange, "#")

    def delete_queue(self, name: str) -> None:
        """Remove a queue with what is in it."""
        self.channel.queue_delete(name)

    def count(self, queue: str) -> int:
        """Return how many messages wait in a queue."""
        return int(self.channel.queue_declare(queue, passive=True).method.message_count)

    def publish(self, exchange: str, messages: Iterable[tuple[str, bytes]]) -> None:
        """Publish persistent v03 messages (topic, body); all are in the queues when this returns.

        A channel's commands are carried out in order, so the answer to the last one comes after the messages.
        """
        properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)
        for topic, body in messages:
            self.channel.basic_publish(exchange, topic, body, properties)
        self.channel.exchange_declare(exchange, passive=True)

    def watch(
        self,
        queue: str,
        wanted: int,
        *,
        limit_s: float,
        stall_s: float = 60.0,
        every_s: float = 0.05,
        on_count: Callable[[int], None] | None = None,
    ) -> Arrivals:
        """Read the length of `queue` until it holds `wanted` messages.

        Args:
            queue: Queue nobody consumes.
            wanted: How many messages to wait for.
            limit_s: Give up after this long in all.
            stall_s: Give up when nothing came for so long; what came is returned.
            every_s: Pause between readings: the error of each of the two times.
            on_count: Called with each reading.

        Raises:
            ProbeError: Not a single message came.
        """
        started_s = now_s = moved_s = time.monotonic()
        first_s, first_count, seen = 0.0, 0, 0
        while seen < wanted and now_s - started_s < limit_s and now_s - moved_s < stall_s:
            count = self.count(queue)
            now_s = time.monotonic()
            if count > seen:
                if not seen:
                    first_s, first_count = now_s, count
                seen, moved_s = count, now_s
                if on_count is not None:
                    on_count(count)
            if seen < wanted:
                time.sleep(every_s)
        if not seen:
            raise ProbeError(f"nothing arrived in queue {queue} within {now_s - started_s:.0f} s")
        return Arrivals(count=seen, first_s=first_s, first_count=first_count, last_s=moved_s)

    def await_one(self, queue: str, trigger: Callable[[], None], *, limit_s: float) -> tuple[float, float]:
        """Do something and take the first message that arrives in an empty queue because of it.

        Args:
            queue: Queue to consume from.
            trigger: What makes the message come; it may use this probe.
            limit_s: How long to wait.

        Returns:
            Monotonic seconds just before the trigger, and on arrival.

        Raises:
            ProbeError: Nothing came.
        """
        arrived: list[float] = []
        tag = self.channel.basic_consume(
            queue, lambda *_args: arrived.append(time.monotonic()), auto_ack=True
        )
        assert self._connection is not None
        started_s = time.monotonic()
        trigger()
        while not arrived and time.monotonic() - started_s < limit_s:
            self._connection.process_data_events(time_limit=0.5)
        self.channel.basic_cancel(tag)
        if not arrived:
            raise ProbeError(f"nothing arrived in queue {queue} within {limit_s:.0f} s")
        return started_s, arrived[0]

    def send(self, exchange: str, message: tuple[str, bytes]) -> None:
        """Publish one persistent v03 message and wait for nothing."""
        properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)
        self.channel.basic_publish(exchange, message[0], message[1], properties)

    @contextlib.contextmanager
    def listening(self, queue: str, on_body: Callable[[bytes], None]) -> Iterator[Callable[[float], None]]:
        """Take what arrives in a queue, as long as the context lasts.

        Args:
            queue: Queue to consume from.
            on_body: Called with each body as soon as it is there.

        Yields:
            A function that lets messages come for so many seconds.
        """
        connection = self._connection
        assert connection is not None, "enter the context first"
        tag = self.channel.basic_consume(queue, lambda *parts: on_body(parts[3]), auto_ack=True)

        def listen(seconds: float) -> None:
            until_s = time.monotonic() + seconds
            connection.process_data_events(time_limit=0)
            while (left_s := until_s - time.monotonic()) > 0:
                connection.process_data_events(time_limit=left_s)

        try:
            yield listen
        finally:
            self.channel.basic_cancel(tag)

    def drain(self, queue: str) -> list[bytes]:
        """Take every message out of a queue and return the bodies."""
        bodies: list[bytes] = []
        wanted = self.count(queue)
        self.channel.basic_qos(prefetch_count=_DRAIN_PREFETCH)
        if wanted:
            for method, _properties, body in self.channel.consume(queue, inactivity_timeout=_QUIET_S):
                if method is None:
                    break
                bodies.append(body)
                last = len(bodies) == wanted
                if last or len(bodies) % (_DRAIN_PREFETCH // 2) == 0:
                    self.channel.basic_ack(method.delivery_tag, multiple=True)
                if last:
                    break
            self.channel.cancel()
        return bodies

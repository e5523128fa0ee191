"""Drives the broker package the way the flow does: wait on the descriptor, clear it, look for results."""

from __future__ import annotations

import dataclasses
import select
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable

import pika
from servers import MS, Vhost

from sarrapipe.broker.consumer import Consumer
from sarrapipe.broker.endpoint import Endpoint
from sarrapipe.broker.publisher import Outcome, Outgoing, Publisher
from sarrapipe.broker.session import BrokerThread
from sarrapipe.message.worklist import Delivery


def endpoint_of(of: Vhost, account: str = "feeder", **changes) -> Endpoint:
    """The endpoint of one account on a test's virtual host."""
    endpoint = Endpoint(
        host="127.0.0.1",
        port=of.pump.amqp_port,
        user=account,
        password=of.pump.users[account].password,
        vhost=of.name,
        name="test/broker 01",
    )
    return dataclasses.replace(endpoint, **changes)


def outgoing(exchange: str, topic: str, bodies: Iterable[bytes], **changes) -> list[Outgoing]:
    """Messages whose token is their number."""
    return [
        Outgoing(exchange, topic, body, content_type="application/json", token=number, **changes)
        for number, body in enumerate(bodies)
    ]


def numbered(*groups: list[Outgoing]) -> list[Outgoing]:
    """Put lists of messages behind one another and number their tokens anew."""
    messages = [dataclasses.replace(message) for group in groups for message in group]
    for number, message in enumerate(messages):
        message.token = number
    return messages


class Driver:
    """A broker thread with a main loop around it."""

    def __init__(self) -> None:
        self.thread = BrokerThread()
        self.thread.start()
        self._poll = select.poll()
        self._poll.register(self.thread.wakeup_fd, select.POLLIN)

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_error: object) -> None:
        self.thread.close(5.0)

    def turn(self, timeout_s: float = 0.2) -> None:
        """Wait for a wake-up, at most `timeout_s`."""
        self._poll.poll(timeout_s * 1000)
        self.thread.clear_wakeup()

    def until(self, done: Callable[[], object], what: str, timeout_s: float = 20.0) -> None:
        """Turn until `done` is true."""
        deadline = time.monotonic() + timeout_s * MS
        while not done():
            assert time.monotonic() < deadline, f"not within {timeout_s * MS:g} s: {what}"
            self.turn()

    def connected(self, user: Consumer | Publisher) -> None:
        self.until(lambda: user.state.connected, f"connected (last error: {user.state.last_error})")

    def feed(self, vhost: Vhost, bodies: Iterable[bytes]) -> list[Outcome]:
        """Publish bodies to xpublic under v03.a."""
        publisher = self.thread.publisher(endpoint_of(vhost), 100)
        return self.publish(publisher, outgoing("xpublic", "v03.a", bodies))

    def publish(
        self, publisher: Publisher, messages: list[Outgoing], timeout_s: float = 30.0
    ) -> list[Outcome]:
        """Publish everything as room allows; return the outcomes in the order they came."""
        rest, outcomes = list(messages), []

        def step() -> bool:
            room = publisher.room
            if rest and room:
                publisher.publish(rest[:room])
                del rest[:room]
            outcomes.extend(publisher.outcomes())
            return len(outcomes) == len(messages)

        self.until(step, f"outcomes of all {len(messages)} messages", timeout_s)
        return outcomes

    def take(
        self, consumer: Consumer, count: int, *, ack: bool = True, timeout_s: float = 20.0
    ) -> list[Delivery]:
        """Take exactly `count` messages."""
        taken: list[Delivery] = []

        def step() -> bool:
            some = consumer.take(count - len(taken))
            if ack and some:
                consumer.ack(some)
            taken.extend(some)
            return len(taken) == count

        self.until(step, f"{count} messages", timeout_s)
        return taken


class CuttingProxy:
    """A TCP relay in front of a broker whose connections can be cut in the middle of a frame.

    A stand-in for a network that fails: a broker closes in good order, and only some seconds after a
    connection was made does its management API know it.

    Args:
        port: Where the broker listens.
        host: Address to listen on.
        listen: Port to listen on; 0 for any that is free.
    """

    def __init__(self, port: int, host: str = "127.0.0.1", listen: int = 0) -> None:
        self._target = port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, listen), family=family)
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._cut: Callable[[int], int] | None = None
        self._closing = False
        self.cuts = 0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> CuttingProxy:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._closing = True
        self._thread.join()
        for pair in list(self._pairs):
            self._drop(pair)
        self._selector.close()
        self._listener.close()

    def cut(self, choose: Callable[[int], int]) -> None:
        """Cut one connection soon; `choose` gets how many there are and says which."""
        self._cut = choose

    def _run(self) -> None:
        while not self._closing:
            for key, _events in self._selector.select(0.01):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.data in self._pairs:
                    self._relay(key.fileobj, key.data)
            if self._cut is not None and self._pairs:
                self._drop(self._pairs[self._cut(len(self._pairs))])
                self._cut = None
                self.cuts += 1

    def _accept(self) -> None:
        here = self._listener.accept()[0]
        try:
            there = socket.create_connection(("127.0.0.1", self._target))
        except OSError:  # the broker is down: so is its stand-in
            here.close()
            return
        self._pairs.append((here, there))
        self._selector.register(here, selectors.EVENT_READ, (here, there))
        self._selector.register(there, selectors.EVENT_READ, (here, there))

    def _relay(self, source: socket.socket, pair: tuple[socket.socket, socket.socket]) -> None:
        try:
            data = source.recv(1500)  # small pieces: cuts fall within frames
            if data:
                pair[source is pair[0]].sendall(data)
        except OSError:
            data = b""
        if not data:
            self._drop(pair)

    def _drop(self, pair: tuple[socket.socket, socket.socket]) -> None:
        self._pairs.remove(pair)
        for end in pair:
            self._selector.unregister(end)
            # Linger 0: a reset instead of an orderly end.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()


def empty(vhost: Vhost, queue: str, timeout_s: float = 10.0) -> None:
    """Wait until nothing is in the queue; unacknowledged messages are seen once its consumers are gone."""
    deadline = time.monotonic() + timeout_s * MS
    while vhost.depth(queue):
        assert time.monotonic() < deadline, f"{queue} still holds {vhost.depth(queue)}"
        time.sleep(0.02)


def plain_get(
    vhost: Vhost, queue: str, user: str = "admin"
) -> tuple[pika.spec.BasicProperties, bytes] | None:
    """One message as another AMQP client sees it."""
    with vhost.connect(user) as connection:
        method, properties, body = connection.channel().basic_get(queue, auto_ack=True)
        return None if method is None else (properties, body)

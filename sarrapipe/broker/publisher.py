"""Messages published in a window of publisher confirms; every one has exactly one outcome.

The main thread calls what is public; the loop's thread sends and settles. An outcome is positive only after
the broker's basic.ack. Whatever else happens (basic.nack, a closed channel, a lost connection, a broker that
stays blocked, a message nobody's queue gets while `mandatory`) makes it negative, with the reason.

Source: https://www.rabbitmq.com/docs/confirms, https://www.rabbitmq.com/docs/connection-blocked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pika import exceptions
from pika.channel import Channel
from pika.frame import Method
from pika.spec import Basic, BasicProperties

from sarrapipe.broker.channel import ChannelUser
from sarrapipe.broker.link import Link
from sarrapipe.broker.loop import Loop
from sarrapipe.broker.marshal import PublishMarshaller
from sarrapipe.broker.topology import ExchangeSpec, QueueSpec
from sarrapipe.broker.window import ConfirmWindow
from sarrapipe.crashpoints import passing
from sarrapipe.errors import BrokerError, MessageError, SarrapipeError
from sarrapipe.log import get_logger

__all__ = ["BLOCKED_TIMEOUT_S", "Outcome", "Outgoing", "Publisher"]

_log = get_logger(__name__)

BLOCKED_TIMEOUT_S: Final = 60.0
"""How long messages are held for a broker that blocks publishers, before they are given back unconfirmed."""
_WRITE_BYTES: Final = 262144
"""Frames are joined to writes of about this size: the socket takes so much at once, and what it does not
take is copied by pika."""


@dataclass(slots=True)
class Outgoing:
    """One message to publish.

    Attributes:
        exchange: Where to.
        routing_key: The topic, at most 255 bytes of UTF-8.
        body: Encoded.
        headers: Application headers; empty is written as an empty table, as sr3 does (wire.md 1.7).
        content_type: Such as `application/json`.
        persistent: Survives a restart of the broker (delivery mode 2).
        expiration_ms: The broker drops it from a queue after this; None for never.
        token: Given back in the outcome.
    """

    exchange: str
    routing_key: str
    body: bytes
    headers: Mapping[str, object] = field(default_factory=dict)
    content_type: str | None = None
    persistent: bool = True
    expiration_ms: int | None = None
    token: object = None


class Outcome(NamedTuple):
    """What became of one message.

    Attributes:
        token: From `Outgoing`.
        confirmed: The broker has taken responsibility for it.
        error: Why not: `MessageError` if it can never be published, else `BrokerError`; None if confirmed.
    """

    token: object
    confirmed: bool = True
    error: SarrapipeError | None = None


class Publisher(ChannelUser):
    """Made by `BrokerThread.publisher`; connects at the first `publish`.

    Args:
        loop: The broker thread's loop.
        link: The publish connection.
        next_epoch: See `ChannelUser`.
        window: How many messages may be on their way.
        exchanges: Declared on each new channel.
        queues: The same; and when the broker returns a message that reached none (`mandatory`).
        mandatory: A message that reaches no queue is not confirmed.
        blocked_timeout_s: See `BLOCKED_TIMEOUT_S`.
    """

    def __init__(
        self,
        loop: Loop,
        link: Link,
        next_epoch: Callable[[], int],
        window: int,
        *,
        exchanges: Sequence[ExchangeSpec] = (),
        queues: Sequence[QueueSpec] = (),
        mandatory: bool = False,
        blocked_timeout_s: float = BLOCKED_TIMEOUT_S,
    ) -> None:
        super().__init__(loop, link, next_epoch)
        self._exchanges = tuple(exchanges)
        self._queues = tuple(queues)
        self._mandatory = mandatory
        self._blocked_timeout_s = blocked_timeout_s
        # Written by the loop's thread:
        self._window: ConfirmWindow[Outgoing] = ConfirmWindow()
        self._held: deque[Outgoing] = deque()
        self._outcomes: deque[Outcome] = deque()
        self._marshaller: PublishMarshaller | None = None
        self._returned: set[int] = set()
        self._blocked_timer: object = None
        self._usable = True
        self._attached = False
        self.confirmed = self.unconfirmed = 0
        """Messages counted since the start."""
        # Written by the main thread:
        self._size = window
        self._in_flight = 0
        self._outbox: deque[Sequence[Outgoing]] = deque()
        self._flush_posted = False

    # ---- main thread -----------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """How many messages may be published now: 0 while the broker is away, refuses or blocks."""
        return max(self._size - self._in_flight, 0) if self._usable else 0

    @property
    def in_use(self) -> bool:
        """Whether anything was published yet."""
        return self._attached

    @property
    def in_flight(self) -> int:
        """Messages published whose outcome has not been collected."""
        return self._in_flight

    def publish(self, batch: Sequence[Outgoing]) -> None:
        """Send messages, in this order. Take no more than `room` at a time; the batch must not change after.

        Raises:
            BrokerError: The broker thread has died.
        """
        if not batch:
            return
        self._loop.check()
        self._in_flight += len(batch)
        self._outbox.append(batch)
        if not self._flush_posted:
            self._flush_posted = True
            self._loop.post(self._flush)

    def outcomes(self) -> list[Outcome]:
        """Return what has been settled since the last call, confirms in the order of publishing.

        Raises:
            BrokerError: The broker thread has died.
        """
        settled: list[Outcome] = []
        waiting = self._outcomes
        while waiting:
            settled.append(waiting.popleft())
        self._in_flight -= len(settled)
        if not settled:
            self._loop.check()
        return settled

    def abandon(self) -> None:
        """Settle all that is left as not confirmed; call when the thread has ended."""
        while self._outbox:
            self._held.extend(self._outbox.popleft())
        error = BrokerError(f"{self.broker}: closed before the broker confirmed")
        self._settle(self._window.fail_all(), error)
        self._fail_held(error)
        self._usable = False

    # ---- the loop's thread -----------------------------------------------------------------------------

    def _flush(self) -> None:
        self._flush_posted = False
        if not self._attached:
            self._attached = True
            self._link.attach(self)
        while self._outbox:
            self._held.extend(self._outbox.popleft())
        if self._usable:
            self._send_held()
        elif not self.state.blocked:
            self._fail_held(self.state.last_error)

    def _set_up(self, channel: Channel) -> None:
        connection = channel.connection
        self._marshaller = PublishMarshaller(
            channel.channel_number, connection.params.frame_max, mandatory=self._mandatory
        )
        self._window = ConfirmWindow()
        connection.reader.confirm_handlers[channel.channel_number] = self._confirmed
        if self._mandatory:
            self._returned.clear()
            channel.add_on_return_callback(self._on_return)
        for exchange in self._exchanges:
            channel.exchange_declare(
                exchange.name,
                exchange.kind,
                durable=exchange.durable,
                auto_delete=exchange.auto_delete,
                callback=_ignore,
            )
        self._declare_queues(channel)
        channel.confirm_delivery(_never_called, callback=self._selected)

    def _declare_queues(self, channel: Channel) -> None:
        for queue in self._queues:
            if queue.declare:
                channel.queue_declare(
                    queue.name,
                    durable=queue.durable,
                    auto_delete=queue.auto_delete,
                    arguments=queue.declare_arguments(),
                    callback=_ignore,
                )

    def _selected(self, _frame: Method) -> None:
        self._usable = True
        self._ready()
        self._send_held()

    def _send_held(self) -> None:
        channel, marshaller = self._channel, self._marshaller
        if channel is None or marshaller is None or not self.state.connected or self.state.blocked:
            return
        pieces: list[bytes] = []
        size = 0
        send = channel.connection.send_joined
        for message in self._held:
            frames = self._marshal(marshaller, message)
            if not frames:
                continue
            self._window.add(message)
            pieces.append(frames)
            size += len(frames)
            if size >= _WRITE_BYTES:
                send(b"".join(pieces))
                pieces.clear()
                size = 0
        if pieces:
            send(b"".join(pieces))
        if self._held:
            passing("published")
            self._held.clear()

    def _marshal(self, marshaller: PublishMarshaller, message: Outgoing) -> bytes:
        try:
            return marshaller.marshal(
                message.exchange,
                message.routing_key,
                message.body,
                message.headers,
                message.content_type,
                persistent=message.persistent,
                expiration_ms=message.expiration_ms,
            )
        except (exceptions.AMQPError, UnicodeError, TypeError, AssertionError) as error:
            # pika asserts the types of properties; nothing was sent.
            reason = MessageError(f"cannot be published to {message.exchange}: {error!r}")
            self._settle([message], reason)
            return b""

    def _confirmed(self, tag: int, multiple: bool, positive: bool) -> None:  # noqa: FBT001  # by position
        if self._returned:
            self._settle_returned(tag, multiple=multiple)
        messages = self._window.settle(tag, multiple=multiple)
        if positive:
            self.confirmed += len(messages)
            self._outcomes.extend(
                [Outcome(message.token, confirmed=True, error=None) for message in messages]
            )
        else:
            self._settle(
                messages, BrokerError(f"{self._link.endpoint.key}: the broker did not take the message")
            )

    def _on_return(
        self, channel: Channel, method: Basic.Return, _properties: BasicProperties, body: bytes
    ) -> None:
        self._declare_queues(channel)  # somebody deleted one: it is there for the next try
        # A returned message comes before its basic.ack and carries no tag: it is the first like it.
        for number, message in self._window.numbered():
            if (
                number not in self._returned
                and message.body == body
                and message.routing_key == method.routing_key
                and message.exchange == method.exchange
            ):
                self._returned.add(number)
                return

    def _settle_returned(self, tag: int, *, multiple: bool) -> None:
        numbers = [number for number in self._returned if number == tag or (multiple and number <= tag)]
        for number in sorted(numbers):
            self._returned.discard(number)
            for message in self._window.settle(number, multiple=False):
                where = f"{self._link.endpoint.key}: exchange {message.exchange}"
                self._settle([message], BrokerError(f"{where}: no queue takes {message.routing_key}"))

    def _settle(self, messages: Sequence[Outgoing], error: SarrapipeError) -> None:
        self.unconfirmed += len(messages)
        self._outcomes.extend([Outcome(message.token, confirmed=False, error=error) for message in messages])
        if messages:
            self._loop.notify()

    def _fail_held(self, error: SarrapipeError | None) -> None:
        held = list(self._held)
        self._held.clear()
        self._settle(held, error or BrokerError(f"{self._link.endpoint.key}: not connected"))

    def blocked(self, *, blocked: bool) -> None:
        """Hold what is published from now on, or send what was held."""
        # `room` first: whoever sees the state blocked must find no room any more.
        self._usable = not blocked and self.state.connected
        super().blocked(blocked=blocked)
        self._stop_blocked_timer()
        if blocked:
            self._blocked_timer = self._loop.call_later(self._blocked_timeout_s, self._blocked_too_long)
        else:
            self._send_held()

    def _blocked_too_long(self) -> None:
        # What was sent before stays outstanding: the broker has it in its socket, will take and confirm it
        # when it goes on, and publishing it again would announce it twice.
        self._fail_held(
            BrokerError(f"{self._link.endpoint.key}: blocked for {self._blocked_timeout_s:.0f} s")
        )
        self._blocked_timer = self._loop.call_later(self._blocked_timeout_s, self._blocked_too_long)

    def _stop_blocked_timer(self) -> None:
        if self._blocked_timer is not None:
            self._loop.cancel(self._blocked_timer)
            self._blocked_timer = None

    def _torn_down(self, error: SarrapipeError, code: int) -> None:  # noqa: ARG002  # the hook's signature
        self._usable = False
        self._marshaller = None
        self._returned.clear()
        self._stop_blocked_timer()
        self._settle(self._window.fail_all(), error)
        self._fail_held(error)

    @property
    def expects_confirms(self) -> bool:
        """Whether something is on its way and may still be confirmed; read on the loop's thread."""
        busy = bool(self._outbox or self._held or len(self._window))
        return busy and (self._usable or self.state.blocked)


def _ignore(_frame: Method) -> None:
    """The answer needs no action: pika keeps the order, and a refusal closes the channel."""


def _never_called(_frame: Method) -> None:
    """Confirms of this channel go to `_confirmed`; pika wants a callback all the same."""
    raise AssertionError("a confirm went past the fast reader")

"""What a consumer and a publisher have in common: one channel on a link, opened again when it closes.

Every method runs on the loop's thread, except reading `state`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pika.channel import Channel

from sarrapipe.broker.backoff import Backoff
from sarrapipe.broker.faults import reply_code, translate
from sarrapipe.broker.frames import FastConnection
from sarrapipe.broker.link import Link
from sarrapipe.broker.loop import Loop
from sarrapipe.errors import BrokerError, SarrapipeError
from sarrapipe.log import get_logger

__all__ = ["ChannelUser", "ConnectionState"]

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """How a consumer or publisher stands.

    Attributes:
        connected: It can work: the queue is being consumed, or messages can be published.
        blocked: The broker has asked publishers to stop (connection.blocked).
        epoch: Number of the channel, different for every channel of this process; 0 before the first.
        last_error: Why it is not connected, or why it was not the last time; None if it never failed.
            A `TopologyError` needs a person.
    """

    connected: bool = False
    blocked: bool = False
    epoch: int = 0
    last_error: SarrapipeError | None = None


class ChannelUser:
    """One channel, kept open.

    Args:
        loop: The broker thread's loop.
        link: The connection it uses.
        next_epoch: Gives a number never given before in this process.
    """

    def __init__(self, loop: Loop, link: Link, next_epoch: Callable[[], int]) -> None:
        self._loop = loop
        self._link = link
        self._next_epoch = next_epoch
        self._backoff = Backoff()
        self._connection: FastConnection | None = None
        self._channel: Channel | None = None
        self._timer: object = None
        self._why_reopened = ""
        self._stopped = False
        self.state = ConnectionState()
        """Replaced as a whole, so that any thread may read it."""

    @property
    def broker(self) -> str:
        """Key of the endpoint."""
        return self._link.endpoint.key

    @property
    def in_use(self) -> bool:
        """Whether it wants to be connected."""
        return True

    def connected(self, connection: FastConnection) -> None:
        """The link is up."""
        self._connection = connection
        self._open_channel()

    def disconnected(self, error: SarrapipeError, code: int) -> None:
        """The link is down."""
        self._connection = None
        self._cancel_timer()
        self._ended(error, code)

    def blocked(self, *, blocked: bool) -> None:
        """The broker stops publishers, or lets them go on."""
        self.state = replace(self.state, blocked=blocked)
        self._loop.notify()

    def stop(self) -> None:
        """Do not open a channel again."""
        self._stopped = True
        self._cancel_timer()

    def _set_up(self, channel: Channel) -> None:
        """Hook: the channel is open; begin work on it."""

    def _torn_down(self, error: SarrapipeError, code: int) -> None:
        """Hook: the channel is gone, and all tags and confirms with it."""

    def _ready(self) -> None:
        """What was set up works."""
        self._backoff.reset()
        self._link.proven()
        self.state = replace(self.state, connected=True, blocked=False)
        self._loop.notify()

    def _reopen(self, why: str) -> None:
        """Close the channel on purpose; it is opened again after the shortest delay."""
        if self._channel is not None and self._channel.is_open:
            self._why_reopened = why
            self._channel.close()

    def _open_channel(self) -> None:
        self._timer = None
        if self._connection is not None and self._connection.is_open and not self._stopped:
            channel = self._connection.channel(on_open_callback=self._opened)
            channel.add_on_close_callback(self._closed)

    def _opened(self, channel: Channel) -> None:
        self._channel = channel
        self.state = replace(self.state, epoch=self._next_epoch())
        self._set_up(channel)

    def _closed(self, channel: Channel, reason: BaseException) -> None:
        connection = channel.connection
        connection.reader.forget_channel(channel.channel_number)
        if self._connection is None or not connection.is_open:
            return  # the connection goes as well, and `disconnected` follows
        error = translate(reason, self._link.endpoint.key)
        if self._why_reopened:
            error = BrokerError(f"{self._link.endpoint.key}: {self._why_reopened}")
            self._why_reopened = ""
        self._ended(error, reply_code(reason))
        if self._stopped:
            return
        delay_s = self._backoff.next_delay_s()
        _log.warning(
            "%s; the channel is opened again in %.1f s",
            error,
            delay_s,
            extra={"repeats": ("channel", self._link.endpoint.key, id(self))},
        )
        self._timer = self._loop.call_later(delay_s, self._open_channel)

    def _ended(self, error: SarrapipeError, code: int) -> None:
        self._channel = None
        self.state = ConnectionState(epoch=self.state.epoch, last_error=error)
        self._torn_down(error, code)
        self._loop.notify()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._loop.cancel(self._timer)
            self._timer = None

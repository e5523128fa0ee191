"""One connection to one broker in one role, kept up: connect, lose, wait, connect again.

Lives on the loop's thread. What it carries (consumers, a publisher) registers as a `User` and hears when the
connection is there and when it is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pika.frame import Method

from sarrapipe.broker.backoff import Backoff
from sarrapipe.broker.endpoint import Endpoint, connection_parameters
from sarrapipe.broker.faults import reply_code, translate
from sarrapipe.broker.frames import FastConnection
from sarrapipe.broker.loop import Loop
from sarrapipe.errors import ConfigError, SarrapipeError
from sarrapipe.log import get_logger

__all__ = ["Link", "User"]

_log = get_logger(__name__)


class User(Protocol):
    """What uses a link."""

    def connected(self, connection: FastConnection) -> None:
        """The connection is open: open a channel."""

    def disconnected(self, error: SarrapipeError, code: int) -> None:
        """The connection failed or was lost (AMQP reply code, or 0); it will be tried again."""

    def blocked(self, *, blocked: bool) -> None:
        """The broker asks publishers to stop, or lets them go on."""


class Link:
    """One connection with its users.

    Args:
        loop: Where it lives.
        endpoint: The broker.
        role: `consume` or `publish`; part of the connection's name.
        backoff: Delays between attempts.
    """

    def __init__(self, loop: Loop, endpoint: Endpoint, role: str, backoff: Backoff | None = None) -> None:
        self.endpoint = endpoint
        self._loop = loop
        self._role = role
        self._backoff = backoff or Backoff()
        self._users: list[User] = []
        self._connection: FastConnection | None = None
        self._open = False
        self._timer: object = None
        self._on_closed: Callable[[], None] | None = None

    def attach(self, user: User) -> None:
        """Add a user; the first one makes the link connect."""
        self._users.append(user)
        if self._open:
            user.connected(self._connection)  # type: ignore[arg-type]  # open implies there is one
        elif self._connection is None and self._timer is None:
            self._connect()

    def proven(self) -> None:
        """A user got what it came for: the next failure starts with the shortest delay."""
        self._backoff.reset()

    def close(self, on_closed: Callable[[], None]) -> None:
        """Close gracefully and call `on_closed`; nothing is tried again."""
        self._on_closed = on_closed
        if self._timer is not None:
            self._loop.cancel(self._timer)
            self._timer = None
        connection = self._connection
        if connection is None:
            on_closed()
        elif not (connection.is_closing or connection.is_closed):
            connection.close()

    def abort(self) -> None:
        """Cut the connection without a word to the broker."""
        transport = None if self._connection is None else self._connection._transport
        if transport is not None:
            transport.abort()

    def _connect(self) -> None:
        self._timer = None
        try:
            parameters = connection_parameters(self.endpoint, self._role)
        except ConfigError as error:  # a certificate vanished or is broken since the start
            self._failed(error)
            return
        self._connection = FastConnection(
            parameters,
            self._loop.native,
            self._loop.notify,
            on_open_callback=self._opened,
            on_open_error_callback=self._lost,
            on_close_callback=self._lost,
        )

    def _opened(self, connection: FastConnection) -> None:
        self._open = True
        connection.add_on_connection_blocked_callback(self._blocked)
        connection.add_on_connection_unblocked_callback(self._unblocked)
        _log.debug("broker=%s role=%s connected", self.endpoint.key, self._role)
        for user in self._users:
            user.connected(connection)

    def _blocked(self, _connection: FastConnection, frame: Method) -> None:
        _log.warning(
            "broker=%s blocked: %s; publishing waits until the broker lets us go on",
            self.endpoint.key,
            frame.method.reason,
            extra={"repeats": ("blocked", self.endpoint.key)},
        )
        for user in self._users:
            user.blocked(blocked=True)

    def _unblocked(self, _connection: FastConnection, _frame: Method) -> None:
        _log.info("broker=%s unblocked", self.endpoint.key)
        for user in self._users:
            user.blocked(blocked=False)

    def _lost(self, _connection: FastConnection, reason: BaseException) -> None:
        self._open = False
        self._connection = None
        self._failed(reason)

    def _failed(self, reason: BaseException) -> None:
        error = translate(reason, self.endpoint.key)
        for user in self._users:
            user.disconnected(error, reply_code(reason))
        if self._on_closed is not None:
            self._on_closed()
            return
        delay_s = self._backoff.next_delay_s()
        _log.warning(
            "%s (%s); next attempt in %.1f s",
            error,
            self._role,
            delay_s,
            extra={"repeats": ("link", self.endpoint.key, self._role)},
        )
        self._timer = self._loop.call_later(delay_s, self._connect)

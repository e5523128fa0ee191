"""Fetching and sending by SFTP: a few connections a server, each with much under way.

Requests go to the connection with the least to move. Further connections to a server are opened when large
ranges wait and more than one pays; small files gain nothing by them, as their requests go out ahead of the
answers. A server that refuses connections for the moment (sshd's MaxStartups) is asked again, with growing
pauses, before anything fails.

What carries the protocol is a driver: OpenSSH's `ssh` (`sshprocess`) or paramiko (`sshparamiko`).
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from sarrapipe.clock import Clock
from sarrapipe.errors import SarrapipeError, TransferError
from sarrapipe.log import get_logger
from sarrapipe.transfer import sftpwire
from sarrapipe.transfer.base import Capabilities, Done, RangeRead, Request, failed
from sarrapipe.transfer.curlloop import CurlLoop
from sarrapipe.transfer.pacing import Pacer
from sarrapipe.transfer.remotecall import RemoteCall
from sarrapipe.transfer.schedule import weight_bytes
from sarrapipe.transfer.settings import SftpSettings, Surroundings
from sarrapipe.transfer.sftpcall import OPERATIONS, SftpCall
from sarrapipe.transfer.sftplink import NotTakenIn, SftpLink, SftpPipe
from sarrapipe.transfer.sftpplace import Place, place_and_path
from sarrapipe.transfer.sftpread import SftpRead
from sarrapipe.transfer.sftpwrite import SftpWrite
from sarrapipe.transfer.sshprocess import SshProcess, can_carry
from sarrapipe.transfer.writing import RangeWrite

__all__ = ["SftpBackend", "connections_for", "make_backend"]

_log = get_logger(__name__)

_ANOTHER_BYTES: Final = 4 << 20
"""A connection that has so much to move is helped by another: setting one up takes as long as 20 MB."""
_FEW_CPUS: Final = 2
_TRIES: Final = 4
_PAUSE_S: Final = 0.25
"""Before the second try to connect; doubled before each further one, and up to half as much again at
random, as all instances of a flow tend to be refused together."""
_LOOK_S: Final = 1.0
"""Between two looks for processes that have ended and connections that nobody uses."""


class _Course(Protocol):
    """One request under way on a connection."""

    @property
    def request(self) -> Request:
        """What was asked for."""

    @property
    def wanted_bytes(self) -> int:
        """Bytes it has still to move."""

    def begin(self) -> None:
        """Send the first packet."""

    def go_on(self) -> None:
        """The source has bytes again."""

    def drop(self) -> None:
        """Leave sink or source alone, and tell nobody."""

    def lost(self, error: TransferError) -> None:
        """The connection is gone."""


@dataclass(slots=True, eq=False)
class _Connection:
    """One connection and what it carries; the link is another one when connecting is tried again."""

    place: Place
    link: SftpLink | None = None
    tries: int = 0
    courses: dict[object, _Course] = field(default_factory=dict)
    waiting: dict[object, tuple[Request, bytes]] = field(default_factory=dict)
    """Requests for the time when the server has greeted."""

    @property
    def ready(self) -> bool:
        return self.link is not None and self.link.round_trip_s > 0.0

    def load_bytes(self) -> int:
        """Bytes it has still to move."""
        waiting = sum(weight_bytes(request) for request, _ in self.waiting.values())
        return waiting + sum(course.wanted_bytes for course in self.courses.values())


class SftpBackend:
    """Requests over SFTP.

    Args:
        loop: Watches the connections.
        settings: Driver, host keys, limits.
        pacer: Holds up the servers when the flow's byte rate is used up; None if there is no limit.
        clock: Monotonic time.
    """

    capabilities = Capabilities(
        ranges=True,
        parallel=True,
        validators=True,
        local=False,
        pauses=True,
        writes=True,
        positioned_writes=True,
        operations=frozenset(OPERATIONS),
    )

    def __init__(self, loop: CurlLoop, settings: SftpSettings, pacer: Pacer | None, clock: Clock) -> None:
        self._loop = loop
        self._settings = settings
        self._pacer = pacer
        self._clock = clock
        self._connections: list[_Connection] = []
        self._by_token: dict[object, _Connection] = {}
        self._done: list[Done] = []
        self._ending: list[SftpPipe] = []
        self._looking = False
        self._cpus = os.cpu_count() or 1  # not this process's own: it may be pinned, its helpers are not

    def start(self, request: Request) -> None:
        """Begin `request`; see `TransferBackend.start`."""
        escaped = isinstance(request, RangeRead) and request.url_is_escaped
        try:
            place, path = place_and_path(request.url, request.credentials, escaped=escaped)
            name = sftpwire.file_name(path)
            if isinstance(request, RemoteCall):
                sftpwire.file_name(request.to)  # refused now, not when it is sent
            connection = self._connection_for(place)
        except SarrapipeError as error:
            self._fail(request, error)
            return
        self._begin(connection, request, name)

    def step(self) -> list[Done]:
        """What ended; the links work in `CurlLoop.run_once`."""
        done, self._done = self._done, []
        return done

    def busy(self) -> bool:
        """Whether something ended that `step` has not said."""
        return bool(self._done)

    def go_on(self, token: object) -> None:
        """The source of a write has bytes again, or its end."""
        connection = self._by_token.get(token)
        course = None if connection is None else connection.courses.get(token)
        if connection is not None and course is not None:
            course.go_on()
            self._push(connection)

    def cancel(self, token: object) -> bool:
        """Stop a request; what is on the way for it is dropped as it comes."""
        connection = self._by_token.pop(token, None)
        if connection is None:
            before = len(self._done)
            self._done = [one for one in self._done if one.token != token]
            return len(self._done) < before
        connection.waiting.pop(token, None)
        course = connection.courses.pop(token, None)
        if course is not None:
            course.drop()
            self._push(connection)
        return True

    def close(self) -> None:
        """End every connection and wait for what is behind it."""
        for connection in self._connections:
            self._close_link(connection)
        self._connections.clear()
        self._by_token.clear()
        self._done.clear()
        for pipe in self._ending:
            pipe.wait()
        self._ending.clear()

    # ---- which connection

    def _connection_for(self, place: Place) -> _Connection:
        there = [one for one in self._connections if one.place == place]
        best = min(there, key=_Connection.load_bytes, default=None)
        if best is not None and (best.load_bytes() < _ANOTHER_BYTES or len(there) >= self._worth(there)):
            return best
        connection = _Connection(place)
        self._connect(connection)
        self._connections.append(connection)
        return connection

    def _worth(self, there: list[_Connection]) -> int:
        """How many connections to a server pay; one until one was had and it is known how far it is."""
        trips = [one.link.round_trip_s for one in there if one.link is not None and one.ready]
        if not trips:
            return 1
        is_far = min(trips) >= self._settings.far_s
        return connections_for(is_far=is_far, cpus=self._cpus, limit=self._settings.connections)

    def _connect(self, connection: _Connection) -> None:
        pipe = self._pipe(connection.place)
        connection.tries += 1
        connection.link = SftpLink(
            self._loop,
            pipe,
            self._settings,
            self._pacer,
            self._clock,
            on_ready=partial(self._greeted, connection),
            on_end=partial(self._lost, connection),
        ).open()
        self._look_later()

    def _pipe(self, place: Place) -> SftpPipe:
        driver = self._settings.driver
        if driver == "openssh" or (driver == "auto" and can_carry(place)):
            return SshProcess(place, self._settings)
        # 0.2 s and 19 MB that a flow without it is spared.
        from sarrapipe.transfer.sshparamiko import ParamikoPipe

        return ParamikoPipe(place, self._settings)

    # ---- the course of a request

    def _begin(self, connection: _Connection, request: Request, name: bytes) -> None:
        self._by_token[request.token] = connection
        link = connection.link
        if link is None or not connection.ready:
            connection.waiting[request.token] = (request, name)
            return
        course = self._course(connection, link, request, name)
        connection.courses[request.token] = course
        course.begin()
        self._push(connection)

    def _course(self, connection: _Connection, link: SftpLink, request: Request, name: bytes) -> _Course:
        ended = partial(self._ended, connection)
        if isinstance(request, RangeWrite):
            return SftpWrite(request, name, link, ended)
        if isinstance(request, RemoteCall):
            return SftpCall(request, name, link, ended)
        return SftpRead(request, name, link, ended)

    def _push(self, connection: _Connection) -> None:
        """Send what is to be sent."""
        if connection.link is not None:
            connection.link.go_on()

    def _greeted(self, connection: _Connection) -> None:
        """Begin what waited, on this connection or on another that is opened for it."""
        connection.tries = 0
        self._place_anew(connection)

    def _place_anew(self, connection: _Connection) -> None:
        waiting, connection.waiting = connection.waiting, {}
        for request, name in waiting.values():
            try:
                self._begin(self._connection_for(connection.place), request, name)
            except SarrapipeError as error:
                self._fail(request, error)

    def _ended(self, connection: _Connection, course: _Course, done: Done) -> None:
        token = course.request.token
        if connection.courses.pop(token, None) is not None:
            self._by_token.pop(token, None)
            self._done.append(done)

    def _fail(self, request: Request, error: SarrapipeError) -> None:
        self._by_token.pop(request.token, None)
        self._done.append(failed(request, error))

    # ---- the end of a connection

    def _lost(self, connection: _Connection, error: TransferError) -> None:
        link, connection.link = connection.link, None
        assert link is not None, "a link that is told of was there"
        self._ending.append(link.pipe)
        if isinstance(error, NotTakenIn) and connection.tries < _TRIES and connection.waiting:
            pause_s = _PAUSE_S * 2.0 ** (connection.tries - 1) * random.uniform(1.0, 1.5)
            _log.info("%s; connecting again in %.1f s", error, pause_s)
            self._loop.call_later(pause_s, partial(self._connect_again, connection))
            return
        self._connections.remove(connection)
        for course in list(connection.courses.values()):
            course.lost(error)
        self._give_up(connection, error)

    def _give_up(self, connection: _Connection, error: SarrapipeError) -> None:
        """Let another connection to the same server do what one could not begin, if there is one."""
        if any(one.ready and one.place == connection.place for one in self._connections):
            self._place_anew(connection)
        for request, _ in connection.waiting.values():
            self._fail(request, _of(error, request))
        connection.waiting.clear()

    def _connect_again(self, connection: _Connection) -> None:
        if connection not in self._connections:
            return
        if not connection.waiting:
            self._connections.remove(connection)
            return
        try:
            self._connect(connection)
        except TransferError as error:
            self._connections.remove(connection)
            self._give_up(connection, error)

    def _close_link(self, connection: _Connection) -> None:
        link, connection.link = connection.link, None
        if link is not None:
            link.close()
            self._ending.append(link.pipe)

    def _look_later(self) -> None:
        if not self._looking:
            self._looking = True
            self._loop.call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        """Take leave of processes that ended, and close what nobody used for a while."""
        self._looking = False
        self._ending = [pipe for pipe in self._ending if not pipe.gone()]
        before_s = self._clock.monotonic_s() - self._settings.idle_s
        for connection in list(self._connections):
            link = connection.link
            if link is not None and not connection.courses and link.used_s < before_s:
                self._close_link(connection)
                self._connections.remove(connection)
        if self._connections or self._ending:
            self._look_later()


def connections_for(*, is_far: bool, cpus: int, limit: int) -> int:
    """How many connections to one server pay.

    Args:
        is_far: Each is bound by its window, not by the speed of its cipher.
        cpus: Processors of this machine. Each connection is a process at either end.
        limit: Most that may be.

    Returns:
        From 1 to `limit`.

    Source: docs/explanation/pipeline.md; on two CPUs shared with the server, one is 1.3 times as fast as two.
    """
    if is_far:
        return limit
    return min(limit, 1 if cpus <= _FEW_CPUS else 2)


def _of(error: SarrapipeError, request: Request) -> SarrapipeError:
    return type(error)(f"{error}: {request.url}")


def make_backend(surroundings: Surroundings) -> SftpBackend:
    """What the registry calls for the first sftp URL."""
    return SftpBackend(surroundings.loop, surroundings.settings.sftp, surroundings.pacer, surroundings.clock)

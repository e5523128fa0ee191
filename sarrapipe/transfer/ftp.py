"""Fetching and sending by FTP and FTPS: kept connections, one for each request that is under way.

A server is logged in to once to begin with, and when that succeeded as often as there are requests for it, up
to the flow's streams. It may take fewer: what it refuses while others of ours are logged in is taken for its
limit, and requests wait for a connection that is free. A connection that the server closed while nothing was
under way is replaced, and the request on it begins anew on another.

Files are written whole: servers differ in what REST before STOR does.
"""

from __future__ import annotations

import random
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sarrapipe.errors import SarrapipeError, TransferError
from sarrapipe.log import get_logger
from sarrapipe.transfer.base import Capabilities, Done, RangeRead, Request, failed
from sarrapipe.transfer.ftpcall import OPERATIONS, FtpCall, FtpList
from sarrapipe.transfer.ftpdata import DataNotOpened
from sarrapipe.transfer.ftplink import FtpCourse, FtpLink, FtpSurroundings, LinkClosed
from sarrapipe.transfer.ftpread import FtpRead
from sarrapipe.transfer.ftprules import FtpPlace, ServerFull, command_path, place_and_path
from sarrapipe.transfer.ftptalk import Habits, Session
from sarrapipe.transfer.ftpwrite import FtpWrite
from sarrapipe.transfer.netstream import client_context
from sarrapipe.transfer.remotecall import Operation, RemoteCall
from sarrapipe.transfer.resolver import Resolver
from sarrapipe.transfer.settings import Surroundings
from sarrapipe.transfer.writing import RangeWrite

__all__ = ["FtpBackend", "FtpServer", "make_backend"]

_log = get_logger(__name__)

_TRIES: Final = 4
_PAUSE_S: Final = 0.25
"""Before the second try to log in where others hold all that the server takes; doubled before each further
one, and up to half as much again at random, as all instances of a flow tend to be refused together."""
_LIMIT_S: Final = 60.0
"""How long a limit that was met is kept to before it is looked whether it still holds."""
_IDLE_S: Final = 60.0
"""How long a connection with nothing under way is kept."""
_LOOK_S: Final = 5.0


@dataclass(slots=True, eq=False)
class _Job:
    """One request and where it is."""

    request: Request
    path: bytes
    server: FtpServer
    link: FtpLink | None = None

    @property
    def rides_along(self) -> bool:
        return self.request.rides_along


class FtpServer:
    """All connections to one server with one login, and what waits for one.

    Args:
        place: The server.
        around: What all links have in common.
        most: Connections at a time; one more for each request that rides along, as those it rides with may
            wait for it.
        done: Told of each request's end.
    """

    def __init__(
        self, place: FtpPlace, around: FtpSurroundings, most: int, done: Callable[[Request, Done], None]
    ) -> None:
        self._place = place
        self._around = around
        self._most = most
        self._done = done
        self._habits = Habits()
        self._links: list[FtpLink] = []
        self._waiting: deque[_Job] = deque()
        self._jobs: dict[FtpLink, _Job] = {}
        self._proven = False
        """One was logged in: others would be."""
        self._limit: int | None = None
        self._limit_until_s = 0.0
        self._refusals = 0
        self._pausing = False

    @property
    def idle(self) -> bool:
        """Whether there is nothing to remember but habits."""
        return not self._links and not self._waiting

    def start(self, request: Request, path: bytes) -> _Job:
        """Begin a request, or let it wait for a connection."""
        job = _Job(request, path, self)
        if job.rides_along:
            self._waiting.appendleft(job)
        else:
            self._waiting.append(job)
        self._serve()
        return job

    def go_on(self, job: _Job) -> None:
        """The source of a write has bytes again."""
        if job.link is not None and job.link.course is not None:
            job.link.course.go_on()

    def cancel(self, job: _Job) -> None:
        """Stop a request."""
        if job.link is None:
            self._waiting.remove(job)
            return
        del self._jobs[job.link]
        job.link.drop()

    def close(self) -> None:
        """End every connection."""
        for link in self._links:
            link.close()
        self._links.clear()
        self._waiting.clear()
        self._jobs.clear()

    def look(self, now_s: float) -> None:
        """Close what nobody used for a while."""
        for link in list(self._links):
            if link.free and link.free_since_s < now_s - _IDLE_S:
                self._links.remove(link)
                link.close()

    # ---- who begins where

    def _serve(self) -> None:
        """Give what waits a connection: one that is free, else another."""
        while self._waiting:
            link = next((link for link in reversed(self._links) if link.free), None)
            if link is None:
                break
            self._begin(self._waiting.popleft(), link)
        connecting = sum(not link.ready for link in self._links)
        while len(self._waiting) > connecting and self._may_connect(connecting):
            self._connect()
            connecting += 1

    def _may_connect(self, connecting: int) -> bool:
        if self._pausing or (connecting and not self._proven):
            return False
        riding = sum(job.rides_along for job in (*self._waiting, *self._jobs.values()))
        most = self._most + riding
        if self._limit is not None and self._around.clock.monotonic_s() < self._limit_until_s:
            most = min(most, self._limit)
        return len(self._links) < most

    def _connect(self) -> None:
        link = FtpLink(
            self._place,
            Session(self._habits),
            self._around,
            on_ready=self._ready,
            on_free=self._free,
            on_done=self._ended,
            on_end=self._lost,
        )
        self._links.append(link)
        link.open()

    def _begin(self, job: _Job, link: FtpLink) -> None:
        job.link = link
        self._jobs[link] = job
        link.begin(_course(job.request, job.path, link))

    # ---- what links tell

    def _ready(self, _link: FtpLink) -> None:
        self._proven = True
        self._refusals = 0

    def _free(self, _link: FtpLink) -> None:
        self._serve()

    def _ended(self, link: FtpLink, done: Done) -> None:
        job = self._jobs.pop(link)
        self._done(job.request, done)

    def _lost(self, link: FtpLink, error: TransferError) -> None:
        if link in self._links:
            self._links.remove(link)
        job = self._jobs.pop(link, None)
        if job is not None:
            self._lost_with(job, link, error)
        elif not link.ready:
            self._refused(error)
        self._serve()

    def _lost_with(self, job: _Job, link: FtpLink, error: TransferError) -> None:
        """A connection was lost under a request."""
        course = link.course
        assert course is not None, "a link with a job has a course"
        extended = isinstance(error, DataNotOpened) and self._habits.epsv and self._place.passive
        if isinstance(error, LinkClosed) or extended:
            # Closed while idle, which is no failure; or a firewall that knows only what PASV is answered.
            if extended:
                self._habits.epsv = False
            course.drop()
            job.link = None
            self._waiting.appendleft(job)
            return
        self._done(job.request, course.end(_of(error, job.request)))

    def _refused(self, error: TransferError) -> None:
        """No login: a limit where others are in, else a reason to wait, or for all that wait to fail."""
        if self._links:
            # Not before the last that still tries is it known that none gets in.
            self._limit = len(self._links)
            self._limit_until_s = self._around.clock.monotonic_s() + _LIMIT_S
            _log.info("%s takes no more than %d connections now: %s", self._place, self._limit, error)
            self._fail(error, [job for job in self._waiting if job.rides_along])
            return
        self._limit = None
        self._refusals += 1
        if isinstance(error, ServerFull) and self._refusals < _TRIES and self._waiting:
            pause_s = _PAUSE_S * 2.0 ** (self._refusals - 1) * random.uniform(1.0, 1.5)
            _log.info("%s: %s; logging in again in %.1f s", self._place, error, pause_s)
            self._pausing = True
            self._around.loop.call_later(pause_s, self._try_again)
            return
        self._refusals = 0
        self._proven = False
        self._fail(error, list(self._waiting))

    def _try_again(self) -> None:
        self._pausing = False
        self._serve()

    def _fail(self, error: TransferError, jobs: list[_Job]) -> None:
        for job in jobs:
            self._waiting.remove(job)
            self._done(job.request, failed(job.request, _of(error, job.request)))


def _of(error: SarrapipeError, request: Request) -> SarrapipeError:
    return type(error)(f"{error}: {request.url}")


def _course(request: Request, path: bytes, link: FtpLink) -> FtpCourse:
    if isinstance(request, RangeWrite):
        return FtpWrite(request, path, link)
    if isinstance(request, RangeRead):
        return FtpRead(request, path, link)
    if request.operation is Operation.LIST:
        return FtpList(request, path, link)
    return FtpCall(request, path, link)


class FtpBackend:
    """Requests over FTP.

    Args:
        surroundings: Loop, time limits and trust (as for HTTP), pacer, clock.
    """

    capabilities = Capabilities(
        ranges=True,
        parallel=True,
        validators=True,
        local=False,
        pauses=True,
        writes=True,
        operations=OPERATIONS,
    )

    def __init__(self, surroundings: Surroundings) -> None:
        settings = surroundings.settings
        self._around = FtpSurroundings(
            loop=surroundings.loop,
            resolver=Resolver(surroundings.loop),
            settings=settings.http,
            pacer=surroundings.pacer,
            clock=surroundings.clock,
            context=self._context,
        )
        self._most = min(settings.streams, settings.streams_per_remote)
        self._tls: ssl.SSLContext | None = None
        self._servers: dict[FtpPlace, FtpServer] = {}
        self._jobs: dict[object, _Job] = {}
        self._done: list[Done] = []
        self._looking = False

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = client_context(self._around.settings)
        return self._tls

    def start(self, request: Request) -> None:
        """Begin `request`; see `TransferBackend.start`."""
        escaped = isinstance(request, RangeRead) and request.url_is_escaped
        try:
            place, path = place_and_path(request.url, request.credentials, escaped=escaped)
            if isinstance(request, RemoteCall):
                command_path(request.to)  # refused now, not when it is said
        except SarrapipeError as error:
            self._done.append(failed(request, error))
            return
        server = self._servers.get(place)
        if server is None:
            server = self._servers[place] = FtpServer(place, self._around, self._most, self._ended)
        self._jobs[request.token] = server.start(request, path)
        if not self._looking:
            self._looking = True
            self._around.loop.call_later(_LOOK_S, self._look)

    def step(self) -> list[Done]:
        """What ended; the links work in `CurlLoop.run_once`."""
        done, self._done = self._done, []
        return done

    def busy(self) -> bool:
        """Whether something ended that `step` has not said."""
        return bool(self._done)

    def go_on(self, token: object) -> None:
        """The source of a write has bytes again, or its end."""
        job = self._jobs.get(token)
        if job is not None:
            job.server.go_on(job)

    def cancel(self, token: object) -> bool:
        """Stop a request; its connection is kept if the server has a word for that."""
        job = self._jobs.pop(token, None)
        if job is None:
            before = len(self._done)
            self._done = [one for one in self._done if one.token != token]
            return len(self._done) < before
        job.server.cancel(job)
        return True

    def close(self) -> None:
        """End every connection."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()
        self._jobs.clear()
        self._done.clear()
        self._around.resolver.close()

    def _ended(self, request: Request, done: Done) -> None:
        if self._jobs.pop(request.token, None) is not None:
            self._done.append(done)

    def _look(self) -> None:
        self._looking = False
        now_s = self._around.clock.monotonic_s()
        for server in self._servers.values():
            server.look(now_s)
        if any(not server.idle for server in self._servers.values()):
            self._looking = True
            self._around.loop.call_later(_LOOK_S, self._look)


def make_backend(surroundings: Surroundings) -> FtpBackend:
    """What the registry calls for the first ftp or ftps URL."""
    return FtpBackend(surroundings)

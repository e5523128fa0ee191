"""One libcurl multi handle: the transfers in it, the sockets it wants watched, and when its timer is due.

    lane = CurlLane(epoll, connections=32, clock=clock)
    lane.add(curl)
    lane.serve(fd, mask)       # for each of `lane.watched` that is ready
    lane.run_timer()
    lane.collect()             # what ended

In each call libcurl lets every transfer of the handle go on that has more to read: a call costs what all of
them have waiting. So `CurlLoop` has one lane for what is light, and one for what is not.
"""

from __future__ import annotations

import select
from typing import Any, NamedTuple

import pycurl

from sarrapipe.clock import Clock

__all__ = ["CurlLane", "Ended"]

_TOGETHER = 64
"""Results asked for at a time."""


class Ended(NamedTuple):
    """An easy handle that libcurl is done with."""

    curl: pycurl.Curl
    code: int
    """CURLE_* number; 0 for success."""
    message: str


class CurlLane:
    """Transfers that libcurl lets go on together.

    Args:
        epoll: Where its sockets are watched; the loop's.
        connections: Kept alive for later transfers.
        clock: Monotonic time.

    Attributes:
        watched: Sockets, each with the epoll events that libcurl asked for.
        running: Transfers in it.
        timer_s: Monotonic time at which `run_timer` has something to do; None while nothing is due.
    """

    def __init__(self, epoll: select.epoll, connections: int, clock: Clock) -> None:
        self._epoll = epoll
        self._clock = clock
        self._served: dict[int, int] = {}
        self._services = 0
        self.watched: dict[int, int] = {}
        self.running = 0
        self.timer_s: float | None = None
        self._multi: Any = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, connections)

    def close(self) -> None:
        """End every connection."""
        self._multi.close()
        self.watched.clear()
        self._served.clear()
        self.running = 0

    def add(self, curl: pycurl.Curl) -> None:
        """Start a transfer."""
        self._multi.add_handle(curl)
        self.running += 1

    def remove(self, curl: pycurl.Curl) -> None:
        """Take back a handle, ended or not; one that was not ended closes its connection."""
        self._multi.remove_handle(curl)
        self.running -= 1

    def waited(self, fd: int) -> int:
        """Return what sorts sockets by when they were served last, longest ago first."""
        return self._served.get(fd, 0)

    def serve(self, fd: int, mask: int) -> None:
        """Let libcurl work on a socket that is ready, and on what else has more to read."""
        self._services += 1
        self._served[fd] = self._services
        self._multi.socket_action(fd, _selected(mask))

    def run_timer(self) -> None:
        """Let libcurl do what is due by now."""
        if self.timer_s is not None and self.timer_s <= self._clock.monotonic_s():
            self.timer_s = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)

    def collect(self) -> list[Ended]:
        """Return what ended since the last call."""
        ended: list[Ended] = []
        queued = 1 if self.running else 0
        while queued:
            queued, succeeded, failed = self._multi.info_read(_TOGETHER)
            ended += (Ended(curl, 0, "") for curl in succeeded)
            ended += (Ended(*one) for one in failed)
        return ended

    def _on_socket(self, what: int, fd: int, _multi: object, _data: object) -> None:
        """libcurl: watch this socket for that, from now on."""
        if what == pycurl.POLL_REMOVE:
            if self.watched.pop(fd, None) is not None:
                self._epoll.unregister(fd)
                self._served.pop(fd, None)
            return
        mask = (select.EPOLLIN if what & pycurl.POLL_IN else 0) | (
            select.EPOLLOUT if what & pycurl.POLL_OUT else 0
        )
        if fd in self.watched:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)
            self._served[fd] = self._services  # behind those that are waiting, or they might wait for good
        self.watched[fd] = mask

    def _on_timer(self, timeout_ms: int) -> None:
        """libcurl: call `socket_action(SOCKET_TIMEOUT)` after so many milliseconds; -1 is never."""
        self.timer_s = None if timeout_ms < 0 else self._clock.monotonic_s() + timeout_ms / 1000


def _selected(mask: int) -> int:
    """Epoll's events as libcurl's CURL_CSELECT_* bits."""
    selected: int = 0
    if mask & (select.EPOLLIN | select.EPOLLHUP):
        selected |= pycurl.CSELECT_IN
    if mask & select.EPOLLOUT:
        selected |= pycurl.CSELECT_OUT
    if mask & select.EPOLLERR:
        selected |= pycurl.CSELECT_ERR
    return selected

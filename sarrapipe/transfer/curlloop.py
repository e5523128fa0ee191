"""One libcurl multi handle driven over an epoll instance of our own.

libcurl says which sockets to watch and when its next timer is due (`curl_multi_socket_action`); everything
else that may wake the flow, such as the broker thread's event descriptor, is watched beside them. So the
main thread waits in one place, and for nothing longer than it has to.

The loop knows nothing of HTTP: it runs easy handles that others have set up, and says which ended.
"""

from __future__ import annotations

import heapq
import select
from collections.abc import Callable, Container
from typing import Any, NamedTuple

import pycurl

from sarrapipe.clock import SYSTEM_CLOCK, Clock

__all__ = ["CurlLoop", "Ended"]

_IDLE_CONNECTIONS = 16
"""Kept-alive connections to remotes with nothing under way, beyond one per stream."""
_EVENTS = 64
"""Sockets served between two looks at what has ended, at most."""
_SLICE_S = 0.002
"""For so long they are served, those first that were not served the longest: with data waiting on every one of
16 sockets, a turn of all of them took 0.15 s, and small files four turns (scenario `latency`)."""

_WAKEUP = select.EPOLLIN | select.EPOLLET
"""Reported once for each time it is signalled: `run_once` is called again before anybody drained it."""


class Ended(NamedTuple):
    """An easy handle that libcurl is done with."""

    curl: pycurl.Curl
    code: int
    """CURLE_* number; 0 for success."""
    message: str


class CurlLoop:
    """Waits for sockets, timers and wake-up descriptors, and lets libcurl work.

    Args:
        streams: Handles that run at the same time; sizes the connection cache.
        clock: Monotonic time.
    """

    def __init__(self, streams: int = 16, clock: Clock = SYSTEM_CLOCK) -> None:
        self._streams = streams
        self._clock = clock
        self._ended: list[Ended] = []
        self._timer_s: float | None = None
        self._watched: dict[int, int] = {}
        self._wakeups: set[int] = set()
        self._others: dict[int, Callable[[], None]] = {}
        self._served: dict[int, int] = {}
        self._services = 0
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self._running = 0
        self.woken: list[int] = []
        """Wake-up descriptors that were readable in the last `run_once`; whoever added one drains it."""
        self._multi: Any = None
        self._epoll: select.epoll | None = None

    def open(self) -> CurlLoop:
        """Create the multi handle and the epoll instance; after a fork, never before."""
        self._epoll = select.epoll()
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, self._streams + _IDLE_CONNECTIONS)
        for fd in self._wakeups:
            self._epoll.register(fd, _WAKEUP)
        return self

    def close(self) -> None:
        """End every connection. May be repeated."""
        if self._multi is not None:
            self._multi.close()
            self._multi = None
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None
        self._watched.clear()
        self._served.clear()
        self._others.clear()
        self._later.clear()
        self._ended.clear()
        self._running = 0

    def add_wakeup(self, fd: int) -> None:
        """Let `run_once` return once each time `fd` becomes readable."""
        self._wakeups.add(fd)
        if self._epoll is not None:
            self._epoll.register(fd, _WAKEUP)

    def remove_wakeup(self, fd: int) -> None:
        """Stop watching `fd`; before it is closed."""
        self._wakeups.discard(fd)
        if self._epoll is not None:
            self._epoll.unregister(fd)

    def watch(self, fd: int, call: Callable[[], None], *, writing: bool = False) -> None:
        """Call from `run_once` when `fd` is readable or closed (`writing`: takes bytes again)."""
        assert self._epoll is not None, "the loop was not opened"
        self._others[fd] = call
        self._epoll.register(fd, select.EPOLLOUT if writing else select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        """Stop calling for `fd`; before it is closed. May be repeated."""
        if self._others.pop(fd, None) is not None and self._epoll is not None:
            self._epoll.unregister(fd)

    def add(self, curl: pycurl.Curl) -> None:
        """Start a handle; it comes back from `ended` when it is done."""
        self._multi.add_handle(curl)
        self._running += 1

    def remove(self, curl: pycurl.Curl) -> None:
        """Take back a handle, ended or not; one that was not ended closes its connection."""
        self._multi.remove_handle(curl)
        self._running -= 1
        if self._ended:
            # One that ended and was not asked for yet must not end again under its next read.
            self._ended = [one for one in self._ended if one.curl is not curl]

    def call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call once, from `run_once`, when `delay_s` seconds have passed."""
        self._serial += 1
        heapq.heappush(self._later, (self._clock.monotonic_s() + delay_s, self._serial, call))

    def end(self, curl: pycurl.Curl, code: int, message: str) -> None:
        """Let a handle come back from `ended` that failed outside of libcurl's own turn."""
        if all(one.curl is not curl for one in self._ended):
            self._ended.append(Ended(curl, code, message))

    def go_on(self, curl: pycurl.Curl) -> None:
        """End the pause of a handle that is under way.

        What libcurl still held is handed over from in here, and may be refused by the callback of the handle;
        a request that waits to be sent may have been answered. A handle that fails here comes back from
        `ended` with the others. Where the transfer had ended before, libcurl knows no connection to go on
        with (CURLE_BAD_FUNCTION_ARGUMENT), and says of itself how it ended.
        """
        try:
            curl.pause(pycurl.PAUSE_CONT)
        except pycurl.error as error:
            code, message = error.args
            if code != pycurl.E_BAD_FUNCTION_ARGUMENT:
                self.end(curl, code, message)

    def ended(self, mine: Container[pycurl.Curl]) -> list[Ended]:
        """Handles that ended since the last call; still to be taken out with `remove`.

        Args:
            mine: The caller's handles; other backends ask for theirs.
        """
        if not self._ended:
            return []
        ended = [one for one in self._ended if one.curl in mine]
        self._ended = [one for one in self._ended if one.curl not in mine]
        return ended

    def run_once(self, timeout_s: float) -> None:
        """Wait for something to happen, at most `timeout_s` seconds, and let libcurl work on it."""
        assert self._epoll is not None, "the loop was not opened"
        now = self._clock.monotonic_s()
        events = self._epoll.poll(self._wait_s(timeout_s, now), _EVENTS)
        self.woken = [fd for fd, _ in events if fd in self._wakeups]
        if len(events) > 1:
            events.sort(key=self._last_served)
        until_s = self._clock.monotonic_s() + _SLICE_S
        for fd, mask in events:
            if (call := self._others.get(fd)) is not None:
                call()
            elif fd in self._watched:
                self._services += 1
                self._served[fd] = self._services
                self._multi.socket_action(fd, _selected(mask))
            else:
                continue
            if self._clock.monotonic_s() >= until_s:
                break  # what was not served is reported again
        self._run_timers()
        if self._running:
            self._collect()

    def _last_served(self, event: tuple[int, int]) -> int:
        return self._served.get(event[0], 0)

    def _wait_s(self, timeout_s: float, now: float) -> float:
        if self._ended:
            return 0.0
        if self._timer_s is not None:
            timeout_s = min(timeout_s, self._timer_s - now)
        if self._later:
            timeout_s = min(timeout_s, self._later[0][0] - now)
        return max(timeout_s, 0.0)

    def _run_timers(self) -> None:
        now = self._clock.monotonic_s()
        if self._timer_s is not None and self._timer_s <= now:
            self._timer_s = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        while self._later and self._later[0][0] <= now:
            heapq.heappop(self._later)[2]()

    def _collect(self) -> None:
        queued = 1
        while queued:
            queued, succeeded, failed = self._multi.info_read(_EVENTS)
            known = {id(one.curl) for one in self._ended}
            ended = [*(Ended(curl, 0, "") for curl in succeeded), *(Ended(*one) for one in failed)]
            self._ended += [one for one in ended if id(one.curl) not in known]

    def _on_socket(self, what: int, fd: int, _multi: object, _data: object) -> None:
        """libcurl: watch this socket for that, from now on."""
        assert self._epoll is not None, "libcurl only calls from inside run_once, add and remove"
        if what == pycurl.POLL_REMOVE:
            if self._watched.pop(fd, None) is not None:
                self._epoll.unregister(fd)
                self._served.pop(fd, None)
            return
        mask = (select.EPOLLIN if what & pycurl.POLL_IN else 0) | (
            select.EPOLLOUT if what & pycurl.POLL_OUT else 0
        )
        if fd in self._watched:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)
        self._watched[fd] = mask

    def _on_timer(self, timeout_ms: int) -> None:
        """libcurl: call `socket_action(SOCKET_TIMEOUT)` after so many milliseconds; -1 is never."""
        self._timer_s = None if timeout_ms < 0 else self._clock.monotonic_s() + timeout_ms / 1000


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

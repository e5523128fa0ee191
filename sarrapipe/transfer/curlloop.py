"""Libcurl driven over an epoll instance of our own.

libcurl says which sockets to watch and when its next timer is due (`curl_multi_socket_action`); everything
else that may wake the flow, such as the broker thread's event descriptor, is watched beside them. So the
main thread waits in one place, and for nothing longer than it has to.

What is light has a multi handle of its own, and is served first: a call into libcurl takes as long as all
transfers of its handle have data for, 15 to 60 ms with twelve large ones, and a small file takes several.

The loop knows nothing of HTTP: it runs easy handles that others have set up, and says which ended.
"""

from __future__ import annotations

import heapq
import select
from collections.abc import Callable, Container

import pycurl

from sarrapipe.clock import SYSTEM_CLOCK, Clock
from sarrapipe.transfer.curllane import CurlLane, Ended
from sarrapipe.transfer.schedule import LATELY

__all__ = ["CurlLoop", "Ended"]

_IDLE_CONNECTIONS = 16
"""Kept-alive connections to remotes with nothing under way, beyond one per stream."""
_EVENTS = 64
"""Sockets served between two looks at what has ended, at most."""
_SLICE_S = 0.002
"""For so long those of large transfers are served, first those that have waited longest: with data on every
one of 16 sockets a turn of all of them took 0.15 s, and a small file four turns (scenario `latency`). As
libcurl lets all of them go on in each call, that may well be one socket a turn."""

_WAKEUP = select.EPOLLIN | select.EPOLLET
"""Reported once for each time it is signalled: `run_once` is called again before anybody drained it."""


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
        self._wakeups: set[int] = set()
        self._others: dict[int, Callable[[], None]] = {}
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self._bulk_alone = LATELY
        self._lanes: tuple[CurlLane, ...] = ()
        self._lane_of: dict[pycurl.Curl, CurlLane] = {}
        self.woken: list[int] = []
        """Wake-up descriptors that were readable in the last `run_once`; whoever added one drains it."""
        self._epoll: select.epoll | None = None

    def open(self) -> CurlLoop:
        """Create the multi handles and the epoll instance; after a fork, never before."""
        self._epoll = epoll = select.epoll()
        connections = self._streams + _IDLE_CONNECTIONS
        self._lanes = tuple(CurlLane(epoll, connections, self._clock) for _ in range(2))
        for fd in self._wakeups:
            self._epoll.register(fd, _WAKEUP)
        return self

    def close(self) -> None:
        """End every connection. May be repeated."""
        for lane in self._lanes:
            lane.close()
        self._lanes = ()
        self._lane_of.clear()
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None
        self._others.clear()
        self._later.clear()
        self._ended.clear()

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

    def add(self, curl: pycurl.Curl, *, bulk: bool = False) -> None:
        """Start a handle; it comes back from `ended` when it is done.

        Args:
            curl: The handle, set up.
            bulk: It moves much: what is light goes before it.
        """
        lane = self._lane_of[curl] = self._lanes[bulk]
        lane.add(curl)
        self._bulk_alone = min(self._bulk_alone + 1, LATELY) if bulk else 0

    @property
    def is_shared(self) -> bool:
        """Whether light transfers came lately, which those that move much should not hold up."""
        return self._bulk_alone < LATELY

    def remove(self, curl: pycurl.Curl) -> None:
        """Take back a handle, ended or not; one that was not ended closes its connection."""
        self._lane_of.pop(curl).remove(curl)
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
        events = self._epoll.poll(self._wait_s(timeout_s, self._clock.monotonic_s()), _EVENTS)
        light, bulk = self._lanes
        self.woken = []
        waiting = []
        for fd, mask in events:
            if fd in self._wakeups:
                self.woken.append(fd)
            elif (call := self._others.get(fd)) is not None:
                call()
            elif fd in light.watched:
                light.serve(fd, mask)
            elif fd in bulk.watched:
                waiting.append((fd, mask))
        light.run_timer()
        self._run_later()
        _serve_some(bulk, waiting, self._clock)
        bulk.run_timer()
        self._collect()

    def _wait_s(self, timeout_s: float, now: float) -> float:
        if self._ended:
            return 0.0
        for lane in self._lanes:
            if lane.timer_s is not None:
                timeout_s = min(timeout_s, lane.timer_s - now)
        if self._later:
            timeout_s = min(timeout_s, self._later[0][0] - now)
        return max(timeout_s, 0.0)

    def _run_later(self) -> None:
        now = self._clock.monotonic_s()
        while self._later and self._later[0][0] <= now:
            heapq.heappop(self._later)[2]()

    def _collect(self) -> None:
        for lane in self._lanes:
            if ended := lane.collect():
                known = {id(one.curl) for one in self._ended}
                self._ended += [one for one in ended if id(one.curl) not in known]


def _serve_some(lane: CurlLane, waiting: list[tuple[int, int]], clock: Clock) -> None:
    """Serve sockets for a slice of time; those that were not served are reported again."""
    if len(waiting) > 1:
        waiting.sort(key=lambda event: lane.waited(event[0]))
    until_s = clock.monotonic_s() + _SLICE_S
    for fd, mask in waiting:
        if fd in lane.watched:  # else serving another ended it
            lane.serve(fd, mask)
            if clock.monotonic_s() >= until_s:
                return

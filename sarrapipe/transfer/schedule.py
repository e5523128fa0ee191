"""Which of the waiting requests runs next: a pure decision, fair to remotes and to small files.

Requests wait in one line per remote and size class. Remotes take turns. Within a remote, small and large ones
share the streams half and half while both wait, so that ten thousand small files do not hold up a large one,
nor a hundred segments every small file; where only one kind waits it may use all streams.

Except that a few streams are kept free of large requests for some time after a small one came: where segments
hold every stream, a small file waits until one of them has ended, 0.6 s of 9 MiB at 16 MB/s each (scenario
`latency`: half of the small files waited for that, and 1 in 100 for more than 3 s).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from sarrapipe.transfer.base import RangeRead, Request
from sarrapipe.transfer.remotecall import RemoteCall

__all__ = ["LATELY", "SMALL_BYTES", "Schedule", "remote_of", "weight_bytes"]

SMALL_BYTES = 1_048_576
"""A read up to this size is small: on a fast network it takes less time than setting a connection up."""
_KEPT_FREE = 4
"""One in so many streams is kept free of large requests, one at least where there are two."""
LATELY = 256
"""For so many large requests after the last small one; 2 GiB of the smallest segments."""
ASSUMED_BYTES = SMALL_BYTES
"""What a read of unknown length is taken to be."""


def remote_of(url: str) -> str:
    """Scheme and host of a URL, which is what `streams_per_remote` counts; a plain path is a file: URL."""
    if url.startswith("/"):
        return "file://"
    end = url.find("/", url.find("://") + 3)
    return url if end < 0 else url[:end]


def weight_bytes(request: Request) -> int:
    """Bytes a request is accounted for while it waits and runs."""
    if isinstance(request, RemoteCall):
        return 0
    if request.length is not None:
        return request.length
    if isinstance(request, RangeRead) and request.whole_size is not None:
        return max(request.whole_size - request.offset, 0)
    return ASSUMED_BYTES


@dataclass(slots=True)
class _Remote:
    small: deque[Request] = field(default_factory=deque)
    large: deque[Request] = field(default_factory=deque)
    running_small: int = 0
    running_large: int = 0

    def next(self, streams: int, kept_free: int) -> Request | None:
        running = self.running_small + self.running_large
        if running >= streams:
            return None
        if self.running_large >= streams - kept_free:
            return self.small.popleft() if self.small else None
        if self.small and self.large:
            if self.running_small <= self.running_large:
                return self.small.popleft()
            return self.large.popleft()
        line = self.small or self.large
        return line.popleft() if line else None

    def idle(self) -> bool:
        return not (self.small or self.large or self.running_small or self.running_large)


class Schedule:
    """The lines of waiting requests and the counts of running ones.

    Args:
        streams: Requests that may run at a time.
        per_remote: Of those, how many to one remote.
    """

    def __init__(self, streams: int, per_remote: int) -> None:
        self._streams = streams
        self._per_remote = per_remote
        self._remotes: dict[str, _Remote] = {}
        self._turn: deque[str] = deque()
        self._riding: deque[Request] = deque()
        self.waiting = 0
        self.running = 0
        self._running_small = 0
        self._small_lately = 0
        self.bytes = 0
        """Bytes of all requests that wait or run."""

    def push(self, request: Request) -> None:
        """Let a request wait for its turn."""
        if _rides_along(request):
            self._riding.append(request)
            self.waiting += 1
            return
        name = remote_of(request.url)
        remote = self._remotes.get(name)
        if remote is None:
            remote = self._remotes[name] = _Remote()
            self._turn.append(name)
        weight = weight_bytes(request)
        if weight <= SMALL_BYTES:
            self._small_lately = LATELY
            remote.small.append(request)
        else:
            remote.large.append(request)
        self.waiting += 1
        self.bytes += weight

    def pop(self) -> Request | None:
        """Take the request that shall start now; None if none may."""
        if self._riding:
            self.waiting -= 1
            return self._riding.popleft()
        if self.running >= self._streams or not self.waiting:
            return None
        per_remote = min(self._per_remote, self._streams)
        kept_free = self._kept_free(per_remote)
        for _ in range(len(self._turn)):
            name = self._turn[0]
            self._turn.rotate(-1)
            remote = self._remotes[name]
            request = remote.next(per_remote, per_remote if self._is_full_of_large else kept_free)
            if request is not None:
                self._count(remote, request, 1)
                self.waiting -= 1
                return request
        return None

    @property
    def kept_free(self) -> int:
        """Streams that no large request gets now, of those that are free."""
        return max(self._kept_free(self._streams) - self._running_small, 0)

    @property
    def _is_full_of_large(self) -> bool:
        return self.running - self._running_small >= self._streams - self._kept_free(self._streams)

    def _kept_free(self, streams: int) -> int:
        """Return how many of some streams are for small requests alone."""
        return -(-streams // _KEPT_FREE) if self._small_lately and streams > 1 else 0

    def finished(self, request: Request) -> None:
        """A running request ended."""
        if _rides_along(request):
            return
        name = remote_of(request.url)
        remote = self._remotes[name]
        self._count(remote, request, -1)
        self.bytes -= weight_bytes(request)
        self._forget(name, remote)

    def discard(self, token: object) -> bool:
        """Take a waiting request out; False if none has this token."""
        for request in self._riding:
            if request.token == token:
                self._riding.remove(request)
                self.waiting -= 1
                return True
        for name, remote in self._remotes.items():
            for line in (remote.small, remote.large):
                for request in line:
                    if request.token == token:
                        line.remove(request)
                        self.waiting -= 1
                        self.bytes -= weight_bytes(request)
                        self._forget(name, remote)
                        return True
        return False

    def _count(self, remote: _Remote, request: Request, by: int) -> None:
        self.running += by
        if weight_bytes(request) <= SMALL_BYTES:
            self._running_small += by
            remote.running_small += by
            return
        remote.running_large += by
        if by > 0 and self._small_lately:
            self._small_lately -= 1

    def _forget(self, name: str, remote: _Remote) -> None:
        if remote.idle():
            del self._remotes[name]
            self._turn.remove(name)


def _rides_along(request: Request) -> bool:
    return request.rides_along

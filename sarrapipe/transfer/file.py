"""A file system of this machine: `file:` URLs and plain absolute paths, to fetch from and to send to.

Where nothing has to hash the bytes they are copied inside the kernel (`copy_file_range`, which shares
extents on file systems that can); otherwise they pass through a buffer that stays in the processor's cache.
Copying is done in slices, a few milliseconds at a time, so that the network transfers of the same engine do
not wait.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from urllib.parse import unquote

from sarrapipe.clock import Clock
from sarrapipe.errors import (
    AccessDenied,
    MessageError,
    SarrapipeError,
    SourceChanged,
    SourceGone,
    TransferError,
)
from sarrapipe.segment.sink import storage_error
from sarrapipe.transfer.base import Capabilities, Done, RangeDone, RangeRead, Request, failed, staging
from sarrapipe.transfer.curlloop import CurlLoop
from sarrapipe.transfer.filewrite import OPERATIONS, LocalWrite, call
from sarrapipe.transfer.pacing import Pacer
from sarrapipe.transfer.remotecall import RemoteCall
from sarrapipe.transfer.settings import Surroundings
from sarrapipe.transfer.writing import RangeWrite, WriteDone

__all__ = ["FileBackend", "local_path", "make_backend"]

_SLICE_BYTES = 4 << 20
"""Copied in one step: 3 ms at 1.4 GB/s."""
_BUFFER_BYTES = 256 << 10
"""Read, hashed and written while it is in the second-level cache (docs/explanation/pipeline.md)."""
_NO_KERNEL_COPY = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF})


def local_path(url: str, *, escaped: bool = False) -> str:
    """Path of a `file:` URL, with or without an authority, or of a plain absolute path.

    Args:
        url: `file:/a/b`, `file:///a/b`, `file://localhost/a/b` or `/a/b`.
        escaped: `%` begins an escape; otherwise it is a character of the name.

    Raises:
        MessageError: No absolute path, another host, or a NUL in it.
    """
    path = url[5:] if url[:5].lower() == "file:" else url
    if path.startswith("//"):
        host, _, path = path[2:].partition("/")
        if host not in ("", "localhost"):
            raise MessageError(f"file URL of another host: {url[:200]!r}")
        path = "/" + path.lstrip("/")
    if escaped:
        path = unquote(path, errors="surrogateescape")
    if not path.startswith("/") or "\0" in path:
        raise MessageError(f"no absolute path in file URL: {url[:200]!r}")
    return path


def _entity_tag(found: os.stat_result) -> str:
    """What tells one version of a file from another; of the form that HTTP's has."""
    return f'"{found.st_mtime_ns:x}-{found.st_ino:x}-{found.st_size:x}"'


class _Copy:
    """One range on its way."""

    __slots__ = ("_staging", "at", "end", "fd", "found", "in_kernel", "read", "start", "waits")

    def __init__(self, read: RangeRead) -> None:
        path = local_path(read.url, escaped=read.url_is_escaped)
        self.read = read
        self.fd = _open(path)
        try:
            self.found = os.fstat(self.fd)
            self._check()
        except SarrapipeError:
            os.close(self.fd)
            raise
        self.start = self.at = read.offset
        self.end = self.found.st_size if read.length is None else read.offset + read.length
        self.in_kernel = read.sink.fileno() >= 0
        self._staging = staging(read.sink)
        self.waits = False
        """The sink has no room; `call_when_room` asked for."""

    def _check(self) -> None:
        read, size = self.read, self.found.st_size
        if not stat.S_ISREG(self.found.st_mode):
            raise TransferError(f"no regular file: {read.url}")
        if read.whole_size is not None and size != read.whole_size:
            raise SourceChanged(f"source has {size} bytes, announced {read.whole_size}: {read.url}")
        if read.offset + (read.length or 0) > size:
            raise SourceChanged(f"source has {size} bytes, asked up to {read.offset + (read.length or 0)}")
        if read.validator is not None and read.validator != _entity_tag(self.found):
            raise SourceChanged(f"source is of another version than {read.validator}: {read.url}")

    def slice(self, buffer: bytearray, budget: int) -> int:
        """Copy up to `budget` bytes; return how many. 0 with bytes missing means the source was cut short."""
        count = min(budget, self.end - self.at)
        if count <= 0:
            return 0
        if self.in_kernel:
            return self._kernel_slice(buffer, count)
        return self._buffer_slice(buffer, count)

    def _kernel_slice(self, buffer: bytearray, count: int) -> int:
        sink = self.read.sink
        target = sink.position()
        try:
            done = os.copy_file_range(self.fd, sink.fileno(), count, self.at, target)
        except OSError as error:
            if error.errno in _NO_KERNEL_COPY:
                self.in_kernel = False
                return self._buffer_slice(buffer, count)
            raise storage_error(error, f"copy {self.read.url}") from error
        sink.advance(done)
        self.at += done
        return done

    def _buffer_slice(self, buffer: bytearray, count: int) -> int:
        view = memoryview(buffer)
        done = 0
        while done < count:
            piece = min(len(view), count - done)
            if self._staging is not None and not self._staging.room(piece):
                self.waits = True
                break
            try:
                got = os.preadv(self.fd, [view[:piece]], self.at)
            except OSError as error:
                raise TransferError(f"read {self.read.url}: {error.strerror}") from error
            if not got:
                break
            self.read.sink.write(view[:got])
            self.at += got
            done += got
        return done

    def call_when_room(self, call: Callable[[], None]) -> None:
        """Call when it waits no more."""
        assert self._staging is not None, "nothing else waits"
        self._staging.call_when_room(call)

    def verdict(self) -> SarrapipeError | None:
        """What has to be said about a copy that came to its end."""
        now = os.fstat(self.fd)
        if self.at < self.end or _entity_tag(now) != _entity_tag(self.found):
            return SourceChanged(f"source changed while it was read: {self.read.url}")
        return None

    def close(self) -> None:
        """Close the source. May be repeated."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def done(self, error: SarrapipeError | None) -> RangeDone:
        """Close the source and say how it went."""
        self.close()
        return RangeDone(
            read=self.read,
            received=self.at - self.start,
            status=0,
            etag=_entity_tag(self.found),
            whole_size=self.found.st_size,
            error=error,
        )


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        text = f"read {path}: {error.strerror}"
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise SourceGone(text) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise AccessDenied(text) from error
        raise TransferError(text) from error


class FileBackend:
    """Requests for local files.

    Args:
        loop: Wakes the engine when a pause is over.
        pacer: Holds copying up when the flow's byte rate is used up; None if there is no limit.
        clock: Monotonic time.
    """

    capabilities = Capabilities(
        ranges=True,
        parallel=False,
        validators=True,
        local=True,
        pauses=True,
        writes=True,
        positioned_writes=True,
        operations=frozenset(OPERATIONS),
    )

    def __init__(self, loop: CurlLoop, pacer: Pacer | None, clock: Clock) -> None:
        self._loop = loop
        self._pacer = pacer
        self._clock = clock
        self._copies: deque[_Copy | LocalWrite] = deque()
        self._waiting: dict[object, _Copy | LocalWrite] = {}
        self._done: list[Done] = []
        self._held_until_s = 0.0
        self._buffer = bytearray()

    def start(self, request: Request) -> None:
        """Open the file, and copy in `step`; do at once what is done to names."""
        try:
            if isinstance(request, RemoteCall):
                self._done.append(call(request, local_path(request.url)))
            elif isinstance(request, RangeWrite):
                self._copies.append(LocalWrite(request, local_path(request.url)))
            else:
                self._buffer = self._buffer or bytearray(_BUFFER_BYTES)
                self._copies.append(_Copy(request))
        except SarrapipeError as error:
            self._done.append(failed(request, error))

    def busy(self) -> bool:
        """Whether there is something to copy and copying is not held up."""
        return bool(self._done or self._copies) and self._clock.monotonic_s() >= self._held_until_s

    def step(self) -> Sequence[Done]:
        """Copy one slice: the rest of several small files, or a part of a large one; all take turns."""
        done, self._done = self._done, []
        budget = _SLICE_BYTES
        while self._copies and budget > 0 and self._clock.monotonic_s() >= self._held_until_s:
            copy = self._copies.popleft()
            moved, ended = (
                self._write(copy, budget) if isinstance(copy, LocalWrite) else self._read(copy, budget)
            )
            budget -= max(moved, 1)
            if ended is not None:
                done.append(ended)
            self._pace(moved)
        return done

    def _read(self, copy: _Copy, budget: int) -> tuple[int, RangeDone | None]:
        before = copy.at
        try:
            copy.waits = False
            moved = copy.slice(self._buffer, budget)
            if copy.waits:
                self._waiting[copy.read.token] = copy
                copy.call_when_room(partial(self.go_on, copy.read.token))
                return moved, None
            if moved and copy.at < copy.end:
                self._copies.append(copy)
                return moved, None
            return moved, copy.done(copy.verdict())
        except SarrapipeError as error:
            return copy.at - before, copy.done(error)

    def _write(self, copy: LocalWrite, budget: int) -> tuple[int, WriteDone | None]:
        before = copy.sent
        try:
            moved = copy.slice(budget)
        except SarrapipeError as error:
            return copy.sent - before, copy.done(error)
        if copy.ended:
            return moved, copy.done(None)
        if copy.waits:
            self._waiting[copy.write.token] = copy
        else:
            self._copies.append(copy)
        return moved, None

    def _pace(self, moved: int) -> None:
        if self._pacer is None:
            return
        wait_s = self._pacer.spend(moved)
        if wait_s > 0:
            self._held_until_s = self._clock.monotonic_s() + wait_s
            self._loop.call_later(wait_s, _nothing)

    def go_on(self, token: object) -> None:
        """Ask the source of a write, or the sink of a read, again."""
        copy = self._waiting.pop(token, None)
        if copy is not None:
            self._copies.append(copy)

    def cancel(self, token: object) -> bool:
        """Stop copying for a request."""
        waiting = self._waiting.pop(token, None)
        if waiting is not None:
            waiting.close()
            return True
        for copy in self._copies:
            if _request(copy).token == token:
                self._copies.remove(copy)
                copy.close()
                return True
        before = len(self._done)
        self._done = [one for one in self._done if one.token != token]
        return len(self._done) < before

    def close(self) -> None:
        """Close every file."""
        for copy in (*self._copies, *self._waiting.values()):
            copy.close()
        self._copies.clear()
        self._waiting.clear()
        self._done.clear()


def _request(copy: _Copy | LocalWrite) -> RangeRead | RangeWrite:
    return copy.write if isinstance(copy, LocalWrite) else copy.read


def _nothing() -> None:
    """The timer alone is what is wanted: it ends the engine's wait."""


def make_backend(surroundings: Surroundings) -> FileBackend:
    """What the registry calls for the first file URL."""
    return FileBackend(surroundings.loop, surroundings.pacer, surroundings.clock)

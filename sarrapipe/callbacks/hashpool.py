"""Digests of files and of their blocks, computed on all cores at once.

Threads, not processes: hashlib and xxhash let go of the interpreter lock, and so does `preadv`; two threads
hash as fast as two processes do, and share the files' page cache either way. Files are read, not mapped:
a file that shrinks while it is mapped ends the process with SIGBUS.

The smallest file comes first, and a large one lets others pass after every slice, so that no file waits for
one that is a thousand times its size. What is not fetched with `take` holds the threads up: that is how a
slow broker slows down hashing.
"""

from __future__ import annotations

import heapq
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

from sarrapipe.clock import SYSTEM_CLOCK, Clock
from sarrapipe.errors import SourceChanged
from sarrapipe.message import identity

__all__ = ["FileDigests", "HashPool"]

T = TypeVar("T")

_STEP_BYTES: Final = 512 * 1024  # fits into the cache of a core, and one lock hand-over is nothing beside it
_SLICE_BYTES: Final = 64 << 20
"""After so many bytes a thread looks for something smaller: 30 ms of xxh3_128, 120 ms of sha512."""
_READY_LIMIT: Final = 256
"""Digests that wait to be taken before threads stop."""
_RACY_NS: Final = 20_000_000
"""A file written to twice within a tick of the kernel's clock (10 ms at 100 Hz) keeps its modification time:
it is not read before its last change is so old."""


def _cores() -> int:
    """Return how many cores this process may use; not every system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class FileDigests(Generic[T]):
    """One version of one file, and the ranges of it that are to be hashed.

    Args:
        path: Of the file.
        status: Which version: inode, size and modification time.
        method: A digest method of `message.identity`.
        ranges: Number, offset and length of each range, in the order in which they are wanted; at least one.
        open_flags: Of `open`.
        owner: What it belongs to, for whoever takes the digests.

    Attributes:
        error: Why there is no more to come of it.
    """

    def __init__(
        self,
        path: str,
        status: os.stat_result,
        method: str,
        ranges: Iterator[tuple[int, int, int]],
        open_flags: int,
        owner: T,
    ) -> None:
        self.path = path
        self.status = status
        self.method = method
        self.owner = owner
        self.error: OSError | SourceChanged | None = None
        # Under the pool's lock: ranges begun and not finished, the next one, those after it.
        self.running = 0
        self._following: tuple[int, int, int] | None = next(ranges)
        self._ranges = ranges
        self._flags = open_flags

    @property
    def all_begun(self) -> bool:
        """Whether no range is left to begin with."""
        return self._following is None

    def begin_next(self) -> tuple[int, int, int] | None:
        """Take the next range."""
        range_now, self._following = self._following, next(self._ranges, None)
        self.running += range_now is not None
        return range_now

    def begin_no_more(self) -> None:
        """Leave out what was not begun."""
        self._following = None

    def open(self) -> int:
        """Open the file, if it is still the version meant.

        Raises:
            OSError: It cannot be opened.
            SourceChanged: It is another one, or was written to.
        """
        descriptor = os.open(self.path, self._flags)
        try:
            self._compare(os.fstat(descriptor))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def check(self, descriptor: int) -> None:
        """Look whether what was read is still what the path names.

        Raises:
            OSError: The path is gone.
            SourceChanged: The file was written to, or another one took its place.
        """
        self._compare(os.fstat(descriptor))
        self._compare(os.stat(self.path, follow_symlinks=not self._flags & os.O_NOFOLLOW))

    def _compare(self, now: os.stat_result) -> None:
        before = self.status
        if (now.st_size, now.st_mtime_ns, now.st_ino, now.st_dev) != (
            before.st_size,
            before.st_mtime_ns,
            before.st_ino,
            before.st_dev,
        ):
            raise SourceChanged("changed while it was read")


class _Range(Generic[T]):
    """A range being hashed; between two slices nobody holds it, nor a descriptor for it."""

    __slots__ = ("_hasher", "end", "file", "number", "offset")

    def __init__(self, file: FileDigests[T], number: int, offset: int, length: int) -> None:
        self.file = file
        self.number = number
        self.offset = offset
        self.end = offset + length
        self._hasher = identity.hasher(file.method)

    def read(self, buffer: memoryview, go_on: Callable[[], bool]) -> None:
        """Hash one slice.

        Raises:
            OSError: The file cannot be read.
            SourceChanged: It is no longer the version meant.
        """
        assert self._hasher is not None  # callers ask for digests only
        descriptor = self.file.open()
        try:
            until = min(self.end, self.offset + _SLICE_BYTES)
            while self.offset < until and go_on():
                got = os.preadv(descriptor, [buffer[: until - self.offset]], self.offset)
                if not got:
                    raise SourceChanged("became shorter while it was read")
                self._hasher.update(buffer[:got])
                self.offset += got
            self.file.check(descriptor)
        finally:
            os.close(descriptor)

    def value(self) -> str:
        """Return the digest as an identity's value."""
        assert self._hasher is not None
        return self._hasher.value()


class HashPool(Generic[T]):
    """Threads that hash; started when first needed.

    Args:
        wake: Called from a thread when there is something to take.
        threads: How many; as many as this process has cores if not given.
        clock: Source of time.
    """

    def __init__(
        self, wake: Callable[[], None], threads: int | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._wake = wake
        self._count = threads or _cores()
        self._clock = clock
        self._changed = threading.Condition()
        # Size of the file, its turn, whether its next range is yet to be begun, number of the range, task.
        self._heap: list[tuple[int, int, bool, int, FileDigests[T] | _Range[T]]] = []
        self._turns: dict[FileDigests[T], int] = {}
        self._next_turn = 0
        self._ready: deque[tuple[FileDigests[T], int, str | None]] = deque()
        self._running = 0
        self._threads: list[threading.Thread] = []
        self._closed = False

    @property
    def files(self) -> int:
        """How many files are not finished."""
        return len(self._turns)

    def submit(self, file: FileDigests[T]) -> None:
        """Hash the ranges of a file."""
        with self._changed:
            self._turns[file] = self._next_turn
            self._push(file, begun=False, number=0, task=file)
            self._next_turn += 1
            while len(self._threads) < self._count:
                name = f"hash-{len(self._threads) + 1}"
                self._threads.append(threading.Thread(target=self._loop, name=name, daemon=True))
                self._threads[-1].start()
            self._changed.notify_all()

    def take(self, limit: int) -> list[tuple[FileDigests[T], int, str | None]]:
        """Return digests as file, number and value, at most so many, in the order in which they were ready.

        The end of a file that failed has no value: its `error` says why. What was computed of it before and
        not taken yet is left out.
        """
        taken: list[tuple[FileDigests[T], int, str | None]] = []
        with self._changed:
            while self._ready and len(taken) < limit:
                file, number, value = self._ready.popleft()
                if value is None or file.error is None:
                    taken.append((file, number, value))
            self._changed.notify_all()
        return taken

    @property
    def has_ready(self) -> bool:
        """Whether `take` would return something."""
        return bool(self._ready)

    def close(self) -> None:
        """End the threads, within one step; what is not finished is dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._heap.clear()
        self._turns.clear()

    # ---- the threads

    def _loop(self) -> None:
        buffer = memoryview(bytearray(_STEP_BYTES))
        while (part := self._next()) is not None:
            error: OSError | SourceChanged | None = None
            try:
                self._wait_out(part.file.status)
                part.read(buffer, lambda: not self._closed)
            except (OSError, SourceChanged) as caught:
                error = caught
            self._sliced(part, error)

    def _wait_out(self, status: os.stat_result) -> None:
        age_ns = self._clock.wall_ns() - status.st_mtime_ns
        if 0 <= age_ns < _RACY_NS:
            self._clock.sleep((_RACY_NS - age_ns) / 1e9)

    def _next(self) -> _Range[T] | None:
        """Wait for a range to go on with; None when the pool is closed."""
        with self._changed:
            while not self._closed:
                if self._heap and len(self._ready) + self._running < _READY_LIMIT:
                    part = self._pop()
                    if part is not None:
                        self._running += 1
                        return part
                else:
                    self._changed.wait()
        return None

    def _push(
        self, file: FileDigests[T], *, begun: bool, number: int, task: FileDigests[T] | _Range[T]
    ) -> None:
        entry = (file.status.st_size, self._turns[file], not begun, number, task)
        heapq.heappush(self._heap, entry)

    def _pop(self) -> _Range[T] | None:
        """Take the next range of the smallest file; None if what came up has ended."""
        task = heapq.heappop(self._heap)[-1]
        if isinstance(task, _Range):
            if task.file.error is None:
                return task
            self._finish(task.file)
            return None
        if task.error is not None:
            task.begin_no_more()
            self._forget_if_done(task)
            return None
        following = task.begin_next()
        assert following is not None  # only files with something left are on the heap
        if not task.all_begun:
            self._push(task, begun=False, number=0, task=task)
        return _Range(task, *following)

    def _sliced(self, part: _Range[T], error: OSError | SourceChanged | None) -> None:
        file = part.file
        with self._changed:
            self._running -= 1
            if self._closed:
                return
            if error is not None and file.error is None:
                file.error = error
                self._ready.append((file, part.number, None))
            elif file.error is None and part.offset < part.end:
                self._push(file, begun=True, number=part.number, task=part)
                self._changed.notify()
                return
            elif file.error is None:
                self._ready.append((file, part.number, part.value()))
            self._finish(file)
            self._changed.notify()
        self._wake()

    def _finish(self, file: FileDigests[T]) -> None:
        file.running -= 1
        self._forget_if_done(file)

    def _forget_if_done(self, file: FileDigests[T]) -> None:
        if file.all_begun and not file.running and self._turns.pop(file, None) is not None:
            self._wake()

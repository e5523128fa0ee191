"""Compare blocks with what stands in place, and copy those that are the same, on a thread of its own.

    main thread                          this thread
    -----------                          -----------
    begin(...)    ───────────────────►   read the range of the file in place, hash it
                                         another digest: it is to be fetched
                                         equal: copy it into the inflight file, read it back, hash it again
    completed()   ◄──── wake ─────────   its digest, or None

A file that was written in place is read once more before it is finished, by the digests that the ledger has.

The file in place may be changed by anybody while it is read and copied: what counts is the digest of what was
read back. A job that was cancelled writes nothing any more when `cancel` returns, so its block may be
given to another process.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import xxhash

from sarrapipe.crashpoints import passing
from sarrapipe.errors import SarrapipeError
from sarrapipe.log import get_logger
from sarrapipe.message import identity
from sarrapipe.message.model import Identity
from sarrapipe.segment.keep import copy_piece, pieces, read_range

__all__ = ["Comparer", "Comparison", "Job", "Recheck", "Rechecked"]

_log = get_logger(__name__)

_READ_BYTES: Final = 1 << 20


class Job(ABC):
    """Something to be read, and perhaps copied.

    Attributes:
        cancelled: Nobody wants it any more.
        writing: Held while a piece is copied.
    """

    __slots__ = ("cancelled", "writing")

    def __init__(self) -> None:
        self.cancelled = False
        self.writing = threading.Lock()

    def goes_on(self) -> bool:
        """Whether it is still wanted."""
        return not self.cancelled

    @abstractmethod
    def run(self, buffer: bytearray) -> None:
        """Do it, in the thread.

        Raises:
            SarrapipeError: It could not be done.
        """

    @abstractmethod
    def close(self) -> None:
        """Free the descriptors."""


class Comparison(Job):
    """One range that may be there already.

    Args:
        owner: Whoever asked.
        source: Descriptor of the file in place; duplicated.
        target: Descriptor of the inflight file; duplicated. None where the file in place is what is written,
            so that nothing is to be copied.
        offset: Of the range, in both.
        length: Bytes.
        announced: Method and value of the digest that the range has to have.

    Attributes:
        digest: xxh3_128 of the range, which is in the inflight file; None: it is to be fetched.
    """

    __slots__ = ("announced", "digest", "length", "offset", "owner", "source", "target")

    def __init__(
        self,
        owner: object,
        source: int,
        target: int | None,
        offset: int,
        length: int,
        announced: Identity,
    ) -> None:
        super().__init__()
        self.owner = owner
        self.source = os.dup(source)
        self.target = None if target is None else os.dup(target)
        self.offset = offset
        self.length = length
        self.announced = announced
        self.digest: bytes | None = None

    def close(self) -> None:
        """Free the descriptors."""
        os.close(self.source)
        if self.target is not None:
            os.close(self.target)

    def run(self, buffer: bytearray) -> None:
        """Compare, and copy what is equal."""
        announced = identity.hasher(self.announced.method)
        assert announced is not None, "callers ask for digests only"
        own = xxhash.xxh3_128()
        if not read_range(self.source, self.offset, self.length, (announced, own), buffer, self.goes_on):
            return
        if announced.value() != self.announced.value:
            return
        digest = own.digest()
        if self.target is not None:
            passing("block_equal")
            again = xxhash.xxh3_128()
            if not self.copy(self.target):
                return
            if not read_range(self.target, self.offset, self.length, (again,), buffer, self.goes_on):
                return
            if again.digest() != digest:
                return
        self.digest = digest

    def copy(self, target: int) -> bool:
        """Copy the range; False if it is not wanted any more."""
        for offset, count in pieces(self.offset, self.length):
            with self.writing:
                if self.cancelled:
                    return False
                copy_piece(self.source, target, offset, count)
        return True


class Rechecked(Protocol):
    """Whoever wants a file looked at once more."""

    def rechecked(self, job: Recheck) -> None:
        """Take the answer; in the flow's thread."""


class Recheck(Job):
    """All ranges of a file that was visible while it was written, read once more.

    Args:
        owner: Whoever asked.
        fd: Descriptor of the file; duplicated.
        ranges: Offset, length and xxh3_128 of each.
        value: Handed back with the answer.

    Attributes:
        is_right: Every range has its digest.
    """

    __slots__ = ("_fd", "_ranges", "is_right", "owner", "value")

    def __init__(
        self, owner: Rechecked, fd: int, ranges: Sequence[tuple[int, int, bytes]], value: str | None
    ) -> None:
        super().__init__()
        self.owner = owner
        self.value = value
        self.is_right = False
        self._fd = os.dup(fd)
        self._ranges = ranges

    def close(self) -> None:
        """Free the descriptor."""
        os.close(self._fd)

    def run(self, buffer: bytearray) -> None:
        """Read and compare."""
        for offset, length, digest in self._ranges:
            hasher = xxhash.xxh3_128()
            if not read_range(self._fd, offset, length, (hasher,), buffer, self.goes_on):
                return
            if hasher.digest() != digest:
                return
        self.is_right = True


class Comparer:
    """The comparing thread, started when first needed.

    Its queue holds no more than there are blocks and files in hand.

    Args:
        wake: Called from the thread when a job is done.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._condition = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._done: deque[Job] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._buffer = bytearray()

    def begin(self, job: Job) -> None:
        """Take a job on."""
        with self._condition:
            self._waiting.append(job)
            if self._thread is None:
                self._buffer = bytearray(_READ_BYTES)
                self._thread = threading.Thread(target=self._loop, name="compare", daemon=True)
                self._thread.start()
            self._condition.notify()

    def cancel(self, job: Job) -> None:
        """Stop a job; nothing is written for it when this returns, after a piece at most."""
        job.cancelled = True
        with job.writing:
            return

    @property
    def has_completed(self) -> bool:
        """Whether `completed` would return something; to be asked after the wake-up was cleared."""
        return bool(self._done)

    def completed(self) -> list[Job]:
        """Return what was done since the last call, without what was cancelled."""
        done = []
        while self._done:
            job = self._done.popleft()
            if not job.cancelled:
                done.append(job)
        return done

    def close(self) -> None:
        """End the thread; what was not begun is not done."""
        with self._condition:
            self._closed = True
            for job in self._waiting:
                job.cancelled = True
            self._condition.notify()
        if self._thread is not None:
            self._thread.join()
        for job in self._waiting:
            job.close()
        self._waiting.clear()

    def _loop(self) -> None:
        while (job := self._next()) is not None:
            try:
                job.run(self._buffer)
            except SarrapipeError as error:
                _log.warning(
                    "taken for different, as it could not be compared with what is in place: %s", error
                )
            finally:
                job.close()
            self._done.append(job)
            self._wake()

    def _next(self) -> Job | None:
        with self._condition:
            while not self._closed:
                if self._waiting:
                    return self._waiting.popleft()
                self._condition.wait()
        return None

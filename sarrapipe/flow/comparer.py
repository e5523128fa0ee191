"""Compare blocks with what stands in place, and copy those that are the same, on a thread of its own.

    main thread                          this thread
    -----------                          -----------
    compare(...)  ───────────────────►   read the range of the file in place, hash it
                                         another digest: it is to be fetched
                                         equal: copy it into the inflight file, read it back, hash it again
    completed()   ◄──── wake ─────────   its digest, or None

The file in place may be changed by anybody while it is read and copied: what counts is the digest of what was
read back. A comparison that was cancelled writes nothing any more when `cancel` returns, so its block may be
given to another process.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

import xxhash

from sarrapipe.crashpoints import passing
from sarrapipe.errors import SarrapipeError
from sarrapipe.log import get_logger
from sarrapipe.message import identity
from sarrapipe.message.model import Identity
from sarrapipe.segment.keep import copy_piece, pieces, read_range

__all__ = ["Comparer", "Comparison"]

_log = get_logger(__name__)

_READ_BYTES: Final = 1 << 20


class Comparison:
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
        cancelled: Nobody wants it any more.
        writing: Held while a piece is copied.
    """

    __slots__ = (
        "announced", "cancelled", "digest", "length", "offset", "owner", "source", "target", "writing",
    )  # fmt: skip

    def __init__(
        self,
        owner: object,
        source: int,
        target: int | None,
        offset: int,
        length: int,
        announced: Identity,
    ) -> None:
        self.owner = owner
        self.source = os.dup(source)
        self.target = None if target is None else os.dup(target)
        self.offset = offset
        self.length = length
        self.announced = announced
        self.digest: bytes | None = None
        self.cancelled = False
        self.writing = threading.Lock()

    def goes_on(self) -> bool:
        """Whether it is still wanted."""
        return not self.cancelled

    def close(self) -> None:
        """Free the descriptors."""
        os.close(self.source)
        if self.target is not None:
            os.close(self.target)


class Comparer:
    """The comparing thread, started when first needed. Its queue holds no more than there are blocks in hand.

    Args:
        wake: Called from the thread when a comparison is done.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._condition = threading.Condition()
        self._waiting: deque[Comparison] = deque()
        self._done: deque[Comparison] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._buffer = bytearray()

    def compare(self, comparison: Comparison) -> None:
        """Take a comparison on."""
        with self._condition:
            self._waiting.append(comparison)
            if self._thread is None:
                self._buffer = bytearray(_READ_BYTES)
                self._thread = threading.Thread(target=self._loop, name="compare", daemon=True)
                self._thread.start()
            self._condition.notify()

    def cancel(self, comparison: Comparison) -> None:
        """Stop a comparison; nothing is written for it when this returns, after a piece at most."""
        comparison.cancelled = True
        with comparison.writing:
            return

    @property
    def has_completed(self) -> bool:
        """Whether `completed` would return something; to be asked after the wake-up was cleared."""
        return bool(self._done)

    def completed(self) -> list[Comparison]:
        """Return what was compared since the last call, without what was cancelled."""
        done = []
        while self._done:
            comparison = self._done.popleft()
            if not comparison.cancelled:
                done.append(comparison)
        return done

    def close(self) -> None:
        """End the thread; what was not begun is not compared."""
        with self._condition:
            self._closed = True
            for comparison in self._waiting:
                comparison.cancelled = True
            self._condition.notify()
        if self._thread is not None:
            self._thread.join()
        for comparison in self._waiting:
            comparison.close()
        self._waiting.clear()

    def _loop(self) -> None:
        while (comparison := self._next()) is not None:
            try:
                self._run(comparison)
            except SarrapipeError as error:
                _log.warning("a block is fetched, as it could not be taken from the file in place: %s", error)
            finally:
                comparison.close()
            self._done.append(comparison)
            self._wake()

    def _next(self) -> Comparison | None:
        with self._condition:
            while not self._closed:
                if self._waiting:
                    return self._waiting.popleft()
                self._condition.wait()
        return None

    def _run(self, comparison: Comparison) -> None:
        announced = identity.hasher(comparison.announced.method)
        assert announced is not None, "callers ask for digests only"
        own = xxhash.xxh3_128()
        if not self._read(comparison, comparison.source, announced, own):
            return
        if announced.value() != comparison.announced.value:
            return
        digest = own.digest()
        if comparison.target is not None:
            passing("block_equal")
            again = xxhash.xxh3_128()
            if not self._copy(comparison, comparison.target):
                return
            if not self._read(comparison, comparison.target, again) or again.digest() != digest:
                return
        comparison.digest = digest

    def _read(self, comparison: Comparison, fd: int, *hashers: identity.Hasher | xxhash.xxh3_128) -> bool:
        offset, length = comparison.offset, comparison.length
        return read_range(fd, offset, length, hashers, self._buffer, comparison.goes_on)

    def _copy(self, comparison: Comparison, target: int) -> bool:
        for offset, count in pieces(comparison.offset, comparison.length):
            with comparison.writing:
                if comparison.cancelled:
                    return False
                copy_piece(comparison.source, target, offset, count)
        return True

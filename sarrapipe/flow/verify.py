"""Hash whole files behind the writes, on a thread of its own.

Segments arrive in any order; a digest over the whole file needs its bytes in order. The thread follows the
part of a file that is written without a gap from its beginning, reading it back from the page cache, so that
little is left to do when the last segment comes. hashlib and xxhash release the interpreter lock.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from sarrapipe.errors import InflightDamaged, SarrapipeError, StorageError
from sarrapipe.message import identity

__all__ = ["Hashed", "Verification", "Verifier"]

_STEP_BYTES: Final = 1 << 20


class Hashed(Protocol):
    """Whoever wants a file hashed."""

    def hashed(self, value: str | None, error: SarrapipeError | None) -> None:
        """Take the digest, or why there is none; in the flow's thread."""


class Verification:
    """One file being hashed.

    Attributes:
        owner: Whoever asked.
        value: The digest, when it is known.
        error: Why there is none.
    """

    def __init__(self, owner: Hashed, fd: int, size: int, hasher: identity.Hasher) -> None:
        self.owner = owner
        self.value: str | None = None
        self.error: SarrapipeError | None = None
        # Own descriptor: the task may close its file while the thread reads.
        self.fd = os.dup(fd)
        self.size = size
        self.hasher = hasher
        # Written by the flow's thread, read by the hashing one.
        self.written = 0
        self.cancelled = False
        # Flow's thread only: segments beyond the first gap.
        self.islands: dict[int, int] = {}
        # Hashing thread only.
        self.hashed = 0


class Verifier:
    """The hashing thread, started when first needed.

    Args:
        wake: Called from the thread when a digest is ready.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._condition = threading.Condition()
        self._active: list[Verification] = []
        self._done: deque[Verification] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._buffer = bytearray(_STEP_BYTES)

    def follow(self, owner: Hashed, fd: int, size: int, method: str) -> Verification:
        """Begin to hash a file that is being written.

        Args:
            owner: Given the digest.
            fd: Descriptor of the file; duplicated.
            size: Bytes of the whole file.
            method: A digest method of `message.identity`.
        """
        hasher = identity.hasher(method)
        assert hasher is not None  # callers ask for digests only
        verification = Verification(owner, fd, size, hasher)
        with self._condition:
            self._active.append(verification)
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="verify", daemon=True)
                self._thread.start()
        return verification

    def wrote(self, verification: Verification, offset: int, length: int) -> None:
        """Say that a range of the file is written."""
        verification.islands[offset] = length
        end = verification.written
        while (more := verification.islands.pop(end, None)) is not None:
            end += more
        if end > verification.written:
            with self._condition:
                verification.written = end
                self._condition.notify()

    def wrote_all(self, verification: Verification) -> None:
        """Say that the whole file is written, by whomever."""
        with self._condition:
            verification.written = verification.size
            self._condition.notify()

    def forget(self, verification: Verification) -> None:
        """Stop hashing a file."""
        with self._condition:
            verification.cancelled = True
            self._condition.notify()

    @property
    def has_completed(self) -> bool:
        """Whether `completed` would return something; to be asked after the wake-up was cleared."""
        return bool(self._done)

    def completed(self) -> list[Verification]:
        """Return what was hashed since the last call."""
        done = []
        while self._done:
            verification = self._done.popleft()
            if not verification.cancelled:
                done.append(verification)
        return done

    def close(self) -> None:
        """End the thread."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        if self._thread is not None:
            self._thread.join()
        for verification in self._active:
            os.close(verification.fd)
        self._active.clear()

    def _loop(self) -> None:
        while (verification := self._next()) is not None:
            if not verification.cancelled:
                self._step(verification)
            if verification.cancelled or verification.error or verification.hashed == verification.size:
                self._end(verification)

    def _next(self) -> Verification | None:
        with self._condition:
            while not self._closed:
                for verification in self._active:
                    if verification.cancelled or verification.hashed < verification.written:
                        return verification
                    if verification.size == verification.hashed:
                        return verification
                self._condition.wait()
        return None

    def _step(self, verification: Verification) -> None:
        count = min(_STEP_BYTES, verification.written - verification.hashed)
        if count <= 0:
            return
        view = memoryview(self._buffer)[:count]
        try:
            got = os.preadv(verification.fd, [view], verification.hashed)
        except OSError as error:
            verification.error = StorageError(f"reading back for verification: {error.strerror}")
            return
        if got == 0:
            verification.error = InflightDamaged("a file under way became shorter while it was verified")
            return
        verification.hasher.update(view[:got])
        verification.hashed += got

    def _end(self, verification: Verification) -> None:
        with self._condition:
            self._active.remove(verification)
        os.close(verification.fd)
        if not verification.cancelled:
            if verification.error is None:
                verification.value = verification.hasher.value()
            self._done.append(verification)
            self._wake()

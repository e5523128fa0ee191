"""Where the bytes of a range go: straight into the file under assembly, hashed on the way.

sink = DirectSink(fd, offset=8 << 20, length=8 << 20, hasher=xxhash.xxh3_128())
sink.write(view)            # once for each piece libcurl hands over, 16 KiB
sink.hasher.digest()        # when sink.written == length
"""

from __future__ import annotations

import errno
import os
from typing import Protocol

from sarrapipe.errors import IdentityMismatch, NoSpace, StorageError, TooLarge, UnsafePath

__all__ = ["DirectSink", "DiscardSink", "Updatable", "storage_error"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_LEADS_OUT = frozenset({errno.ELOOP, errno.EXDEV})


class Updatable(Protocol):
    """A hash in the making: hashlib's, xxhash's and `sarrapipe.message.identity`'s all are."""

    def update(self, data: memoryview | bytes, /) -> object:
        """Take the next bytes."""


def storage_error(error: OSError, what: str) -> StorageError | UnsafePath:
    """Translate what the local file system said.

    Args:
        error: As raised by a function of `os`.
        what: What was tried, naming the path: `make /data/x/y`.

    Returns:
        The error to be raised from `error`: `NoSpace`, `TooLarge` (a file larger than the file system or the
        process may have), `UnsafePath` (`native.open_beneath` was led outside), or `StorageError`.
    """
    text = f"{what}: {error.strerror or error}"
    if error.errno in _FULL:
        return NoSpace(text)
    if error.errno == errno.EFBIG:
        return TooLarge(text)
    if error.errno in _LEADS_OUT:
        return UnsafePath(text)
    return StorageError(text)


class DirectSink:
    """Writes a range into a file at its place and hashes it.

    Args:
        fd: Descriptor of the file, open for writing; owned by the caller.
        offset: Where the range begins in the file.
        length: Bytes in the range; None if that is not known. More than that is refused before it is written,
            so a server that sends too much cannot touch what follows.
        hasher: Gets every byte, in order; None for none.
        name: Path of the file for error messages.
    """

    __slots__ = ("_at", "_end", "_fd", "_name", "_offset", "hasher")

    def __init__(
        self,
        fd: int,
        offset: int = 0,
        length: int | None = None,
        hasher: Updatable | None = None,
        name: str = "",
    ) -> None:
        self._fd = fd
        self._offset = offset
        self._end = None if length is None else offset + length
        self._name = name
        self.hasher = hasher
        self._at = offset

    @property
    def written(self) -> int:
        """Bytes in the file so far."""
        return self._at - self._offset

    def write(self, data: memoryview | bytes) -> None:
        """Write and hash the next bytes.

        Written first and hashed after: either order takes the same time, and a byte that could not be
        written is not in the digest.

        Raises:
            IdentityMismatch: They reach beyond the end of the range; none of them is written.
            StorageError: The file system refused them (`NoSpace` if it is full).
        """
        count = len(data)
        self._check(count)
        try:
            done = os.pwrite(self._fd, data, self._at)
            while done < count:
                done += os.pwrite(self._fd, data[done:], self._at + done)
        except OSError as error:
            raise storage_error(error, f"write {self._name or f'descriptor {self._fd}'}") from error
        if self.hasher is not None:
            self.hasher.update(data)
        self._at += count

    def _check(self, count: int) -> None:
        if self._end is not None and self._at + count > self._end:
            length = self._end - self._offset
            raise IdentityMismatch(f"more than the {length} bytes of the range came {self._name}".rstrip())

    @property
    def place(self) -> tuple[int, int, int | None, str]:
        """Descriptor, offset and length of the range, and the name for messages: for what writes instead."""
        return self._fd, self._offset, None if self._end is None else self._end - self._offset, self._name

    def fileno(self) -> int:
        """The descriptor, if bytes may be copied into it because nothing has to hash them; else -1."""
        return self._fd if self.hasher is None else -1

    def position(self) -> int:
        """Offset in the file of the next byte."""
        return self._at

    def advance(self, count: int) -> None:
        """Account for bytes copied at `position` without `write`.

        Raises:
            IdentityMismatch: They reach beyond the end of the range.
        """
        self._check(count)
        self._at += count


class DiscardSink:
    """Counts, hashes if asked to, and forgets: for measuring a source, and for verifying without storing.

    Args:
        length: Bytes that may come; None for any number.
        hasher: Gets every byte, in order; None for none.
    """

    __slots__ = ("_length", "hasher", "written")

    def __init__(self, length: int | None = None, hasher: Updatable | None = None) -> None:
        self._length = length
        self.hasher = hasher
        self.written = 0

    def write(self, data: memoryview | bytes) -> None:
        """Count and hash the next bytes.

        Raises:
            IdentityMismatch: There are more than were to come.
        """
        self.advance(len(data))
        if self.hasher is not None:
            self.hasher.update(data)

    def fileno(self) -> int:
        """No descriptor: everything passes `write`."""
        return -1

    def position(self) -> int:
        """How many bytes came."""
        return self.written

    def advance(self, count: int) -> None:
        """Count bytes.

        Raises:
            IdentityMismatch: There are more than were to come.
        """
        if self._length is not None and self.written + count > self._length:
            raise IdentityMismatch(f"more than the {self._length} bytes of the range came")
        self.written += count

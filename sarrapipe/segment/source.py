"""Where the bytes of a range come from that is to be sent: a part of an open file, read in order.

source = FileSource(fd, offset=0, length=size, hasher=hasher, name=path)
source.read(65536)        # a view of the next bytes; empty at the end of the range
"""

from __future__ import annotations

import os
from typing import Final

from sarrapipe.errors import SourceChanged, StorageError
from sarrapipe.segment.sink import Updatable

__all__ = ["FileSource"]

_BUFFER_BYTES: Final = 262_144
"""Read at once; what is handed out then costs no system call. The same as on the way in
(`transfer.httpstream.GATHER_BYTES`)."""


class FileSource:
    """Reads a range of a file in order.

    Args:
        fd: Descriptor of the file, open for reading; owned by the caller.
        offset: Where the range begins.
        length: Bytes in the range.
        hasher: Gets every byte, in order; None for none.
        name: Path of the file for error messages.
    """

    __slots__ = ("_at", "_buffer", "_end", "_fd", "_filled", "_name", "_used", "hasher")

    def __init__(
        self, fd: int, offset: int, length: int, hasher: Updatable | None = None, name: str = ""
    ) -> None:
        self._fd = fd
        self._at = offset
        self._end = offset + length
        self._name = name
        self.hasher = hasher
        self._buffer: memoryview | None = None
        self._filled = 0
        self._used = 0

    def read(self, count: int) -> memoryview | None:
        """Return the next bytes, at most `count`; an empty view at the end.

        Raises:
            SourceChanged: The file has become shorter.
            StorageError: It cannot be read.
        """
        if self._used == self._filled:
            self._fill()
        assert self._buffer is not None
        end = min(self._used + count, self._filled)
        view = self._buffer[self._used : end]
        self._at += len(view)
        self._used = end
        return view

    def _fill(self) -> None:
        wanted = min(self._end - self._at, _BUFFER_BYTES)
        if self._buffer is None:
            self._buffer = memoryview(bytearray(wanted))
        self._filled = self._used = 0
        if wanted <= 0:
            return
        try:
            got = os.preadv(self._fd, [self._buffer[:wanted]], self._at)
        except OSError as error:
            raise StorageError(f"read {self._name or self._fd}: {error.strerror}") from error
        if not got:
            raise SourceChanged(f"{self._name or self._fd} has become shorter while it was sent")
        if self.hasher is not None:
            self.hasher.update(self._buffer[:got])
        self._filled = got

    def fileno(self) -> int:
        """The descriptor, if bytes may be copied from it because nothing has to hash them; else -1."""
        return self._fd if self.hasher is None else -1

    def position(self) -> int:
        """Offset in the file of the next byte."""
        return self._at

    def advance(self, count: int) -> None:
        """Account for bytes copied from `position` without `read`."""
        self._at += count

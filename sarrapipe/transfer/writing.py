"""Sending: a range of bytes to be written at the other side, and how that went.

    RangeWrite(url="sftp://pump/in/.a.tmp", source=FileSource(fd, 0, size), token=task, length=size)

A file is written under a name of the caller's choice; that it appears under its final one when it is whole
is the caller's business, by a `RemoteCall` that renames it. Several ranges of one file may be written at a
time where the backend is able to (`Capabilities.positioned_writes`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sarrapipe.errors import SarrapipeError
from sarrapipe.transfer.credentials import Credentials

__all__ = ["RangeWrite", "Source", "WriteDone"]


class Source(Protocol):
    """Where the bytes to be written come from (`sarrapipe.segment.source` has the implementations)."""

    def read(self, count: int) -> memoryview | None:
        """Return the next bytes, at most `count`; they are only valid until the next call.

        Returns:
            An empty view at the end of the range. None where the next bytes are not there yet: the backend
            asks again after `TransferEngine.go_on`.

        Raises:
            StorageError: They cannot be read.
        """

    def fileno(self) -> int:
        """The descriptor a backend may copy from directly, or -1 if every byte has to pass `read`."""

    def position(self) -> int:
        """Offset in that descriptor of the next byte."""

    def advance(self, count: int) -> None:
        """Account for `count` bytes that were copied from the descriptor without `read`."""


@dataclass(slots=True, kw_only=True)
class RangeWrite:
    """One range of bytes to be written; not changed after it was submitted."""

    url: str
    """Where it goes: scheme, host, and the path, nothing escaped."""
    source: Source
    token: object
    """Anything; handed back in `WriteDone`. Unique among all requests under way."""
    length: int
    """Bytes in the range: what `source` yields."""
    offset: int = 0
    """Where the first byte goes. The file is made where it is not there."""
    whole: bool = True
    """The range is all of the file: what was there before goes. Otherwise bytes outside of it stay."""
    rides_along: bool = False
    """Its bytes come from reads of the same engine, which count for both: with a stream of its own it could
    hold one that those reads are waiting for."""
    mode: int | None = None
    """Permission bits of a file that is made, where the protocol can say that; None: as the server likes."""
    credentials: Credentials | None = None


@dataclass(slots=True, kw_only=True)
class WriteDone:
    """How a range write ended."""

    write: RangeWrite
    sent: int
    """Bytes that were handed to the server; it has taken all of them if there is no error."""
    status: int = 0
    """The last answer in the protocol's own numbers; 0 if there was none."""
    retry_after_s: float | None = None
    """How long the server asked to be left alone (429, 503)."""
    error: SarrapipeError | None = None
    """Of the server or of the source if the range was not written whole; None if it was."""

    @property
    def token(self) -> object:
        """The token of the write."""
        return self.write.token

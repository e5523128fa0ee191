"""One range read over SFTP: open, look, ask for pieces, look again, close.

A server may answer in any order, so a piece that is not the next one waits in memory, as do all pieces until
the file was found to be what was announced. Where all of the range fits into one request, every request is
sent at once behind the open: two round trips a file.

Version 3 of SFTP has no entity tags: size and time of the last change, as `fstat` tells them when the file
is opened and after the last piece, are what pins a version.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import Final

from sarrapipe.errors import SarrapipeError, SourceChanged, TransferError
from sarrapipe.transfer import sftpwire
from sarrapipe.transfer.base import RangeDone, RangeRead, staging
from sarrapipe.transfer.sftplink import SftpLink

__all__ = ["SftpRead", "version_of"]

_NO_MORE: Final = b""
_SMALL_BYTES: Final = 1 << 20
"""A file up to this size does not wait for the segments of larger ones (`schedule.SMALL_BYTES`)."""


def version_of(found: sftpwire.Attributes) -> str:
    """What tells one version of a file from another; of the form that HTTP's has."""
    return f'"{found.mtime_s or 0:x}-{found.size or 0:x}"'


class SftpRead:
    """A read under way.

    Args:
        read: What is wanted.
        name: Of the file, at the server (`sftpwire.file_name`).
        link: The connection.
        ended: Told once how it went; not if it was cancelled.
    """

    __slots__ = (
        "_asked",
        "_at",
        "_early",
        "_end",
        "_ended",
        "_found",
        "_full",
        "_handle",
        "_link",
        "_over",
        "_pinned",
        "_received",
        "_rest",
        "_staging",
        "name",
        "request",
    )

    def __init__(
        self, read: RangeRead, name: bytes, link: SftpLink, ended: Callable[[SftpRead, RangeDone], None]
    ) -> None:
        self.request = read
        self.name = name
        self._link = link
        self._ended = ended
        self._handle = b""
        self._found: sftpwire.Attributes | None = None
        self._at = read.offset
        """Where the next byte for the sink is in the file."""
        self._asked = read.offset
        self._end = -1
        self._early: dict[int, bytes] = {}
        self._rest: list[tuple[int, int]] = []
        """What short answers left to be asked for: offset and length."""
        self._received = 0
        self._over = False
        self._pinned = False
        self._staging = staging(read.sink)
        self._full = False
        """The sink has no room: what is on the way is kept, and nothing more is asked for."""

    @property
    def wanted_bytes(self) -> int:
        """Bytes it is still to bring; those of an unknown size count none."""
        if self._end >= 0:
            return self._end - self._at
        return self.request.length or 0

    def begin(self) -> None:
        """Ask for the file to be opened."""
        self._link.request(sftpwire.OPEN, sftpwire.string(self.name) + sftpwire.OPEN_READ, self._opened)

    def go_on(self) -> None:
        """Nothing waits for a source here."""

    def drop(self) -> None:
        """Bring nothing more to the sink, and tell nobody."""
        if not self._over:
            self._stop()

    def lost(self, error: TransferError) -> None:
        """The connection is gone."""
        if not self._over:
            self._over = True
            self._tell(type(error)(f"{error}: {self.request.url}"))

    # ---- from the open to the last piece

    def _opened(self, kind: int, body: memoryview) -> None:
        if kind != sftpwire.HANDLE:
            self._fail(_refusal(kind, body, f"open {self.request.url}"))
            return
        self._handle = bytes(body)
        if self._over:
            self._close()
            return
        self._link.request(sftpwire.FSTAT, self._handle, self._looked)
        length = self.request.length
        if length is not None and 0 < length <= self._link.read_bytes:
            self._end = self._at + length
            self.ask()
            self._look_again()

    def _looked(self, kind: int, body: memoryview) -> None:
        if self._over:
            return
        try:
            if kind != sftpwire.ATTRS:
                raise _refusal(kind, body, f"stat {self.request.url}")
            found = sftpwire.attributes(body)
            _check(self.request, found)
        except SarrapipeError as error:
            self._fail(error)
            return
        self._found = found
        if self._end < 0:
            length = self.request.length
            self._end = (found.size or 0) if length is None else self.request.offset + length
        if self._asked < self._end and not self._full:
            self._link.add(self, first=self._end - self._asked <= _SMALL_BYTES)
        elif self._at >= self._end and not self._pinned:
            self._look_again()
        self._deliver_early()

    def ask(self) -> bool:
        """Ask for the next piece; what a short answer left comes first."""
        if self._rest:
            offset, count = self._rest.pop()
        else:
            offset = self._asked
            count = min(self._link.read_bytes, self._end - offset)
            self._asked += count
        self._link.read(
            self._handle, offset, count, lambda kind, body: self._piece(kind, body, offset, count)
        )
        return bool(self._rest) or self._asked < self._end

    def _piece(self, kind: int, body: memoryview, offset: int, count: int) -> None:
        if self._over:
            return
        if kind != sftpwire.DATA:
            self._fail(self._no_data(kind, body, offset))
            return
        data = body[4:]
        if not data or len(data) > count or int.from_bytes(body[:4]) != len(data):
            what = f"SFTP server answered {len(data)} bytes for {count}"
            self._fail(TransferError(f"{what}: {self.request.url}"))
            return
        if len(data) < count:
            self._ask_rest(offset + len(data), count - len(data))
        if offset == self._at and self._found is not None and self._has_room(len(data)):
            self._deliver(data)
            self._deliver_early()
        else:
            self._early[offset] = bytes(data)

    def _ask_rest(self, offset: int, count: int) -> None:
        if self._pinned:
            # The last look was sent ahead of this piece: too early to say anything.
            self._pinned = False
        waits = bool(self._rest) or self._asked < self._end
        self._rest.append((offset, count))
        if not waits:
            self._link.add(self, first=True)

    def _no_data(self, kind: int, body: memoryview, offset: int) -> SarrapipeError:
        if kind == sftpwire.STATUS and sftpwire.status(body)[0] == sftpwire.STATUS_EOF:
            found = self._found.size if self._found is not None else None
            announced = self.request.whole_size if self.request.whole_size is not None else found
            return SourceChanged(f"source ends at {offset}, not at {announced}: {self.request.url}")
        return _refusal(kind, body, f"read {self.request.url}")

    def _deliver_early(self) -> None:
        while not self._over and (data := self._early.get(self._at, _NO_MORE)):
            if not self._has_room(len(data)):
                return
            del self._early[self._at]
            self._deliver(memoryview(data))

    def _has_room(self, count: int) -> bool:
        """Whether the sink takes so many bytes now; if not, stop asking until it does."""
        if self._staging is None:
            return True
        try:
            if self._full or self._staging.room(count):
                return not self._full
        except SarrapipeError as error:
            self._fail(error)
            return False
        self._full = True
        self._link.remove(self)
        self._staging.call_when_room(self._look_for_room)
        return False

    def _look_for_room(self) -> None:
        self._full = False
        if self._over:
            return
        self._deliver_early()
        if not (self._full or self._over) and (self._rest or self._asked < self._end):
            self._link.remove(self)
            self._link.add(self)
        self._link.go_on()

    def _deliver(self, data: memoryview) -> None:
        try:
            self.request.sink.write(data)
        except SarrapipeError as error:
            self._fail(error)
            return
        self._at += len(data)
        self._received += len(data)
        self._link.took(len(data))
        if self._at >= self._end and not self._pinned:
            self._look_again()

    # ---- the end

    def _look_again(self) -> None:
        """Look a last time and close; the answers to what was asked before come first."""
        self._pinned = True
        self._link.request(sftpwire.FSTAT, self._handle, self._looked_again)

    def _looked_again(self, kind: int, body: memoryview) -> None:
        if self._over or not self._pinned:
            return
        if self._at < self._end or self._found is None:
            # A server that answers out of order: look once more when everything is here.
            self._pinned = False
            return
        try:
            if kind != sftpwire.ATTRS:
                raise _refusal(kind, body, f"stat {self.request.url}")
            if version_of(sftpwire.attributes(body)) != version_of(self._found):
                raise SourceChanged(f"source changed while it was read: {self.request.url}")
        except SarrapipeError as error:
            self._fail(error)
            return
        self._stop()
        self._tell(None)

    def _fail(self, error: SarrapipeError) -> None:
        if not self._over:
            self._stop()
            self._tell(error)

    def _stop(self) -> None:
        self._over = True
        self._early.clear()
        self._link.remove(self)
        self._close()

    def _close(self) -> None:
        if self._handle:
            self._link.request(sftpwire.CLOSE, self._handle, _nobody_waits)
            self._handle = b""

    def _tell(self, error: SarrapipeError | None) -> None:
        found = self._found
        done = RangeDone(
            read=self.request,
            received=self._received,
            status=0,
            etag=None if found is None else version_of(found),
            whole_size=None if found is None else found.size,
            error=error,
        )
        self._ended(self, done)


def _check(read: RangeRead, found: sftpwire.Attributes) -> None:
    """Compare what was opened with what was announced, before a byte of it is taken.

    Raises:
        TransferError: No regular file, or the server does not tell its size.
        SourceChanged: Another size or version.
    """
    size = found.size
    if found.mode is not None and not stat.S_ISREG(found.mode):
        raise TransferError(f"no regular file: {read.url}")
    if size is None:
        raise TransferError(f"SFTP server tells no size: {read.url}")
    if read.whole_size is not None and size != read.whole_size:
        raise SourceChanged(f"source has {size} bytes, announced {read.whole_size}: {read.url}")
    if read.offset + (read.length or 0) > size:
        end = read.offset + (read.length or 0)
        raise SourceChanged(f"source has {size} bytes, asked up to {end}: {read.url}")
    if read.validator is not None and read.validator != version_of(found):
        raise SourceChanged(f"source is of another version than {read.validator}: {read.url}")


def _refusal(kind: int, body: memoryview, what: str) -> TransferError:
    if kind == sftpwire.STATUS:
        return sftpwire.status_error(body, what)
    return TransferError(f"{what}: SFTP server answered with a packet of type {kind}")


def _nobody_waits(_kind: int, _body: memoryview) -> None:
    """What a close is answered changes nothing."""

"""One range written over SFTP: open, pieces one behind the other, close.

As many pieces are on the way as the connection's window holds; each is answered, and so is the close, before
the range counts as written. Answers may come in any order.
"""

from __future__ import annotations

from collections.abc import Callable

from sarrapipe.errors import SarrapipeError, SourceGone, TransferError
from sarrapipe.transfer import sftpwire
from sarrapipe.transfer.sftplink import SftpLink
from sarrapipe.transfer.writing import RangeWrite, WriteDone

__all__ = ["SftpWrite"]

_SMALL_BYTES = 1 << 20
"""A file up to this size does not wait for the segments of larger ones (`schedule.SMALL_BYTES`)."""


class SftpWrite:
    """A write under way.

    Args:
        request: What is to be written.
        name: Of the file, at the server (`sftpwire.file_name`).
        link: The connection.
        ended: Told once how it went; not if it was cancelled.
    """

    __slots__ = (
        "_answered",
        "_ended",
        "_handle",
        "_link",
        "_over",
        "_sent",
        "_waits",
        "name",
        "request",
    )

    def __init__(
        self,
        request: RangeWrite,
        name: bytes,
        link: SftpLink,
        ended: Callable[[SftpWrite, WriteDone], None],
    ) -> None:
        self.request = request
        self.name = name
        self._link = link
        self._ended = ended
        self._handle = b""
        self._sent = 0
        self._answered = 0
        self._waits = False
        self._over = False

    @property
    def wanted_bytes(self) -> int:
        """Bytes that are still to be taken by the server."""
        return self.request.length - self._answered

    def begin(self) -> None:
        """Ask for the file to be opened."""
        body = sftpwire.open_to_write(self.name, self.request.mode, truncate=self.request.whole)
        self._link.request(sftpwire.OPEN, body, self._opened)

    def drop(self) -> None:
        """Take nothing more from the source, and tell nobody."""
        if not self._over:
            self._stop()

    def lost(self, error: TransferError) -> None:
        """The connection is gone."""
        if not self._over:
            self._over = True
            self._tell(type(error)(f"{error}: {self.request.url}"))

    def go_on(self) -> None:
        """The source has bytes again, or its end."""
        if self._waits and not self._over:
            self._waits = False
            self._add()

    def _opened(self, kind: int, body: memoryview) -> None:
        if kind != sftpwire.HANDLE:
            self._fail(_refused(kind, body, f"write {self.request.url}"))
            return
        self._handle = bytes(body)
        if self._over:
            self._link.request(sftpwire.CLOSE, self._handle, _nobody_waits)
        elif self.request.length:
            self._add()
        else:
            self._close()

    def _add(self) -> None:
        self._link.add(self, first=self.request.length <= _SMALL_BYTES)

    def ask(self) -> bool:
        """Send the next piece; return whether there is more to send now."""
        left = self.request.length - self._sent
        try:
            data = self.request.source.read(min(self._link.write_bytes, left))
        except SarrapipeError as error:
            self._fail(error)
            return False
        if data is None:
            self._waits = True
            return False
        count = len(data)
        if not count:
            self._fail(TransferError(f"the source ended after {self._sent} bytes: {self.request.url}"))
            return False
        offset = self.request.offset + self._sent
        self._link.write(self._handle, offset, data, lambda kind, body: self._taken(kind, body, count))
        self._sent += count
        if self._sent < self.request.length:
            return True
        self._close()
        return False

    def _taken(self, kind: int, body: memoryview, count: int) -> None:
        if self._over:
            return
        if kind != sftpwire.STATUS or sftpwire.status(body)[0] != sftpwire.STATUS_OK:
            self._fail(_refused(kind, body, f"write {self.request.url}"))
            return
        self._answered += count
        self._link.took(count)

    def _close(self) -> None:
        """Close behind the last piece: its answer comes when all is taken."""
        handle, self._handle = self._handle, b""
        self._link.request(sftpwire.CLOSE, handle, self._closed)

    def _closed(self, kind: int, body: memoryview) -> None:
        if self._over:
            return
        if kind != sftpwire.STATUS or sftpwire.status(body)[0] != sftpwire.STATUS_OK:
            self._fail(_refused(kind, body, f"close {self.request.url}"))
            return
        if self._answered < self.request.length:
            self._fail(TransferError(f"SFTP server closed before it took all of {self.request.url}"))
            return
        self._over = True
        self._tell(None)

    def _fail(self, error: SarrapipeError) -> None:
        if not self._over:
            self._stop()
            self._tell(error)

    def _stop(self) -> None:
        self._over = True
        self._link.remove(self)
        if self._handle:
            self._link.request(sftpwire.CLOSE, self._handle, _nobody_waits)
            self._handle = b""

    def _tell(self, error: SarrapipeError | None) -> None:
        self._ended(self, WriteDone(write=self.request, sent=self._answered, error=error))


def _refused(kind: int, body: memoryview, what: str) -> TransferError:
    """Say why; a file that cannot be opened for writing lacks its directory."""
    if kind != sftpwire.STATUS:
        return TransferError(f"{what}: SFTP server answered with a packet of type {kind}")
    error = sftpwire.status_error(body, what)
    if isinstance(error, SourceGone):
        return SourceGone(f"{what}: its directory is not there")
    return error


def _nobody_waits(_kind: int, _body: memoryview) -> None:
    """What a close is answered changes nothing."""

"""One range read over FTP: look, ask from the offset on, stop when enough has come.

Nothing is asked for before time and size were found to be what was announced: they are what pins a version,
as FTP has no entity tags. A range has ended with its last byte; what the server says to the closed connection
(226, 426 or 451, each has its own) is awaited by the link alone.
"""

from __future__ import annotations

from typing import Final

from sarrapipe.errors import SarrapipeError, TransferError
from sarrapipe.transfer import ftprules, ftptalk
from sarrapipe.transfer.base import RangeDone, RangeRead, staging
from sarrapipe.transfer.ftpdata import FtpData
from sarrapipe.transfer.ftplink import BUFFER_BYTES, FtpLink
from sarrapipe.transfer.ftprules import Facts
from sarrapipe.transfer.ftpwire import Reply
from sarrapipe.transfer.netstream import NOTHING_NOW

__all__ = ["FtpRead"]

_BUFFERS: Final = 2
"""Buffers filled in one go before others have their turn."""
_UNKNOWN: Final = Facts(None, None)


class FtpRead:
    """A read under way.

    Args:
        read: What is wanted.
        path: Of the file, as it stands in a command.
        link: The connection.
    """

    __slots__ = (
        "_broken",
        "_data",
        "_ended",
        "_filled",
        "_found",
        "_link",
        "_over",
        "_path",
        "_received",
        "_reply",
        "_staging",
        "_stops",
        "request",
    )

    def __init__(self, read: RangeRead, path: bytes, link: FtpLink) -> None:
        self.request = read
        self._path = path
        self._link = link
        self._data = FtpData(link, opened=self._opened, admitted=_nothing, replied=self._replied)
        self._found = _UNKNOWN
        self._staging = staging(read.sink)
        self._filled = 0
        """Bytes in the link's buffer that the sink had no room for."""
        self._received = 0
        self._stops = 0
        """Reasons not to receive: no room in the sink, the flow's rate used up."""
        self._reply: Reply | None = None
        self._ended = False
        """The server closed the data connection."""
        self._broken: TransferError | None = None
        self._over = False

    def begin(self) -> None:
        """Ask what file it is."""
        self._link.hold(ftptalk.look(self._path, self._link.session.habits), self._looked)

    def go_on(self) -> None:
        """Nothing waits for a source here."""

    def drop(self) -> None:
        """Bring nothing more to the sink, and tell nobody."""
        self._over = True
        self._data.close()

    def end(self, error: SarrapipeError | None) -> RangeDone:
        """Say how it went."""
        self._over = True
        if not self._data.over:
            self._data.close()
        return RangeDone(
            read=self.request,
            received=self._received,
            status=0 if self._reply is None else self._reply.code,
            etag=self._found.version,
            whole_size=self._found.size,
            error=error,
        )

    # ---- before the first byte

    def _looked(self, found: Facts, error: SarrapipeError | None) -> None:
        if self._over:
            return
        if error is None:
            self._found = found
            try:
                ftprules.check(self.request, found)
            except SarrapipeError as changed:
                error = changed
        if error is not None:
            self._tell(error)
            return
        self._data.begin(b"RETR " + self._path, self.request.offset)

    def _opened(self) -> None:
        self._receive()

    # ---- the bytes

    def _left(self) -> int:
        """Bytes that may still come, as far as they fit into the buffer."""
        length = self.request.length
        return BUFFER_BYTES if length is None else min(length - self._received, BUFFER_BYTES)

    def _receive(self) -> None:
        """Receive and hand over, for a while."""
        try:
            for _ in range(_BUFFERS):
                if not self._fill_and_deliver():
                    return
        except SarrapipeError as error:
            self._tell(error)
            return
        stream = self._data.stream
        stream.watch_reading(self._receive)
        if stream.pending:
            self._link.around.loop.call_later(0.0, self._receive_pending)

    def _receive_pending(self) -> None:
        if not self._over and not self._stops and not self._ended:
            self._receive()

    def _fill_and_deliver(self) -> bool:
        """Fill the buffer once; return whether there may be more now."""
        stream, buffer = self._data.stream, self._link.buffer
        try:
            self._filled, count = stream.fill(buffer, self._filled, self._left())
        except TransferError as error:
            self._broken = error  # it has ended, and the server's reply says why
            count = 0
        if self._filled and not self._deliver(buffer):
            return False
        if self.request.length is not None and self._received >= self.request.length:
            self._enough()
            return False
        if count == 0:
            self._ended = True
            stream.close()
            self._at_end()
            return False
        if count == NOTHING_NOW:
            stream.watch_reading(self._receive)
            return False
        return True

    def _deliver(self, buffer: memoryview) -> bool:
        """Hand the buffer over; return whether to go on receiving now."""
        count = self._filled
        if self._staging is not None and not self._staging.room(count):
            self._stop()
            self._staging.call_when_room(self._resume)
            return False
        self.request.sink.write(buffer[:count])
        self._filled = 0
        self._received += count
        self._link.flow.moved += count
        pacer = self._link.around.pacer
        wait_s = 0.0 if pacer is None else pacer.spend(count)
        if wait_s > 0 and self._left():
            self._stop()
            self._link.around.loop.call_later(wait_s, self._resume)
            return False
        return True

    def _stop(self) -> None:
        self._stops += 1
        self._link.flow.held = True
        self._data.stream.watch_nothing()

    def _resume(self) -> None:
        if self._over:
            return
        self._stops -= 1
        self._link.flow.held = False
        self._receive()

    # ---- the end

    def _enough(self) -> None:
        end = self.request.offset + self._received
        if self._found.size is not None and end >= self._found.size:
            self._data.let_end()
        self._tell(None)

    def _at_end(self) -> None:
        """All came that will; fewer bytes than wanted have a reason that the server still has to say."""
        wanted = self.request.length
        if wanted is None and self._found.size is not None:
            wanted = self._found.size - self.request.offset
        if wanted is not None and self._received == wanted:
            self._tell(None)
        elif self._reply is None:
            self._link.flow.end()
            self._link.await_reply()
        elif self._broken is not None:
            self._tell(TransferError(f"{self._broken}: {self.request.url}: {self._reply.said}"))
        elif wanted is not None and self._received < wanted:
            said = f": {self._reply.said}"
            self._tell(TransferError(f"{self._received} bytes of {wanted} came: {self.request.url}{said}"))
        else:
            self._tell(None)

    def _replied(self, reply: Reply | None, error: SarrapipeError | None) -> None:
        self._reply = reply
        if error is not None:
            self._tell(type(error)(f"read {self.request.url}: {error}"))
            return
        assert reply is not None
        if not reply.ok:
            text = f"read {self.request.url}: {reply.said}"
            self._tell(ftprules.refusal(reply.code, text, reply.said))
        elif self._ended:
            self._at_end()
        else:
            self._link.flow.begin()

    def _tell(self, error: SarrapipeError | None) -> None:
        if not self._over:
            self._link.done(self.end(error))


def _nothing() -> None:
    """Data that come before the server says so are welcome."""

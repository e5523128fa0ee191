"""One file written over FTP: STOR, its bytes, the end of the connection, and the server's word for it."""

from __future__ import annotations

from typing import Final

from sarrapipe.errors import SarrapipeError, SourceGone, TransferError
from sarrapipe.transfer import ftprules
from sarrapipe.transfer.ftpdata import FtpData
from sarrapipe.transfer.ftplink import BUFFER_BYTES, FtpLink
from sarrapipe.transfer.ftpwire import Reply
from sarrapipe.transfer.netstream import NOTHING_NOW
from sarrapipe.transfer.writing import RangeWrite, WriteDone

__all__ = ["FtpWrite"]

_PIECES: Final = 2
"""Pieces sent in one go before others have their turn."""
_DIRECTORY_IS_MISSING: Final = (550, 553)
_EMPTY: Final = memoryview(b"")


class FtpWrite:
    """A write under way.

    Args:
        write: What is to be written, a whole file.
        path: Of the file, as it stands in a command.
        link: The connection.
    """

    __slots__ = (
        "_admitted",
        "_broken",
        "_data",
        "_link",
        "_over",
        "_path",
        "_piece",
        "_reply",
        "_sent",
        "_waits",
        "request",
    )

    def __init__(self, write: RangeWrite, path: bytes, link: FtpLink) -> None:
        self.request = write
        self._path = path
        self._link = link
        self._data = FtpData(link, opened=self._begin, admitted=self._admit, replied=self._replied)
        self._admitted = False
        self._piece = _EMPTY
        self._sent = 0
        self._waits = False
        self._broken: TransferError | None = None
        self._reply: Reply | None = None
        self._over = False

    def begin(self) -> None:
        """Ask for a data connection."""
        self._data.begin(b"STOR " + self._path)

    def go_on(self) -> None:
        """The source has bytes again, or its end."""
        if self._waits and not self._over:
            self._waits = False
            self._resume()

    def drop(self) -> None:
        """Take nothing more from the source, and tell nobody."""
        self._over = True
        self._data.close()

    def end(self, error: SarrapipeError | None) -> WriteDone:
        """Say how it went."""
        self.drop()
        status = 0 if self._reply is None else self._reply.code
        return WriteDone(write=self.request, sent=self._sent, status=status, error=error)

    # ---- the bytes

    def _admit(self) -> None:
        self._admitted = True
        self._begin()

    def _begin(self) -> None:
        """Send, when the connection is there and the server takes the file."""
        if self._admitted and self._data.open and not self._over:
            self._send()

    def _send(self) -> None:
        try:
            for _ in range(_PIECES):
                if not self._send_piece():
                    return
        except TransferError as error:
            if self._piece:
                self._break_off(error)
            else:
                self._tell(error)
            return
        except SarrapipeError as error:
            self._tell(error)
            return
        self._data.stream.watch_writing(self._send)

    def _send_piece(self) -> bool:
        """Send what the connection takes; return whether it may take more now."""
        if not self._piece and self._sent < self.request.length and not self._read():
            return False
        if self._piece:
            count = self._data.stream.send(self._piece)
            if count == NOTHING_NOW:
                self._data.stream.watch_writing(self._send)
                return False
            self._piece = self._piece[count:]
            self._sent += count
            self._link.flow.moved += count
            if self._has_to_wait(count):
                return False
        if self._sent == self.request.length:
            self._finish()
            return False
        return True

    def _read(self) -> bool:
        """Take the next piece of the source; return whether there is one now."""
        wanted = min(self.request.length - self._sent, BUFFER_BYTES)
        piece = self.request.source.read(wanted)
        if piece is None:
            self._waits = True
            self._stop()
            return False
        if not piece:
            raise TransferError(f"the source ended after {self._sent} bytes: {self.request.url}")
        self._piece = piece
        return True

    def _has_to_wait(self, count: int) -> bool:
        pacer = self._link.around.pacer
        wait_s = 0.0 if pacer is None else pacer.spend(count)
        if wait_s <= 0 or self._sent == self.request.length:
            return False
        self._stop()
        self._link.around.loop.call_later(wait_s, self._resume)
        return True

    def _stop(self) -> None:
        self._link.flow.held = True
        self._data.stream.watch_nothing()

    def _resume(self) -> None:
        if not self._over and self._broken is None:
            self._link.flow.held = False
            self._send()

    # ---- the end

    def _finish(self) -> None:
        self._link.flow.end()
        try:
            self._data.drain()
        except TransferError as error:
            self._break_off(error)
            return
        self._link.await_reply()

    def _break_off(self, error: TransferError) -> None:
        """The connection broke: why is in the reply that comes next, or came already."""
        self._broken = error
        self._link.flow.end()
        self._data.stream.close()
        if self._reply is not None:
            self._judge(self._reply)
        else:
            self._link.await_reply()

    def _replied(self, reply: Reply | None, error: SarrapipeError | None) -> None:
        self._reply = reply
        if error is not None:
            self._tell(type(error)(f"write {self.request.url}: {error}"))
            return
        assert reply is not None
        self._judge(reply)

    def _judge(self, reply: Reply) -> None:
        text = f"write {self.request.url}: {reply.said}"
        if reply.code in _DIRECTORY_IS_MISSING:
            self._tell(SourceGone(f"{text}: its directory is not there, or may not be written"))
        elif not reply.ok:
            self._tell(ftprules.refusal(reply.code, text, reply.said))
        elif self._sent < self.request.length or self._broken is not None:
            broken = "" if self._broken is None else f": {self._broken}"
            what = f"the FTP server ended after {self._sent} of {self.request.length} bytes"
            self._tell(TransferError(f"{what}: {self.request.url}: {reply.said}{broken}"))
        else:
            self._tell(None)

    def _tell(self, error: SarrapipeError | None) -> None:
        if not self._over:
            self._link.done(self.end(error))

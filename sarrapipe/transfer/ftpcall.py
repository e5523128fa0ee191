"""One operation on a name over FTP: a dialogue, or a listing, which comes over a data connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sarrapipe.errors import SarrapipeError, SourceGone, TransferError, Unsupported
from sarrapipe.transfer import ftprules, ftptalk
from sarrapipe.transfer.ftpdata import FtpData
from sarrapipe.transfer.ftplink import FtpLink
from sarrapipe.transfer.ftplist import machine_listing, plain_listing
from sarrapipe.transfer.ftprules import NO_SUCH_COMMAND
from sarrapipe.transfer.ftpwire import Reply
from sarrapipe.transfer.netstream import NOTHING_NOW
from sarrapipe.transfer.remotecall import CallDone, Operation, RemoteCall, RemoteEntry

__all__ = ["OPERATIONS", "FtpCall", "FtpList"]

OPERATIONS: Final = frozenset({*ftptalk.DIALOGUES, Operation.LIST})
"""What can be done to names."""
_MOST_BYTES: Final = 256 << 20
"""Of a listing: some two million names."""
_NO_DIRECTORY: Final = 501
"""What MLSD says of a name that is no directory (RFC 3659 7.2.1)."""


class FtpCall:
    """An operation under way.

    Args:
        call: What is to be done.
        path: What to, as it stands in a command.
        link: The connection.
    """

    __slots__ = ("_entries", "_link", "_over", "_path", "request")

    def __init__(self, call: RemoteCall, path: bytes, link: FtpLink) -> None:
        self.request = call
        self._path = path
        self._link = link
        self._entries: Sequence[RemoteEntry] = ()
        self._over = False

    def begin(self) -> None:
        """Say the first command."""
        talk = ftptalk.DIALOGUES[self.request.operation]
        self._link.hold(talk(self._path, self.request, self._link.session), self._told)

    def go_on(self) -> None:
        """Nothing waits for a source here."""

    def drop(self) -> None:
        """Tell nobody; what was begun is done all the same."""
        self._over = True

    def end(self, error: SarrapipeError | None) -> CallDone:
        """Say how it went."""
        self._over = True
        return CallDone(call=self.request, entries=self._entries, error=error)

    def _told(self, entries: Sequence[RemoteEntry], error: SarrapipeError | None) -> None:
        if not self._over:
            if error is None:
                self._entries = entries
            self._link.done(self.end(error))


class FtpList:
    """A listing under way: MLSD, else LIST in the directory.

    What LIST is answered says nothing of a directory that is not there (vsftpd's is an empty listing), and a
    path in it may be taken for options: so one goes there first, and back when it is done.

    Args:
        call: What is to be listed.
        path: Of the directory, as it stands in a command.
        link: The connection.
    """

    __slots__ = ("_data", "_ended", "_link", "_listed", "_over", "_path", "_plain", "_reply", "request")

    def __init__(self, call: RemoteCall, path: bytes, link: FtpLink) -> None:
        self.request = call
        self._path = path
        self._link = link
        self._listed = bytearray()
        self._plain = False
        self._reply: Reply | None = None
        self._ended = False
        self._over = False
        self._data = self._new_data()

    def _new_data(self) -> FtpData:
        return FtpData(self._link, opened=self._receive, admitted=_nothing, replied=self._replied)

    def begin(self) -> None:
        """Ask for the listing that is a rule; or for any, where it is known that there is no such."""
        if not self._link.session.habits.mlsd:
            self._begin_plain()
            return
        path = self._path.rstrip(b"/") or (b"/" if self._path else b"")
        self._data.begin((b"MLSD " + path).rstrip(b" ") if not path else b"MLSD " + path)

    def _begin_plain(self) -> None:
        self._plain = True
        if self._path:
            self._link.hold(ftptalk.enter(self._path, self._link.session), self._entered)
        else:
            self._data.begin(b"LIST")

    def _entered(self, reply: Reply, error: SarrapipeError | None) -> None:
        if self._over:
            self._link.hold(ftptalk.leave(self._link.session), _left)
        elif error is not None or not reply.ok:
            self._reply = reply
            self._tell(error or self._refused(reply))
        else:
            self._data.begin(b"LIST")

    def go_on(self) -> None:
        """Nothing waits for a source here."""

    def drop(self) -> None:
        """Tell nobody."""
        self._over = True
        self._data.close()

    def end(self, error: SarrapipeError | None) -> CallDone:
        """Say how it went."""
        self.drop()
        entries: Sequence[RemoteEntry] = ()
        if error is None:
            now_s = self._link.around.clock.wall_ns() / 1e9
            body = bytes(self._listed)
            entries = plain_listing(body, now_s) if self._plain else machine_listing(body)
        status = 0 if self._reply is None else self._reply.code
        return CallDone(call=self.request, entries=entries, status=status, error=error)

    # ---- what comes

    def _receive(self) -> None:
        stream, buffer = self._data.stream, self._link.buffer
        try:
            while (count := stream.receive(buffer)) > 0:
                self._listed += buffer[:count]
                self._link.flow.moved += count
                if len(self._listed) > _MOST_BYTES:
                    break
        except TransferError as error:
            self._tell(error)
            return
        if count > 0:
            self._tell(TransferError(f"a listing of more than {_MOST_BYTES} bytes: {self.request.url}"))
            return
        if count == NOTHING_NOW:
            stream.watch_reading(self._receive)
            return
        self._ended = True
        stream.close()
        self._link.flow.end()
        if self._reply is not None:
            self._conclude()
        else:
            self._link.await_reply()

    def _replied(self, reply: Reply | None, error: SarrapipeError | None) -> None:
        if error is not None:
            self._tell(type(error)(f"list {self.request.url}: {error}"))
            return
        assert reply is not None
        self._reply = reply
        if reply.ok:
            if self._ended:
                self._conclude()
            else:
                self._link.flow.begin()
        elif not self._plain and reply.code in NO_SUCH_COMMAND:
            self._link.session.habits.mlsd = False
            self._data.close()
            self._data, self._reply, self._ended = self._new_data(), None, False
            self._begin_plain()
        else:
            self._conclude(self._refused(reply))

    def _conclude(self, error: SarrapipeError | None = None) -> None:
        if not (self._plain and self._path):
            self._tell(error)
            return

        def left(_result: None, _error: SarrapipeError | None) -> None:
            self._tell(error)

        self._data.close()
        self._link.hold(ftptalk.leave(self._link.session), left)

    def _refused(self, reply: Reply) -> TransferError:
        text = f"list {self.request.url}: {reply.said}"
        if reply.code in NO_SUCH_COMMAND:
            return Unsupported(text)
        return (
            SourceGone(text)
            if reply.code == _NO_DIRECTORY
            else ftprules.refusal(reply.code, text, reply.said)
        )

    def _tell(self, error: SarrapipeError | None) -> None:
        if not self._over:
            self._link.done(self.end(error))


def _nothing() -> None:
    """Data that come before the server says so are welcome."""


def _left(_result: None, _error: SarrapipeError | None) -> None:
    """Where one is logged in to again."""

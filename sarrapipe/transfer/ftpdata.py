"""One transfer on a control connection: the data connection, and the command that fills or empties it.

The command goes out while the data connection is being opened: a round trip less. An address that the server
names is not used: data come from, and go to, where the control connection does (RFC 2577 has why).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Final

from sarrapipe.errors import SarrapipeError, TransferError
from sarrapipe.transfer import ftptalk
from sarrapipe.transfer.ftplink import FtpLink
from sarrapipe.transfer.ftpwire import Reply
from sarrapipe.transfer.netstream import NetStream

__all__ = ["DataNotOpened", "FtpData"]

_LINGER_BYTES: Final = 65_536
_GRACE_S: Final = 2.0
"""For the reply to a command when there is no data connection: a server that refuses it closes first."""
_NO_DATA: Final = (425, 426)
_NO_MORE: Final = (errno.EAGAIN, errno.EWOULDBLOCK)


class DataNotOpened(TransferError):
    """No data connection came into being."""


class FtpData:
    """A transfer under way.

    Args:
        link: The control connection.
        opened: Told when the data connection is there (encrypted, if it has to be).
        admitted: Told when the server said that data may flow.
        replied: Gets the server's last reply, or what went wrong with the commands. Bytes it has sent may
            still be on their way.
    """

    def __init__(
        self,
        link: FtpLink,
        *,
        opened: Callable[[], None],
        admitted: Callable[[], None],
        replied: Callable[[Reply | None, SarrapipeError | None], None],
    ) -> None:
        self._link = link
        self._tell_opened = opened
        self._tell_admitted = admitted
        self._tell_replied = replied
        self._command = b""
        self._offset = 0
        self._listener: socket.socket | None = None
        self._reached = False
        """The other side is there: what fails now is not that it cannot be reached."""
        self._admitted = False
        self._problem: TransferError | None = None
        self.over = False
        """Nobody wants anything of it any more."""
        self.stream = NetStream(link.around.loop, self._connected, self._failed)
        self.open = False
        """The data connection is there."""

    def begin(self, command: bytes, offset: int = 0) -> None:
        """Ask for a data connection, then for the transfer.

        Args:
            command: RETR, STOR, MLSD or LIST with its argument.
            offset: First byte of the file that is wanted.
        """
        self._command, self._offset = command, offset
        link = self._link
        link.keep(self)
        habits = link.session.habits
        if link.place.passive:
            address = link.peer(0).sockaddr[0]
            link.hold(ftptalk.passive(address, habits), self._passive)
            return
        try:
            listener = self._listen()
        except OSError as error:
            self._tell_replied(None, TransferError(f"cannot listen for data: {error.strerror}"))
            return
        name = listener.getsockname()
        link.hold(ftptalk.active(name[0].partition("%")[0], name[1], habits), self._active)

    def close(self) -> None:
        """End the data connection, whatever is left in it; what the server says of that comes to nobody."""
        self.over = True
        self._close_data()

    def _close_data(self) -> None:
        self._link.opening.end()
        self.stream.close()
        if self._listener is not None:
            self._link.around.loop.unwatch(self._listener.fileno())
            self._listener.close()
            self._listener = None

    def let_end(self) -> None:
        """All that was wanted is here: let the server end the connection if it is at its end as well.

        Cut off, it would call the transfer a failed one.
        """
        self.over = True
        if not self.stream.closed:
            self.stream.watch_reading(self._ending)
            self._ending()

    def _ending(self) -> None:
        """Take what the server still sends, which is its end; more than a little is no end."""
        rest = self._link.buffer[:_LINGER_BYTES]
        try:
            count = self.stream.receive(rest)
        except TransferError:
            count = 0
        if count >= 0:
            self._close_data()

    def drain(self) -> None:
        """All was sent: receive what the server says (TLS does), so that no reset overtakes our last bytes.

        Raises:
            TransferError: The connection broke.
        """
        self.stream.finish()
        self.stream.watch_reading(self._drained)
        self._drained()

    def _drained(self) -> None:
        rest = self._link.buffer[:_LINGER_BYTES]
        try:
            while (count := self.stream.receive(rest)) > 0:
                continue
        except TransferError:
            count = 0  # the reply says what became of it
        if not count:
            self._close_data()

    # ---- which connection

    def _passive(self, port: int, error: SarrapipeError | None) -> None:
        if error is not None or self.over:
            self._tell(None, error)
            return
        self._link.opening.begin(self._link.around.settings.connect_timeout_s)
        self.stream.connect([self._link.peer(port)])
        if not self._link.closed:
            self._ask()

    def _listen(self) -> socket.socket:
        family, sockaddr = self._link.here()
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)  # noqa: FBT003 - as it is called
            listener.bind(sockaddr)
            listener.listen(1)
        except OSError:
            listener.close()
            raise
        self._listener = listener
        return listener

    def _active(self, _result: None, error: SarrapipeError | None) -> None:
        if error is not None or self.over:
            self._close_data()
            self._tell(None, error)
            return
        assert self._listener is not None
        self._link.around.loop.watch(self._listener.fileno(), self._accept)
        self._ask()

    def _accept(self) -> None:
        listener = self._listener
        if listener is None:
            return
        try:
            accepted, sockaddr = listener.accept()
        except OSError as error:
            if error.errno not in _NO_MORE:
                self._failed(TransferError(f"no data connection: {error.strerror}"))
            return
        if sockaddr[0] != self._link.peer(0).sockaddr[0]:
            accepted.close()  # anybody may connect; the server alone is meant
            return
        self._link.around.loop.unwatch(listener.fileno())
        listener.close()
        self._listener = None
        self.stream.take(accepted)
        self._connected()

    def _connected(self) -> None:
        """It is connected; or encrypted."""
        self._reached = True
        self._link.opening.end()
        if self.over:
            return
        if self._link.place.tls and not self.stream.encrypted:
            self._link.protect(self.stream)
            return
        self.open = True
        self._tell_opened()

    def _failed(self, error: TransferError) -> None:
        """No data connection; the server's reply may say why, if it comes soon."""
        if self.over:
            return
        text = f"no data connection: {error}"
        self._problem = TransferError(text) if self._reached else DataNotOpened(text)
        self._link.flow.end()
        if self._admitted and not self._reached:
            self.not_opened()
        else:
            self._link.opening.begin(_GRACE_S)

    def not_opened(self) -> None:
        """The time in which a data connection has to come into being has passed."""
        if self._problem is None:
            limit_s = self._link.around.settings.connect_timeout_s
            self._problem = DataNotOpened(f"no data connection: not within {limit_s:g} s")
        self._link.lose(self._problem)

    # ---- what is asked

    def _ask(self) -> None:
        talk = ftptalk.transfer(self._command, self._offset, lambda: self.over)
        self._link.hold(talk, self._replied, self._preliminary)

    def _preliminary(self) -> None:
        if self.over:
            return
        self._admitted = True
        if self._problem is not None:
            if not self._reached:
                self.not_opened()  # the server waits for what will not come
            return
        self._link.flow.begin()
        if self._listener is not None:
            self._link.opening.begin(self._link.around.settings.connect_timeout_s)
        self._tell_admitted()

    def _replied(self, reply: Reply | None, error: SarrapipeError | None) -> None:
        if self._problem is not None and reply is not None and _blames_data(reply):
            if isinstance(self._problem, DataNotOpened):
                self._link.lose(self._problem)
                return
            reply, error = None, self._problem
        self._link.opening.end()
        if not self.over and error is not None:
            self._close_data()
        self._tell(reply, error)

    def _tell(self, reply: Reply | None, error: SarrapipeError | None) -> None:
        if not self.over:
            self._tell_replied(reply, error)
        else:
            self._close_data()  # whatever was still awaited of it


def _blames_data(reply: Reply) -> bool:
    """Whether a reply says no more than that there were no data: that of a refused command says why."""
    return reply.ok or reply.code in _NO_DATA

"""The control socket: how commands speak to a running parent.

One frame asks (`{"do": "scale", "to": 4}`), one frame answers (`{"ok": True, ...}` or `{"error": text,
"code": 69}`). The answer comes when the thing is done: a stop is answered when all instances are gone. The
socket is in the flow's state directory and serves its owner only.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from sarrapipe.errors import SupervisorError
from sarrapipe.log import get_logger
from sarrapipe.supervisor.wire import Reader, pack

__all__ = ["Client", "ControlServer", "Handler", "request"]

_LOG = get_logger(__name__)
_PATH_LIMIT: Final = 107  # sockaddr_un.sun_path holds 108 bytes with its NUL (unix(7))
_CLIENT_LIMIT: Final = 32
_UCRED: Final = struct.Struct("3i")  # pid, uid, gid (unix(7), SO_PEERCRED)

Handler = Callable[["Client", Mapping[str, object]], None]
"""Called with who asks and what; answers by `client.reply`, now or later."""


class Client:
    """One connection to the control socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.reader = Reader()

    def reply(self, **answer: object) -> None:
        """Answer; a client that went away is not told."""
        with contextlib.suppress(OSError):
            self.connection.send(pack(answer), socket.MSG_DONTWAIT)

    def refuse(self, error: str, code: int) -> None:
        """Answer that it cannot be done."""
        self.reply(error=error, code=code)


class ControlServer:
    """The parent's end.

    Args:
        path: Of the socket.
        selector: The parent's; keys carry a function without arguments to call.
        handler: Takes requests.
    """

    def __init__(self, path: str, selector: selectors.BaseSelector, handler: Handler) -> None:
        self._path = path
        self._selector = selector
        self._handler = handler
        self._listener: socket.socket | None = None
        self._clients: list[Client] = []

    def open(self) -> None:
        """Make the socket; one that a killed parent left is replaced (the caller holds the flow's lock).

        Raises:
            SupervisorError: It cannot be made.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            with _short_path(self._path) as short:
                listener.bind(short)
            os.chmod(self._path, 0o600)
            listener.listen(128)
        except OSError as error:
            listener.close()
            raise SupervisorError(f"{self._path}: {error.strerror}") from error
        listener.settimeout(0)
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def stop_listening(self) -> None:
        """Remove the socket, while its name is still ours; those who asked can still be answered."""
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)

    def close(self) -> None:
        """Close everything; clients see the end of the stream."""
        self.stop_listening()
        for client in list(self._clients):
            self._drop(client)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            connection, _address = self._listener.accept()
        except OSError:
            return  # the client went away again, or we are out of descriptors: it will ask again
        if not _may_ask(connection):
            connection.close()
            return
        if len(self._clients) == _CLIENT_LIMIT:
            self._drop(self._clients[0])
        connection.settimeout(0)
        client = Client(connection)
        self._clients.append(client)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._read(client))

    def _read(self, client: Client) -> None:
        try:
            data = client.connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(client)
            return
        try:
            requests = client.reader.feed(data)
        except SupervisorError as error:
            _LOG.warning("control socket: %s; connection closed", error)
            self._drop(client)
            return
        for asked in requests:
            if isinstance(asked, dict):
                self._handler(client, asked)
            else:
                client.refuse("a request is a map", 2)

    def _drop(self, client: Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
            self._selector.unregister(client.connection)
            client.connection.close()


def request(path: str, timeout_s: float | None, **asked: object) -> dict[str, object]:
    """Ask a running parent for something and wait for its answer.

    Args:
        path: Of its control socket.
        timeout_s: For each step; None to wait as long as it takes.
        asked: The request.

    Raises:
        SupervisorError: Nobody listens, or does not answer in time, or it cannot be done.
    """
    reader = Reader()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            with _short_path(path) as short:
                connection.connect(short)
            connection.sendall(pack(asked))
            answers: list[object] = []
            while not answers:
                data = connection.recv(1 << 16)
                if not data:
                    raise SupervisorError(f"{path}: the parent ended before it answered")
                answers = reader.feed(data)
        except TimeoutError as error:
            raise SupervisorError(f"{path}: no answer within {timeout_s:g} s") from error
        except OSError as error:
            raise SupervisorError(f"{path}: nobody listens ({error.strerror})") from error
    answer = answers[0]
    assert isinstance(answer, dict)
    if "error" in answer:
        refused = SupervisorError(str(answer["error"]))
        refused.code = int(answer.get("code", refused.code))
        raise refused
    return answer


@contextlib.contextmanager
def _short_path(path: str) -> Iterator[str]:
    """Yield a name for a socket that fits its address, whatever the length of its path."""
    if len(os.fsencode(path)) <= _PATH_LIMIT:
        yield path
        return
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def _may_ask(connection: socket.socket) -> bool:
    """Return whether the other end is us or root; where the system does not tell, the file's mode decides."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return _UCRED.unpack(data)[1] in (0, os.geteuid())

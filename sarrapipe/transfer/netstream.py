"""One TCP connection, in clear or under TLS, that never waits: it connects, receives and sends on the loop.

    stream = NetStream(loop, opened, failed)
    stream.connect(addresses)             # opened() is called from CurlLoop.run_once
    stream.start_tls(context, host)       # opened() once more, when both sides have agreed on keys
    stream.watch_reading(readable)        # readable() whenever `receive` has something

TLS is that of the standard library over the same descriptor. Bytes it has deciphered already make no
descriptor readable: whoever stops before `receive` says there is nothing looks at `pending`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final

from sarrapipe.errors import TransferError
from sarrapipe.transfer.curlloop import CurlLoop
from sarrapipe.transfer.resolver import Address
from sarrapipe.transfer.settings import HttpSettings

__all__ = ["NOTHING_NOW", "NetStream", "client_context"]

NOTHING_NOW: Final = -1
"""What `receive` and `send` return where they would have to wait."""
_CA_FILES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
"""Where Debian, Red Hat and the BSDs keep what they trust."""
_WANTS: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_KEEPALIVE_S: Final = 60
"""A connection that is silent for so long is probed, so that no firewall forgets it while data flow
elsewhere."""

Told = Callable[[], None]
ToldWhy = Callable[[TransferError], None]


def client_context(settings: HttpSettings) -> ssl.SSLContext:
    """Return what certificates are checked with.

    Raises:
        TransferError: The file of trusted certificates cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not settings.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a certificate in the file is trusted as it is
    ca_file = settings.ca_file or next(filter(os.path.exists, _CA_FILES), None)
    try:
        if ca_file is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise TransferError(f"certificates of {ca_file} cannot be used: {error}") from error
    return context


class NetStream:
    """A connection.

    Args:
        loop: Watches the descriptor.
        opened: Told when it is connected, and again when it is encrypted.
        failed: Told once, if either comes to nothing.
    """

    def __init__(self, loop: CurlLoop, opened: Told, failed: ToldWhy) -> None:
        self._loop = loop
        self._opened = opened
        self._failed = failed
        self._socket: socket.socket | None = None
        self._tls: ssl.SSLSocket | None = None
        self._addresses: list[Address] = []
        self._watched = -1
        self._writing = False
        self._call: Told | None = None
        self._problem = ""
        self._broke: OSError | None = None
        self._peer: Any = None
        self._here: Any = None
        self._family = 0

    @property
    def closed(self) -> bool:
        """Whether there is no connection, nor will be."""
        return self._socket is None

    def close(self) -> None:
        """End it; nobody is told. May be repeated."""
        self.watch_nothing()
        self._addresses.clear()
        if self._socket is not None:
            self._socket.close()
            self._socket = self._tls = None

    # ---- coming into being

    def connect(self, addresses: Sequence[Address]) -> None:
        """Connect to the first address that answers."""
        self._addresses = list(addresses)
        self._connect_next()

    def try_next(self) -> bool:
        """Leave an address that does not answer; return whether there was another."""
        if not self._addresses:
            return False
        self._connect_next()
        return True

    def _connect_next(self) -> None:
        self.watch_nothing()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        while self._addresses:
            family, sockaddr = self._addresses.pop(0)
            try:
                made = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:
                self._problem = error.strerror or str(error)
                continue
            made.setblocking(False)  # noqa: FBT003 - as it is called
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = made.connect_ex(sockaddr)
            if code in (0, errno.EINPROGRESS):
                self._socket, self._family = made, family
                self._watch(self._on_connected, writing=True)
                return
            made.close()
            self._problem = os.strerror(code)
        self._fail(f"cannot connect: {self._problem or 'no address'}")

    def _on_connected(self) -> None:
        assert self._socket is not None
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._problem = os.strerror(code)
            self._connect_next()
            return
        try:
            self._peer, self._here = self._socket.getpeername(), self._socket.getsockname()
        except OSError:
            return  # told of a descriptor of the same number that was closed: not connected yet
        self._addresses.clear()
        self.watch_nothing()
        self._opened()

    def take(self, accepted: socket.socket) -> None:
        """Be a connection that the other side opened."""
        accepted.setblocking(False)  # noqa: FBT003 - as it is called
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = accepted

    def keep_alive(self) -> None:
        """Have a silent connection probed."""
        assert self._socket is not None
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)

    def start_tls(self, context: ssl.SSLContext, host: str, session: ssl.SSLSession | None = None) -> None:
        """Encrypt it from here on.

        Args:
            context: What the other side's certificate is checked with.
            host: Whose it has to be.
            session: Of the connection that this one belongs to, for servers which take no other
                (vsftpd's require_ssl_reuse).
        """
        assert self._socket is not None
        self.watch_nothing()
        try:
            self._tls = self._socket = context.wrap_socket(
                self._socket, do_handshake_on_connect=False, server_hostname=host, session=session
            )
        except (OSError, ValueError) as error:  # ValueError: a host that is no name for a certificate
            self._fail(f"TLS: {error}")
            return
        self._shake_hands()

    def _shake_hands(self) -> None:
        assert self._tls is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(self._shake_hands, writing=False)
        except ssl.SSLWantWriteError:
            self._watch(self._shake_hands, writing=True)
        except OSError as error:
            self._fail(f"TLS: {_reason(error)}")
        else:
            self.watch_nothing()
            self._opened()

    def _fail(self, why: str) -> None:
        self.close()
        self._failed(TransferError(why))

    # ---- what is known of it

    @property
    def session(self) -> ssl.SSLSession | None:
        """What another connection to the same server is resumed with; None without TLS."""
        return None if self._tls is None else self._tls.session

    @property
    def encrypted(self) -> bool:
        """Whether `start_tls` was called."""
        return self._tls is not None

    @property
    def pending(self) -> bool:
        """Whether `receive` has bytes that make no descriptor readable."""
        return self._tls is not None and self._tls.pending() > 0

    def peer(self, port: int) -> Address:
        """Another port of the other side; once it was connected."""
        return Address(self._family, (self._peer[0], port, *self._peer[2:]))

    def here(self) -> Address:
        """This side of it, with any port; once it was connected."""
        return Address(self._family, (self._here[0], 0, *self._here[2:]))

    # ---- moving bytes

    def receive(self, buffer: memoryview) -> int:
        """Receive what is there.

        Returns:
            How many bytes; 0 at the end; `NOTHING_NOW`.

        Raises:
            TransferError: The connection broke.
        """
        assert self._socket is not None
        try:
            return self._socket.recv_into(buffer)
        except _WANTS:
            return NOTHING_NOW
        except OSError as error:
            raise TransferError(f"the connection broke: {_reason(error)}") from error

    def fill(self, buffer: memoryview, at: int, end: int) -> tuple[int, int]:
        """Receive into a part of a buffer until that is full: TLS hands over 16 KiB at a time.

        Args:
            buffer: What is filled.
            at: From here on.
            end: Up to here.

        Returns:
            Where what has come ends now; and 0 at the end of the connection, `NOTHING_NOW`, or more where the
            part is full.

        Raises:
            TransferError: The connection broke, and nothing came before.
        """
        assert self._socket is not None
        began = at
        try:
            if self._broke is not None:
                raise self._broke
            if self._tls is None:
                receive = self._socket.recv_into
                while at < end and (count := receive(buffer[at:end])):
                    at += count
            else:
                read: Callable[[int, memoryview], int] = self._tls.read  # type: ignore[assignment]
                while at < end and (count := read(end - at, buffer[at:end])):
                    at += count
        except _WANTS:
            return at, NOTHING_NOW
        except OSError as error:
            self._broke = error
            if at > began:
                return at, NOTHING_NOW
            raise TransferError(f"the connection broke: {_reason(error)}") from error
        return at, int(at == end)

    def send(self, data: memoryview | bytes | bytearray) -> int:
        """Send what fits; `NOTHING_NOW` if nothing does. What was not sent is to be sent again.

        Raises:
            TransferError: The connection broke.
        """
        assert self._socket is not None
        try:
            return self._socket.send(data)
        except _WANTS:
            return NOTHING_NOW
        except OSError as error:
            raise TransferError(f"the connection broke: {_reason(error)}") from error

    def finish(self) -> None:
        """Say that nothing more is sent.

        What the other side still says has to be received before `close`, or its kernel may drop what it has
        not read yet.

        Raises:
            TransferError: The connection broke.
        """
        assert self._socket is not None
        try:
            if self._tls is not None:
                with contextlib.suppress(*_WANTS):  # said; the other side's answer is not waited for
                    self._tls.unwrap()
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise TransferError(f"the connection broke: {_reason(error)}") from error

    # ---- watching

    def watch_reading(self, call: Told) -> None:
        """Call whenever there is something to be received."""
        self._watch(call, writing=False)

    def watch_writing(self, call: Told) -> None:
        """Call whenever something can be sent."""
        self._watch(call, writing=True)

    def watch_nothing(self) -> None:
        """Call nobody."""
        if self._watched >= 0:
            self._loop.unwatch(self._watched)
            self._watched = -1

    def _watch(self, call: Told, *, writing: bool) -> None:
        if self._watched >= 0 and self._call == call and self._writing == writing:
            return
        self.watch_nothing()
        assert self._socket is not None
        self._watched = self._socket.fileno()
        self._call, self._writing = call, writing
        self._loop.watch(self._watched, call, writing=writing)


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    return error.strerror or str(error)

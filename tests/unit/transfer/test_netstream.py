"""Connections that never wait, and the addresses they go to: real sockets of this machine."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from sarrapipe.errors import TransferError
from sarrapipe.transfer.curlloop import CurlLoop
from sarrapipe.transfer.netstream import NOTHING_NOW, NetStream, client_context
from sarrapipe.transfer.resolver import Address, Resolver
from sarrapipe.transfer.settings import HttpSettings


@pytest.fixture
def loop() -> Iterator[CurlLoop]:
    opened = CurlLoop().open()
    yield opened
    opened.close()


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def until(loop: CurlLoop, predicate: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not predicate():
        assert time.monotonic() < deadline
        loop.run_once(0.1)


def address(of: socket.socket) -> Address:
    return Address(socket.AF_INET, of.getsockname())


class Opened:
    """A stream, and what it told."""

    def __init__(self, loop: CurlLoop, *addresses: Address) -> None:
        self.opened = 0
        self.failed: list[TransferError] = []
        self.stream = NetStream(loop, self._open, self.failed.append)
        self.stream.connect(addresses)
        until(loop, lambda: self.opened or self.failed)

    def _open(self) -> None:
        self.opened += 1


@pytest.fixture
def pair(loop: CurlLoop, server: socket.socket) -> Iterator[tuple[NetStream, socket.socket]]:
    one = Opened(loop, address(server))
    other, _ = server.accept()
    with other:
        yield one.stream, other
    one.stream.close()


def test_the_first_address_that_answers(loop: CurlLoop, server: socket.socket) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        one = Opened(loop, address(nobody), Address(socket.AF_INET, ("127.0.0.1", 0)), address(server))
        assert one.failed == []
        port = server.getsockname()[1]
        assert one.stream.peer(port) == address(server)
        assert one.stream.here().sockaddr == ("127.0.0.1", 0)
        assert not one.stream.try_next()
        one.stream.close()
        one.stream.close()
        assert one.stream.closed


def test_no_address_that_answers(loop: CurlLoop) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        one = Opened(loop, address(nobody))
    assert one.opened == 0
    [error] = one.failed
    assert "refused" in str(error)
    assert one.stream.closed


def test_bytes_both_ways(loop: CurlLoop, pair: tuple[NetStream, socket.socket]) -> None:
    stream, other = pair
    buffer = memoryview(bytearray(100))
    assert stream.receive(buffer) == NOTHING_NOW
    assert stream.fill(buffer, 0, 100) == (0, NOTHING_NOW)
    told: list[int] = []
    stream.watch_reading(lambda: told.append(stream.receive(buffer[:5])))
    other.sendall(b"0123456789")
    until(loop, lambda: len(told) == 2)
    assert told == [5, 5]
    other.sendall(b"abc")
    stream.watch_nothing()
    until(loop, lambda: stream.fill(buffer, 10, 13) == (13, 1))
    assert bytes(buffer[10:13]) == b"abc"
    assert stream.fill(buffer, 13, 13) == (13, 1)  # no room, which is no end
    sent = stream.send(b"x" * 10)
    assert (sent, other.recv(100)) == (10, b"x" * 10)
    other.shutdown(socket.SHUT_WR)
    until(loop, lambda: stream.receive(buffer) == 0)
    assert stream.fill(buffer, 0, 100) == (0, 0)
    stream.finish()
    assert other.recv(1) == b""


def test_what_does_not_fit_is_sent_later(loop: CurlLoop, pair: tuple[NetStream, socket.socket]) -> None:
    stream, other = pair
    piece = bytes(1 << 20)
    sent = 0
    while (count := stream.send(piece)) != NOTHING_NOW:
        sent += count
    writable: list[int] = []
    stream.watch_writing(lambda: writable.append(1))
    loop.run_once(0)
    assert writable == []
    got = 0
    while got < sent:
        got += len(other.recv(1 << 20))
    until(loop, lambda: writable)
    assert stream.send(piece) > 0


def test_a_connection_that_broke(loop: CurlLoop, pair: tuple[NetStream, socket.socket]) -> None:
    stream, other = pair
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
    other.close()
    readable: list[int] = []
    stream.watch_reading(lambda: readable.append(1))
    until(loop, lambda: readable)
    buffer = memoryview(bytearray(10))
    for _ in range(2):  # and it stays so
        with pytest.raises(TransferError, match="broke"):
            stream.fill(buffer, 0, 10)
    with pytest.raises(TransferError, match="broke"):
        stream.send(b"x")


def test_tls_with_one_who_does_not_speak_it(loop: CurlLoop, server: socket.socket) -> None:
    one = Opened(loop, address(server))
    other, _ = server.accept()
    with other:
        one.stream.start_tls(client_context(HttpSettings()), "127.0.0.1")
        other.sendall(b"220 hello\r\n")
        until(loop, lambda: one.failed)
    assert one.opened == 1
    assert "TLS" in str(one.failed[0])
    assert one.stream.closed


def test_certificates_that_cannot_be_read() -> None:
    with pytest.raises(TransferError, match="/nowhere"):
        client_context(HttpSettings(ca_file="/nowhere"))


# ---- names


def test_names_and_numbers(loop: CurlLoop) -> None:
    resolver = Resolver(loop)
    found: dict[str, tuple[list[Address], str]] = {}

    def note(name: str) -> Callable[[list[Address], str], None]:
        return lambda addresses, problem: found.__setitem__(name, (addresses, problem))

    for name in ("127.0.0.1", "::1", "localhost", "no-such-host.invalid", "." * 70, "a\0b"):
        resolver.look_up(name, 21, note(name))
    assert found == {}  # nobody is called before it returns
    until(loop, lambda: len(found) == 6)
    assert found["127.0.0.1"] == ([Address(socket.AF_INET, ("127.0.0.1", 21))], "")
    assert found["::1"][0][0].sockaddr[:2] == ("::1", 21)
    assert found["localhost"][0]
    for name in ("no-such-host.invalid", "." * 70, "a\0b"):
        addresses, problem = found[name]
        assert addresses == []
        assert problem
    resolver.close()
    resolver.close()


def test_nobody_is_called_after_the_end(loop: CurlLoop) -> None:
    resolver = Resolver(loop)
    called: list[object] = []
    resolver.look_up("127.0.0.1", 21, lambda *found: called.append(found))
    resolver.look_up("localhost", 21, lambda *found: called.append(found))
    resolver.close()
    loop.run_once(0.05)
    assert called == []

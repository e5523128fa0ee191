"""FTP beyond what every backend does: how servers differ, and what they must not be able to do."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import servers
from ftpserver import PASSWORD, USER, Ftpd

from sarrapipe.errors import AccessDenied, SourceGone, TransferError
from sarrapipe.pump.ports import free_ports
from sarrapipe.segment.plan import SegmentPlan
from sarrapipe.segment.sink import DiscardSink
from sarrapipe.transfer.base import Done, RangeDone, RangeRead, Request
from sarrapipe.transfer.credentials import Credentials
from sarrapipe.transfer.engine import TransferEngine, TransferSettings
from sarrapipe.transfer.remotecall import CallDone, Operation, RemoteCall
from sarrapipe.transfer.settings import HttpSettings
from sarrapipe.transfer.writing import RangeWrite

ALICE = Credentials(user=USER, password=PASSWORD)
Start = Callable[..., TransferEngine]


@pytest.fixture
def start() -> Iterator[Start]:
    """Makes engines, and closes them."""
    with contextlib.ExitStack() as stack:

        def make(streams: int = 4, **http: object) -> TransferEngine:
            settings = TransferSettings(streams=streams, http=HttpSettings(**http))  # type: ignore[arg-type]
            engine = TransferEngine(settings).open()
            stack.callback(engine.close)
            return engine

        yield make


class Kept(DiscardSink):
    """Keeps what came."""

    def __init__(self) -> None:
        super().__init__()
        self.data = bytearray()

    def write(self, data: memoryview | bytes) -> None:
        super().write(data)
        self.data += data


class Bytes:
    """A source."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, count: int) -> memoryview | None:
        piece, self._data = self._data[:count], self._data[count:]
        return memoryview(piece)

    def fileno(self) -> int:
        return -1

    def position(self) -> int:
        return 0

    def advance(self, count: int) -> None:
        raise AssertionError("copied from no descriptor")


def run(engine: TransferEngine, *requests: Request, beside: int = 0) -> dict[object, Done]:
    """Run requests to their end, while `beside` others go on."""
    assert engine.submit(requests) == len(requests)
    done: dict[object, Done] = {}
    deadline = time.monotonic() + 30 * servers.MS
    while len(done) < len(requests):
        assert time.monotonic() < deadline, "no end"
        done |= {one.token: one for one in engine.poll(1)}
    assert engine.running == beside
    return done


def read(url: str, token: object = "read", **fields: object) -> RangeRead:
    return RangeRead(url=url, sink=Kept(), token=token, credentials=ALICE, **fields)  # type: ignore[arg-type]


def ranges(url: str, size: int, length: int) -> list[RangeRead]:
    return [
        read(url, part.number, offset=part.offset, length=part.length, whole_size=size)
        for part in SegmentPlan(size, length)
    ]


def held(request: RangeRead) -> bytes:
    assert isinstance(request.sink, Kept)
    return bytes(request.sink.data)


def call(url: str, operation: Operation = Operation.LIST, who: Credentials | None = ALICE) -> RemoteCall:
    return RemoteCall(url=url, operation=operation, token=operation, credentials=who)


# ---- what a server takes its time for


def test_a_late_last_word_holds_nobody_up(tmp_path: Path, start: Start) -> None:
    with Ftpd(tmp_path, late_s=1000) as ftpd:
        engine = start()
        write = RangeWrite(url=ftpd.url("/late"), source=Bytes(b"x"), token="w", length=1, credentials=ALICE)
        engine.submit([write])
        servers.wait_until(lambda: engine.poll(0.01) or ftpd.heard("STOR"), 10, "the file is written")
        body = os.urandom(2_000_000)
        url = ftpd.put("f", body)
        requests = ranges(url, len(body), 300_000)
        done = run(engine, *requests, beside=1)
        assert {one.error for one in done.values()} == {None}
        assert b"".join(map(held, requests)) == body
        assert engine.cancel("w")


def test_what_came_whole_does_not_wait_for_the_last_word(tmp_path: Path, start: Start) -> None:
    with Ftpd(tmp_path, late_s=1000) as ftpd:
        engine = start(streams=4)
        url = ftpd.put("late", b"0123456789")
        requests = [
            read(url, 1),
            read(url, 2, length=10, whole_size=10),
            read(url, 3, offset=2, length=3, whole_size=10),
        ]
        assert {one.error for one in run(engine, *requests).values()} == {None}
        assert [held(one) for one in requests] == [b"0123456789", b"0123456789", b"234"]


# ---- logins


@pytest.mark.parametrize("tls", [False, True])
def test_there_are_no_more_logins_than_streams(tmp_path: Path, start: Start, tls: bool) -> None:
    with Ftpd(tmp_path, tls=tls) as ftpd:
        engine = start(streams=4, ca_file=ftpd.ca_file if tls else None)
        body = os.urandom(17 * 100_000)
        requests = ranges(ftpd.put("f", body), len(body), 100_000)
        assert {one.error for one in run(engine, *requests).values()} == {None}
        assert b"".join(map(held, requests)) == body
        assert len(requests) == ftpd.heard("RETR") == 17
        assert ftpd.heard("login") <= 4
        assert ftpd.heard("TYPE") <= 4


def test_connections_outlive_what_was_cancelled(tmp_path: Path, start: Start) -> None:
    with Ftpd(tmp_path) as ftpd:
        engine = start(streams=2)
        url = ftpd.put("f", b"")
        os.truncate(ftpd.root / "f", 1 << 32)  # more than can come between two looks
        for _ in range(5):
            one = read(url)
            engine.submit([one])
            while not one.sink.written:
                assert engine.poll(0.01) == []
            assert engine.cancel("read")
            before = one.sink.written
            assert run(engine, read(ftpd.put("g", b"x")))["read"].error is None
            assert one.sink.written == before
        assert ftpd.heard("login") <= 2


@pytest.mark.parametrize("most", [1, 3])
def test_a_server_with_a_limit_of_logins(tmp_path: Path, start: Start, most: int) -> None:
    with Ftpd(tmp_path, per_host=most) as ftpd:
        servers.wait_until(lambda: ftpd.heard("gone"), 10, "the look whether it is up has ended")
        engine = start(streams=8)
        requests = [read(ftpd.put(f"f{n}", bytes([n]) * 1000), n) for n in range(16)]
        assert {one.error for one in run(engine, *requests).values()} == {None}
        assert [held(one) for one in requests] == [bytes([n]) * 1000 for n in range(16)]
        assert ftpd.heard("login") <= most


def test_a_server_that_is_full_of_others_is_asked_again(tmp_path: Path, start: Start) -> None:
    with Ftpd(tmp_path, per_host=1) as ftpd:
        servers.wait_until(lambda: ftpd.heard("gone"), 10, "the look whether it is up has ended")
        engine = start()
        request = read(ftpd.put("f", b"x"))
        with socket.create_connection(("127.0.0.1", ftpd.port)) as other:
            assert other.recv(3) == b"220"
            engine.submit([request])
            servers.wait_until(lambda: engine.poll(0.01) or ftpd.heard("gone") > 1, 10, "it was refused")
        done: list[Done] = []
        servers.wait_until(lambda: done.extend(engine.poll(0.1)) or done, 10, "it got in")
        assert (done[0].error, held(request)) == (None, b"x")


def test_a_server_that_stays_full(tmp_path: Path, start: Start) -> None:
    with Ftpd(tmp_path, per_host=1) as ftpd:
        servers.wait_until(lambda: ftpd.heard("gone"), 10, "the look whether it is up has ended")
        with socket.create_connection(("127.0.0.1", ftpd.port)) as other:
            assert other.recv(3) == b"220"
            done = run(start(), read(ftpd.url("/f"), 1), read(ftpd.url("/g"), 2))
        assert {type(one.error) for one in done.values()} <= {TransferError, *TransferError.__subclasses__()}
        assert not any(isinstance(one.error, AccessDenied | SourceGone) for one in done.values())


def test_a_wrong_password_is_not_tried_by_every_file(tmp_path: Path, start: Start) -> None:
    with Ftpd(tmp_path) as ftpd:
        requests = [read(ftpd.url(f"/f{n}"), n) for n in range(8)]
        for request in requests:
            request.credentials = Credentials(user=USER, password="n0t-1t")
        done = run(start(streams=8), *requests)
        assert {type(one.error) for one in done.values()} == {AccessDenied}
        assert ftpd.heard("PASS") == 1


def test_a_connection_that_was_closed_while_idle_is_no_failure(tmp_path: Path, start: Start) -> None:
    with Ftpd(tmp_path, idle_s=0.2) as ftpd:
        engine = start(streams=1)
        for count in range(1, 4):
            request = read(ftpd.put(f"f{count}", b"x"))
            assert run(engine, request)["read"].error is None
            # Not polled meanwhile, so that the next request finds out by itself.
            servers.wait_until(lambda: ftpd.heard("gone") > count, 10, "the server closed it")  # noqa: B023
        write = RangeWrite(url=ftpd.url("/g"), source=Bytes(b"y"), token="w", length=1, credentials=ALICE)
        assert run(engine, write)["w"].error is None
        assert (ftpd.root / "g").read_bytes() == b"y"
        assert ftpd.heard("login") == 4


# ---- what this side holds up


class Slow:
    """A rate that is used up by each step."""

    def __init__(self) -> None:
        self.taken = 0.0

    def take(self, amount: float, now_ns: int) -> float:
        self.taken += amount
        return 0.02


@pytest.mark.parametrize("tls", [False, True])
def test_the_rate_of_the_flow(tmp_path: Path, tls: bool) -> None:
    with Ftpd(tmp_path, tls=tls) as ftpd:
        limiter = Slow()
        http = HttpSettings(ca_file=ftpd.ca_file if tls else None)
        engine = TransferEngine(TransferSettings(streams=1, http=http), limiter).open()
        body = os.urandom(4 << 20)
        request = read(ftpd.put("f", body), length=len(body), whole_size=len(body))
        write = RangeWrite(
            url=ftpd.url("/g"), source=Bytes(body), token="w", length=len(body), credentials=ALICE
        )
        begin = time.monotonic()
        done = run(engine, request, write)
        engine.close()
        assert {one.error for one in done.values()} == {None}
        assert held(request) == (ftpd.root / "g").read_bytes() == body
        assert limiter.taken >= 7 << 20
        assert time.monotonic() - begin >= 28 * 0.02  # a step of 256 KiB each


def test_nothing_is_left_open(tmp_path: Path) -> None:
    with Ftpd(tmp_path) as ftpd:
        url = ftpd.put("f", bytes(300_000))
        before = os.listdir("/proc/self/fd")
        engine = TransferEngine(TransferSettings(streams=4)).open()
        most = 0
        for turn in range(20):
            requests = ranges(url, 300_000, 40_000)
            active = read(url, "active", length=100_000)
            active.credentials = Credentials(user=USER, password=PASSWORD, passive=turn % 2 == 0)
            assert engine.submit([*requests, active]) == len(requests) + 1
            engine.poll(0.001 * turn)
            for request in requests[turn % 3 :: 2]:
                engine.cancel(request.token)
            while engine.running or engine.waiting:
                engine.poll(0.1)
            most = max(most, len(os.listdir("/proc/self/fd")))
        assert most - len(before) < 30
        assert ftpd.heard("login") <= 8
        engine.close()
        assert len(os.listdir("/proc/self/fd")) == len(before)


# ---- what servers do not know


def test_a_listing_where_there_is_no_mlsd(tmp_path: Path, start: Start) -> None:
    with Ftpd(tmp_path, unknown=("MLSD", "MLST")) as ftpd:
        engine = start(streams=1)
        ftpd.put("d/a b", b"12345")
        ftpd.put("d/-l", b"")
        os.mkdir(ftpd.root / "d/sub")
        os.utime(ftpd.root / "d/a b", (946684800, 946684800))
        for _ in range(2):
            done = run(engine, call(ftpd.url("/d/")))[Operation.LIST]
            assert isinstance(done, CallDone)
            assert done.error is None
            found = {entry.name: entry for entry in done.entries}
            assert sorted(found) == ["-l", "a b", "sub"]
            assert found["sub"].is_directory
            assert found["a b"].attributes.size == 5
            assert found["a b"].attributes.mtime_ns == 946684800 * 10**9
        assert isinstance(run(engine, call(ftpd.url("/none/")))[Operation.LIST].error, SourceGone)
        assert ftpd.heard("MLSD") == 1
        request = read(ftpd.url("/~/d/a b"))  # where one is logged in to is the current directory still
        assert run(engine, request)["read"].error is None
        assert held(request) == b"12345"
        assert ftpd.heard("login") == 1


def test_a_server_that_knows_little(tmp_path: Path, start: Start) -> None:
    with Ftpd(tmp_path, unknown=("EPSV", "SIZE", "MDTM", "FEAT"), names_host="192.0.2.1") as ftpd:
        engine = start(streams=1)
        url = ftpd.put("f", b"0123456789")
        for offset, wanted in ((0, b"0123456789"), (4, b"456789")):
            request = read(url, offset=offset)
            done = run(engine, request)["read"]
            assert (done.error, held(request)) == (None, wanted)
            assert isinstance(done, RangeDone)
            assert done.whole_size is None
        assert [ftpd.heard(command) for command in ("EPSV", "SIZE", "MDTM")] == [1, 1, 1]
        assert ftpd.heard("PASV") == 2  # and the address that it named was not connected to
        short = run(engine, read(url, length=20))["read"]
        assert isinstance(short.error, TransferError)
        assert isinstance(run(engine, read(f"{url}-none"))["read"].error, SourceGone)


@pytest.mark.parametrize("unknown", [(), ("EPRT",)])
@pytest.mark.parametrize("tls", [False, True])
def test_active_mode(tmp_path: Path, start: Start, unknown: Sequence[str], tls: bool) -> None:
    with Ftpd(tmp_path, tls=tls, unknown=(*unknown, "PASV", "EPSV")) as ftpd:
        # One at a time: in active mode pyftpdlib 2.2 closes descriptors twice, others' as well.
        engine = start(streams=1, ca_file=ftpd.ca_file if tls else None)
        who = Credentials(user=USER, password=PASSWORD, passive=False)
        body = os.urandom(1_000_000)
        requests = ranges(ftpd.put("f", body), len(body), 300_000)
        for request in requests:
            request.credentials = who
        write = RangeWrite(
            url=ftpd.url("/g"), source=Bytes(body), token="w", length=len(body), credentials=who
        )
        done = run(engine, *requests, write, call(ftpd.url("/"), who=who))
        assert {one.error for one in done.values()} == {None}
        assert b"".join(map(held, requests)) == (ftpd.root / "g").read_bytes() == body
        assert ftpd.heard("PASV") == ftpd.heard("EPSV") == 0


# ---- encryption


def test_tls_from_the_first_byte_on(tmp_path: Path, start: Start) -> None:
    with Ftpd(tmp_path, tls=True, implicit=True) as ftpd:
        who = Credentials(user=USER, password=PASSWORD, implicit_tls=True)
        request = read(ftpd.put("f", b"x" * 100_000))
        request.credentials = who
        assert run(start(ca_file=ftpd.ca_file), request)["read"].error is None
        assert held(request) == b"x" * 100_000
        assert ftpd.heard("AUTH") == 0


def test_a_certificate_that_nobody_trusts(tmp_path: Path, start: Start) -> None:
    with Ftpd(tmp_path, tls=True) as ftpd:
        error = run(start(), read(ftpd.url("/f")))["read"].error
        assert isinstance(error, TransferError)
        assert "certificate" in str(error)
        assert ftpd.heard("USER") == ftpd.heard("PASS") == 0
        request = read(ftpd.put("f", b"x"))
        assert run(start(tls_verify=False), request)["read"].error is None


def test_a_server_that_does_not_encrypt_gets_no_password(tmp_path: Path, start: Start) -> None:
    with Ftpd(tmp_path) as ftpd:
        error = run(start(), read(ftpd.url("/f").replace("ftp:", "ftps:")))["read"].error
        assert isinstance(error, TransferError)
        assert ftpd.heard("AUTH") == 1
        assert ftpd.heard("USER") == ftpd.heard("PASS") == 0


# ---- names of hosts


def test_a_host_by_its_name(tmp_path: Path, start: Start) -> None:
    with Ftpd(tmp_path) as ftpd:
        request = read(ftpd.put("f", b"x").replace("127.0.0.1", "localhost"))
        assert run(start(), request)["read"].error is None


def test_a_host_that_is_none(start: Start) -> None:
    error = run(start(), read("ftp://no-such-host.invalid/f"))["read"].error
    assert isinstance(error, TransferError)
    assert "no-such-host.invalid" in str(error)


@pytest.mark.parametrize("operation", [Operation.REMOVE, Operation.REMOVE_DIRECTORY])
def test_what_could_not_be_asked_for_is_not_gone(start: Start, operation: Operation) -> None:
    """A removal ends well where the name is gone already; a server out of reach does not say that it is."""
    with socket.socket() as nobody:  # bound and not listening: refused, and no other takes the port
        nobody.bind(("127.0.0.1", 0))
        done = run(start(), call(f"ftp://127.0.0.1:{nobody.getsockname()[1]}/f", operation))[operation]
    assert isinstance(done, CallDone)
    assert isinstance(done.error, TransferError)
    assert not isinstance(done.error, SourceGone)


# ---- servers that mean no good: no real one does this


class Rogue:
    """Says what a script has for each command, whoever connects, until it is closed."""

    def __init__(self, greeting: bytes, replies: dict[str, bytes], *, endless: bytes = b"") -> None:
        self._greeting = greeting
        self._replies = {"USER": b"230 in\r\n", "TYPE": b"200 ok\r\n"} | replies
        self._endless = endless
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self.port = self._listener.getsockname()[1]

    def __enter__(self) -> Rogue:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        threads = []
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                threads.append(threading.Thread(target=self._talk, args=(connection,)))
                threads[-1].start()
        for thread in threads:
            thread.join(10)

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as lines:
            connection.sendall(self._greeting)
            while self._endless:
                connection.sendall(self._endless)
            for line in lines:
                connection.sendall(self._replies.get(line.split()[0].decode("latin-1"), b"500 what?\r\n"))


SOON = {"connect_timeout_s": 0.5, "stall_s": 1}


@pytest.mark.parametrize(
    ("greeting", "endless", "why"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", b"", "does not speak FTP"),
        (bytes(range(256)), b"", "does not speak FTP|no end"),
        (b"220-", b"x" * 65_536, "no end"),
        (b"220-hello\r\n", b"220-and so on\r\n" * 1000, "no end"),
        (b"", b"", "has not answered"),
        (b"220 ", b"", "has not answered"),
    ],
)
def test_a_greeting_that_is_none(start: Start, greeting: bytes, endless: bytes, why: str) -> None:
    with Rogue(greeting, {}, endless=endless) as rogue:
        error = run(start(**SOON), read(f"ftp://127.0.0.1:{rogue.port}/f"))["read"].error
    assert isinstance(error, TransferError)
    with pytest.raises(TransferError, match=why):
        raise error


DOES_NOT_ENCRYPT_YET = b"234 go ahead\r\n230 in already\r\n"


@pytest.mark.parametrize(
    ("replies", "why"),
    [
        ({"EPSV": b"\xff\xfe\xfd\r\n"}, "does not speak FTP"),
        ({"EPSV": b"229 (|||0|)\r\n"}, "no port"),
        ({"EPSV": b"229-" + b"x" * 70_000 + b"\r\n"}, "no end"),
        ({"MDTM": b"213 1\r\n" + b"200 and more\r\n" * 9}, "no passive mode"),
        ({"PASV": b"425 no\r\n425 no\r\n"}, "no passive mode"),
        ({"PASV": b"227 (127,0,0,1,999,1)\r\n"}, "no port"),
        ({"EPSV": b""}, "has not answered"),
        ({"EPSV": b"425 no\r\n", "PASV": b"421 good bye\r\n"}, "good bye"),
    ],
)
def test_replies_that_are_none(start: Start, replies: dict[str, bytes], why: str) -> None:
    with Rogue(b"220 hello\r\n", replies) as rogue:
        error = run(start(**SOON), read(f"ftp://127.0.0.1:{rogue.port}/f"))["read"].error
    assert isinstance(error, TransferError)
    with pytest.raises(TransferError, match=why):
        raise error


def test_what_is_sent_ahead_of_tls_is_not_taken_for_it(start: Start) -> None:
    with Rogue(b"220 hello\r\n", {"AUTH": DOES_NOT_ENCRYPT_YET}) as rogue:
        error = run(start(**SOON), read(f"ftps://127.0.0.1:{rogue.port}/f"))["read"].error
    assert isinstance(error, TransferError)
    assert "before TLS began" in str(error)


@pytest.mark.parametrize("passive", [True, False])
def test_a_data_connection_that_never_is(start: Start, passive: bool) -> None:
    [port] = free_ports(1)
    replies = {
        "EPSV": f"229 (|||{port}|)\r\n".encode(),
        "PASV": f"227 (127,0,0,1,{port // 256},{port % 256})\r\n".encode(),
        "EPRT": b"200 ok\r\n",
        "RETR": b"150 coming\r\n",
    }
    with Rogue(b"220 hello\r\n", replies) as rogue:
        request = read(f"ftp://127.0.0.1:{rogue.port}/f")
        request.credentials = Credentials(user=USER, password=PASSWORD, passive=passive)
        error = run(start(**SOON), request)["read"].error
    assert isinstance(error, TransferError)
    assert "no data connection" in str(error)


def test_a_reply_says_more_than_a_data_connection_that_is_refused(start: Start) -> None:
    [port] = free_ports(1)
    replies = {"EPSV": f"229 (|||{port}|)\r\n".encode(), "RETR": b"550 none\r\n", "STOR": b"553 no\r\n"}
    with Rogue(b"220 hello\r\n", replies) as rogue:
        url = f"ftp://127.0.0.1:{rogue.port}/f"
        write = RangeWrite(url=url, source=Bytes(b"x"), token="w", length=1, credentials=ALICE)
        done = run(start(), read(url), write)
    assert {type(one.error) for one in done.values()} == {SourceGone}


@pytest.mark.parametrize("sends", [b"", b"0123"])
def test_data_that_stop(start: Start, sends: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as data:
        port = data.getsockname()[1]
        replies = {
            "EPSV": f"229 (|||{port}|)\r\n".encode(),
            "SIZE": b"213 10\r\n",
            "RETR": b"150 coming\r\n",
        }
        with Rogue(b"220 hello\r\n", replies) as rogue:
            request = read(f"ftp://127.0.0.1:{rogue.port}/f", length=10)
            engine = start(**SOON)
            engine.submit([request])
            data.setblocking(False)
            accepted: list[socket.socket] = []

            def accept() -> bool:
                assert engine.poll(0.01) == []
                with contextlib.suppress(BlockingIOError):
                    accepted.append(data.accept()[0])
                return bool(accepted)

            servers.wait_until(accept, 10, "the data connection is there")
            accepted[0].sendall(sends)
            done: list[Done] = []
            servers.wait_until(lambda: done.extend(engine.poll(0.1)) or done, 10, "the end")
            accepted[0].close()
    assert isinstance(done[0].error, TransferError)
    assert "stalled" in str(done[0].error)
    assert held(request) == sends


def test_more_than_the_file_holds_does_not_reach_the_sink(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as data:
        port = data.getsockname()[1]
        replies = {
            "EPSV": f"229 (|||{port}|)\r\n".encode(),
            "SIZE": b"213 10\r\n",
            "RETR": b"150 coming\r\n",
        }

        def send() -> None:
            with data.accept()[0] as connection, contextlib.suppress(OSError):
                connection.sendall(b"0123456789" * 100_000)

        sender = threading.Thread(target=send)
        sender.start()
        with Rogue(b"220 hello\r\n", replies) as rogue:
            request = read(f"ftp://127.0.0.1:{rogue.port}/f", length=10, whole_size=10)
            done = run(start(**SOON), request)["read"]
        sender.join(10)
    assert (done.error, held(request)) == (None, b"0123456789")


@pytest.mark.parametrize("what", ["read", "write", "call"])
def test_what_rides_along_needs_no_connection_of_those_it_rides_with(
    tmp_path: Path, start: Start, what: str
) -> None:
    """What the holder of the only stream waits for, as in a relay."""
    with Ftpd(tmp_path, late_s=1000) as ftpd:
        engine = start(streams=1)
        late = RangeWrite(url=ftpd.url("/late"), source=Bytes(b"x"), token="l", length=1, credentials=ALICE)
        engine.submit([late])
        servers.wait_until(lambda: engine.poll(0.01) or ftpd.heard("STOR"), 10, "the only stream is taken")
        url = ftpd.put("f", b"x")
        riding: dict[str, Request] = {
            "read": read(url, what),
            "write": RangeWrite(url=url, source=Bytes(b"x"), token=what, length=1, credentials=ALICE),
            "call": RemoteCall(url=url, operation=Operation.STAT, token=what, credentials=ALICE),
        }
        riding[what].rides_along = True
        assert run(engine, riding[what], beside=1)[what].error is None

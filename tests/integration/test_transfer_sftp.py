"""SFTP as servers really are: keys, passwords, refusals, deaths and stalls, over both drivers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import servers
from sshserver import PASSWORD, Sshd, descendants

from sarrapipe.errors import AccessDenied, HostUntrusted, SourceChanged, SourceGone, TransferError
from sarrapipe.segment.sink import DiscardSink
from sarrapipe.transfer.base import Credentials, RangeDone, RangeRead
from sarrapipe.transfer.engine import TransferEngine, TransferSettings
from sarrapipe.transfer.settings import SftpSettings
from sarrapipe.transfer.sftp import connections_for

pytestmark = pytest.mark.sftp
MIB = 1 << 20


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("ssh")) as server:
        yield server


@pytest.fixture(params=["openssh", "paramiko"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Client:
    """An engine for one driver, and who to be."""

    def __init__(self, sshd: Sshd, driver: str, **settings: object) -> None:
        given = {"known_hosts": sshd.known_hosts, **settings}
        self.credentials = Credentials(key_file=sshd.key_file)
        self.engine = TransferEngine(TransferSettings(sftp=SftpSettings(driver=driver, **given)))  # type: ignore[arg-type]
        self.engine.open()

    def read(self, url: str, **fields: object) -> RangeRead:
        given = {"sink": DiscardSink(), "token": url, "credentials": self.credentials, **fields}
        return RangeRead(url=url, **given)  # type: ignore[arg-type]

    def collect(self, *reads: RangeRead) -> list[RangeDone]:
        assert self.engine.submit(reads) == len(reads)
        done: list[RangeDone] = []
        deadline = time.monotonic() + 30 * servers.MS
        while len(done) < len(reads):
            assert time.monotonic() < deadline, "no end"
            done += self.engine.poll(1)
        return done

    def fetch(self, url: str, **fields: object) -> RangeDone:
        return self.collect(self.read(url, **fields))[0]


@pytest.fixture
def client(sshd: Sshd, driver: str) -> Iterator[Client]:
    one = Client(sshd, driver)
    yield one
    one.engine.close()


@pytest.fixture
def known(sshd: Sshd) -> Iterator[Sshd]:
    """The server, whose key is the known one again afterwards."""
    yield sshd
    sshd.write_known_hosts("hostkey")


class Acting(DiscardSink):
    """Does something when the first byte comes."""

    def __init__(self, act) -> None:
        super().__init__()
        self._act = act

    def write(self, data: memoryview | bytes) -> None:
        if not self.written:
            self._act()
        super().write(data)


class TestHostKeys:
    @pytest.mark.parametrize(("key", "what"), [("other", "not the known one"), ("", "unknown")])
    def test_a_key_that_is_not_known_is_refused(self, known: Sshd, driver: str, key: str, what: str) -> None:
        known.write_known_hosts(key)
        client = Client(known, driver)
        done = client.fetch(known.put("f", b"x"))
        client.engine.close()
        assert isinstance(done.error, HostUntrusted)
        assert what in str(done.error)
        assert done.received == 0

    def test_new_notes_a_host_down_and_refuses_another_key(self, known: Sshd, driver: str) -> None:
        known.write_known_hosts("")
        for _ in range(2):
            client = Client(known, driver, host_keys="new")
            assert client.fetch(known.put("f", b"x")).error is None
            client.engine.close()
        assert len(Path(known.known_hosts).read_text().splitlines()) == 1
        known.write_known_hosts("other")
        client = Client(known, driver, host_keys="new")
        assert isinstance(client.fetch(known.put("f", b"x")).error, HostUntrusted)
        client.engine.close()

    def test_off_takes_any(self, known: Sshd, driver: str) -> None:
        known.write_known_hosts("other")
        client = Client(known, driver, host_keys="off")
        assert client.fetch(known.put("f", b"x")).error is None
        client.engine.close()


class TestLoggingIn:
    def test_a_key_that_the_server_does_not_know(self, sshd: Sshd, client: Client) -> None:
        client.credentials = Credentials(key_file=sshd.other_key_file)
        done = client.fetch(sshd.put("f", b"x"))
        assert isinstance(done.error, AccessDenied)

    def test_a_password(self, sshd: Sshd, client: Client) -> None:
        if not sshd.has_accounts:
            servers.missing("root, to make accounts")
        client.credentials = Credentials(user="alice", password=PASSWORD)
        sshd.put("f", b"x")
        url = sshd.url(f"{sshd.root}/f", "alice")
        assert client.fetch(url).error is None
        # ... and the user may be named by the credentials alone.
        assert client.fetch(url.replace("alice@", "")).error is None

    def test_a_wrong_password(self, sshd: Sshd, client: Client) -> None:
        client.credentials = Credentials(user="alice", password="wrong")
        done = client.fetch(sshd.url(f"{sshd.root}/f", "alice"))
        assert isinstance(done.error, AccessDenied)
        assert "wrong" not in str(done.error)

    def test_a_password_is_nowhere_to_be_seen(self, sshd: Sshd) -> None:
        client = Client(sshd, "openssh")
        client.credentials = Credentials(user="alice", password="sEcReT-42")
        client.engine.submit([client.read(sshd.url(f"{sshd.root}/f", "alice"))])
        seen = 0
        done: list[RangeDone] = []
        while not done:
            for pid in descendants(os.getpid()):
                try:
                    shown = (
                        Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
                    )
                except OSError:
                    continue
                seen += b"SSH_ASKPASS" in shown
                assert b"sEcReT" not in shown
            done = client.engine.poll(0.01)
        client.engine.close()
        assert seen

    def test_permission_denied(self, sshd: Sshd, client: Client) -> None:
        if not sshd.has_accounts:
            servers.missing("root, to make accounts")
        client.credentials = Credentials(user="bob", password=PASSWORD)
        sshd.put("closed", b"x")
        os.chmod(sshd.root / "closed", 0)
        done = client.fetch(sshd.url(f"{sshd.root}/closed", "bob"))
        assert isinstance(done.error, AccessDenied)
        assert "closed" in str(done.error)


class TestPaths:
    def test_below_the_home_directory(self, sshd: Sshd, client: Client) -> None:
        if not sshd.has_accounts:
            servers.missing("root, to make accounts")
        client.credentials = Credentials(user="alice", password=PASSWORD)
        sshd.put("at home", b"x")
        assert client.fetch(sshd.url("/~/at home", "alice")).error is None
        assert isinstance(client.fetch(sshd.url("/at home", "alice")).error, SourceGone)

    def test_a_directory_is_named(self, sshd: Sshd, client: Client) -> None:
        done = client.fetch(sshd.url(str(sshd.root)))
        assert isinstance(done.error, TransferError)
        assert "no regular file" in str(done.error)

    @pytest.mark.parametrize(
        "url", ["sftp://-oProxyCommand=x/f", "sftp://h:99999/f", "sftp://h", "sftp:///f", "sftp://a b/f"]
    )
    def test_what_is_no_url(self, client: Client, url: str) -> None:
        done = client.fetch(url)
        assert done.error is not None
        assert "no SFTP URL" in str(done.error)


class TestTrouble:
    def test_a_server_that_is_not_there(self, sshd: Sshd, client: Client) -> None:
        done = client.fetch("sftp://root@127.0.0.1:1/f")
        assert isinstance(done.error, TransferError)

    def test_a_server_that_dies_in_mid_transfer(self, sshd: Sshd, client: Client) -> None:
        url = sshd.put("large", bytes(32 * MIB))
        reads = [client.read(url, token=1, sink=Acting(sshd.kill_sessions)), client.read(url, token=2)]
        done = client.collect(*reads)
        assert {type(one.error) for one in done} == {TransferError}
        assert all(one.received < 32 * MIB for one in done)
        assert client.fetch(url).error is None  # by a new connection

    def test_a_file_that_is_cut_short_while_it_is_read(self, sshd: Sshd, client: Client) -> None:
        url = sshd.put("large", bytes(32 * MIB))
        sink = Acting(lambda: os.truncate(sshd.root / "large", 20 * MIB))
        done = client.fetch(url, sink=sink, length=32 * MIB, whole_size=32 * MIB)
        assert isinstance(done.error, SourceChanged)

    def test_a_file_that_changes_while_it_is_read(self, sshd: Sshd, client: Client) -> None:
        url = sshd.put("large", bytes(8 * MIB))
        sink = Acting(lambda: os.utime(sshd.root / "large", (1, 1)))
        done = client.fetch(url, sink=sink)
        assert isinstance(done.error, SourceChanged)
        assert "changed while" in str(done.error)

    def test_a_stalled_server(self, sshd: Sshd, driver: str) -> None:
        client = Client(sshd, driver, stall_s=0.4)
        url = sshd.put("large", bytes(32 * MIB))
        stopped: list[int] = []

        def stop() -> None:
            stopped.extend(sshd.pids())
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)

        done = client.fetch(url, sink=Acting(stop))
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        client.engine.close()
        assert isinstance(done.error, TransferError)
        assert "stalled" in str(done.error)

    def test_a_pause_by_the_rate_limit_is_no_stall(self, sshd: Sshd, driver: str) -> None:
        class Slow:
            taken = 0

            def take(self, amount: float, now_ns: int) -> float:
                self.taken += int(amount)
                return 0.2

        limiter = Slow()
        settings = SftpSettings(
            driver=driver, known_hosts=sshd.known_hosts, stall_s=0.4, stall_bytes_s=1 << 30
        )
        engine = TransferEngine(TransferSettings(sftp=settings), limiter=limiter).open()
        client = Client(sshd, driver)
        client.engine.close()
        client.engine = engine
        started = time.monotonic()
        done = client.fetch(sshd.put("large", bytes(4 * MIB)))
        engine.close()
        assert done.error is None
        assert limiter.taken >= 3 * MIB
        assert time.monotonic() - started > 0.2

    def test_an_account_that_prints_something(self, tmp_path: Path, driver: str) -> None:
        with Sshd(tmp_path, subsystem='/bin/echo "Welcome to this server"') as chatty:
            client = Client(chatty, driver)
            done = client.fetch(chatty.put("f", b"x"))
            client.engine.close()
        assert isinstance(done.error, TransferError)
        assert "does not speak SFTP" in str(done.error)


class TestConnections:
    def test_small_files_share_one(self, sshd: Sshd, client: Client) -> None:
        servers.wait_until(lambda: not sshd.sessions(), 5, "earlier sessions are over")
        urls = [sshd.put(f"small{n}", bytes(n)) for n in range(300)]
        done = client.collect(*(client.read(url, length=n, whole_size=n) for n, url in enumerate(urls)))
        assert all(one.error is None for one in done)
        assert sshd.sessions() == 1

    @pytest.mark.parametrize("connections", [1, 3])
    def test_a_large_file_from_afar_takes_several(self, sshd: Sshd, driver: str, connections: int) -> None:
        client = Client(sshd, driver, connections=connections, far_s=0.0)
        servers.wait_until(lambda: not sshd.sessions(), 5, "earlier sessions are over")
        url = sshd.put("large", bytes(64 * MIB))
        parts = [
            client.read(url, token=n, offset=n * 8 * MIB, length=8 * MIB, whole_size=64 * MIB)
            for n in range(8)
        ]
        done, sessions = client.collect(*parts), sshd.sessions()
        client.engine.close()
        assert all(one.error is None for one in done)
        assert sessions == connections

    def test_how_many_connections_pay(self) -> None:
        assert connections_for(is_far=True, cpus=1, limit=4) == 4
        assert connections_for(is_far=False, cpus=2, limit=4) == 1
        assert connections_for(is_far=False, cpus=8, limit=4) == 2
        assert connections_for(is_far=False, cpus=8, limit=1) == 1

    def test_one_that_nobody_uses_is_closed(self, sshd: Sshd, driver: str) -> None:
        client = Client(sshd, driver, idle_s=0.1)
        servers.wait_until(lambda: not sshd.sessions(), 5, "earlier sessions are over")
        assert client.fetch(sshd.put("f", b"x")).error is None

        def closed() -> bool:
            client.engine.poll(0.05)
            return not sshd.sessions()

        servers.wait_until(closed, 10, "the connection is closed")
        done = client.fetch(sshd.put("f", b"x"))
        client.engine.close()
        assert done.error is None

    def test_a_server_that_takes_no_more_for_the_moment(self, tmp_path: Path, driver: str) -> None:
        with Sshd(tmp_path, startups="1") as busy, contextlib.ExitStack() as taken:

            def take_the_one_place() -> bool:
                place = taken.enter_context(socket.create_connection(("127.0.0.1", busy.port)))
                return place.recv(4) == b"SSH-"

            servers.wait_until(take_the_one_place, 10, "the place is free")
            client = Client(busy, driver)
            client.engine.submit([client.read(busy.put("f", b"x"))])
            assert client.engine.poll(0.3) == []
            taken.close()
            done: list[RangeDone] = []
            while not done:
                done = client.engine.poll(1)
            client.engine.close()
        assert done[0].error is None

    def test_nothing_is_left_when_the_engine_ends(self, sshd: Sshd, client: Client) -> None:
        url = sshd.put("large", bytes(32 * MIB))
        client.engine.submit([client.read(url)])
        client.engine.poll(0.3)
        client.engine.close()
        assert [pid for pid in descendants(os.getpid()) if _program(pid) == "ssh"] == []
        servers.wait_until(lambda: not sshd.sessions(), 5, "the sessions are over")

    def test_nothing_is_left_when_the_process_is_killed(self, sshd: Sshd, driver: str) -> None:
        servers.wait_until(lambda: not sshd.sessions(), 5, "earlier sessions are over")
        url = sshd.put("large", bytes(64 * MIB))
        command = [sys.executable, "-c", _HANGING, driver, sshd.known_hosts, sshd.key_file, url]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"first byte\n"
            carriers = [pid for pid in descendants(process.pid) if _program(pid) == "ssh"]
            process.kill()
        assert len(carriers) == (driver == "openssh")
        servers.wait_until(lambda: not any(map(_program, carriers)), 5, "ssh has ended")
        servers.wait_until(lambda: not sshd.sessions(), 5, "the session is over")


_HANGING = """
import sys, time
from sarrapipe.segment.sink import DiscardSink
from sarrapipe.transfer.base import Credentials, RangeRead
from sarrapipe.transfer.engine import TransferEngine, TransferSettings
from sarrapipe.transfer.settings import SftpSettings

class Hanging(DiscardSink):
    def write(self, data):
        print("first byte", flush=True)
        time.sleep(1000)

driver, known_hosts, key_file, url = sys.argv[1:]
engine = TransferEngine(TransferSettings(sftp=SftpSettings(driver=driver, known_hosts=known_hosts))).open()
engine.submit([RangeRead(url=url, sink=Hanging(), token=1, credentials=Credentials(key_file=key_file))])
while True:
    engine.poll(1)
"""


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""

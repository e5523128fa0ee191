"""What every backend that can send does, whatever the protocol: one suite, one subclass for each.

A new backend adds a subclass with a `place` that says URLs and where their files are on this machine. What a
protocol cannot do its capabilities say, and the tests of it are skipped for that reason alone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
import servers
from ftpserver import PASSWORD, USER, Ftpd
from sshserver import Sshd
from test_backends import ODD_NAMES, KeyedEngine
from webserver import Nginx

from sarrapipe.errors import (
    AccessDenied,
    MessageError,
    NoSpaceThere,
    SarrapipeError,
    SourceChanged,
    SourceGone,
    TooLargeThere,
    TransferError,
    Unsupported,
)
from sarrapipe.pump.ports import free_ports
from sarrapipe.segment.plan import SegmentPlan
from sarrapipe.segment.sink import DiscardSink
from sarrapipe.segment.source import FileSource
from sarrapipe.transfer.base import Done, RangeRead, Request
from sarrapipe.transfer.credentials import Credentials
from sarrapipe.transfer.engine import TransferEngine, TransferSettings
from sarrapipe.transfer.remotecall import Attributes, CallDone, Operation, RemoteCall
from sarrapipe.transfer.settings import HttpSettings, SftpSettings
from sarrapipe.transfer.writing import RangeWrite, WriteDone


class Place(Protocol):
    """A directory at the other side."""

    def url(self, name: str) -> str:
        """URL of a name in it, nothing escaped."""

    def path(self, name: str) -> str:
        """Where that is on this machine."""

    def remote(self, name: str) -> str:
        """Path of the name at the server, for `RemoteCall.to`."""


class Pieces:
    """A source that yields what it was given; `None` where it has nothing yet."""

    def __init__(self, *pieces: bytes | None) -> None:
        self._pieces = list(pieces)
        self.asked = 0
        self.waited = False

    def read(self, count: int) -> memoryview | None:
        self.asked += 1
        if not self._pieces:
            return memoryview(b"")
        piece = self._pieces[0]
        if piece is None:
            self.waited = True
            return None
        self._pieces[0] = piece[count:]
        if not self._pieces[0]:
            del self._pieces[0]
        return memoryview(piece[:count])

    def arrive(self) -> None:
        """What was missing is there."""
        self._pieces = [piece for piece in self._pieces if piece is not None]

    def fileno(self) -> int:
        return -1

    def position(self) -> int:
        return 0

    def advance(self, count: int) -> None:
        raise AssertionError("copied from no descriptor")


class FailingSource(Pieces):
    """Becomes shorter in the middle."""

    def read(self, count: int) -> memoryview | None:
        if self.asked:
            raise SourceChanged("x has become shorter while it was sent")
        return super().read(count)


class Bucket:
    """A byte rate as the arena's limiter keeps it, in one process."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._empty_at_ns = 0

    def take(self, amount: float, now_ns: int) -> float:
        self._empty_at_ns = max(self._empty_at_ns, now_ns) + int(amount / self._rate * 1e9)
        return max(0.0, (self._empty_at_ns - now_ns) / 1e9)


def collect(engine: TransferEngine, *requests: Request) -> dict[object, Done]:
    """Run requests to their end."""
    waiting = list(requests)
    done: dict[object, Done] = {}
    while len(done) < len(requests):
        waiting = waiting[engine.submit(waiting) :]
        for one in engine.poll(10):
            assert one.token not in done
            done[one.token] = one
    assert engine.running == engine.waiting == engine.inflight_bytes == 0
    return done


class WritingSuite:
    """The conformance suite of what sends."""

    unnameable: tuple[str, ...] = ()
    """Names that the protocol has no way to say."""

    @pytest.fixture
    def engine(self) -> Iterator[TransferEngine]:
        opened = TransferEngine(TransferSettings(streams=8)).open()
        yield opened
        opened.close()
        opened.close()

    def send(self, engine: TransferEngine, url: str, data: bytes, **fields: object) -> WriteDone:
        write = RangeWrite(url=url, source=Pieces(data), token=url, length=len(data), **fields)  # type: ignore[arg-type]
        done = collect(engine, write)[url]
        assert isinstance(done, WriteDone)
        return done

    def call(self, engine: TransferEngine, url: str, operation: Operation, **fields: object) -> CallDone:
        if operation not in engine.capabilities(url).operations:
            pytest.skip(f"{operation.value} is not possible with this protocol")
        done = collect(engine, RemoteCall(url=url, operation=operation, token=url, **fields))[url]  # type: ignore[arg-type]
        assert isinstance(done, CallDone)
        return done

    def made(self, place: Place, name: str, data: bytes = b"x") -> str:
        """Make a file at the other side, without the backend; return its URL."""
        path = place.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, 0o666)
        return place.url(name)

    def held(self, place: Place, name: str) -> bytes:
        return Path(place.path(name)).read_bytes()

    # ---- writes

    @pytest.mark.parametrize("size", [0, 1, 1000, 100_000, 3_000_001])
    def test_a_whole_file(self, place: Place, engine: TransferEngine, size: int) -> None:
        body = os.urandom(size)
        done = self.send(engine, place.url("f"), body)
        assert (done.error, done.sent) == (None, size)
        assert self.held(place, "f") == body

    @pytest.mark.parametrize("name", [name for name in ODD_NAMES if "/" not in name])
    def test_odd_names(self, place: Place, engine: TransferEngine, name: str) -> None:
        data = name.encode("utf-8", "surrogateescape")
        if name in self.unnameable:
            assert isinstance(self.send(engine, place.url(name), data).error, MessageError)
            return
        assert self.send(engine, place.url(name), data).error is None
        assert self.held(place, name) == data

    def test_from_a_file(self, place: Place, engine: TransferEngine, tmp_path: Path) -> None:
        body = os.urandom(1_000_000)
        (tmp_path / "local").write_bytes(body)
        fd = os.open(tmp_path / "local", os.O_RDONLY)
        source = FileSource(fd, 100, 900_000)
        write = RangeWrite(url=place.url("f"), source=source, token=1, length=900_000)
        assert collect(engine, write)[1].error is None
        os.close(fd)
        assert self.held(place, "f") == body[100:900_100]

    def test_over_a_longer_file(self, place: Place, engine: TransferEngine) -> None:
        url = self.made(place, "f", bytes(10_000))
        assert self.send(engine, url, b"short").error is None
        assert self.held(place, "f") == b"short"

    def test_many_small_files(self, place: Place, engine: TransferEngine) -> None:
        bodies = {f"f{n}": os.urandom(n) for n in range(200)}
        writes = [
            RangeWrite(url=place.url(name), source=Pieces(body), token=name, length=len(body))
            for name, body in bodies.items()
        ]
        assert {one.error for one in collect(engine, *writes).values()} == {None}
        assert {name: self.held(place, name) for name in bodies} == bodies

    def test_ranges_of_one_file_in_parallel(self, place: Place, engine: TransferEngine) -> None:
        if not engine.capabilities(place.url("f")).positioned_writes:
            pytest.skip("this protocol writes whole files only")
        body = os.urandom(5_000_000)
        writes = [
            RangeWrite(
                url=place.url("f"),
                source=Pieces(body[part.offset : part.end]),
                token=part.number,
                length=part.length,
                offset=part.offset,
                whole=False,
            )
            for part in SegmentPlan(len(body), 300_000)
        ]
        assert {one.error for one in collect(engine, *reversed(writes)).values()} == {None}
        assert self.held(place, "f") == body

    def test_a_source_that_has_to_wait(self, place: Place, engine: TransferEngine) -> None:
        source = Pieces(b"a" * 70_000, None, b"b" * 70_000)
        write = RangeWrite(url=place.url("f"), source=source, token="w", length=140_000)
        assert engine.submit([write]) == 1
        while source.asked < 2:
            assert engine.poll(0.2) == []
        other = self.send_beside(engine, place)  # what waits holds nobody up
        assert other.error is None
        asked = source.asked
        assert engine.poll(0.05) == []
        assert source.asked <= asked + 1  # it is not asked again and again
        source.arrive()
        engine.go_on("w")
        done: list[Done] = []
        while not done:
            done = engine.poll(5)
        assert done[0].error is None
        assert self.held(place, "f") == b"a" * 70_000 + b"b" * 70_000

    def send_beside(self, engine: TransferEngine, place: Place) -> WriteDone:
        write = RangeWrite(url=place.url("beside"), source=Pieces(b"x"), token="beside", length=1)
        assert engine.submit([write]) == 1
        done: list[Done] = []
        while not done:
            done = engine.poll(5)
        [one] = done
        assert isinstance(one, WriteDone)
        return one

    def test_a_source_that_fails(self, place: Place, engine: TransferEngine) -> None:
        source = FailingSource(bytes(300_000))
        write = RangeWrite(url=place.url("f"), source=source, token=1, length=1_000_000)
        assert isinstance(collect(engine, write)[1].error, SourceChanged)
        assert self.send(engine, place.url("g"), b"next").error is None

    def test_a_source_that_ends_early(self, place: Place, engine: TransferEngine) -> None:
        write = RangeWrite(url=place.url("f"), source=Pieces(b"abc"), token=1, length=10)
        assert isinstance(collect(engine, write)[1].error, TransferError)

    def test_no_such_directory(self, place: Place, engine: TransferEngine) -> None:
        done = self.send(engine, place.url("none/f"), b"x")
        assert isinstance(done.error, TransferError)
        assert "none/f" in str(done.error)

    def test_cancelled(self, place: Place, engine: TransferEngine) -> None:
        source = Pieces(b"a" * 100_000, None)
        write = RangeWrite(url=place.url("f"), source=source, token="w", length=1_000_000)
        engine.submit([write])
        while source.asked < 2:
            assert engine.poll(0.2) == []
        assert engine.cancel("w")
        assert engine.running == 0
        asked = source.asked
        engine.go_on("w")
        assert self.send(engine, place.url("g"), b"next").error is None
        assert source.asked == asked

    # ---- names

    def test_rename_over_what_is_there(self, place: Place, engine: TransferEngine) -> None:
        url = self.made(place, "new", b"new")
        self.made(place, "old", b"old")
        done = self.call(engine, url, Operation.RENAME, to=place.remote("old"))
        assert done.error is None
        assert self.held(place, "old") == b"new"
        assert not os.path.exists(place.path("new"))

    def test_rename_of_nothing(self, place: Place, engine: TransferEngine) -> None:
        done = self.call(engine, place.url("none"), Operation.RENAME, to=place.remote("f"))
        assert isinstance(done.error, SourceGone)

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_rename_of_odd_names(self, place: Place, engine: TransferEngine, name: str) -> None:
        os.makedirs(os.path.dirname(place.path(name)), exist_ok=True)
        url = self.made(place, "plain.tmp", b"data")
        if name in self.unnameable:
            done = self.call(engine, url, Operation.RENAME, to=place.remote(name))
            assert isinstance(done.error, MessageError)
            return
        assert self.call(engine, url, Operation.RENAME, to=place.remote(name)).error is None
        assert self.held(place, name) == b"data"

    def test_directories_with_those_above(self, place: Place, engine: TransferEngine) -> None:
        for _ in range(2):  # done already is success
            assert self.call(engine, place.url("a/b c/d"), Operation.MAKE_DIRECTORY).error is None
        assert os.path.isdir(place.path("a/b c/d"))
        assert self.send(engine, place.url("a/b c/d/f"), b"x").error is None

    def test_a_directory_where_a_file_is(self, place: Place, engine: TransferEngine) -> None:
        url = self.made(place, "f")
        done = self.call(engine, url, Operation.MAKE_DIRECTORY)
        assert isinstance(done.error, SarrapipeError)

    def test_removal(self, place: Place, engine: TransferEngine) -> None:
        url = self.made(place, "f")
        for _ in range(2):
            assert self.call(engine, url, Operation.REMOVE).error is None
        assert not os.path.exists(place.path("f"))

    def test_removal_of_a_directory(self, place: Place, engine: TransferEngine) -> None:
        self.call(engine, place.url("d"), Operation.MAKE_DIRECTORY)
        self.made(place, "d/f")
        refused = self.call(engine, place.url("d"), Operation.REMOVE_DIRECTORY)
        assert isinstance(refused.error, SarrapipeError)
        assert os.path.exists(place.path("d/f"))
        os.unlink(place.path("d/f"))
        for _ in range(2):
            assert self.call(engine, place.url("d"), Operation.REMOVE_DIRECTORY).error is None
        assert not os.path.exists(place.path("d"))

    def test_a_link(self, place: Place, engine: TransferEngine) -> None:
        url = place.url("l")
        for target in ("f", "../elsewhere"):
            assert self.call(engine, url, Operation.LINK, to=target).error is None
            assert os.readlink(place.path("l")) == target

    def test_attributes(self, place: Place, engine: TransferEngine) -> None:
        url = self.made(place, "f", bytes(1000))
        wanted = Attributes(mode=0o640, mtime_ns=1_700_000_000_000_000_000)
        done = self.call(engine, url, Operation.SET, attributes=wanted)
        assert done.error is None
        found = os.stat(place.path("f"))
        assert (stat.S_IMODE(found.st_mode), found.st_mtime) == (0o640, 1_700_000_000)

    def test_stat(self, place: Place, engine: TransferEngine) -> None:
        url = self.made(place, "f", bytes(1000))
        os.utime(place.path("f"), (1_600_000_000, 1_600_000_000))
        [entry] = self.call(engine, url, Operation.STAT).entries
        assert entry.attributes.size == 1000
        assert entry.attributes.mtime_ns == 1_600_000_000_000_000_000
        assert not entry.is_directory

    def test_stat_of_nothing(self, place: Place, engine: TransferEngine) -> None:
        assert isinstance(self.call(engine, place.url("none"), Operation.STAT).error, SourceGone)

    def test_a_listing(self, place: Place, engine: TransferEngine) -> None:
        names = [name for name in ODD_NAMES if "/" not in name and "\n" not in name and name != "..."]
        for number, name in enumerate(names):
            self.made(place, name, bytes(number))
        os.mkdir(place.path("directory"))
        done = self.call(engine, place.url(""), Operation.LIST)
        assert done.error is None
        found = {entry.name: entry for entry in done.entries}
        assert set(found) == {*names, "directory"}
        assert found["directory"].is_directory
        for number, name in enumerate(names):
            assert found[name].attributes.size == number
            assert not found[name].is_directory

    def test_a_listing_of_nothing(self, place: Place, engine: TransferEngine) -> None:
        assert isinstance(self.call(engine, place.url("none/"), Operation.LIST).error, SourceGone)


class LocalPlace:
    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()

    def url(self, name: str) -> str:
        return f"file:{self.path(name)}"

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    remote = path


class TestFileWriting(WritingSuite):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return LocalPlace(tmp_path / "there")

    def test_a_directory_that_may_not_be_written(self, place: Place, engine: TransferEngine) -> None:
        os.mkdir(place.path("f"))
        done = self.send(engine, place.url("f"), b"x")
        assert isinstance(done.error, TransferError)
        assert not isinstance(done.error, AccessDenied)


class HttpPlace:
    def __init__(self, nginx: Nginx, directory: str) -> None:
        self._url = f"{nginx.url}dav/{directory}"
        self._remote = f"/dav/{directory}"
        self._root = f"{nginx.root}{self._remote}"
        os.makedirs(self._root)
        for path in (f"{nginx.root}/dav", self._root):
            os.chmod(path, 0o777)

    def url(self, name: str) -> str:
        return f"{self._url}/{name}"

    def path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def remote(self, name: str) -> str:
        return f"{self._remote}/{name}"


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with Nginx(tmp_path_factory.mktemp("web")) as server:
        yield server


@pytest.mark.nginx
class TestHttpWriting(WritingSuite):
    @pytest.fixture
    def place(self, nginx: Nginx, tmp_path: Path) -> Place:
        return HttpPlace(nginx, tmp_path.name)

    def test_a_server_that_takes_nothing(self, nginx: Nginx, engine: TransferEngine) -> None:
        done = self.send(engine, nginx.url + "f", b"x")
        assert isinstance(done.error, Unsupported)
        assert "405" in str(done.error)

    @pytest.mark.parametrize("size", [10_241, 3_000_000])
    def test_a_file_larger_than_the_server_takes(
        self, place: Place, nginx: Nginx, engine: TransferEngine, size: int
    ) -> None:
        done = self.send(engine, nginx.url + "dav/small/f", bytes(size))
        assert isinstance(done.error, TooLargeThere)
        assert done.error.code == done.status == 413
        assert not os.path.exists(nginx.root / "dav/small/f")

    def test_a_server_that_is_full(self, nginx: Nginx, engine: TransferEngine) -> None:
        done = self.send(engine, nginx.url + "dav/full/f", bytes(100_000))
        assert isinstance(done.error, NoSpaceThere)
        assert done.error.code == done.status == 507

    @pytest.mark.parametrize("sent", [0, 100, 100_000])
    def test_refused_while_the_source_has_nothing(
        self, place: Place, nginx: Nginx, engine: TransferEngine, sent: int
    ) -> None:
        """The server answers a request whose sending is paused, and closes; then the source has bytes."""
        source = Pieces(*((b"a" * sent,) if sent else ()), None, b"b" * 70_000)
        write = RangeWrite(url=nginx.url + "dav/late/f", source=source, token="w", length=sent + 70_000)
        assert engine.submit([write]) == 1
        done: list[Done] = []
        while not source.waited:
            done = engine.poll(0)
            assert done == []
        log = nginx.home / "late.log"
        servers.wait_until(lambda: b" 401 " in log.read_bytes(), 10, "the server has answered")
        log.write_bytes(b"")
        source.arrive()
        engine.go_on("w")
        while not done:
            done = engine.poll(5)
        assert isinstance(done[0].error, AccessDenied)
        assert self.send_beside(engine, place).error is None

    def test_refused_while_the_rate_is_used_up(self, place: Place, nginx: Nginx) -> None:
        engine = TransferEngine(TransferSettings(streams=8), limiter=Bucket(4e6)).open()
        try:
            done = collect(
                engine,
                RangeWrite(
                    url=nginx.url + "dav/small/f", source=Pieces(bytes(3_000_000)), token=1, length=3_000_000
                ),
                RangeWrite(url=place.url("f"), source=Pieces(bytes(1_000_000)), token=2, length=1_000_000),
            )
        finally:
            engine.close()
        assert isinstance(done[1].error, TooLargeThere)
        assert done[2].error is None

    def test_a_server_that_is_not_there(self, engine: TransferEngine) -> None:
        [port] = free_ports(1)
        done = self.send(engine, f"http://127.0.0.1:{port}/f", b"x")
        assert isinstance(done.error, TransferError)


class SftpPlace:
    def __init__(self, sshd: Sshd, directory: str) -> None:
        self._sshd = sshd
        self._root = os.path.join(sshd.root, directory)
        os.mkdir(self._root)
        os.chmod(self._root, 0o777)

    def url(self, name: str) -> str:
        return self._sshd.url(self.path(name))

    def path(self, name: str) -> str:
        return f"{self._root}/{name}"

    remote = path


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("ssh")) as server:
        yield server


@pytest.mark.sftp
class SftpWritingSuite(WritingSuite):
    driver = ""

    @pytest.fixture
    def place(self, sshd: Sshd, tmp_path: Path) -> Place:
        return SftpPlace(sshd, tmp_path.name)

    @pytest.fixture
    def engine(self, sshd: Sshd) -> Iterator[TransferEngine]:
        sftp = SftpSettings(driver=self.driver, known_hosts=sshd.known_hosts)
        opened = KeyedEngine(TransferSettings(streams=8, sftp=sftp))
        opened.credentials = Credentials(key_file=sshd.key_file)
        opened.open()
        yield opened
        opened.close()

    def test_a_window_that_is_full_in_both_directions(self, place: Place, engine: TransferEngine) -> None:
        """Large writes and large reads on one connection: neither waits for the other for ever."""
        body = os.urandom(20_000_000)
        url = self.made(place, "there", body)
        sink = DiscardSink(len(body))
        done = collect(
            engine,
            RangeRead(url=url, sink=sink, token="r", length=len(body), whole_size=len(body)),
            RangeWrite(url=place.url("here"), source=Pieces(body), token="w", length=len(body)),
        )
        assert [one.error for one in done.values()] == [None, None]
        assert sink.written == len(body)
        assert self.held(place, "here") == body


class TestSftpWritingOverOpenssh(SftpWritingSuite):
    driver = "openssh"


class TestSftpWritingOverParamiko(SftpWritingSuite):
    driver = "paramiko"


@pytest.fixture(scope="module")
def plain_ftpd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ftpd]:
    with Ftpd(tmp_path_factory.mktemp("ftp")) as server:
        yield server


@pytest.fixture(scope="module")
def encrypted_ftpd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ftpd]:
    with Ftpd(tmp_path_factory.mktemp("ftps"), tls=True) as server:
        yield server


class FtpPlace:
    def __init__(self, ftpd: Ftpd, directory: str) -> None:
        self._ftpd = ftpd
        self._directory = f"/{directory}"
        os.mkdir(self.path(""))

    def url(self, name: str) -> str:
        return self._ftpd.url(f"{self._directory}/{name}")

    def path(self, name: str) -> str:
        return f"{self._ftpd.root}{self._directory}/{name}"

    def remote(self, name: str) -> str:
        return f"{self._directory}/{name}"


class FtpWritingSuite(WritingSuite):
    tls = False
    unnameable = ("tab\tand\nnewline",)

    @pytest.fixture
    def ftpd(self, request: pytest.FixtureRequest) -> Ftpd:
        found = request.getfixturevalue("encrypted_ftpd" if self.tls else "plain_ftpd")
        assert isinstance(found, Ftpd)
        return found

    @pytest.fixture
    def place(self, ftpd: Ftpd, tmp_path: Path) -> Place:
        return FtpPlace(ftpd, tmp_path.name)

    @pytest.fixture
    def engine(self, ftpd: Ftpd) -> Iterator[TransferEngine]:
        trust = HttpSettings(ca_file=ftpd.ca_file) if self.tls else HttpSettings()
        opened = KeyedEngine(TransferSettings(streams=8, http=trust))
        opened.credentials = Credentials(user=USER, password=PASSWORD)
        opened.open()
        yield opened
        opened.close()


class TestFtpWriting(FtpWritingSuite):
    pass


class TestFtpsWriting(FtpWritingSuite):
    tls = True


def test_what_a_backend_cannot_do_is_refused_before_it_is_asked() -> None:
    engine = TransferEngine(
        TransferSettings(streams=2), backends={"http": "sarrapipe.transfer.http:make_backend"}
    )
    engine.open()
    try:
        unable = not engine.capabilities("http://127.0.0.1/").positioned_writes
        write = RangeWrite(
            url="http://127.0.0.1/f", source=Pieces(b"x"), token=1, length=1, offset=5, whole=False
        )
        link = RemoteCall(url="http://127.0.0.1/f", operation=Operation.LINK, token=2, to="g")
        done = collect(engine, write, link)
    finally:
        engine.close()
    assert unable
    assert isinstance(done[1].error, TransferError)
    assert "link: not possible with http: URLs" in str(done[2].error)

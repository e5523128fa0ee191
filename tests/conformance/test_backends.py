"""What every backend does, whatever the protocol: one suite, one subclass for each.

A new backend adds a subclass with a `source` that can put files and say their URLs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest
import xxhash
from ftpserver import PASSWORD, USER, Ftpd
from sshserver import Sshd
from webserver import Nginx

from sarrapipe.errors import (
    AccessDenied,
    IdentityMismatch,
    MessageError,
    NoSpace,
    SarrapipeError,
    SourceChanged,
    SourceGone,
    StorageError,
    TransferError,
)
from sarrapipe.segment.plan import SegmentPlan
from sarrapipe.segment.sink import DirectSink, DiscardSink
from sarrapipe.segment.staged import StagedRange, Staging
from sarrapipe.shm.ring import SLAB_BYTES, Ring
from sarrapipe.transfer.base import Credentials, Done, RangeDone, RangeRead
from sarrapipe.transfer.engine import TransferEngine, TransferSettings
from sarrapipe.transfer.settings import HttpSettings, SftpSettings

ODD_NAMES = [
    "plain",
    "with blank",
    "50%",
    "a%20b",
    "hash#query?x=1&y",
    "semi;colon:at@plus+comma,",
    "quotes'\"<>|\\^`{}[]",
    "tab\tand\nnewline",
    "ünïcödé-日本語",
    "not-utf8-\udcff\udcfe",
    "...",
    "-rf",
    "*",
    "deep/er/and deeper/x",
]


class Source(Protocol):
    def put(self, name: str, data: bytes) -> str:
        """Make a file; return its URL as a message announces it."""

    def path(self, name: str) -> str:
        """Where the file is on this machine."""


def collect(engine: TransferEngine, *reads: RangeRead) -> dict[object, RangeDone]:
    """Run reads to their end."""
    waiting = list(reads)
    done: dict[object, RangeDone] = {}
    while len(done) < len(reads):
        waiting = waiting[engine.submit(waiting) :]
        for one in engine.poll(10):
            assert one.token not in done
            done[one.token] = one
    assert engine.running == engine.waiting == engine.inflight_bytes == 0
    return done


class BytesSink(DiscardSink):
    """Keeps what came."""

    def __init__(self, length: int | None = None) -> None:
        super().__init__(length)
        self.data = bytearray()

    def write(self, data: memoryview | bytes) -> None:
        super().write(data)
        self.data += data


class FailingSink(DiscardSink):
    """Raises as a full disk does, at the first byte."""

    def write(self, data: memoryview | bytes) -> None:
        raise NoSpace("write x: No space left on device")


class BackendSuite:
    """The conformance suite."""

    unnameable: tuple[str, ...] = ()
    """Names that the protocol has no way to say."""

    @pytest.fixture
    def engine(self) -> Iterator[TransferEngine]:
        opened = TransferEngine(TransferSettings(streams=8)).open()
        yield opened
        opened.close()
        opened.close()

    def fetch(self, engine: TransferEngine, url: str, **fields: object) -> tuple[RangeDone, bytes]:
        sink = BytesSink()
        done = collect(engine, RangeRead(url=url, sink=sink, token=url, **fields))[url]  # type: ignore[arg-type]
        return done, bytes(sink.data)

    def refused(self, engine: TransferEngine, url: str, **fields: object) -> SarrapipeError:
        """A read that has to fail without a byte reaching the sink."""
        done, data = self.fetch(engine, url, **fields)
        assert data == b""
        assert done.received == 0
        assert done.error is not None
        return done.error

    @pytest.mark.parametrize("size", [0, 1, 1000, 100_000, 3_000_001])
    def test_a_whole_file(self, source: Source, engine: TransferEngine, size: int) -> None:
        body = os.urandom(size)
        url = source.put("f", body)
        for fields in ({}, {"length": size, "whole_size": size}, {"whole_size": size}):
            done, data = self.fetch(engine, url, **fields)
            assert done.error is None
            assert data == body
            assert (done.received, done.whole_size) == (size, size)

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_odd_names(self, source: Source, engine: TransferEngine, name: str) -> None:
        if name in self.unnameable:
            assert isinstance(self.refused(engine, source.put(name, b"x")), MessageError)
            return
        done, data = self.fetch(engine, source.put(name, name.encode("utf-8", "surrogateescape")))
        assert done.error is None
        assert data == name.encode("utf-8", "surrogateescape")

    def test_names_that_are_already_escaped(self, source: Source, engine: TransferEngine) -> None:
        url = source.put("a b%c", b"x").replace("a b%c", "a%20b%25c")
        done, data = self.fetch(engine, url, url_is_escaped=True)
        assert (done.error, data) == (None, b"x")

    @pytest.mark.parametrize(
        ("offset", "length"), [(0, 1), (0, 1000), (1, 999), (500, 100_000), (99_999, 1), (0, 100_000)]
    )
    def test_ranges(self, source: Source, engine: TransferEngine, offset: int, length: int) -> None:
        body = os.urandom(100_000)
        length = min(length, len(body) - offset)
        url = source.put("f", body)
        done, data = self.fetch(engine, url, offset=offset, length=length, whole_size=len(body))
        assert done.error is None
        assert data == body[offset : offset + length]
        assert done.whole_size == len(body)

    def test_an_open_range(self, source: Source, engine: TransferEngine) -> None:
        url = source.put("f", bytes(range(100)))
        done, data = self.fetch(engine, url, offset=90)
        assert (done.error, data) == (None, bytes(range(90, 100)))

    def test_ranges_of_one_file_in_parallel(
        self, source: Source, engine: TransferEngine, tmp_path: Path
    ) -> None:
        body = os.urandom(5_000_000)
        url = source.put("f", body)
        fd = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
        reads = []
        for segment in SegmentPlan(len(body), 300_000):
            sink = DirectSink(fd, segment.offset, segment.length, xxhash.xxh3_128())
            reads.append(
                RangeRead(
                    url=url,
                    sink=sink,
                    token=segment.number,
                    offset=segment.offset,
                    length=segment.length,
                    whole_size=len(body),
                )
            )
        done = collect(engine, *reads)
        assert [one.error for one in done.values()] == [None] * len(reads)
        assert os.pread(fd, len(body) + 1, 0) == body
        os.close(fd)
        for read in reads:
            assert isinstance(read.sink, DirectSink)
            assert isinstance(read.sink.hasher, xxhash.xxh3_128)
            span = body[read.offset : read.offset + (read.length or 0)]
            assert read.sink.hasher.digest() == xxhash.xxh3_128_digest(span)

    def test_without_hasher_the_bytes_are_the_same(
        self, source: Source, engine: TransferEngine, tmp_path: Path
    ) -> None:
        body = os.urandom(1_000_000)
        fd = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
        sink = DirectSink(fd, 10, 500_000)
        read = RangeRead(url=source.put("f", body), sink=sink, token=1, offset=100, length=500_000)
        assert collect(engine, read)[1].error is None
        assert os.pread(fd, 1_000_000, 0) == bytes(10) + body[100:500_100]
        os.close(fd)

    def test_many_small_files(self, source: Source, engine: TransferEngine) -> None:
        bodies = {f"f{n}": os.urandom(n) for n in range(200)}
        sinks = {name: BytesSink(len(body)) for name, body in bodies.items()}
        reads = [
            RangeRead(url=source.put(name, body), sink=sinks[name], token=name, length=len(body),
                      whole_size=len(body))
            for name, body in bodies.items()
        ]  # fmt: skip
        done = collect(engine, *reads)
        assert all(one.error is None for one in done.values())
        assert {name: bytes(sink.data) for name, sink in sinks.items()} == bodies

    def test_what_is_not_there(self, source: Source, engine: TransferEngine) -> None:
        url = source.put("f", b"x")
        assert isinstance(self.refused(engine, url + "-missing"), SourceGone)
        assert isinstance(self.refused(engine, url + "-missing", offset=5, length=5), SourceGone)

    def test_a_directory_is_no_file(self, source: Source, engine: TransferEngine) -> None:
        url = source.put("d/f", b"x")
        assert isinstance(self.refused(engine, url.removesuffix("/f")), TransferError)

    @pytest.mark.parametrize("announced", [0, 9, 11])
    def test_another_size_than_announced(
        self, source: Source, engine: TransferEngine, announced: int
    ) -> None:
        url = source.put("f", b"0123456789")
        error = self.refused(engine, url, length=announced, whole_size=announced)
        assert isinstance(error, SourceChanged)
        assert "10" in str(error)
        assert isinstance(self.refused(engine, url, length=3, whole_size=announced), SourceChanged)

    def test_a_range_beyond_the_end(self, source: Source, engine: TransferEngine) -> None:
        url = source.put("f", b"0123456789")
        assert isinstance(self.refused(engine, url, offset=20, length=5, whole_size=30), SourceChanged)

    def test_a_validator_pins_the_version(self, source: Source, engine: TransferEngine) -> None:
        url = source.put("f", b"0123456789")
        first, _ = self.fetch(engine, url, offset=0, length=5)
        assert first.validator is not None
        again, data = self.fetch(engine, url, offset=5, length=5, validator=first.validator)
        assert (again.error, data) == (None, b"56789")
        source.put("f", b"abcdefghij")
        os.utime(source.path("f"), (1, 1))
        error = self.refused(engine, url, offset=5, length=5, validator=first.validator)
        assert isinstance(error, SourceChanged)

    def test_a_sink_that_takes_no_more(self, source: Source, engine: TransferEngine) -> None:
        url = source.put("f", b"0123456789")
        sink = BytesSink(9)
        done = collect(engine, RangeRead(url=url, sink=sink, token=1))[1]
        assert isinstance(done.error, IdentityMismatch)
        assert bytes(sink.data) in (b"", b"012345678")

    def test_a_full_disk_is_told(self, source: Source, engine: TransferEngine) -> None:
        url = source.put("f", b"0123456789")
        done = collect(engine, RangeRead(url=url, sink=FailingSink(), token=1))[1]
        assert isinstance(done.error, NoSpace)
        assert self.fetch(engine, url)[1] == b"0123456789"

    def test_a_descriptor_that_takes_nothing(
        self, source: Source, engine: TransferEngine, tmp_path: Path
    ) -> None:
        fd = os.open(tmp_path / "out", os.O_RDONLY | os.O_CREAT)
        read = RangeRead(url=source.put("f", b"x" * 1000), sink=DirectSink(fd, name="out"), token=1)
        done = collect(engine, read)[1]
        os.close(fd)
        assert isinstance(done.error, StorageError)

    def staged(self, tmp_path: Path) -> tuple[Ring, Staging, list[int]]:
        ring = Ring.open(str(tmp_path / "ring"), 4 * SLAB_BYTES, 1)
        wakes: list[int] = []
        return ring, Staging(ring, lambda: wakes.append(1)), wakes

    def test_a_sink_that_is_full_for_a_while(
        self, source: Source, engine: TransferEngine, tmp_path: Path
    ) -> None:
        """Three ranges through four slots, read a little at a time: all pause, none is held up for ever."""
        body = os.urandom(6_000_000)
        url = source.put("f", body)
        assert engine.capabilities(url).pauses
        ring, staging, wakes = self.staged(tmp_path)
        reads = [
            RangeRead(url=url, sink=StagedRange(staging, 2_000_000), token=n, offset=n * 2_000_000,
                      length=2_000_000, whole_size=len(body))
            for n in range(3)
        ]  # fmt: skip
        assert engine.submit(reads) == 3
        got = [bytearray() for _ in reads]
        paused = 0
        ends: dict[object, Done] = {}
        while len(ends) < 3 or any(not read.sink.finished for read in reads):
            ends |= {one.token: one for one in engine.poll(0.01)}
            paused = max(paused, staging.waiting)
            for data, read in zip(got, reads, strict=True):
                data += read.sink.read(100_000) or b""
            if wakes:
                wakes.clear()
                staging.resume()
        assert [end.error for end in ends.values()] == [None] * 3
        assert b"".join(got) == body
        assert paused > 0
        for read in reads:
            read.sink.close()
        assert (ring.in_use, staging.waiting) == (0, 0)
        ring.close()

    def test_what_waits_for_room_can_be_cancelled_and_the_next_goes_on(
        self, source: Source, engine: TransferEngine, tmp_path: Path
    ) -> None:
        body = os.urandom(3_000_000)
        url = source.put("f", body)
        ring, staging, _ = self.staged(tmp_path)
        sinks = [StagedRange(staging, len(body)) for _ in range(2)]
        read = RangeRead(url=url, sink=sinks[0], token=0, length=len(body), whole_size=len(body))
        engine.submit([read])
        while not staging.waiting:
            assert engine.poll(0.01) == []
        engine.cancel(0)
        sinks[0].close()
        assert (ring.in_use, staging.waiting) == (0, 0)
        read = RangeRead(url=url, sink=sinks[1], token=1, length=len(body), whole_size=len(body))
        engine.submit([read])
        got = bytearray()
        done: list[Done] = []
        while not done or not sinks[1].finished:
            done += engine.poll(0.01)
            while piece := sinks[1].read(1 << 20):
                got += piece
            staging.resume()
        assert [one.error for one in done] == [None]
        assert got == body
        sinks[1].close()
        ring.close()

    def test_what_was_cancelled_does_not_come_back(self, source: Source, engine: TransferEngine) -> None:
        url = source.put("f", bytes(2_000_000))
        reads = [RangeRead(url=url, sink=DiscardSink(), token=n) for n in range(20)]
        assert engine.submit(reads) == 20
        assert all(engine.cancel(n) for n in range(0, 20, 2))
        assert not engine.cancel(0)
        assert not engine.cancel("unknown")
        tokens: list[object] = []
        while engine.running or engine.waiting:
            tokens += [one.token for one in engine.poll(10)]
        assert sorted(tokens) == list(range(1, 20, 2))  # type: ignore[type-var]
        assert engine.inflight_bytes == 0

    def test_what_failed_at_once_can_be_cancelled(self, source: Source, engine: TransferEngine) -> None:
        scheme = source.put("f", b"x").partition(":")[0]
        engine.submit([RangeRead(url=f"{scheme}://no host/x", sink=DiscardSink(), token=1)])
        assert engine.cancel(1)
        assert engine.poll(0) == []
        assert (engine.running, engine.inflight_bytes) == (0, 0)

    def test_no_bytes_after_cancelling(self, source: Source, engine: TransferEngine) -> None:
        url = source.put("f", bytes(8_000_000))
        sink = DiscardSink()
        engine.submit([RangeRead(url=url, sink=sink, token=1)])
        while not sink.written:
            assert engine.poll(0.01) == [] or sink.written
        engine.cancel(1)
        before = sink.written
        engine.poll(0.02)
        assert sink.written == before

    def test_answers_what_it_can_do(self, source: Source, engine: TransferEngine) -> None:
        able = engine.capabilities(source.put("f", b""))
        assert able.ranges
        assert able.validators


class FileSource:
    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, name: str, data: bytes) -> str:
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        return f"file:{path}"

    def path(self, name: str) -> str:
        return os.path.join(self._root, name)


class HttpSource:
    def __init__(self, nginx: Nginx, directory: str) -> None:
        self._nginx = nginx
        self._directory = directory

    def put(self, name: str, data: bytes) -> str:
        return self._nginx.put(f"{self._directory}/{name}", data)

    def path(self, name: str) -> str:
        return os.path.join(self._nginx.root, self._directory, name)


class TestFile(BackendSuite):
    @pytest.fixture
    def source(self, tmp_path: Path) -> Source:
        return FileSource(tmp_path / "source")

    def test_is_local(self, source: Source, engine: TransferEngine) -> None:
        assert engine.capabilities(source.put("f", b"")).local


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with Nginx(tmp_path_factory.mktemp("web")) as server:
        yield server


@pytest.mark.nginx
class TestHttp(BackendSuite):
    @pytest.fixture
    def source(self, nginx: Nginx, tmp_path: Path) -> Source:
        return HttpSource(nginx, tmp_path.name)

    def test_gains_by_parallel_ranges(self, source: Source, engine: TransferEngine) -> None:
        assert engine.capabilities(source.put("f", b"")).parallel


class KeyedEngine(TransferEngine):
    """Gives every read the credentials that a flow would take from credentials.conf."""

    credentials: Credentials | None = None

    def submit(self, reads: Sequence[RangeRead]) -> int:
        for read in reads:
            read.credentials = read.credentials or self.credentials
        return super().submit(reads)


class SftpSource:
    def __init__(self, sshd: Sshd, directory: str) -> None:
        self._sshd = sshd
        self._directory = directory

    def put(self, name: str, data: bytes) -> str:
        return self._sshd.put(f"{self._directory}/{name}", data)

    def path(self, name: str) -> str:
        return os.path.join(self._sshd.root, self._directory, name)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("ssh")) as server:
        yield server


@pytest.mark.sftp
class SftpSuite(BackendSuite):
    driver = ""

    @pytest.fixture
    def source(self, sshd: Sshd, tmp_path: Path) -> Source:
        return SftpSource(sshd, tmp_path.name)

    @pytest.fixture
    def engine(self, sshd: Sshd) -> Iterator[TransferEngine]:
        sftp = SftpSettings(driver=self.driver, known_hosts=sshd.known_hosts)
        opened = KeyedEngine(TransferSettings(streams=8, sftp=sftp))
        opened.credentials = Credentials(key_file=sshd.key_file)
        opened.open()
        yield opened
        opened.close()
        opened.close()

    def test_gains_by_parallel_ranges(self, source: Source, engine: TransferEngine) -> None:
        assert engine.capabilities(source.put("f", b"")).parallel


class TestSftpOverOpenssh(SftpSuite):
    driver = "openssh"


class TestSftpOverParamiko(SftpSuite):
    driver = "paramiko"


@pytest.fixture(scope="module")
def plain_ftpd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ftpd]:
    with Ftpd(tmp_path_factory.mktemp("ftp")) as server:
        yield server


@pytest.fixture(scope="module")
def encrypted_ftpd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ftpd]:
    with Ftpd(tmp_path_factory.mktemp("ftps"), tls=True) as server:
        yield server


class FtpSource:
    def __init__(self, ftpd: Ftpd, directory: str) -> None:
        self._ftpd = ftpd
        self._directory = directory

    def put(self, name: str, data: bytes) -> str:
        return self._ftpd.put(f"{self._directory}/{name}", data)

    def path(self, name: str) -> str:
        return os.path.join(self._ftpd.root, self._directory, name)


class FtpSuite(BackendSuite):
    tls = False
    unnameable = ("tab\tand\nnewline",)

    @pytest.fixture
    def ftpd(self, request: pytest.FixtureRequest) -> Ftpd:
        found = request.getfixturevalue("encrypted_ftpd" if self.tls else "plain_ftpd")
        assert isinstance(found, Ftpd)
        return found

    @pytest.fixture
    def source(self, ftpd: Ftpd, tmp_path: Path) -> Source:
        return FtpSource(ftpd, tmp_path.name)

    @pytest.fixture
    def engine(self, ftpd: Ftpd) -> Iterator[TransferEngine]:
        trust = HttpSettings(ca_file=ftpd.ca_file) if self.tls else HttpSettings()
        opened = KeyedEngine(TransferSettings(streams=8, http=trust))
        opened.credentials = Credentials(user=USER, password=PASSWORD)
        opened.open()
        yield opened
        opened.close()
        opened.close()

    def test_gains_by_parallel_ranges(self, source: Source, engine: TransferEngine) -> None:
        assert engine.capabilities(source.put("f", b"")).parallel

    def test_a_wrong_password(self, source: Source, engine: TransferEngine) -> None:
        url = source.put("f", b"x")
        error = self.refused(engine, url, credentials=Credentials(user=USER, password="n0t-1t"))
        assert isinstance(error, AccessDenied)
        assert "n0t-1t" not in str(error)


class TestFtp(FtpSuite):
    pass


class TestFtps(FtpSuite):
    tls = True

"""The engine's bounds, its wake-ups and the byte rate, over real transfers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from standins import RecordingServer, StallingServer
from webserver import Nginx

from sarrapipe.errors import MessageError
from sarrapipe.segment.sink import DiscardSink
from sarrapipe.transfer.base import RangeDone, RangeRead
from sarrapipe.transfer.engine import TransferEngine, TransferSettings


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with Nginx(tmp_path_factory.mktemp("web")) as server:
        yield server


class Bucket:
    """A byte rate as the arena's limiter keeps it, in one process."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.empty_at_ns = 0
        self.taken = 0.0

    def take(self, amount: float, now_ns: int) -> float:
        self.taken += amount
        self.empty_at_ns = max(self.empty_at_ns, now_ns) + int(amount / self.rate * 1e9)
        return max(0.0, (self.empty_at_ns - now_ns) / 1e9)


def read(url: str, token: object, size: int | None = None) -> RangeRead:
    return RangeRead(url=url, sink=DiscardSink(), token=token, length=size, whole_size=size)


def drain_all(engine: TransferEngine) -> list[RangeDone]:
    done: list[RangeDone] = []
    while engine.running or engine.waiting:
        done += engine.poll(10)
    return done


def drain(engine: TransferEngine) -> list[object]:
    return [done.token for done in drain_all(engine)]


def test_takes_no_more_than_its_bounds() -> None:
    settings = TransferSettings(streams=2, max_waiting=3, max_inflight_bytes=10_000)
    engine = TransferEngine(settings).open()
    with StallingServer(bytes(1000)) as server:
        assert engine.room() == 5
        assert engine.submit([read(server.url, n, 1000) for n in range(8)]) == 5
        assert (engine.running, engine.waiting, engine.inflight_bytes, engine.room()) == (2, 3, 5000, 0)
        assert engine.submit([read(server.url, 9, 1)]) == 0
        assert engine.cancel(0)
        assert engine.cancel(4)
        assert engine.submit([read(server.url, 9, 7000), read(server.url, 10, 1)]) == 1
        engine.close()
    assert (engine.running, engine.waiting, engine.inflight_bytes) == (0, 0, 0)


def test_bytes_are_bounded_but_one_read_always_fits() -> None:
    engine = TransferEngine(TransferSettings(max_inflight_bytes=1000)).open()
    with StallingServer(bytes(5000)) as server:
        assert engine.submit([read(server.url, 1, 5000), read(server.url, 2, 1)]) == 1
        assert engine.room() == 0
        engine.close()


def test_poll_returns_for_a_wakeup() -> None:
    engine = TransferEngine().open()
    fd = os.eventfd(0)
    engine.add_wakeup(fd)
    with StallingServer(bytes(1000)) as server:
        engine.submit([read(server.url, 1)])
        threading.Timer(0.05, os.eventfd_write, (fd, 1)).start()
        begin = time.monotonic()
        while not engine.woken:
            assert engine.poll(20) == []
        assert time.monotonic() - begin < 10
        assert engine.woken == [fd]
        engine.remove_wakeup(fd)
        assert engine.poll(0.01) == []
        assert engine.woken == []
        engine.close()
    os.close(fd)


def test_poll_waits_no_longer_than_told() -> None:
    engine = TransferEngine().open()
    begin = time.monotonic()
    assert engine.poll(0.05) == []
    assert 0.04 < time.monotonic() - begin < 5
    assert engine.poll(0) == []
    engine.close()


def test_a_bad_url_fails_alone(tmp_path: Path) -> None:
    engine = TransferEngine().open()
    (tmp_path / "f").write_bytes(b"x")
    engine.submit([read("gopher://h/x", 1), read("http:///x", 2), read(f"{tmp_path}/f", 3)])
    errors = {}
    while len(errors) < 3:
        errors.update({done.token: done.error for done in engine.poll(10)})
    assert isinstance(errors[1], MessageError)
    assert isinstance(errors[2], MessageError)
    assert errors[3] is None
    assert (engine.running, engine.inflight_bytes) == (0, 0)
    engine.close()


def test_small_files_pass_large_ones(nginx: Nginx) -> None:
    """Two streams, one large file after another: the small ones do not wait for them all."""
    large, small = nginx.put("large", bytes(8_000_000)), nginx.put("small", b"x")
    engine = TransferEngine(TransferSettings(streams=2)).open()
    engine.submit([read(large, ("large", n), 8_000_000) for n in range(10)])
    engine.submit([read(small, ("small", n), 1) for n in range(10)])
    kinds = [token[0] for token in drain(engine)]  # type: ignore[index]
    engine.close()
    assert kinds.index("small") < 5
    assert len(kinds) == 20


def test_held_streams_that_end_meanwhile(nginx: Nginx) -> None:
    """A stream held back for the rate may have all its bytes by then: to go on is too late, and no error."""
    url = nginx.put("f", bytes(16 << 20))
    engine = TransferEngine(TransferSettings(streams=16), limiter=Bucket(rate=40e6)).open()
    engine.submit([
        RangeRead(url=url, sink=DiscardSink(), token=n, offset=n << 19, length=1 << 19, whole_size=16 << 20)
        for n in range(32)
    ])  # fmt: skip
    done = drain_all(engine)
    engine.close()
    assert [one.error for one in done] == [None] * 32
    assert sum(one.received for one in done) == 16 << 20


@pytest.mark.parametrize("local", [False, True], ids=["http", "file"])
def test_the_byte_rate_is_kept(nginx: Nginx, local: bool) -> None:
    url = nginx.put("f", bytes(1_000_000))
    if local:
        url = str(nginx.root / "f")
    bucket = Bucket(rate=4e6)
    engine = TransferEngine(TransferSettings(streams=4), limiter=bucket).open()
    begin = time.monotonic()
    engine.submit([read(url, n, 1_000_000) for n in range(4)])
    cpu = time.process_time()
    assert sorted(drain(engine)) == [0, 1, 2, 3]  # type: ignore[type-var]
    took = time.monotonic() - begin
    assert 0.4 < took < 5  # 1 s less what is not reported yet; unlimited it takes 0.02
    assert time.process_time() - cpu < took * 0.9
    assert bucket.taken <= 4_000_000
    engine.close()


def test_small_files_keep_the_rate_too(nginx: Nginx) -> None:
    url = nginx.put("f", bytes(10_000))
    engine = TransferEngine(TransferSettings(streams=4), limiter=Bucket(rate=4e6)).open()
    begin = time.monotonic()
    engine.submit([read(url, n, 10_000) for n in range(200)])
    assert len(drain(engine)) == 200
    assert time.monotonic() - begin > 0.25
    engine.close()


def test_a_second_engine_after_a_fork() -> None:
    """Nothing is made before `open`, so a child of the fork server has its own connections."""
    engine = TransferEngine()
    with RecordingServer(b"x") as server:
        pid = os.fork()
        if pid == 0:
            engine.open()
            engine.submit([read(server.url, 1, 1)])
            os._exit(0 if drain(engine) == [1] else 1)
        engine.open()
        engine.submit([read(server.url, 2, 1)])
        assert drain(engine) == [2]
        assert os.waitpid(pid, 0)[1] == 0
        engine.close()


def test_a_registered_backend_is_used() -> None:
    engine = TransferEngine(backends={"mine": "sarrapipe.transfer.file:make_backend"}).open()
    assert engine.capabilities("mine:/x").local
    with pytest.raises(MessageError):
        engine.capabilities("http://h/x")
    engine.close()

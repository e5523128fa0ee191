"""Ranges written and hashed by a thread from slots."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash

from sarrapipe.errors import NoSpace, StorageError
from sarrapipe.segment.staged import Staging
from sarrapipe.segment.stager import StagedSink, Stager
from sarrapipe.shm.ring import SLAB_BYTES, Ring

PIECE = 16 << 10


class Bench:
    """A ring, a stager, and the thread that would receive."""

    def __init__(self, directory: Path) -> None:
        self.ring = Ring.open(str(directory / "ring"), 4 * SLAB_BYTES, 1)
        self.room = threading.Event()
        self.done = threading.Event()
        self.staging = Staging(self.ring, self.room.set)
        self.stager = Stager(self.staging, self._settled)

    def _settled(self) -> None:
        self.done.set()
        self.room.set()  # who waits for room has to hear of an error

    def bring(self, sink: StagedSink, data: bytes) -> None:
        """Write all of it, waiting for room as a paused transfer does."""
        at = 0
        while at < len(data):
            piece = data[at : at + PIECE]
            if not sink.room(len(piece)):
                self.room.clear()
                sink.call_when_room(lambda: None)
                assert self.room.wait(20)
                self.staging.resume()
                continue
            sink.write(piece)
            at += len(piece)

    def written(self, count: int) -> list[StagedSink]:
        found: list[StagedSink] = []
        while len(found) < count:
            assert self.done.wait(20)
            self.done.clear()
            found += self.stager.written()
        return found

    def close(self) -> None:
        self.stager.close()
        self.ring.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield opened
    os.close(opened)


def test_ranges_of_a_file_are_written_and_hashed(bench: Bench, fd: int) -> None:
    data = os.urandom(5_000_000)
    half = 2_500_000
    sinks = [
        bench.stager.sink(fd, at, half, xxhash.xxh3_128(), "a/b") for at in (half, 0)
    ]  # fmt: skip
    for sink, at in zip(sinks, (half, 0), strict=True):
        bench.bring(sink, data[at : at + half])
    assert set(bench.written(2)) == set(sinks)
    assert os.pread(fd, 6_000_000, 0) == data
    for sink, at in zip(sinks, (half, 0), strict=True):
        assert sink.hasher.digest() == xxhash.xxh3_128_digest(data[at : at + half])
        assert (sink.settled, sink.error) == (True, None)
    assert bench.ring.in_use == 0


def test_a_full_disk_is_raised_where_bytes_come(bench: Bench) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    sink = bench.stager.sink(full, 0, 10 * SLAB_BYTES, None, "a/b")
    with pytest.raises(NoSpace, match="write a/b"):
        bench.bring(sink, bytes(10 * SLAB_BYTES))
    assert bench.written(1) == [sink]
    bench.stager.cancel(sink)
    assert bench.ring.in_use == 0
    os.close(full)


def test_an_error_after_the_last_byte_came(bench: Bench, tmp_path: Path) -> None:
    readable = os.open(tmp_path / "r", os.O_RDONLY | os.O_CREAT)
    sink = bench.stager.sink(readable, 0, 10, xxhash.xxh3_128(), "r")
    sink.write(bytes(10))
    assert bench.written(1) == [sink]
    assert isinstance(sink.error, StorageError)
    assert not sink.settled
    bench.stager.cancel(sink)
    assert bench.ring.in_use == 0
    os.close(readable)


class Gate:
    """A hasher that holds the thread up."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def update(self, data: memoryview | bytes, /) -> None:
        self.reached.set()
        assert self.open.wait(20)


def test_what_was_cancelled_writes_nothing_more(bench: Bench, fd: int) -> None:
    """The thread is in the middle of a slot: cancelling waits for it, and the rest is not written."""
    gate = Gate()
    sink = bench.stager.sink(fd, 0, 4 * SLAB_BYTES, gate)
    bench.bring(sink, b"x" * (3 * SLAB_BYTES))
    assert gate.reached.wait(20)
    cancelled = threading.Thread(target=bench.stager.cancel, args=(sink,))
    cancelled.start()
    cancelled.join(0.01)
    assert cancelled.is_alive()
    gate.open.set()
    cancelled.join(20)
    assert not cancelled.is_alive()
    assert os.fstat(fd).st_size == SLAB_BYTES
    assert bench.ring.in_use == 0
    assert bench.stager.written() == []


def test_no_thread_where_nothing_is_staged_and_none_left(bench: Bench, fd: int) -> None:
    before = threading.active_count()
    sink = bench.stager.sink(fd, 0, 10)
    assert threading.active_count() == before
    sink.write(bytes(10))
    bench.written(1)
    assert threading.active_count() == before + 1
    bench.stager.close()
    assert threading.active_count() == before


def test_closing_in_the_middle_leaves_no_slot_in_the_queue(bench: Bench, fd: int) -> None:
    sink = bench.stager.sink(fd, 0, 100 * SLAB_BYTES)
    while sink.room(SLAB_BYTES):
        sink.write(bytes(SLAB_BYTES))
    bench.stager.close()
    bench.stager.cancel(sink)
    assert bench.ring.in_use == 0

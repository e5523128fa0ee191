"""Digests computed by threads: right, the smallest first, no more than is taken, changes noticed."""

from __future__ import annotations

import os
import threading

import pytest
from servers import MS

from sarrapipe.callbacks import hashpool
from sarrapipe.callbacks.hashpool import FileDigests, HashPool
from sarrapipe.errors import SourceChanged
from sarrapipe.message import identity

OLD_NS = 1_700_000_000_000_000_000  # long ago: nothing has to be waited out
FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class Pool:
    """A pool and what tells that there is something to take."""

    def __init__(self, threads=2, **options):
        self.awake = threading.Event()
        self.pool = HashPool(self.awake.set, threads, **options)

    def submit(self, path, ranges, method="sha512", owner=None):
        file = FileDigests(str(path), path.stat(), method, iter(ranges), FLAGS, owner or path.name)
        self.pool.submit(file)
        return file

    def take_all(self):
        """Everything, in the order in which it came."""
        found = []
        while self.pool.files or self.pool.has_ready:
            assert self.awake.wait(10 * MS)
            self.awake.clear()
            found += self.pool.take(1000)
        return [(file.owner, number, value) for file, number, value in found]


@pytest.fixture
def make_file(tmp_path):
    def make(name, data):
        path = tmp_path / name
        path.write_bytes(data)
        os.utime(path, ns=(OLD_NS, OLD_NS))
        return path

    return make


@pytest.fixture
def pooled():
    made = []

    def make(threads=2, **options):
        made.append(Pool(threads, **options))
        return made[-1]

    yield make
    for one in made:
        one.pool.close()


def digest(data, method="sha512"):
    hasher = identity.hasher(method)
    hasher.update(data)
    return hasher.value()


@pytest.mark.parametrize("method", ["sha512", "md5", "xxh3_128"])
def test_ranges_of_a_file_have_the_digests_of_their_bytes(make_file, pooled, method):
    data = os.urandom(3_000_000)
    pool = pooled()
    path = make_file("f", data)
    pool.submit(path, [(0, 0, 1_200_000), (1, 1_200_000, 1_200_000), (2, 2_400_000, 600_000)], method)
    pool.submit(path, [(-1, 0, 3_000_000)], method, owner="whole")
    found = {(owner, number): value for owner, number, value in pool.take_all()}
    assert found == {
        ("f", 0): digest(data[:1_200_000], method),
        ("f", 1): digest(data[1_200_000:2_400_000], method),
        ("f", 2): digest(data[2_400_000:], method),
        ("whole", -1): digest(data, method),
    }


def test_a_large_file_lets_small_ones_pass_after_a_slice(make_file, pooled, monkeypatch):
    monkeypatch.setattr(hashpool, "_SLICE_BYTES", 4096)
    large, small = make_file("large", b"l" * 1_000_000), make_file("small", b"s" * 10_000)
    sliced = threading.Event()
    submitted = threading.Event()
    read = hashpool._Range.read

    def slow_read(part, buffer, go_on):
        if part.file.owner == "large":
            sliced.set()
            assert submitted.wait(10 * MS)
        read(part, buffer, go_on)

    monkeypatch.setattr(hashpool._Range, "read", slow_read)
    pool = pooled(threads=1)
    pool.submit(large, [(-1, 0, 1_000_000)])
    assert sliced.wait(10 * MS)
    pool.submit(small, [(-1, 0, 10_000)])
    submitted.set()
    assert [owner for owner, _, _ in pool.take_all()] == ["small", "large"]


def test_what_is_not_taken_holds_the_threads_up(make_file, pooled, monkeypatch):
    monkeypatch.setattr(hashpool, "_READY_LIMIT", 3)
    begun = []

    def ranges():
        for number in range(50):
            begun.append(number)
            yield number, number * 100, 100

    pool = pooled()
    file = pool.submit(make_file("f", b"x" * 5000), ranges())
    taken = []
    while len(taken) < 50:
        assert pool.awake.wait(10 * MS)
        pool.awake.clear()
        # Ready, running on two threads, and one looked at ahead.
        assert len(begun) - len(taken) <= 3 + 1
        taken += pool.pool.take(2)
        pool.awake.set()
    assert sorted(number for _, number, _ in taken) == list(range(50))
    assert file.error is None


@pytest.mark.parametrize("how", ["grows", "written", "replaced", "shrinks", "gone", "link"])
def test_a_file_that_is_no_longer_the_version_meant_ends_with_an_error(make_file, pooled, how):
    path, other = make_file("f", b"x" * 1000), make_file("g", b"z" * 1000)
    status = path.stat()
    if how == "grows":
        make_file("f", b"x" * 1001)
    elif how == "written":
        path.write_bytes(b"y" * 1000)
    elif how == "shrinks":
        make_file("f", b"x" * 700)
    elif how == "replaced":
        other.rename(path)
    else:
        path.unlink()
        if how == "link":
            path.symlink_to("/dev/null")
    pool = pooled(threads=1)
    file = FileDigests(str(path), status, "sha512", iter([(0, 0, 500), (1, 500, 500)]), FLAGS, "f")
    pool.pool.submit(file)
    assert pool.take_all() == [("f", 0, None)]
    assert isinstance(file.error, OSError if how in ("gone", "link") else SourceChanged)


def test_a_change_is_noticed_after_the_range_that_was_read_meanwhile(make_file, pooled, monkeypatch):
    path = make_file("f", b"x" * 1000)
    check = FileDigests.check

    def change_then_check(file, descriptor):
        path.write_bytes(b"y" * 1000)
        check(file, descriptor)

    monkeypatch.setattr(FileDigests, "check", change_then_check)
    pool = pooled()
    file = pool.submit(path, [(number, number * 100, 100) for number in range(10)])
    assert [value for _, _, value in pool.take_all()] == [None]
    assert isinstance(file.error, SourceChanged)


def test_a_file_written_to_just_now_is_not_read_at_once(make_file, pooled):
    path = make_file("f", b"x" * 1000)
    slept = []

    class Clock:
        def monotonic_s(self):
            return 0.0

        def wall_ns(self):
            return OLD_NS + 5_000_000

        def sleep(self, seconds):
            slept.append(seconds)

    pool = pooled(clock=Clock())
    pool.submit(path, [(-1, 0, 1000)])
    assert len(pool.take_all()) == 1
    assert slept == [0.015]


def test_closing_does_not_wait_for_large_files(make_file, pooled, monkeypatch):
    path = make_file("f", b"")
    os.truncate(path, 1 << 40)  # sparse: hashing it would take half an hour
    os.utime(path, ns=(OLD_NS, OLD_NS))
    reading = threading.Event()
    preadv = os.preadv

    def noticed(*arguments):
        reading.set()
        return preadv(*arguments)

    monkeypatch.setattr(os, "preadv", noticed)
    monkeypatch.setattr(hashpool, "_SLICE_BYTES", 1 << 40)
    pool = pooled()
    pool.submit(path, [(-1, 0, 1 << 40)])
    assert reading.wait(10 * MS)
    pool.pool.close()
    assert pool.pool.files == 0

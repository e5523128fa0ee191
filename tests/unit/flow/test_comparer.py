"""The comparing thread: what is equal is copied, and nothing is written after a cancellation."""

from __future__ import annotations

import os
import threading

import pytest
import xxhash
from servers import wait_until

from sarrapipe.flow.comparer import Comparer, Comparison, Recheck
from sarrapipe.message import identity
from sarrapipe.message.model import Identity

DATA = os.urandom(3 << 20)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "standing").write_bytes(DATA)
    fds = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("standing", "inflight")]
    yield fds
    for fd in fds:
        os.close(fd)


@pytest.fixture
def woken():
    return threading.Event()


@pytest.fixture
def comparer(woken):
    made = Comparer(woken.set)
    yield made
    made.close()


def digest_of(data, method="sha512"):
    hasher = identity.hasher(method)
    hasher.update(data)
    return Identity(method, hasher.value())


def comparison(files, offset=1000, length=2 << 20, announced=None, target=True):
    announced = announced or digest_of(DATA[offset : offset + length])
    return Comparison("owner", files[0], files[1] if target else None, offset, length, announced)


def result(comparer, one):
    done = []
    comparer.begin(one)
    wait_until(lambda: done.extend(comparer.completed()) or done, 20, "it is compared")
    assert done == [one]
    assert not comparer.has_completed
    return one.digest


@pytest.mark.parametrize("method", ["sha512", "md5", "xxh3_128"])
def test_what_is_equal_is_copied_to_the_same_place(comparer, files, woken, method):
    part = DATA[1000 : 1000 + (2 << 20)]
    assert result(comparer, comparison(files, announced=digest_of(part, method))) == xxhash.xxh3_128_digest(
        part
    )
    assert os.pread(files[1], len(part), 1000) == part
    assert woken.is_set()


def test_what_differs_is_left_alone(comparer, files):
    assert result(comparer, comparison(files, announced=digest_of(b"another"))) is None
    assert os.fstat(files[1]).st_size == 0


def test_a_file_that_is_too_short_differs(comparer, files):
    assert result(comparer, comparison(files, offset=2 << 20, length=(1 << 20) + 1)) is None
    assert os.fstat(files[1]).st_size == 0


def test_a_file_that_is_written_in_place_is_only_read(comparer, files):
    one = comparison(files, target=False)
    assert result(comparer, one) == xxhash.xxh3_128_digest(DATA[1000 : 1000 + (2 << 20)])


def test_a_file_that_cannot_be_written_is_an_error_that_is_told(comparer, files, caplog):
    read_only = os.open(f"/proc/self/fd/{files[1]}", os.O_RDONLY)
    try:
        assert result(comparer, comparison([files[0], read_only])) is None
    finally:
        os.close(read_only)
    assert "taken for different" in caplog.text


class Meddled(Comparison):
    """Somebody changes the file in place when it has been read and is not copied yet."""

    def copy(self, target):
        os.pwrite(self.source, bytes(len(DATA)), 0)
        return super().copy(target)


def test_what_changes_between_reading_and_copying_is_not_believed(comparer, files):
    """Seen in what was copied, not in what was read."""
    one = Meddled("owner", files[0], files[1], 0, 1000, digest_of(DATA[:1000]))
    assert result(comparer, one) is None


def test_a_file_is_read_once_more(comparer, files):
    ranges = [(at, 1000, xxhash.xxh3_128_digest(DATA[at : at + 1000])) for at in (0, 5000)]
    for wrong, is_right in ((), True), (([(9, 10, bytes(16))]), False), ([(len(DATA), 1, bytes(16))], False):
        job = Recheck("owner", files[0], [*ranges, *wrong], "value")
        comparer.begin(job)
        done = []
        wait_until(lambda done=done: done.extend(comparer.completed()) or done, 20, "it is read")
        assert done == [job]
        assert job.is_right is is_right
        assert job.value == "value"


def test_nothing_is_written_once_it_is_cancelled(comparer, files):
    """Whoever cancels waits for the piece that is being copied, and there is no other."""
    one, other = comparison(files), comparison(files)
    with one.writing:
        comparer.begin(one)
        one.cancelled = True
    comparer.begin(other)
    comparer.cancel(other)
    comparer.cancel(one)
    size = os.fstat(files[1]).st_size
    last = comparison(files, announced=digest_of(b"another"))
    assert result(comparer, last) is None
    assert os.fstat(files[1]).st_size == size


def test_close_ends_the_thread_and_what_waits(files):
    made = Comparer(lambda: None)
    for _ in range(20):
        made.begin(comparison(files))
    made.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "compare"]

"""What stands in place: opened, read, copied from."""

from __future__ import annotations

import os

import pytest
import xxhash

from sarrapipe.errors import StorageError, UnsafePath
from sarrapipe.segment import keep
from sarrapipe.segment.destination import Destination

DATA = os.urandom(10_000)


@pytest.fixture
def destination(tmp_path):
    opened = Destination(str(tmp_path / "root")).open()
    yield opened
    opened.close()


@pytest.fixture
def standing(destination):
    os.mkdir(f"{destination.root}/d")
    with open(f"{destination.root}/d/f", "wb") as file:
        file.write(DATA)
    found = keep.open_standing(destination, "d/f")
    yield found
    found.close()


@pytest.fixture
def target(tmp_path):
    fd = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def hashed(fd, offset, length, buffer_bytes=999, goes_on=lambda: True):
    hashers = (xxhash.xxh3_128(), xxhash.xxh64())
    if not keep.read_range(fd, offset, length, hashers, bytearray(buffer_bytes), goes_on):
        return None
    return tuple(hasher.digest() for hasher in hashers)


def test_a_range_is_hashed_by_every_hasher(standing):
    part = DATA[100:8_100]
    assert hashed(standing.fd, 100, 8_000) == (xxhash.xxh3_128_digest(part), xxhash.xxh64_digest(part))
    assert hashed(standing.fd, 10_000, 0) is not None


def test_a_range_beyond_the_end_is_not_there(standing):
    assert hashed(standing.fd, 5_000, 5_001) is None
    assert hashed(standing.fd, 20_000, 1) is None


def test_reading_ends_when_it_is_not_wanted_any_more(standing):
    left = iter([True, True, False])
    assert hashed(standing.fd, 0, 10_000, goes_on=lambda: next(left)) is None
    assert next(left, None) is None


def test_pieces_cover_a_range():
    size = 2 * keep.COPY_BYTES + 5
    found = list(keep.pieces(7, size))
    assert [count for _, count in found] == [keep.COPY_BYTES, keep.COPY_BYTES, 5]
    assert [at for at, _ in found] == [7, 7 + keep.COPY_BYTES, 7 + 2 * keep.COPY_BYTES]
    assert list(keep.pieces(7, 0)) == []


def test_a_piece_is_copied_to_the_same_place(standing, target):
    keep.copy_piece(standing.fd, target, 3_000, 2_000)
    assert os.fstat(target).st_size == 5_000
    assert os.pread(target, 2_000, 3_000) == DATA[3_000:5_000]


def test_a_piece_is_copied_where_the_kernel_does_not_copy(standing, target, tmp_path):
    """It refuses files that it makes up (procfs); through a buffer it goes all the same."""
    source = os.open("/proc/self/maps", os.O_RDONLY)
    try:
        keep.copy_piece(source, target, 0, 100)
    finally:
        os.close(source)
    assert os.fstat(target).st_size == 100


def test_a_source_that_became_shorter_is_an_error(standing, target):
    os.truncate(f"/proc/self/fd/{standing.fd}", 1_000)
    with pytest.raises(StorageError, match="shorter"):
        keep.copy_piece(standing.fd, target, 0, 2_000)


def test_only_a_regular_file_is_opened(destination):
    root = destination.root
    os.mkdir(f"{root}/directory")
    os.symlink("/etc/passwd", f"{root}/link")
    os.mkfifo(f"{root}/fifo")
    os.symlink("directory", f"{root}/way")
    for name in ("nothing", "directory", "link", "fifo", "nothing/there"):
        assert keep.open_standing(destination, name) is None
    with pytest.raises(UnsafePath):
        keep.open_standing(destination, "way/out")


def test_what_is_opened_stays_what_it_was(standing, destination):
    os.rename(f"{destination.root}/d/f", f"{destination.root}/d/g")
    with open(f"{destination.root}/d/f", "wb") as file:
        file.write(b"another")
    assert hashed(standing.fd, 0, 10_000) is not None
    standing.close()
    standing.close()

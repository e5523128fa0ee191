from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash

from sarrapipe.errors import IdentityMismatch, NoSpace, SarrapipeError, StorageError, TooLarge, UnsafePath
from sarrapipe.segment.sink import DirectSink, DiscardSink, storage_error


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield opened
    os.close(opened)


def content(fd: int) -> bytes:
    return os.pread(fd, 1 << 20, 0)


class TestDirectSink:
    def test_writes_at_its_place_and_hashes(self, fd: int) -> None:
        os.pwrite(fd, b"." * 20, 0)
        sink = DirectSink(fd, 5, 10, xxhash.xxh3_128())
        sink.write(memoryview(b"hello"))
        sink.write(b"world")
        assert content(fd) == b".....helloworld....."
        assert sink.written == 10
        assert sink.hasher is not None
        assert sink.hasher.digest() == xxhash.xxh3_128_digest(b"helloworld")

    def test_what_is_too_long_does_not_touch_what_follows(self, fd: int) -> None:
        os.pwrite(fd, b"." * 20, 0)
        sink = DirectSink(fd, 5, 10, name="a/b")
        sink.write(b"helloworl")
        with pytest.raises(IdentityMismatch, match=r"10 bytes.*a/b"):
            sink.write(b"d!")
        assert content(fd) == b".....helloworl......"
        assert sink.written == 9

    def test_without_length_takes_everything(self, fd: int) -> None:
        sink = DirectSink(fd, 2)
        sink.write(b"abc" * 1000)
        assert sink.written == 3000
        assert content(fd) == b"\0\0" + b"abc" * 1000

    def test_says_where_the_kernel_may_copy(self, fd: int) -> None:
        assert DirectSink(fd).fileno() == fd
        assert DirectSink(fd, hasher=xxhash.xxh3_128()).fileno() == -1
        sink = DirectSink(fd, 7, 5)
        sink.advance(3)
        assert sink.position() == 10
        with pytest.raises(IdentityMismatch):
            sink.advance(3)

    def test_a_failed_write_is_no_digest(self, tmp_path: Path) -> None:
        opened = os.open(tmp_path / "r", os.O_RDONLY | os.O_CREAT)
        hasher = xxhash.xxh3_128()
        sink = DirectSink(opened, hasher=hasher, name="a/b")
        with pytest.raises(StorageError, match="a/b"):
            sink.write(b"abc")
        os.close(opened)
        assert hasher.digest() == xxhash.xxh3_128_digest(b"")
        assert sink.written == 0

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
    def test_a_full_disk_pauses(self) -> None:
        opened = os.open("/dev/full", os.O_WRONLY)
        try:
            with pytest.raises(NoSpace):
                DirectSink(opened).write(b"abc")
        finally:
            os.close(opened)


class TestDiscardSink:
    def test_counts_and_hashes(self) -> None:
        sink = DiscardSink(5, xxhash.xxh3_128())
        sink.write(b"hello")
        assert sink.written == sink.position() == 5
        assert sink.fileno() == -1
        assert sink.hasher is not None
        assert sink.hasher.digest() == xxhash.xxh3_128_digest(b"hello")
        with pytest.raises(IdentityMismatch):
            sink.write(b"!")

    def test_without_length_takes_everything(self) -> None:
        sink = DiscardSink()
        sink.write(b"x" * 100_000)
        assert sink.written == 100_000


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
        (errno.EFBIG, TooLarge),
        (errno.ELOOP, UnsafePath),
        (errno.EXDEV, UnsafePath),
        (errno.EACCES, StorageError),
        (errno.EROFS, StorageError),
        (errno.EIO, StorageError),
    ],
)
def test_what_the_file_system_says(number: int, kind: type[SarrapipeError]) -> None:
    error = storage_error(OSError(number, os.strerror(number)), "make /data/x")
    assert type(error) is kind
    assert str(error) == f"make /data/x: {os.strerror(number)}"

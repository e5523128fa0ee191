from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sarrapipe.clock import SYSTEM_CLOCK
from sarrapipe.errors import AccessDenied, MessageError, SourceChanged, TransferError
from sarrapipe.segment.sink import DirectSink, DiscardSink
from sarrapipe.transfer.base import RangeDone, RangeRead
from sarrapipe.transfer.curlloop import CurlLoop
from sarrapipe.transfer.file import FileBackend, local_path
from sarrapipe.transfer.pacing import Pacer


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/a/b", "/a/b"),
        ("file:/a/b", "/a/b"),
        ("file:///a/b", "/a/b"),
        ("FILE://localhost/a/b", "/a/b"),
        ("file:///a%20b?c#d", "/a%20b?c#d"),
        ("file:////a", "/a"),
    ],
)
def test_paths(url: str, path: str) -> None:
    assert local_path(url) == path


def test_an_escaped_path() -> None:
    assert local_path("file:///a%20b%FF", escaped=True) == "/a b\udcff"


@pytest.mark.parametrize("url", ["file://elsewhere/a", "file:a", "a/b", "file:", "file:///a\0b", "file:%00"])
def test_refuses_what_is_no_local_path(url: str) -> None:
    with pytest.raises(MessageError):
        local_path(url, escaped=True)


@pytest.fixture
def loop() -> Iterator[CurlLoop]:
    opened = CurlLoop().open()
    yield opened
    opened.close()


@pytest.fixture
def backend(loop: CurlLoop) -> Iterator[FileBackend]:
    made = FileBackend(loop, None, SYSTEM_CLOCK)
    yield made
    made.close()


def run(backend: FileBackend, **fields: object) -> RangeDone:
    backend.start(RangeRead(token=1, **fields))  # type: ignore[arg-type]
    while True:
        for done in backend.step():
            return done


def test_large_files_are_copied_in_slices(backend: FileBackend, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(9_000_000))
    (tmp_path / "small").write_bytes(b"x")
    for token in ("large", "small"):
        backend.start(RangeRead(url=str(tmp_path / token), sink=DiscardSink(), token=token))
    turns = []
    while backend.busy():
        turns.append([done.token for done in backend.step()])
    assert turns == [[], ["small"], [], ["large"]] or turns == [[], ["small"], ["large"]]


@pytest.mark.parametrize("hashed", [False, True])
def test_a_file_that_is_cut_short_while_it_is_read(
    backend: FileBackend, tmp_path: Path, hashed: bool
) -> None:
    source = tmp_path / "f"
    source.write_bytes(bytes(9_000_000))
    fd = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    sink = DiscardSink() if hashed else DirectSink(fd)
    backend.start(RangeRead(url=str(source), sink=sink, token=1))
    assert backend.step() == []
    os.truncate(source, 5_000_000)
    done: list[RangeDone] = []
    while not done:
        done = backend.step()
    os.close(fd)
    assert isinstance(done[0].error, SourceChanged)


def test_a_file_that_is_rewritten_while_it_is_read(backend: FileBackend, tmp_path: Path) -> None:
    source = tmp_path / "f"
    source.write_bytes(bytes(9_000_000))
    backend.start(RangeRead(url=str(source), sink=DiscardSink(), token=1))
    backend.step()
    with open(source, "r+b") as file:
        file.write(b"other")
    os.utime(source, (1, 1))
    while not (done := backend.step()):
        pass
    assert isinstance(done[0].error, SourceChanged)


def test_a_fifo_blocks_nobody(backend: FileBackend, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f")
    assert isinstance(run(backend, url=str(tmp_path / "f"), sink=DiscardSink()).error, TransferError)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_an_unreadable_file(backend: FileBackend, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    os.chmod(tmp_path / "f", 0)
    assert isinstance(run(backend, url=str(tmp_path / "f"), sink=DiscardSink()).error, AccessDenied)


@pytest.mark.parametrize("number", [errno.EXDEV, errno.ENOSYS])
def test_where_the_kernel_cannot_copy_a_buffer_does(
    backend: FileBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    (tmp_path / "f").write_bytes(b"0123456789")
    fd = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    done = run(backend, url=str(tmp_path / "f"), sink=DirectSink(fd, 2), offset=5, length=5)
    assert done.error is None
    assert os.pread(fd, 100, 0) == b"\0\x0056789"
    os.close(fd)


class Halting:
    """A limiter that lets one slice pass and then says to wait."""

    def take(self, amount: float, now_ns: int) -> float:
        return 0.05


def test_copying_is_held_up_by_the_rate(loop: CurlLoop, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(5_000_000))
    backend = FileBackend(loop, Pacer(Halting(), SYSTEM_CLOCK), SYSTEM_CLOCK)
    backend.start(RangeRead(url=str(tmp_path / "f"), sink=DiscardSink(), token=1))
    assert backend.busy()
    assert backend.step() == []
    assert not backend.busy()
    loop.run_once(10)
    assert backend.busy()
    assert [done.error for done in backend.step()] == [None]
    backend.close()


def test_cancelling_closes_the_source(backend: FileBackend, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(9_000_000))
    before = len(os.listdir("/proc/self/fd"))
    for token in (1, 2):
        backend.start(RangeRead(url=str(tmp_path / "f"), sink=DiscardSink(), token=token))
    backend.step()
    assert backend.cancel(1)
    assert not backend.cancel(1)
    backend.close()
    assert len(os.listdir("/proc/self/fd")) == before

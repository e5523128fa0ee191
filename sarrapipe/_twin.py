"""Python twins of the C kernels, for machines where the extension was not built.

Same arguments, same results, same errors; slower (native/README.md has the figures). Use `sarrapipe.native`,
which picks the one that is there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "atomic_add",
    "atomic_load",
    "atomic_store",
    "compare_and_swap",
    "open_beneath",
    "sync_file_system",
]

_WORD = 8
_MODULUS = 1 << 64


@contextmanager
def _exclusive() -> Iterator[None]:
    """Hold a lock that every process using this installation shares.

    The lock is on this file: it needs no name of its own, leaves nothing behind, and flock(2) is content with
    a descriptor for reading. Each call opens its own description, so threads exclude each other as well.
    """
    fd = os.open(__file__, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _word(buffer: Buffer, offset: int, *, writable: bool) -> memoryview:
    view = memoryview(buffer).cast("B")
    if writable and view.readonly:
        raise TypeError("argument 1 must be a read-write bytes-like object")
    if offset < 0 or offset > len(view) - _WORD:
        raise IndexError("no 64-bit word at this offset of the buffer")
    if offset % _WORD:
        raise ValueError("atomic words are aligned to 8 bytes")
    return view[offset : offset + _WORD].cast("Q")


def _checked(value: int) -> int:
    if not 0 <= value < _MODULUS:
        raise OverflowError("an atomic word holds 0 .. 2**64-1")
    return value


def atomic_load(buffer: Buffer, offset: int, /) -> int:
    """Return the 64-bit word at `offset`; one aligned machine word, so never half of a store."""
    return int(_word(buffer, offset, writable=False)[0])


def atomic_store(buffer: Buffer, offset: int, value: int, /) -> None:
    """Set the word; under the lock, so that it does not fall between another's read and write."""
    word = _word(buffer, offset, writable=True)
    with _exclusive():
        word[0] = _checked(value)


def atomic_add(buffer: Buffer, offset: int, delta: int, /) -> int:
    """Add modulo 2**64 and return the new value."""
    if not -(1 << 63) <= delta < 1 << 63:
        raise OverflowError("delta is a signed 64-bit number")
    word = _word(buffer, offset, writable=True)
    with _exclusive():
        word[0] = value = (word[0] + delta) % _MODULUS
    return value


def compare_and_swap(buffer: Buffer, offset: int, expected: int, desired: int, /) -> bool:
    """Set the word to `desired` if it holds `expected`; return whether it did."""
    word = _word(buffer, offset, writable=True)
    _checked(expected), _checked(desired)
    with _exclusive():
        if word[0] != expected:
            return False
        word[0] = desired
    return True


def open_beneath(dir_fd: int, path: str | bytes, flags: int, mode: int = 0, /) -> int:
    """Open `path` below `dir_fd` through no symbolic link and no `..`, one component at a time.

    Raises:
        OSError: ELOOP for a symbolic link anywhere in the path, EXDEV for a path that is absolute or contains
            `..`, otherwise what open(2) says. openat2(2) says the same, but lets `a/..` pass; nothing here
            needs it, so both versions refuse it.
    """
    parts = os.fsencode(path).split(b"/")
    if b".." in parts or (not parts[0] and len(parts) > 1):
        raise _error(errno.EXDEV, path)
    names = [part for part in parts if part not in (b"", b".")]
    here = dir_fd
    try:
        for name in names[:-1]:
            below = _open_one(here, name, os.O_DIRECTORY | os.O_PATH, 0, path)
            if here != dir_fd:
                os.close(here)
            here = below
        return _open_one(here, names[-1] if names else b".", flags, mode, path)
    finally:
        if here != dir_fd:
            os.close(here)


def sync_file_system(fd: int, /) -> None:
    """Write out the file system that `fd` is on; this twin writes out all of them, and hears of no error."""
    os.fstat(fd)  # a bad descriptor fails here as it does there
    os.sync()


def _open_one(dir_fd: int, name: bytes, flags: int, mode: int, path: str | bytes) -> int:
    try:
        fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=dir_fd)
    except NotADirectoryError:
        # O_DIRECTORY with O_NOFOLLOW says ENOTDIR for a symbolic link; openat2 says ELOOP.
        if os.path.islink(f"/proc/self/fd/{dir_fd}/{os.fsdecode(name)}"):
            raise _error(errno.ELOOP, path) from None
        raise
    if flags & os.O_PATH and stat.S_ISLNK(os.fstat(fd).st_mode):
        os.close(fd)  # O_PATH with O_NOFOLLOW opens the link itself
        raise _error(errno.ELOOP, path)
    return fd


def _error(number: int, path: str | bytes) -> OSError:
    return OSError(number, os.strerror(number), path)

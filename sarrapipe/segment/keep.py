"""Bytes that are on this disk already: read to be compared, and copied from the file in place.

    standing = open_standing(destination, "d/big")
    if read_range(standing.fd, offset, length, (sha512, own), buffer, goes_on): ...
    for at, count in pieces(offset, length):
        copy_piece(standing.fd, inflight.fd, at, count)

Copying is the kernel's (`copy_file_range`), which shares the extents on file systems that can (XFS, btrfs).
Nothing here relies on the file in place staying as it is: whoever copies reads back what was copied.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from sarrapipe.errors import StorageError
from sarrapipe.segment.destination import Destination
from sarrapipe.segment.sink import Updatable, storage_error

__all__ = ["COPY_BYTES", "StandingFile", "copy_piece", "open_standing", "pieces", "read_range"]

COPY_BYTES: Final = 4 << 20
"""Copied at once: some milliseconds, after which whoever copies looks whether it still should."""
_NO_KERNEL_COPY: Final = frozenset(
    {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.ETXTBSY}
)


class StandingFile:
    """What stands under a final name, open for reading. It may be replaced or changed at any time.

    Attributes:
        fd: Descriptor.
        inode: Of the file.
        device: Of its file system.
    """

    __slots__ = ("device", "fd", "inode")

    def __init__(self, fd: int) -> None:
        found = os.fstat(fd)
        self.fd = fd
        self.inode = found.st_ino
        self.device = found.st_dev

    def close(self) -> None:
        """Free the descriptor. May be repeated."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def open_standing(destination: Destination, path: str) -> StandingFile | None:
    """Open what stands in place; None where there is no regular file that can be read.

    Args:
        destination: The root.
        path: Relative to it.

    Raises:
        UnsafePath: The path leads outside, or through a symbolic link.
        StorageError: The file system refused.
    """
    there = destination.stat(path)
    if there is None or not stat.S_ISREG(there.st_mode):
        return None
    with destination.parent(path) as (parent, name):
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=parent)
        except (FileNotFoundError, PermissionError):
            return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):  # exchanged in between
        os.close(fd)
        return None
    return StandingFile(fd)


def pieces(offset: int, length: int) -> Iterator[tuple[int, int]]:
    """Cut a range into what is copied at once: offset and count of each."""
    end = offset + length
    while offset < end:
        count = min(COPY_BYTES, end - offset)
        yield offset, count
        offset += count


def read_range(
    fd: int,
    offset: int,
    length: int,
    hashers: Sequence[Updatable],
    buffer: bytearray,
    goes_on: Callable[[], bool],
) -> bool:
    """Hash a range of a file.

    Args:
        fd: Descriptor, open for reading.
        offset: Of the first byte.
        length: Bytes.
        hashers: Each gets every byte.
        buffer: Read into.
        goes_on: Asked before each piece whether it is still wanted.

    Returns:
        False if the file is too short, or it is not wanted any more.

    Raises:
        StorageError: It cannot be read.
    """
    view = memoryview(buffer)
    end = offset + length
    while offset < end:
        if not goes_on():
            return False
        try:
            got = os.preadv(fd, [view[: min(len(view), end - offset)]], offset)
        except OSError as error:
            raise storage_error(error, "read a file in place") from error
        if not got:
            return False
        for hasher in hashers:
            hasher.update(view[:got])
        offset += got
    return True


def copy_piece(source: int, target: int, offset: int, count: int) -> None:
    """Copy bytes from one file to the same place of another.

    Args:
        source: Descriptor, open for reading.
        target: Descriptor, open for writing.
        offset: Of the first byte, in both.
        count: Bytes.

    Raises:
        StorageError: The source became shorter, or the file system refused.
    """
    end = offset + count
    try:
        while offset < end:
            done = _copy(source, target, offset, end - offset)
            if not done:
                raise StorageError("the file in place became shorter while it was copied")
            offset += done
    except OSError as error:
        raise storage_error(error, "copy from the file in place") from error


def _copy(source: int, target: int, offset: int, count: int) -> int:
    try:
        return os.copy_file_range(source, target, count, offset, offset)
    except OSError as error:
        if error.errno not in _NO_KERNEL_COPY:
            raise
    data = os.pread(source, count, offset)
    return os.pwrite(target, data, offset) if data else 0

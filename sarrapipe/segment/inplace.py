"""A file that is brought up to date under its final name (`inplace on`).

    file = begin(destination, "d/big", nonce)        # None: not possible, put it together beside the old one
    ... ranges are written, by whoever reopens it with the nonce ...
    file.finish(...)                                  # the owner alone: size, times, mark of the generation
    publish(file)

An extended attribute of the file, `user.sarrapipe.writing`, holds the nonce of what is written into it, from
before the first byte until the file is whole. It is the claim of the target: it can be set only where there
is none, so one version at a time is written in place, and a file that was left half done is never written in
place again, but replaced by a rename. It is lost with the file and not with the ledger.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from sarrapipe.errors import InflightDamaged
from sarrapipe.segment.assembly import InflightFile
from sarrapipe.segment.destination import Destination
from sarrapipe.segment.sink import storage_error

__all__ = ["WRITING_XATTR", "InPlaceFile", "begin", "is_being_written", "publish", "reopen", "unmark"]

WRITING_XATTR: Final = "user.sarrapipe.writing"
_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NOT_POSSIBLE: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENXIO, errno.EACCES, errno.EPERM, errno.ETXTBSY}
)
_NO_MARK: Final = frozenset({errno.EEXIST, errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENOSPC})


class InPlaceFile(InflightFile):
    """An open file under its final name that is not whole."""

    __slots__ = ()

    def is_there(self) -> bool:
        """Return whether the final name is still this file's: nobody replaced, removed or renamed it.

        Raises:
            UnsafePath, StorageError: The path cannot be looked at.
        """
        there = self.destination.stat(self.path)
        return there is not None and (there.st_ino, there.st_dev) == (self.inode, self.device)


def _open(destination: Destination, path: str) -> int:
    """Return a descriptor of the regular file in place, -1 where there is none that may be written."""
    if destination.stat(path) is None:
        return -1
    with destination.parent(path) as (parent, name):
        try:
            fd = os.open(name, _FLAGS, dir_fd=parent)
        except OSError as error:
            if error.errno in _NOT_POSSIBLE or error.errno == errno.ELOOP:
                return -1
            raise
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return -1


def begin(destination: Destination, path: str, nonce: str) -> InPlaceFile | None:
    """Claim the file in place for one version; nothing of it is changed yet.

    Args:
        destination: The root.
        path: Of the target.
        nonce: Of what will be written.

    Returns:
        None where a version has to be put together beside what is there: there is no regular file; it has
        other names, which would change with it; it may not be written, is being written, or was left half
        done; the file system keeps no extended attributes.

    Raises:
        UnsafePath, StorageError: The path cannot be walked.
    """
    fd = _open(destination, path)
    if fd < 0:
        return None
    try:
        if os.fstat(fd).st_nlink == 1:
            os.setxattr(fd, WRITING_XATTR, nonce.encode(), os.XATTR_CREATE)
            return InPlaceFile(destination, path, nonce, fd)
    except OSError as error:
        if error.errno not in _NO_MARK:
            os.close(fd)
            raise storage_error(error, f"mark {destination.root}/{path}") from error
    os.close(fd)
    return None


def reopen(destination: Destination, path: str, nonce: str, inode: int | None = None) -> InPlaceFile | None:
    """Open the file in place that this or another process began to write.

    Args:
        destination: The root.
        path: Of the target.
        nonce: It was begun with.
        inode: It was recorded with; None if that was not done yet.

    Returns:
        None if another file is in place, or what is there is not being written under this nonce.

    Raises:
        UnsafePath, StorageError: As for `begin`.
    """
    fd = _open(destination, path)
    if fd < 0:
        return None
    if _writer_of(fd) == nonce:
        file = InPlaceFile(destination, path, nonce, fd)
        if inode is None or file.inode == inode:
            return file
    os.close(fd)
    return None


def _writer_of(fd: int) -> str:
    try:
        return os.getxattr(fd, WRITING_XATTR).decode()
    except OSError:
        return ""


def is_being_written(path: str) -> bool:
    """Return whether a file holds neither one version nor the other: it is written, or was left half done."""
    try:
        return bool(os.getxattr(path, WRITING_XATTR, follow_symlinks=False))
    except OSError:
        return False


def publish(file: InPlaceFile) -> None:
    """Take the mark from a file that is whole and committed, and close it. May be repeated.

    Raises:
        InflightDamaged: Something else is in place.
        StorageError: The file system refused.
    """
    if not file.is_there():
        raise InflightDamaged(f"{file.target}: another file took its place while it was written")
    unmark(file)
    file.close()


def unmark(file: InPlaceFile) -> None:
    """Take the mark from a file that is whole. May be repeated.

    Raises:
        StorageError: The file system refused.
    """
    try:
        os.removexattr(file.fd, WRITING_XATTR)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise storage_error(error, f"finish {file.target}") from error

"""The file under assembly: made, filled by anybody who has its nonce, finished, and renamed into place.

    file = create(destination, "20240101/a.grib", nonce="5f3c...", mode=0o644)
    file.sink(0, 1024, hasher).write(data)
    file.finish(mtime_ns=..., atime_ns=..., mode=0o644, generation=generation)
    publish(file)

It holds no truth of its own: the ledger decides who may do what, and every step here may be repeated by
another process after a crash. A small file takes ten system calls (docs/explanation/pipeline.md).
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Sequence

from sarrapipe import native
from sarrapipe.errors import InflightDamaged, NoSpace, StorageError, TooLarge
from sarrapipe.segment.destination import Destination, check_relative
from sarrapipe.segment.place import InflightKind
from sarrapipe.segment.sink import DirectSink, Updatable, storage_error

__all__ = [
    "GENERATION_XATTR",
    "InflightFile",
    "create",
    "discard",
    "is_ours",
    "mark_under_way",
    "noted_identity",
    "publish",
    "reopen",
    "sync_group",
]

GENERATION_XATTR = "user.sarrapipe.generation"
"""Which version of which file this is, and which flow put it there; set before the rename, so that recovery
knows what it finds in place."""

IDENTITY_XATTR = "user.sarrapipe.identity"
"""What was computed over a file put together from blocks, `method,value`: its announcement carries it,
whoever makes that announcement after a crash."""

_UNDER_WAY = b"under way "
"""Begins the same attribute of a file that several processes write to, until it is finished."""

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_IN_PLACE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_AGAIN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_XATTR = frozenset({errno.ENOTSUP, errno.EPERM, errno.EACCES})
_NOT_A_FILE = frozenset({errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV})
"""What opening says of nothing, a link, a directory, a socket or a device under the name of a file."""
_SYNC_TOGETHER = 3
"""Files of one file system from which on syncing all of it is cheaper than each alone."""
_PREALLOCATING = frozenset({"ext4", "xfs", "btrfs", "f2fs", "bcachefs"})
"""File systems that reserve space without writing it: 1 GiB in 2 ms, and writing it is a quarter faster
then. On tmpfs it takes 0.24 s, and elsewhere the C library would write zeros, over what another process has
written."""


class InflightFile:
    """An open file that is not whole yet.

    Attributes:
        destination: Where it will be delivered.
        path: Of the target, relative to the destination's root.
        nonce: What tells it from every other file under way.
        fd: Descriptor, for reading and writing.
        inode: With the nonce, what the ledger knows it by.
        device: Number of the file system it is on.
        whole: Bytes it has to have when it is put in place; None where that is not known.
    """

    __slots__ = ("_mode", "destination", "device", "fd", "inode", "nonce", "path", "whole")

    def __init__(self, destination: Destination, path: str, nonce: str, fd: int) -> None:
        self.destination = destination
        self.path = path
        self.nonce = nonce
        self.fd = fd
        found = os.fstat(fd)
        self.inode = found.st_ino
        self.device = found.st_dev
        self._mode = found.st_mode & 0o7777
        self.whole: int | None = None

    @property
    def target(self) -> str:
        """Absolute path of the finished file."""
        return f"{self.destination.root}/{self.path}"

    @property
    def size(self) -> int:
        """Bytes it has now."""
        return os.fstat(self.fd).st_size

    def sink(self, offset: int = 0, length: int | None = None, hasher: Updatable | None = None) -> DirectSink:
        """Return what writes one range of this file."""
        return DirectSink(self.fd, offset, length, hasher, self.path)

    def preallocate(self, size: int) -> None:
        """Make sure that `size` bytes will fit, where the file system can tell.

        Raises:
            NoSpace: They do not.
            TooLarge: They never will.
            StorageError: The file system refused.
        """
        try:
            there = os.fstatvfs(self.fd)
            held = os.fstat(self.fd)
            if there.f_blocks * there.f_frsize < size:
                raise TooLarge(
                    f"{size} bytes for {self.target}: its file system has {there.f_blocks * there.f_frsize}"
                )
            if there.f_bavail * there.f_frsize + held.st_blocks * 512 < size:
                raise NoSpace(f"{size} bytes for {self.target}: {there.f_bavail * there.f_frsize} are free")
            if size > 0 and _file_system(held.st_dev) in _PREALLOCATING:
                os.posix_fallocate(self.fd, 0, size)
        except OSError as error:
            raise storage_error(error, f"reserve {size} bytes for {self.target}") from error

    def finish(
        self,
        *,
        mtime_ns: int | None = None,
        atime_ns: int | None = None,
        mode: int | None = None,
        generation: bytes | None = None,
        size: int | None = None,
        whole: int | None = None,
        identity: str = "",
    ) -> None:
        """Give the file everything it will have in place, on its descriptor, before the rename.

        Args:
            mtime_ns: Nanoseconds since 1970; None keeps the time of writing.
            atime_ns: The same; None takes `mtime_ns`.
            mode: Permission bits; None keeps those it was made with.
            generation: What `is_ours` will look for. File systems without extended attributes do without.
            size: Cut or extend the file to this; None if it has the right size.
            whole: Bytes that were written to it: if it is shorter, somebody cut it.
            identity: What `noted_identity` will find, as far as the file system has extended attributes.

        Raises:
            InflightDamaged: It is shorter than what was written.
            StorageError: The file system refused.
        """
        try:
            if whole is not None:
                self.whole = whole
            if identity:
                _set_attribute(self.fd, IDENTITY_XATTR, identity.encode())
            if size is not None:
                if whole is not None and self.size < whole:
                    raise InflightDamaged(f"{self.target}: {self.size} bytes of {whole} are left under way")
                os.ftruncate(self.fd, size)
            if mode is not None and mode != self._mode:
                os.fchmod(self.fd, mode)
            if generation is not None:
                _set_attribute(self.fd, GENERATION_XATTR, generation + self.destination.mark)
            if mtime_ns is not None:
                os.utime(self.fd, ns=(mtime_ns if atime_ns is None else atime_ns, mtime_ns))
        except OSError as error:
            raise storage_error(error, f"finish {self.target}") from error

    @property
    def is_dense(self) -> bool:
        """Whether the file system says at once that it has no holes; False: look for them.

        tmpfs counts the pages of a file, and takes 45 ms a GiB to look for holes; others count blocks of
        their own as well, and look in 10 us.
        """
        found = os.fstat(self.fd)
        return found.st_blocks * 512 >= found.st_size and _file_system(self.device) == "tmpfs"

    def is_there(self) -> bool:
        """Return whether it is still what its name leads to: not removed or replaced by somebody.

        Raises:
            UnsafePath: The path leads through a symbolic link.
            StorageError: The file system refused.
        """
        with self.destination.inflight(self.path, self.nonce) as (parent, name):
            return self.is_at(parent, name)

    def is_at(self, parent: int, name: str) -> bool:
        """Return whether a name leads to this file."""
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if (found.st_ino, found.st_dev) != (self.inode, self.device):
            return False
        return self.whole is None or found.st_size == self.whole

    def sync(self) -> None:
        """Make the bytes survive power loss (`durability host`); several are synced faster by `sync_group`.

        Raises:
            StorageError: The file system could not keep them: they are lost.
        """
        try:
            os.fdatasync(self.fd)
        except OSError as error:
            raise storage_error(error, f"sync {self.target}") from error

    def close(self) -> None:
        """Free the descriptor; the file stays. May be repeated."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def sync_group(files: Sequence[InflightFile]) -> None:
    """Make the bytes of finished files survive power loss, together; before they are closed.

    Several on one file system take one syncfs: 100 files of 1 KiB 23 ms instead of 100-400 ms by fdatasync,
    one by one. It also writes out what others left unwritten there, so one or two files are synced by
    themselves.

    Raises:
        StorageError: The file system could not keep them: they are lost.
    """
    by_device: dict[int, list[InflightFile]] = {}
    for file in files:
        by_device.setdefault(file.device, []).append(file)
    for group in by_device.values():
        if len(group) < _SYNC_TOGETHER:
            for file in group:
                file.sync()
            continue
        try:
            native.sync_file_system(group[0].fd)
        except OSError as error:
            raise storage_error(error, f"sync the file system of {group[0].target}") from error


def create(destination: Destination, path: str, nonce: str, mode: int = 0o600) -> InflightFile:
    """Make a new file under way.

    Args:
        destination: Where it will be delivered.
        path: Of the target, relative to the destination's root.
        nonce: Unique among the files under way of all processes; without slash.
        mode: Permission bits, less the umask. The final ones, where they are known, save a system call later.

    Raises:
        UnsafePath: The path leads outside, or through a symbolic link.
        NoSpace: The file system is full.
        StorageError: It refused for another reason; also if the file is there already.
    """
    check_relative(path)
    make = _create_apart if destination.apart else _create_in_tree
    try:
        fd = make(destination, path, nonce, mode)
    except OSError as error:
        raise storage_error(error, f"make a file for {destination.root}/{path}") from error
    return InflightFile(destination, path, nonce, fd)


def _create_apart(destination: Destination, path: str, nonce: str, mode: int) -> int:
    name = destination.place.path(path, nonce)
    try:
        return os.open(name, _NEW, mode, dir_fd=destination.hidden_directory(path))
    except FileNotFoundError:
        destination.forget(path)  # somebody removed the hidden directory
        return os.open(name, _NEW, mode, dir_fd=destination.hidden_directory(path))


def _create_in_tree(destination: Destination, path: str, nonce: str, mode: int) -> int:
    under_way = destination.place.path(path, nonce)
    flags = _IN_PLACE if destination.place.kind is InflightKind.IN_PLACE else _NEW
    parent = destination.open_parent(under_way, make=True)
    try:
        return os.open(_last(under_way), flags, mode, dir_fd=parent)
    finally:
        os.close(parent)


def mark_under_way(file: InflightFile) -> None:
    """Mark a file that others will open: one that is put in its place may get its inode, not its mark.

    Raises:
        StorageError: The file system refused.
    """
    try:
        _set_attribute(file.fd, GENERATION_XATTR, _UNDER_WAY + file.nonce.encode())
    except OSError as error:
        raise storage_error(error, f"mark {file.target}") from error


def reopen(
    destination: Destination,
    path: str,
    nonce: str,
    inode: int | None = None,
    generation: bytes | None = None,
) -> InflightFile | None:
    """Open a file under way that this or another process made.

    Args:
        destination: Where it will be delivered.
        path: Of the target.
        nonce: It was made with.
        inode: It was recorded with; None if its maker died before recording it.
        generation: Of one that was marked (`mark_under_way`); None for others.

    Returns:
        None if it is gone, or something else is in its place.

    Raises:
        UnsafePath, StorageError: As for `create`.
    """
    with destination.inflight(path, nonce) as (parent, name):
        try:
            fd = os.open(name, _AGAIN, dir_fd=parent)
        except OSError as error:
            if error.errno in _NOT_A_FILE:
                return None
            raise
    file = InflightFile(destination, path, nonce, fd)
    is_it = stat.S_ISREG(os.fstat(fd).st_mode) and (inode is None or file.inode == inode)
    if is_it and (generation is None or _is_marked(file, generation)):
        return file
    file.close()
    return None


def _is_marked(file: InflightFile, generation: bytes) -> bool:
    """Whether a file bears the mark of one under way, or of one that is finished."""
    try:
        found = os.getxattr(file.fd, GENERATION_XATTR)
    except OSError as error:
        return error.errno in _NO_XATTR  # the inode decides alone
    return found in (_UNDER_WAY + file.nonce.encode(), generation + file.destination.mark)


def publish(file: InflightFile) -> None:
    """Rename a finished file into place, over what is there, and close it.

    Directories that are missing are made.

    Raises:
        InflightDamaged: What bears its name is another file, or has another size; it stays where it is.
        UnsafePath: A symbolic link was planted in the way.
        StorageError: The file system refused: a directory of that name is there, or the target lies on
            another file system than it did when the file was made (it will be made there the next time).
    """
    destination = file.destination
    try:
        if destination.place.kind is not InflightKind.IN_PLACE:
            _rename(file)
        elif not file.is_there():
            raise InflightDamaged(f"{file.target}: replaced or cut while it was written")
        file.close()  # not before: while it is open nothing else can have its inode
    except OSError as error:
        if error.errno == errno.EXDEV:
            destination.forget(file.path)
            raise StorageError(f"{file.target} is on another file system than its file under way") from error
        raise storage_error(error, f"rename into place {file.target}") from error


def _rename(file: InflightFile) -> None:
    destination = file.destination
    under_way = destination.place.path(file.path, file.nonce)
    parent = destination.open_parent(file.path, make=True)
    apart = -1
    try:
        if destination.apart:
            source = destination.hidden_directory(file.path)
        elif destination.place.kind is InflightKind.DIRECTORY:
            source = apart = destination.open_parent(under_way)
        else:
            source = parent
        name, last = _last(under_way), _last(file.path)
        if not file.is_at(source, name):
            raise InflightDamaged(f"{file.target}: the file under way was replaced, cut or removed")
        os.rename(name, last, src_dir_fd=source, dst_dir_fd=parent)
    finally:
        os.close(parent)
        if apart >= 0:
            os.close(apart)


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def discard(destination: Destination, path: str, nonce: str) -> bool:
    """Remove a file under way, if it is there, or whatever somebody put in its place.

    One that is written in place stays: it has no other name.

    Returns:
        Whether there was something.

    Raises:
        UnsafePath, StorageError: As for `create`.
    """
    if destination.place.kind is InflightKind.IN_PLACE:
        return False
    with destination.inflight(path, nonce) as (parent, name):
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return False
        except IsADirectoryError:
            shutil.rmtree(name, dir_fd=parent)
    return True


def is_ours(destination: Destination, path: str, inode: int, generation: bytes) -> bool:
    """Whether what is in place is the file with this inode and this generation.

    Where the file system keeps no extended attributes, or this process may not read them, the inode decides
    alone.

    Raises:
        UnsafePath, StorageError: As for `create`.
    """
    found = destination.stat(path)
    if found is None or found.st_ino != inode or not stat.S_ISREG(found.st_mode):
        return False
    with destination.parent(path) as (parent, name):
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        except FileNotFoundError:
            return False
        except PermissionError:
            return True
    try:
        expected = generation + destination.mark
        return os.fstat(fd).st_ino == inode and os.getxattr(fd, GENERATION_XATTR) == expected
    except OSError as error:
        return error.errno in _NO_XATTR
    finally:
        os.close(fd)


def noted_identity(destination: Destination, file: InflightFile | None, path: str) -> str:
    """Return the identity that `finish` noted with a file, "" if there is none to be found.

    Args:
        destination: Where the file is.
        file: While it is inflight, open; None where it is in place.
        path: Of the target.
    """
    try:
        if file is not None:
            return os.getxattr(file.fd, IDENTITY_XATTR).decode()
        with destination.parent(path) as (parent, name):
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
            try:
                return os.getxattr(fd, IDENTITY_XATTR).decode()
            finally:
                os.close(fd)
    except OSError:
        return ""


def _set_attribute(fd: int, name: str, value: bytes) -> None:
    try:
        os.setxattr(fd, name, value)
    except OSError as error:
        if error.errno not in _NO_XATTR:
            raise


def _file_system(device: int) -> str:
    """Type of the file system of a device number, as the kernel names it; empty if it does not tell."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                fields = line.split()
                if fields[2] == wanted:
                    return fields[fields.index("-") + 1]
    except (OSError, ValueError, IndexError):
        return ""
    return ""

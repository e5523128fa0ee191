"""Writing to a file system of this machine, and changing names there; `transfer.file` runs it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Final

from sarrapipe.errors import AccessDenied, NoSpace, SarrapipeError, SourceGone, StorageError, TransferError
from sarrapipe.segment.sink import storage_error
from sarrapipe.transfer.remotecall import Attributes, CallDone, Operation, RemoteCall, RemoteEntry
from sarrapipe.transfer.writing import RangeWrite, WriteDone

__all__ = ["OPERATIONS", "LocalWrite", "call"]

_PIECE_BYTES: Final = 256 << 10
_MODE: Final = 0o644
_NO_KERNEL_COPY: Final = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF})


class LocalWrite:
    """One range on its way into a file.

    Args:
        write: What to write.
        path: Where to.

    Attributes:
        sent: Bytes written so far.
        waits: The source had nothing when it was asked last.

    Raises:
        TransferError: The file cannot be opened.
    """

    __slots__ = ("_fd", "_in_kernel", "sent", "waits", "write")

    def __init__(self, write: RangeWrite, path: str) -> None:
        self.write = write
        self.sent = 0
        self.waits = False
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_TRUNC if write.whole else 0)
        try:
            self._fd = os.open(path, flags, _MODE if write.mode is None else write.mode)
        except OSError as error:
            raise _translated(error, f"write {path}") from error
        self._in_kernel = write.source.fileno() >= 0

    def slice(self, budget: int) -> int:
        """Write up to `budget` bytes; return how many.

        Raises:
            SarrapipeError: Of the source, or of the file system.
        """
        count = min(budget, self.write.length - self.sent)
        moved = 0
        self.waits = False
        while moved < count and not self.waits:
            step = self._kernel_step(count - moved) if self._in_kernel else self._step(count - moved)
            moved += step
            self.sent += step
        return moved

    @property
    def ended(self) -> bool:
        """Whether all of it is written."""
        return self.sent >= self.write.length

    def _kernel_step(self, count: int) -> int:
        source = self.write.source
        try:
            at = self.write.offset + self.sent
            done = os.copy_file_range(source.fileno(), self._fd, count, source.position(), at)
        except OSError as error:
            if error.errno in _NO_KERNEL_COPY:
                self._in_kernel = False
                return 0
            raise _translated(error, f"write {self.write.url}") from error
        if not done:
            raise TransferError(f"the source ended after {self.sent} bytes: {self.write.url}")
        source.advance(done)
        return done

    def _step(self, count: int) -> int:
        data = self.write.source.read(min(count, _PIECE_BYTES))
        if data is None:
            self.waits = True
            return 0
        if not data:
            raise TransferError(f"the source ended after {self.sent} bytes: {self.write.url}")
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(self._fd, data[done:], self.write.offset + self.sent + done)
        except OSError as error:
            raise _translated(error, f"write {self.write.url}") from error
        return done

    def done(self, error: SarrapipeError | None) -> WriteDone:
        """Close the file and say how it went."""
        self.close()
        return WriteDone(write=self.write, sent=self.sent, error=error)

    def close(self) -> None:
        """Close the file; what is written stays. May be repeated."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def call(request: RemoteCall, path: str) -> CallDone:
    """Carry out an operation on a local name.

    Args:
        request: The operation.
        path: The name its URL names.
    """
    try:
        entries = OPERATIONS[request.operation](path, request)
    except SarrapipeError as error:
        return CallDone(call=request, error=error)
    except OSError as error:
        what = f"{request.operation.value} {path}"
        return CallDone(call=request, error=_translated(error, what))
    return CallDone(call=request, entries=entries)


def _translated(error: OSError, what: str) -> SarrapipeError:
    """Return what the other side of a transfer says, where that side is a file system."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return SourceGone(f"{what}: {error.strerror}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AccessDenied(f"{what}: {error.strerror}")
    translated = storage_error(error, what)
    if isinstance(translated, NoSpace) or type(translated) is not StorageError:
        return translated
    return TransferError(f"{what}: {error.strerror}")


def _make_directory(path: str, request: RemoteCall) -> Sequence[RemoteEntry]:
    mode = request.attributes.mode if request.attributes is not None else None
    os.makedirs(path, exist_ok=True)
    if mode is not None:
        os.chmod(path, mode)
    return ()


def _remove(path: str, _request: RemoteCall) -> Sequence[RemoteEntry]:
    with suppress(FileNotFoundError):
        os.unlink(path)
    return ()


def _remove_directory(path: str, _request: RemoteCall) -> Sequence[RemoteEntry]:
    with suppress(FileNotFoundError):
        os.rmdir(path)
    return ()


def _rename(path: str, request: RemoteCall) -> Sequence[RemoteEntry]:
    os.rename(path, request.to)
    return ()


def _link(path: str, request: RemoteCall) -> Sequence[RemoteEntry]:
    beside = f"{path}.{os.getpid()}"
    os.symlink(request.to, beside)
    os.rename(beside, path)
    return ()


def _set(path: str, request: RemoteCall) -> Sequence[RemoteEntry]:
    wanted = request.attributes or Attributes()
    if wanted.size is not None:
        os.truncate(path, wanted.size)
    if wanted.mode is not None:
        os.chmod(path, wanted.mode)
    if wanted.mtime_ns is not None:
        atime_ns = wanted.mtime_ns if wanted.atime_ns is None else wanted.atime_ns
        os.utime(path, ns=(atime_ns, wanted.mtime_ns))
    return ()


def _stat(path: str, _request: RemoteCall) -> Sequence[RemoteEntry]:
    found = os.lstat(path)
    target = os.readlink(path) if stat.S_ISLNK(found.st_mode) else ""
    return (_entry(path.rpartition("/")[2], found, target),)


def _list(path: str, _request: RemoteCall) -> Sequence[RemoteEntry]:
    entries = []
    with os.scandir(path) as found:
        for one in found:
            with suppress(FileNotFoundError):  # gone since it was listed
                target = os.readlink(one.path) if one.is_symlink() else ""
                entries.append(_entry(one.name, one.stat(follow_symlinks=False), target))
    return entries


def _entry(name: str, found: os.stat_result, link_target: str) -> RemoteEntry:
    return RemoteEntry(
        name=name,
        attributes=Attributes(
            size=found.st_size,
            mode=stat.S_IMODE(found.st_mode),
            mtime_ns=found.st_mtime_ns,
            atime_ns=found.st_atime_ns,
        ),
        is_directory=stat.S_ISDIR(found.st_mode),
        is_link=stat.S_ISLNK(found.st_mode),
        link_target=link_target,
    )


OPERATIONS: Final[Mapping[Operation, Callable[[str, RemoteCall], Sequence[RemoteEntry]]]] = MappingProxyType(
    {
        Operation.MAKE_DIRECTORY: _make_directory,
        Operation.REMOVE: _remove,
        Operation.REMOVE_DIRECTORY: _remove_directory,
        Operation.RENAME: _rename,
        Operation.LINK: _link,
        Operation.SET: _set,
        Operation.STAT: _stat,
        Operation.LIST: _list,
    }
)
"""What is done for each operation."""

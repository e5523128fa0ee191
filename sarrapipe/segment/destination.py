"""A directory that files are delivered into, and nothing outside of it.

Every path that came in a message is opened component by component from the root's descriptor, by the kernel
(`openat2` with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS): a symbolic link planted in the tree, whenever it was
planted, leads to `UnsafePath` and not outside. The root itself is the administrator's and may be reached by
links.

No descriptors of parent directories are kept: a directory that was renamed meanwhile would go on receiving
files under its new name. Opening one costs 3 µs of the 45 that a small file takes
(docs/explanation/pipeline.md).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sarrapipe import native
from sarrapipe.errors import StorageError, UnsafePath
from sarrapipe.segment.place import HIDDEN_DIRECTORY, InflightKind, InflightPlace
from sarrapipe.segment.sink import storage_error

__all__ = ["Destination", "check_relative"]

_DIRECTORY = os.O_PATH | os.O_DIRECTORY
_PLACES = 4096
"""Directories whose file system is remembered; beyond that all are forgotten and looked up again."""


def check_relative(path: str) -> None:
    """Refuse a path that is not plainly below a root.

    Raises:
        UnsafePath: It is empty, absolute, has `.`, `..` or empty components, or contains NUL.
    """
    if not path or "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise UnsafePath(f"no path below a destination: {path[:200]!r}")


class Destination:
    """One root directory.

    Args:
        root: Absolute path; made if it is not there.
        place: How files under way are named.
        owner: Name of the flow (and host, where several share the tree): its files under way lie apart, so
            that what others have under way is never taken for litter.
        dir_mode: Permission bits, less the umask, of directories made here (option `permDirDefault`).
        mark: Follows the generation in the mark of a finished file: files of flows that share a tree are told
            apart by it.
    """

    def __init__(
        self,
        root: str,
        place: InflightPlace | None = None,
        owner: str = "flow",
        dir_mode: int = 0o775,
        mark: bytes = b"",
    ) -> None:
        self.root = root.rstrip("/") or "/"
        self.place = place or InflightPlace()
        self.mark = mark
        self._owner = owner.replace("/", "_")
        self._dir_mode = dir_mode
        self._root_fd = -1
        self._device = 0
        self._hidden: dict[int, int] = {}
        self._places: dict[str, int] = {}

    def open(self) -> Destination:
        """Make and open the root.

        Raises:
            StorageError: It cannot be made or is no directory.
        """
        try:
            os.makedirs(self.root, self._dir_mode, exist_ok=True)
            self._root_fd = os.open(self.root, _DIRECTORY | os.O_CLOEXEC)
            self._device = os.fstat(self._root_fd).st_dev
        except OSError as error:
            raise storage_error(error, f"open directory {self.root}") from error
        return self

    def close(self) -> None:
        """Free the descriptors. May be repeated."""
        for fd in self._hidden.values():
            os.close(fd)
        self._hidden.clear()
        self._places.clear()
        if self._root_fd >= 0:
            os.close(self._root_fd)
            self._root_fd = -1

    @contextmanager
    def parent(self, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """Give the descriptor of a path's directory, and its last component.

        They are for the `dir_fd` functions of `os`.

        Args:
            path: Relative to the root.
            make: Make directories that are missing.

        Raises:
            UnsafePath: The path leads outside, or through a symbolic link.
            StorageError: What an `OSError` in here or in the body of the `with` comes to, naming the path.
        """
        check_relative(path)
        try:
            fd = self.open_parent(path, make=make)
            try:
                yield fd, path.rpartition("/")[2]
            finally:
                os.close(fd)
        except OSError as error:
            raise storage_error(error, f"{self.root}/{path}") from error

    def open_parent(self, path: str, *, make: bool = False) -> int:
        """Descriptor of a path's directory, for the caller to close; `parent` does that by itself.

        Args:
            path: Relative to the root, checked by `check_relative` before.
            make: Make directories that are missing.

        Raises:
            OSError: As the file system said it; ELOOP or EXDEV where the path would lead outside.
        """
        return self._open_directory(path.rpartition("/")[0], make=make)

    def stat(self, path: str) -> os.stat_result | None:
        """What is in place now, links not followed; None if there is nothing.

        Raises:
            UnsafePath: The path leads outside, or through a symbolic link.
            StorageError: The file system refused.
        """
        check_relative(path)
        try:
            fd = self.open_parent(path)
            try:
                return os.stat(path.rpartition("/")[2], dir_fd=fd, follow_symlinks=False)
            finally:
                os.close(fd)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise storage_error(error, f"look at {self.root}/{path}") from error

    @contextmanager
    def inflight(self, path: str, nonce: str) -> Iterator[tuple[int, str]]:
        """Give the directory and name of a target's file under way; missing directories are made.

        Raises:
            UnsafePath: The path leads outside, or through a symbolic link.
            StorageError: What an `OSError` in here or in the body of the `with` comes to, naming the path.
        """
        name = self.place.path(path, nonce)
        if self.apart:
            try:
                yield self.hidden_directory(path), name
            except OSError as error:
                raise storage_error(error, f"{self.root}/{path} under way") from error
        else:
            with self.parent(name, make=True) as (fd, last):
                yield fd, last

    @property
    def apart(self) -> bool:
        """Files under way lie in a directory of their own, not in the tree of their targets."""
        return self.place.kind is InflightKind.HIDDEN or self.place.absolute

    def hidden_directory(self, path: str) -> int:
        """Descriptor of the directory for files under way on the file system that a target belongs to.

        Raises:
            UnsafePath: The path leads outside, or through a symbolic link.
            OSError: What the file system said.
        """
        directory = path.rpartition("/")[0]
        fd = self._places.get(directory)
        if fd is None:
            check_relative(path)
            fd = self._find_place(directory)
            if len(self._places) >= _PLACES:
                self._places.clear()
            self._places[directory] = fd
        return fd

    def forget(self, path: str) -> None:
        """Look the file system of a target up again: what was remembered turned out wrong.

        A hidden directory that somebody removed is made again.
        """
        fd = self._places.pop(path.rpartition("/")[0], None)
        if fd is not None and os.fstat(fd).st_nlink == 0:
            for device, known in list(self._hidden.items()):
                if known == fd:
                    del self._hidden[device]
            self._places.clear()
            os.close(fd)

    def sync_directory(self, path: str) -> None:
        """Make the entry of a target in its directory survive power loss.

        Raises:
            StorageError: The file system refused.
        """
        with self.parent(path) as (parent_fd, _):
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent_fd)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def litter(self) -> Iterator[tuple[str, int]]:
        """Names (nonces) in the hidden directory of the root, with the descriptor to unlink them by.

        What of it is not in the ledger was left behind by a process that died before it could record it.
        """
        if self.place.kind is not InflightKind.HIDDEN:
            return
        fd = self._hidden_of(self._device, "")
        listing = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        try:
            for name in os.listdir(listing):
                yield name, fd
        finally:
            os.close(listing)

    def _find_place(self, directory: str) -> int:
        """The hidden directory on the file system of `directory`, made if it is not there yet."""
        if self.place.absolute:
            return self._absolute_directory()
        fd = self._open_directory(directory, make=True)
        try:
            device = os.fstat(fd).st_dev
        finally:
            os.close(fd)
        if device == self._device:
            return self._hidden_of(device, "")
        parts = directory.split("/")
        for count in range(1, len(parts) + 1):
            above = "/".join(parts[:count])
            fd = self._open_directory(above, make=False)
            try:
                found = os.fstat(fd).st_dev == device
            finally:
                os.close(fd)
            if found:
                return self._hidden_of(device, above)
        raise StorageError(f"{self.root}/{directory} moved to another file system just now")

    def _absolute_directory(self) -> int:
        for fd in self._hidden.values():
            return fd
        os.makedirs(self.place.word, self._dir_mode, exist_ok=True)
        fd = os.open(self.place.word, _DIRECTORY | os.O_CLOEXEC)
        self._hidden[os.fstat(fd).st_dev] = fd
        return fd

    def _hidden_of(self, device: int, above: str) -> int:
        fd = self._hidden.get(device)
        if fd is None:
            path = "/".join(part for part in (above, HIDDEN_DIRECTORY, self._owner) if part)
            fd = self._open_directory(path, make=True, mode=0o700)
            self._hidden[device] = fd
        return fd

    def _open_directory(self, path: str, *, make: bool, mode: int | None = None) -> int:
        try:
            return native.open_beneath(self._root_fd, path or ".", _DIRECTORY)
        except FileNotFoundError:
            if not make or not path:
                raise
        above, _, name = path.rpartition("/")
        fd = self._open_directory(above, make=True)
        try:
            _make_directory(fd, name, self._dir_mode if mode is None else mode)
        finally:
            os.close(fd)
        return native.open_beneath(self._root_fd, path, _DIRECTORY)


def _make_directory(parent_fd: int, name: str, mode: int) -> None:
    """Make one directory, with these permission bits less the umask; one that is there stays as it is.

    The bits are given once, by mkdir: to set them afterwards would undo what another instance, which has the
    directory's own announcement, gives it meanwhile.
    """
    with suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=parent_fd)

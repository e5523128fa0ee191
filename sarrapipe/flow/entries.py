"""Links and directories: names without bytes, through the same decisions as files (wire.md 1.4)."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Final

from sarrapipe.config.model import FlowConfig
from sarrapipe.errors import StorageError
from sarrapipe.flow.places import Places
from sarrapipe.flow.task import Placed, Task
from sarrapipe.ledger.admission import Admission, Announcement
from sarrapipe.message import safety
from sarrapipe.message.worklist import WorkItem
from sarrapipe.segment.place import InflightKind

__all__ = ["DirectoryTask", "HardLinkTask", "LinkTask"]

_PERMISSION_BITS: Final = 0o1777


class _EntryTask(Task):
    """A name that is made, not fetched."""

    __slots__ = ("_destination", "_path", "config")

    def __init__(
        self,
        item: WorkItem,
        announcement: Announcement,
        admission: Admission,
        config: FlowConfig,
        places: Places,
    ) -> None:
        super().__init__(item, announcement, admission)
        self.config = config
        self._destination, self._path = places.find(item.target)

    @property
    def _nonce(self) -> str:
        return self.claim.nonce.hex()

    @contextlib.contextmanager
    def _inflight(self) -> Iterator[tuple[int, str]]:
        """Give the directory and the name that the entry has until it is renamed.

        Also with `inflight none`: an entry is never made over what bears its final name.
        """
        if self._destination.place.kind is InflightKind.IN_PLACE:
            with self._destination.parent(self._path, make=True) as (parent, _):
                yield parent, f".sarrapipe.{self._nonce}"
        else:
            with self._destination.inflight(self._path, self._nonce) as (parent, name):
                yield parent, name

    def _remove_inflight(self) -> None:
        with self._inflight() as (parent, name), contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)

    def _rename_inflight(self) -> None:
        with (
            self._inflight() as (inflight_dir, name),
            self._destination.parent(self._path, make=True) as (parent, last),
        ):
            os.rename(name, last, src_dir_fd=inflight_dir, dst_dir_fd=parent)

    def _record_inode(self) -> None:
        with self._inflight() as (parent, name):
            self.inode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_ino

    def discard(self) -> None:
        """Unlink what is inflight."""
        self._remove_inflight()

    def place(self) -> None:
        """Rename the new name over the target."""
        self._rename_inflight()

    def placed(self) -> Placed:
        """Look for our inode under the final and the inflight name."""
        found = self._destination.stat(self._path)
        if found is not None and found.st_ino == self.inode:
            return Placed.DONE
        try:
            with self._inflight() as (parent, name):
                there = os.stat(name, dir_fd=parent, follow_symlinks=False).st_ino
        except StorageError:
            return Placed.GONE
        return Placed.INFLIGHT if there == self.inode else Placed.GONE


class LinkTask(_EntryTask):
    """A symbolic link whose target stays inside the tree."""

    __slots__ = ()

    def begin(self) -> None:
        """Make the link under its inflight name.

        Raises:
            UnsafePath: It would lead out of the tree.
            StorageError: The file system refused.
        """
        operation = self.item.message.file_op
        assert operation is not None
        assert operation.link is not None
        # The filter checked it against the announced path; placement may have put the link elsewhere.
        safety.check_link("fileOp.link", self._path, operation.link)
        self._remove_inflight()
        with self._inflight() as (parent, name):
            os.symlink(operation.link, name, dir_fd=parent)
        self._record_inode()
        self.is_ready = True


class HardLinkTask(_EntryTask):
    """Another name for a file that is in the tree already."""

    __slots__ = ()

    def begin(self) -> None:
        """Link the existing file under the inflight name.

        Raises:
            StorageError: The file is not here (yet): tried again later. Or the file system refused.
        """
        operation = self.item.message.file_op
        assert operation is not None
        assert operation.hlink is not None
        safety.check_path("fileOp.hlink", operation.hlink)
        existing = self._destination.stat(operation.hlink)
        if existing is None or not stat.S_ISREG(existing.st_mode):
            raise StorageError(f"{self.item.message.rel_path}: {operation.hlink} to link to is not here yet")
        self._remove_inflight()
        with (
            self._destination.parent(operation.hlink) as (source_dir, source),
            self._inflight() as (parent, name),
        ):
            os.link(source, name, src_dir_fd=source_dir, dst_dir_fd=parent, follow_symlinks=False)
        self._record_inode()
        self.is_ready = True


class DirectoryTask(_EntryTask):
    """A directory: made where it will be, since an empty one is never half done."""

    __slots__ = ()

    def begin(self) -> None:
        """Nothing is inflight: committed first, made then."""
        self.is_ready = True

    def place(self) -> None:
        """Make the directory and give it its permissions.

        Raises:
            StorageError: Something else bears that name, or the file system refused.
        """
        message = self.item.message
        mode = message.mode if self.config.perm_copy else None
        with self._destination.parent(self._path, make=True) as (parent, name):
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, self.config.perm_dir_default, dir_fd=parent)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=parent)
            try:
                if mode is not None:
                    os.fchmod(descriptor, mode & _PERMISSION_BITS)
            finally:
                os.close(descriptor)

    def discard(self) -> None:
        """Nothing is inflight."""

    def placed(self) -> Placed:
        """Making it again does no harm."""
        return Placed.INFLIGHT

"""What tasks of regular files have in common: the inflight file, its verification, its way into place."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sarrapipe.crashpoints import passing
from sarrapipe.errors import AlreadyThere, InflightDamaged
from sarrapipe.flow.content import ContentTask, expected_method
from sarrapipe.flow.task import Placed
from sarrapipe.ledger.admission import Admission, Announcement
from sarrapipe.log import get_logger, printable
from sarrapipe.message import identity
from sarrapipe.message.worklist import WorkItem
from sarrapipe.segment import assembly
from sarrapipe.segment.place import InflightKind

if TYPE_CHECKING:
    from sarrapipe.flow.download import Downloads

__all__ = ["FileTask", "expected_method"]

_log = get_logger(__name__)

_FILE_MODE: Final = 0o644


class FileTask(ContentTask):
    """One regular file under way.

    Args:
        item: The item that began it.
        announcement: What the ledger was told.
        admission: What the ledger answered.
        downloads: Fetches ranges for it.

    Attributes:
        file: The inflight file while it is open here.
    """

    __slots__ = ("_destination", "_path", "file", "resumes")

    def __init__(
        self, item: WorkItem, announcement: Announcement, admission: Admission, downloads: Downloads
    ) -> None:
        super().__init__(item, announcement, admission, downloads)
        self._destination, self._path = downloads.places.find(item.target)
        self.file: assembly.InflightFile | None = None
        self.resumes = admission.outcome.name == "TAKEN_OVER"

    @property
    def _is_in_place(self) -> bool:
        """Whether it is written under its final name, over what is there (`inflight none`)."""
        return self._destination.place.kind is InflightKind.IN_PLACE

    def open_file(self) -> assembly.InflightFile:
        """Make the inflight file, or open the one that a former owner of this claim made.

        Raises:
            StorageError: The file system refused.
        """
        if self.file is not None or (self.resumes and self.reopen_file()):
            assert self.file is not None
            return self.file
        file = self.make_file()
        passing("inflight_made")
        self.resumes = True
        self.file = file
        self.inode = file.inode
        return file

    def make_file(self) -> assembly.InflightFile:
        """Make the inflight file.

        Raises:
            StorageError: The file system refused.
        """
        file = assembly.create(self._destination, self._path, self.nonce, self._creation_mode())
        if self.in_segments:
            assembly.mark_under_way(file)
        return file

    def reopen_file(self) -> bool:
        """Open the inflight file that a former owner of this claim made.

        Returns:
            False if it is not there: its maker died before making it, or somebody removed it. Whatever bears
            its name is not it, is removed and counted.

        Raises:
            StorageError: The file system refused.
        """
        file = self._open_again()
        if file is None:
            planted = assembly.discard(self._destination, self._path, self.nonce)
            if planted or self.inode:
                damage = InflightDamaged(f"{self.target}: what was under way was replaced or removed")
                self.downloads.slot.count_error(damage)
                _log.warning("%s; it is fetched anew", printable(str(damage)))
            self.inode = 0
            return False
        self.file = file
        self.inode = file.inode
        return True

    def _open_again(self) -> assembly.InflightFile | None:
        generation = self.claim.generation if self.in_segments else None
        return assembly.reopen(self._destination, self._path, self.nonce, self.inode or None, generation)

    def refuse_if_there(self) -> None:
        """With `overwrite off`, leave a file whose bytes are the announced ones alone.

        Raises:
            AlreadyThere: It is in place.
            StorageError: It cannot be read.
        """
        there = self._destination.stat(self._path)
        message = self.item.message
        method = expected_method(self.item, self.config)
        if there is None or there.st_size != message.size or method is None or message.identity is None:
            return
        with self._destination.parent(self._path) as (parent, name):
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
            with os.fdopen(fd, "rb", buffering=0) as file:
                same = identity.digest_of(file.read, method) == message.identity.value
        if same:
            raise AlreadyThere(f"{message.rel_path}: in place with the announced bytes, overwrite is off")

    def _creation_mode(self) -> int:
        mode = self._final_mode()
        return _FILE_MODE if mode is None else mode

    def finish(self, size: int | None = None, whole: int | None = None) -> None:
        """Give the verified inflight file its times, mode and mark.

        Args:
            size: Cut it to this; None if nothing can be behind what was written.
            whole: Bytes that were written.

        Raises:
            InflightDamaged: It is shorter than what was written.
            StorageError: The file system refused.
        """
        assert self.file is not None
        message = self.item.message
        copies_times = self.config.time_copy
        self.file.finish(
            mtime_ns=message.mtime_ns if copies_times else None,
            atime_ns=message.atime_ns if copies_times else None,
            mode=self._final_mode(),
            generation=self.claim.generation,
            size=size,
            whole=whole,
        )

    def place(self) -> None:
        """Rename the inflight file over the target. May be repeated."""
        if self.config.discard:
            self.discard()
            if self._is_in_place:
                self._unlink_target()
            return
        if self.file is None and not self.reopen_file():
            if self.placed() is Placed.DONE:
                return
            raise InflightDamaged(f"{self.target}: what was under way is gone")
        assert self.file is not None
        assembly.publish(self.file)
        self.file = None

    def _unlink_target(self) -> None:
        with self._destination.parent(self._path) as (parent, name), suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)

    def discard(self) -> None:
        """Close and unlink the inflight file."""
        self.release()
        assembly.discard(self._destination, self._path, self.nonce)

    def release(self) -> None:
        """Close the inflight file and stop its transfers; what is written stays."""
        self.downloads.forget(self)
        if self.file is not None:
            self.file.close()
            self.file = None

    def placed(self) -> Placed:
        """Look for our file under its final and its inflight name.

        Where its announcement shall carry what is computed here, it has to be fetched again: the figures were
        in the process that died.
        """
        announced = self.item.message.identity
        if not self.size_is_binding or (announced is not None and announced.method == "cod"):
            return Placed.GONE
        return self.find_placed()

    def find_placed(self) -> Placed:
        """Look for our file under its final and its inflight name; open it where it is still inflight."""
        if assembly.is_ours(self._destination, self._path, self.inode, self.claim.generation):
            return Placed.DONE
        found = self._open_again()
        if found is None:
            return Placed.GONE
        self.file = found
        if self.size_is_binding and self.announcement.size >= 0:
            found.whole = self.announcement.size
        return Placed.INFLIGHT

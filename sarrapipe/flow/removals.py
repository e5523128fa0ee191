"""Removals and renames: a tombstone first, then the file system, then the announcement.

The ledger decides (`ledger.removal`); a rename that finds its old name unknown or changed becomes the fetch
of its new name. A directory that is not empty is given a few seconds, in which other instances remove what is
in it; then it stays, since it holds something that was not announced as removed.

Source: wire.md 1.4; requirements 2.1 (mirroring a tree); the 2x2 table of accepted old and new names.
"""

from __future__ import annotations

import enum
import errno
import os
from abc import ABC, abstractmethod
from typing import Final

from sarrapipe.config.model import FlowConfig
from sarrapipe.crashpoints import passing
from sarrapipe.errors import SarrapipeError, StorageError
from sarrapipe.flow.filter import OLD_TARGET
from sarrapipe.flow.places import Places
from sarrapipe.flow.task import announce, look_at
from sarrapipe.ledger.completion import Blocker
from sarrapipe.ledger.ledger import Decisions
from sarrapipe.ledger.removal import Removal, Remove, Rename
from sarrapipe.log import get_logger
from sarrapipe.message.worklist import Report, WorkItem
from sarrapipe.segment.inplace import is_being_written

__all__ = ["Acted", "LocalRemoval", "RemovalTask", "is_removal"]

_log = get_logger(__name__)

_NOT_EMPTY: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST})
_OTHER_KIND: Final = frozenset({errno.EISDIR, errno.ENOTDIR, errno.EPERM})


class Acted(enum.Enum):
    """What came of a removal or rename."""

    DONE = "done"
    """Carried out: announce it."""
    NOT_EMPTY = "not empty"
    """A directory still holds something: act again in a while."""
    FETCH = "fetch"
    """The new name is to be fetched like any other file."""
    NOT_MOVED = "not moved"
    """The same, after the ledger was told that nothing was moved."""
    UNDER_WAY = "under way"
    """A server was asked to do it: act again when it has answered."""
    WAIT = "wait"
    """Something else on a name is not settled: ask again."""
    ANSWERED = "answered"
    """Settled before: acknowledge."""
    REJECTED = "rejected"
    """The item's report says why."""


def is_removal(item: WorkItem) -> bool:
    """Return whether an item removes or renames a name that this flow may have."""
    if "fileOp" not in item.message:
        return False
    operation = item.message.file_op
    if operation is None:
        return False
    return operation.remove or bool(operation.rename is not None and item.get(OLD_TARGET))


class RemovalTask(ABC):
    """One removal or rename under way.

    Args:
        item: Its item.
        config: The flow's configuration.

    Attributes:
        error: What a server answered that was asked to carry it out, if not that it did.
        blocker: The dead process whose decision on a name has to be brought to an end first, if there is one.
        act_until_s: Monotonic time at which a directory that is not empty is left alone; 0: not met yet.

    Raises:
        MessageError: The message lacks what the ledger has to know.
    """

    def __init__(self, item: WorkItem, config: FlowConfig) -> None:
        self.item = item
        self.config = config
        self.blocker: Blocker | None = None
        self.act_until_s = 0.0
        self.error: SarrapipeError | None = None
        announcement = announce(item, config, 0)
        self.request: Removal | Rename
        if item.message.file_op is not None and item.message.file_op.remove:
            self.request = Removal(announcement.message_id, item.target, announcement.pub_ns)
        else:
            self.request = Rename(
                announcement.message_id,
                str(item[OLD_TARGET]),
                item.target,
                announcement.pub_ns,
                announcement.mtime_ns,
                announcement.generation,
                announcement.fingerprint,
            )
        self._outcome = Remove.WAIT

    @property
    def targets(self) -> tuple[str, ...]:
        """Absolute paths of the names it changes."""
        if isinstance(self.request, Removal):
            return (self.request.path,)
        return (self.request.old, self.request.new)

    @property
    def items(self) -> list[WorkItem]:
        """Every item this answers."""
        return [self.item]

    def decide(self, decide: Decisions) -> None:
        """Ask the ledger, inside the turn's transaction."""
        if isinstance(self.request, Removal):
            begun = decide.begin_removal(self.request)
        else:
            begun = decide.begin_rename(self.request)
        self._outcome = begun.outcome
        self.blocker = begun.blocker if begun.blocker is not None and begun.blocker.dead else None

    def undo(self, decide: Decisions) -> None:
        """Release the names, inside a transaction: it was not carried out, and will be decided anew.

        Tombstones stay: what was announced before the removal must not come back meanwhile.
        """
        if isinstance(self.request, Rename):
            if decide.not_moved(self.request):
                return
            decide.end_adopted(self.request.old, self.request.message_id)
        else:
            decide.end_adopted(self.request.path, self.request.message_id)

    def act(self, *, insist: bool = True) -> Acted:
        """Do as decided. May be repeated.

        Args:
            insist: A directory that is not empty is to be tried again; False leaves it alone.

        Raises:
            StorageError: The file system refused.
            TransferError: The server refused.
            UnsafePath: A name leads out of the directories of this flow.
        """
        outcome = self._outcome
        if outcome in (Remove.WAIT, Remove.RUNNING):
            return Acted.WAIT
        if outcome is Remove.ANSWERED:
            return Acted.ANSWERED
        if outcome is Remove.FETCH:
            return Acted.FETCH
        if outcome is Remove.OVERTAKEN:
            self.item.report = Report(406, "something later happened to this name")
            return Acted.REJECTED
        passing("tombstone")
        if isinstance(self.request, Rename):
            return self._rename(self.request, insist=insist, moves=outcome is Remove.MOVE)
        return self._remove(self.request.path, insist=insist)

    @abstractmethod
    def _rename(self, request: Rename, *, insist: bool, moves: bool) -> Acted:
        """Move the old name to the new one; or remove the old one, where that is what was decided.

        Args:
            request: Both names.
            insist: As of `act`.
            moves: The old name is to be moved.
        """

    @abstractmethod
    def _remove(self, target: str, *, insist: bool) -> Acted:
        """Remove a name; `insist` as of `act`."""

    @property
    def _is_of_directory(self) -> bool:
        operation = self.item.message.file_op
        return operation is not None and operation.directory

    def _is_timed(self, request: Rename) -> bool:
        """Whether the message tells enough of a file to know it again."""
        return bool(request.mtime_ns) and self.item.message.size is not None and self.config.time_copy

    def _not_empty(self, target: str, *, insist: bool) -> Acted:
        if insist:
            return Acted.NOT_EMPTY
        _log.warning("%s is not empty and stays; what is in it was not announced as removed", target)
        return Acted.DONE


class LocalRemoval(RemovalTask):
    """A removal or rename in the directories of this flow.

    Args:
        item: Its item.
        config: The flow's configuration.
        places: Where the flow may act.
    """

    def __init__(self, item: WorkItem, config: FlowConfig, places: Places) -> None:
        super().__init__(item, config)
        self._places = places

    def _rename(self, request: Rename, *, insist: bool, moves: bool) -> Acted:
        if moves and self._move(request):
            return Acted.DONE
        # A directory whose new name is made by its own announcements may be full of what is still to go.
        removed = self._remove(request.old, insist=insist and not moves)
        return Acted.NOT_MOVED if moves else removed

    def _move(self, request: Rename) -> bool:
        """Rename old to new if old is what the message means; return False if it is not.

        Where a process died right after this, and the message has come again, new is it already.
        """
        old_place, old = self._places.find(request.old)
        new_place, new = self._places.find(request.new)
        there = old_place.stat(old)
        if there is None:
            moved = look_at(request.new, self.config)
            if moved is None or not moved.generation or not self._is_timed(request):
                return False
            status = new_place.stat(new)
            return status is not None and self._is_meant(request, status)
        # What is being written in place is no version of anything, and goes on being written.
        if not self._is_meant(request, there) or is_being_written(request.old):
            return False
        with (
            old_place.parent(old) as (old_dir, old_name),
            new_place.parent(new, make=True) as (new_dir, new_name),
        ):
            try:
                os.rename(old_name, new_name, src_dir_fd=old_dir, dst_dir_fd=new_dir)
            except OSError as error:
                if error.errno in _NOT_EMPTY | _OTHER_KIND:
                    return False  # something else, or a directory with its new content, bears the new name
                raise
        return True

    def _is_meant(self, request: Rename, there: os.stat_result) -> bool:
        """Whether what is there may be what the message renames, as far as the message tells."""
        size = self.item.message.size
        if size is not None and there.st_size != size:
            return False
        return not self._is_timed(request) or there.st_mtime_ns == request.mtime_ns

    def _remove(self, target: str, *, insist: bool) -> Acted:
        place, path = self._places.find(target)
        directory = self._is_of_directory
        if place.stat(path) is None:
            return Acted.DONE
        with place.parent(path) as (parent, name):
            try:
                if directory:
                    os.rmdir(name, dir_fd=parent)
                else:
                    os.unlink(name, dir_fd=parent)
            except FileNotFoundError:
                return Acted.DONE
            except OSError as error:
                if directory and error.errno in _NOT_EMPTY:
                    return self._not_empty(target, insist=insist)
                if error.errno in _OTHER_KIND:
                    raise StorageError(
                        f"{target} is not what the message removes: {error.strerror}"
                    ) from error
                raise
        return Acted.DONE

"""Links, directories, removals and renames at the server that files are sent to.

All of them change one name in one request, so nothing is ever half done there. What a protocol cannot do
(HTTP and FTP know no links) is refused by the engine, and rejected.
"""

from __future__ import annotations

from sarrapipe.config.model import FlowConfig
from sarrapipe.errors import SarrapipeError, SourceGone, TransferError, Unsupported
from sarrapipe.flow.removals import Acted, RemovalTask
from sarrapipe.flow.sends import Sends, Then
from sarrapipe.flow.task import Placed, Task
from sarrapipe.ledger.admission import Admission, Announcement
from sarrapipe.ledger.removal import Rename
from sarrapipe.message import safety
from sarrapipe.message.worklist import WorkItem
from sarrapipe.transfer.base import Done
from sarrapipe.transfer.remotecall import Attributes, CallDone, Operation

__all__ = ["FarDirectory", "FarLink", "FarRemoval"]

_SECOND_NS = 1_000_000_000
"""Times at a server are compared in whole seconds: most protocols know no others."""


class _FarEntry(Task):
    """A name that is made by one request, after the commit."""

    __slots__ = ("_config", "_sends")

    def __init__(
        self,
        item: WorkItem,
        announcement: Announcement,
        admission: Admission,
        config: FlowConfig,
        sends: Sends,
    ) -> None:
        super().__init__(item, announcement, admission)
        self._config = config
        self._sends = sends

    @property
    def targets(self) -> tuple[str, ...]:
        """None of this machine."""
        return ()

    def begin(self) -> None:
        """Nothing is inflight: committed first, made then."""
        self.is_ready = True

    def discard(self) -> None:
        """Nothing is inflight."""

    def placed(self) -> Placed:
        """Making it again does no harm."""
        return Placed.INFLIGHT

    def _made(self, done: Done) -> None:
        self._sends.end(self, done.error)


class FarDirectory(_FarEntry):
    """A directory."""

    __slots__ = ()

    def place(self) -> None:
        """Have it made, and given its permissions."""
        self.is_placed = False
        mode = self.item.message.mode if self._config.perm_copy else None
        wanted = None if mode is None else Attributes(mode=mode & 0o1777)
        self._sends.call(Operation.MAKE_DIRECTORY, self.target, self._made, attributes=wanted)


class FarLink(_FarEntry):
    """A symbolic link whose target stays inside the tree."""

    __slots__ = ()

    def begin(self) -> None:
        """Check where it leads.

        Raises:
            UnsafePath: It would lead out of the tree.
        """
        safety.check_link("fileOp.link", self.target.lstrip("/"), self._text)
        self.is_ready = True

    @property
    def _text(self) -> str:
        operation = self.item.message.file_op
        assert operation is not None
        assert operation.link is not None
        return operation.link

    def place(self) -> None:
        """Have it made."""
        self.is_placed = False
        self._sends.in_directory(self.target, self._make)

    def _make(self, error: SarrapipeError | None) -> None:
        if error is not None:
            self._sends.end(self, error)
            return
        self._sends.call(Operation.LINK, self.target, self._made, to=self._text)


class FarRemoval(RemovalTask):
    """A removal or rename at the server.

    `act` asks, and answers UNDER_WAY; when the server has answered it is called again, and tells what came
    of it.

    Args:
        item: Its item.
        config: The flow's configuration.
        sends: Requests to the server.
    """

    def __init__(self, item: WorkItem, config: FlowConfig, sends: Sends) -> None:
        super().__init__(item, config)
        self._sends = sends
        self._acted: Acted | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """None of this machine."""
        return ()

    def _rename(self, request: Rename, *, insist: bool, moves: bool) -> Acted:
        if (acted := self._answer()) is not None:
            return acted
        if not moves:
            return self._remove(request.old, insist=insist)
        if Operation.RENAME not in self._sends.operations or Operation.STAT not in self._sends.operations:
            self._remove_old(request)  # its new name is sent instead
        else:
            self._sends.call(Operation.STAT, request.old, lambda done: self._look_at_old(request, done))
        return Acted.UNDER_WAY

    def _look_at_old(self, request: Rename, done: Done) -> None:
        assert isinstance(done, CallDone)
        if isinstance(done.error, SourceGone):
            # Moved before somebody was killed, perhaps.
            self._sends.call(Operation.STAT, request.new, lambda done: self._look_at_new(request, done))
        elif done.error is not None:
            self._end(Acted.REJECTED, done.error)
        elif self._is_meant(request, done.entries[0].attributes):
            self._sends.in_directory(request.new, lambda error: self._move(request, error))
        else:
            self._remove_old(request)

    def _look_at_new(self, request: Rename, done: Done) -> None:
        assert isinstance(done, CallDone)
        moved = done.error is None and self._is_timed(request)
        moved = moved and self._is_meant(request, done.entries[0].attributes)
        self._end(Acted.DONE if moved else Acted.NOT_MOVED)

    def _move(self, request: Rename, error: SarrapipeError | None) -> None:
        if error is not None:
            self._end(Acted.REJECTED, error)
            return
        if self._is_of_directory:
            self._sends.forget_below(request.old)
        self._sends.call(
            Operation.RENAME, request.old, lambda done: self._moved(request, done), to=request.new
        )

    def _moved(self, request: Rename, done: Done) -> None:
        if done.error is None:
            self._end(Acted.DONE)
        elif isinstance(done.error, SourceGone):
            self._sends.forget_directory(request.new)
            self._end(Acted.NOT_MOVED)
        else:  # something else bears the new name: the new one is sent, the old one goes
            self._remove_old(request)

    def _remove_old(self, request: Rename) -> None:
        self._ask_to_remove(request.old, lambda done: self._end(Acted.NOT_MOVED, done.error))

    def _remove(self, target: str, *, insist: bool) -> Acted:
        if (acted := self._answer()) is not None:
            return self._not_empty(target, insist=insist) if acted is Acted.NOT_EMPTY else acted
        self._ask_to_remove(target, self._removed)
        return Acted.UNDER_WAY

    def _ask_to_remove(self, target: str, then: Then) -> None:
        if self._is_of_directory:
            self._sends.forget_below(target)
        operation = Operation.REMOVE_DIRECTORY if self._is_of_directory else Operation.REMOVE
        self._sends.call(operation, target, then)

    def _removed(self, done: Done) -> None:
        # No protocol tells a directory that holds something from one that may not be removed.
        refused = isinstance(done.error, TransferError) and not isinstance(done.error, Unsupported)
        if self._is_of_directory and refused:
            self._end(Acted.NOT_EMPTY)
        else:
            self._end(Acted.DONE, done.error)

    def _end(self, acted: Acted, error: SarrapipeError | None = None) -> None:
        self._acted = acted
        self._sends.end(self, error)

    def _answer(self) -> Acted | None:
        """Return what came of an earlier `act`, once.

        Raises:
            SarrapipeError: The server refused.
        """
        acted, self._acted = self._acted, None
        error, self.error = self.error, None
        if error is not None:
            raise error
        return acted

    def _is_meant(self, request: Rename, found: Attributes) -> bool:
        """Whether what is there may be what the message renames, as far as both tell."""
        size = self.item.message.size
        if size is not None and found.size is not None and found.size != size and not self._is_of_directory:
            return False
        if not self._is_timed(request) or found.mtime_ns is None:
            return True
        return abs(found.mtime_ns - request.mtime_ns) < _SECOND_NS

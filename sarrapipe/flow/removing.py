"""Removals and renames under way in one instance: what each came to, and those to be looked at again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sarrapipe.clock import Clock
from sarrapipe.crashpoints import passing
from sarrapipe.errors import Disposition, SarrapipeError
from sarrapipe.flow.closing import Turn
from sarrapipe.flow.filter import OLD_PATH, OLD_TARGET, removal_of_old_name
from sarrapipe.flow.heirs import Heirs
from sarrapipe.flow.removals import Acted, RemovalTask
from sarrapipe.flow.waiting import Waitlist
from sarrapipe.ledger.ledger import Decisions
from sarrapipe.ledger.removal import Rename
from sarrapipe.log import get_logger
from sarrapipe.message.worklist import Report, WorkItem

__all__ = ["Removing", "become_removal", "fetched_rename"]

_log = get_logger(__name__)

_FULL_DIRECTORY_S: Final = 5.0
"""How long a removed directory may take to become empty: what is in it may be removed by other instances."""
_LOOK_AGAIN_S: Final = 0.2
_RENAME: Final = "_rename"
"""Local field of an item: the rename that became a fetch."""


def fetched_rename(item: WorkItem) -> RemovalTask | None:
    """Return the rename whose new name an item fetches; None for every other item.

    If the new name turns out to hold something newer, the rename is announced all the same: the next hop has
    to let go of the old name.
    """
    removal = item.get(_RENAME)
    return removal if isinstance(removal, RemovalTask) else None


def become_removal(item: WorkItem, report: Report | None) -> bool:
    """Turn a rename whose new name cannot be had into the removal of its old name.

    The old name is gone here, and nothing else would ever tell the next hop so. The ledger decides about it
    like about any removal: with something later on the old name it is overtaken.

    Args:
        item: An item that is rejected.
        report: Why.

    Returns:
        False if it is no such rename: it is left as it is.
    """
    rename = fetched_rename(item)
    operation = item.message.file_op
    if rename is None or not isinstance(rename.request, Rename) or operation is None:
        return False
    why = report.message if report is not None else "rejected"
    _log.warning("%s: %s; the removal of its old name %s is announced", item.target, why, rename.request.old)
    item.message = removal_of_old_name(item.message, operation, str(item[OLD_PATH]))
    item.target = rename.request.old
    item.report = None
    del item[_RENAME]
    return True


class Removing:
    """The removals and renames of one instance that are not announced yet.

    Args:
        heirs: Told of dead processes that hold a name.
        count_error: Told of each error, for the counters.
        clock: Source of time.

    Attributes:
        full: Removed directories that are not empty yet.
    """

    def __init__(self, heirs: Heirs, count_error: Callable[[SarrapipeError], None], clock: Clock) -> None:
        self._heirs = heirs
        self._count_error = count_error
        self._clock = clock
        self.full: Waitlist[RemovalTask] = Waitlist()
        self._failed: list[RemovalTask] = []
        self._not_moved: list[RemovalTask] = []
        self._under_way: list[RemovalTask] = []

    @property
    def held(self) -> int:
        """Items in hand."""
        return len(self.full) + len(self._not_moved) + len(self._under_way)

    @property
    def items(self) -> list[WorkItem]:
        """The items in hand."""
        return [removal.item for removal in (*self.full, *self._not_moved, *self._under_way)]

    @property
    def undecided(self) -> bool:
        """Whether a transaction would bring something on."""
        return bool(self._failed or self._not_moved)

    def is_under_way(self, removal: RemovalTask) -> bool:
        """Return whether a server was asked to carry it out, and nobody gave it up since."""
        return any(removal is one for one in self._under_way)

    def act_on(self, removal: RemovalTask, turn: Turn) -> Acted:
        """Carry out what was decided, as far as it goes.

        Args:
            removal: Decided in this turn, or a directory that was not empty.
            turn: Takes what ended.

        Returns:
            DONE: to be announced, by the caller. UNDER_WAY: to be acted on again when its server has
            answered. WAIT: to be asked again. FETCH: its item is an ordinary
            announcement now. All others are dealt with.
        """
        now_s = self._clock.monotonic_s()
        removal.act_until_s = removal.act_until_s or now_s + _FULL_DIRECTORY_S
        self._under_way = [one for one in self._under_way if one is not removal]
        try:
            acted = removal.act(insist=now_s < removal.act_until_s)
        except SarrapipeError as error:
            self._fail(removal, error, turn)
            return Acted.REJECTED
        item = removal.item
        if acted is Acted.DONE:
            passing("removed")
        elif acted is Acted.ANSWERED:
            turn.answered.append(item)
        elif acted is Acted.REJECTED:
            turn.worklist.rejected.append(item)
        elif acted is Acted.UNDER_WAY:
            self._under_way.append(removal)
        elif acted is Acted.NOT_EMPTY:
            self.full.add(removal, now_s + _LOOK_AGAIN_S)
        elif acted is Acted.WAIT:
            if removal.blocker is not None:
                self._heirs.inherit(removal.blocker)
        else:
            item[OLD_TARGET] = ""  # from here on an ordinary file for its new name
            item[_RENAME] = removal
            if acted is Acted.NOT_MOVED:
                self._not_moved.append(removal)
        return acted

    def _fail(self, removal: RemovalTask, error: SarrapipeError, turn: Turn) -> None:
        """The tombstone stays; the removal is decided and carried out anew when its message comes again."""
        self._count_error(error)
        self._failed.append(removal)
        item = removal.item
        item.report = Report(error.code, str(error))
        retry = error.disposition in (Disposition.RETRY, Disposition.PAUSE)
        (turn.worklist.failed if retry else turn.worklist.rejected).append(item)

    def undo(self, decide: Decisions) -> list[WorkItem]:
        """Release the names of what was not carried out, inside a transaction.

        Returns:
            Items that are to be fetched under their new name.
        """
        for removal in (*self._failed, *self._not_moved):
            removal.undo(decide)
        fetched = [removal.item for removal in self._not_moved]
        self._failed.clear()
        self._not_moved.clear()
        return fetched

    def stop(self) -> list[WorkItem]:
        """Give up what is not carried out; `undo` has to follow.

        Returns:
            The items: their messages go back to where they came from.
        """
        unfinished = self.items
        self._failed += [*self.full.take_all(), *self._not_moved, *self._under_way]
        self._not_moved.clear()
        self._under_way.clear()
        return unfinished

"""The part of the work that is about announced blocks: joining, resting, parking, giving up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sarrapipe.clock import Clock
from sarrapipe.config.model import FlowConfig
from sarrapipe.errors import SarrapipeError
from sarrapipe.flow.blockparts import Ended
from sarrapipe.flow.blocktask import BlockedFile
from sarrapipe.flow.closing import End, Turn
from sarrapipe.flow.heirs import Heirs
from sarrapipe.flow.messageids import message_id
from sarrapipe.flow.places import Places
from sarrapipe.flow.resting import KEEP_AFTER_S, Resting
from sarrapipe.ledger import blocks as ledger_blocks
from sarrapipe.ledger.admission import Admission, Admit, Announcement
from sarrapipe.ledger.completion import Closed
from sarrapipe.ledger.ledger import Decisions, Ledger
from sarrapipe.log import get_logger, printable
from sarrapipe.message.worklist import Report, WorkItem
from sarrapipe.segment import assembly, inplace
from sarrapipe.segment.plan import SegmentPlan

if TYPE_CHECKING:
    from sarrapipe.flow.download import Downloads

__all__ = ["BlockWork"]

_log = get_logger(__name__)


class BlockWork:
    """Blocks in one instance, from their admission to the settling of their files.

    Args:
        config: The flow's configuration.
        ledger: Opened by this process.
        places: Where the flow may write.
        downloads: Fetches them.
        heirs: Clears away what is given up.
        clock: Source of time.
    """

    def __init__(
        self,
        config: FlowConfig,
        ledger: Ledger,
        places: Places,
        downloads: Downloads,
        heirs: Heirs,
        clock: Clock,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._places = places
        self._fetches = downloads.blocks
        self._heirs = heirs
        self._clock = clock
        # Half of what may be held: blocks that wait for others leave room for those others.
        self._resting = Resting(max(config.prefetch, config.batch) // 2)
        self._ask_again: list[WorkItem] = []
        self._forgotten: list[bytes] = []
        # Messages of files that were given up since the last look, and since the one before.
        self._given_up: set[bytes] = set()
        self._given_up_before: set[bytes] = set()
        self._answered: list[WorkItem] = []

    @property
    def items(self) -> list[WorkItem]:
        """Every item in hand here."""
        fetches = self._fetches
        ended = [item for one in fetches.ended for item in one.items]
        waiting = [*fetches.ask_again, *self._resting, *self._ask_again]
        return [*fetches.items, *ended, *waiting, *self._answered]

    @property
    def held(self) -> int:
        """How many there are."""
        return len(self.items)

    @property
    def next_due_s(self) -> float:
        """Monotonic time at which something is to be looked at."""
        return min(self._fetches.next_due_s, self._resting.next_due_s)

    @property
    def undecided(self) -> bool:
        """Whether a transaction would bring something on."""
        fetches = self._fetches
        came = (
            fetches.is_woken
            or fetches.ended
            or fetches.ask_again
            or self._ask_again
            or self._resting.overflows
        )
        return bool(came or self._forgotten or self._answered or fetches.quiet(self._quiet_before_s()))

    @property
    def paused_by(self) -> SarrapipeError | None:
        """Take the error for which no new work should be taken, if there was one."""
        error, self._fetches.paused_by = self._fetches.paused_by, None
        return error

    def _quiet_before_s(self) -> float:
        return self._clock.monotonic_s() - KEEP_AFTER_S

    def join(self, item: WorkItem, announcement: Announcement, admission: Admission) -> bool:
        """Fetch a block of a file under way.

        Returns:
            False if its owner has not made the file yet: to be asked again.
        """
        claim = admission.claim
        assert claim is not None
        if admission.outcome is Admit.FURTHER:
            self._ask_again.append(item)  # recorded: the next answer is that it may be fetched
            return True
        fetch = self._fetches.of(claim)
        if fetch is None:
            try:
                destination, path = self._places.find(item.target)
                nonce, inode = claim.nonce.hex(), admission.inode or None
                file = assembly.reopen(destination, path, nonce, inode, claim.generation)
                file = file or inplace.reopen(destination, path, nonce, inode)
            except SarrapipeError as error:
                _log.warning("cannot join %s: %s", printable(item.target), error)
                return False
            if file is None:
                return False
            size = announcement.size if announcement.size >= 0 else self._size_at_most(announcement)
            fetch = self._fetches.helping(claim, SegmentPlan(size, announcement.segment_size), file)
        self._fetches.add(fetch, item, announcement.message_id)
        return True

    @staticmethod
    def _size_at_most(announcement: Announcement) -> int:
        return announcement.total_segments * announcement.segment_size

    def collect(self, turn: Turn, incoming: list[WorkItem]) -> None:
        """Take what blocks came to since the last turn.

        Args:
            turn: Takes what was rejected, failed, kept or answered.
            incoming: Takes what is to be admitted anew.
        """
        fetches, now_s = self._fetches, self._clock.monotonic_s()
        if fetches.is_woken:
            fetches.is_woken = False
            incoming += self._resting.take_all()
        incoming += self._ask_again
        incoming += fetches.ask_again
        self._ask_again, fetches.ask_again = [], []
        blockers, fetches.blockers = fetches.blockers, []
        for blocker in blockers:
            self._heirs.inherit(blocker)
        ended, fetches.ended = fetches.ended, []
        for one in ended:
            self._dispose(one.items, one.end, one.report, turn, now_s)
        turn.rested += self.still_asked(self._resting.take_long(now_s))
        turn.parts, fetches.arrived = fetches.arrived, []

    def hand_over(self, turn: Turn) -> None:
        """Let what was settled in this turn be forgotten by whoever keeps it."""
        turn.forgotten += self._forgotten
        turn.answered += self._answered
        self._forgotten, self._answered = [], []

    def _dispose(
        self, items: list[WorkItem], end: End | None, report: Report | None, turn: Turn, now_s: float
    ) -> None:
        for item in items:
            if end is None:
                self._resting.add(item, now_s)
                continue
            item.report = report
            (turn.worklist.rejected if end is End.REJECT else turn.worklist.failed).append(item)

    def quiet(self, turn: Turn) -> list[BlockedFile]:
        """Return own files that have nothing to do here, to be parked; their items are disposed of."""
        lost, self._fetches.lost = self._fetches.lost, []
        parked = lost + self._fetches.quiet(self._quiet_before_s())
        for task in parked:
            end = Ended([task.item], End.ANEW) if task in lost else task.part_end
            if end is None or end.end is None:
                turn.rested.append(task.item)
            elif end.end is End.ANEW:
                self._ask_again.append(task.item)
            else:
                self._dispose([task.item], end.end, end.report, turn, 0.0)
        return parked

    def parked(self, decide: Decisions, generation: bytes) -> None:
        """A file is parked: keep no row of which nothing is worth keeping, in the way of better messages."""
        if ledger_blocks.is_untouched(decide.tables, generation):
            self._heirs.inherit_orphan(generation)

    def settled(self, closed: Closed) -> None:
        """The messages of all blocks of a file are answered."""
        self._forgotten += closed.answered
        if closed.answered:
            self._fetches.announce_work()  # blocks that rest with siblings are answered now

    def take_due(self, now_s: float) -> list[WorkItem]:
        """Return resting items to be asked about."""
        return self._resting.take_due(now_s)

    def take_resting(self) -> list[WorkItem]:
        """Return all resting items: something was settled."""
        return self._resting.take_all()

    def stop(self, decide: Decisions) -> list[WorkItem]:
        """Give up what is under way; return the items in hand."""
        items = self._resting.take_all() + self._ask_again + self._answered + self._fetches.stop(decide)
        self._ask_again, self._answered = [], []
        return items

    def look_for_incomplete(self) -> int:
        """Ask sources for blocks that do not come; give up files for which that does not help.

        Returns:
            How many messages were given up.
        """
        self._given_up_before, self._given_up = self._given_up, set()
        before_ns = self._clock.wall_ns() - int(self._config.block_timeout * 1e9)
        with self._ledger.view() as view:
            if not view.incomplete(before_ns):
                return 0
        given_up = 0
        with self._ledger.transaction() as decide:
            for work in decide.incomplete(before_ns):
                name = printable(work.row.target)
                if decide.open_rest(work.claim):
                    _log.warning("%s: %d blocks did not come; asking its sources", name, work.row.missing)
                elif ledger_blocks.is_hopeless(decide.tables, work):
                    answer = decide.give_up(work.claim)
                    if answer is not None:
                        abandoned, messages = answer
                        self._heirs.inherit_abandoned(abandoned)
                        self._forgotten += messages
                        self._given_up.update(messages)
                        given_up += len(messages)
                        _log.error("given up: %s: %d blocks did not come", name, work.row.missing)
        return given_up

    def still_asked(self, items: list[WorkItem]) -> list[WorkItem]:
        """Return items less those that were answered when their file was given up: nothing begins anew."""
        answered = self._given_up | self._given_up_before
        if not answered:
            return items
        asked: list[WorkItem] = []
        for item in items:
            exchange = item.delivery.exchange if item.delivery is not None else ""
            is_answered = message_id(item.message, exchange) in answered
            (self._answered if is_answered else asked).append(item)
        return asked

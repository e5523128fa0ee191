"""Work: from an accepted item to a file in place, with one ledger transaction a turn.

A turn takes what transfers ended, decides about all of it in one transaction (settle, drop, mark, claim,
commit, admit), and then acts on the file system: makes inflight files, renames, unlinks. Decisions first,
acts after: a kill at any instant leaves rows from which another process goes on (docs/explanation/ledger.md).

Nothing here waits for one file: what cannot go on now is asked about again, at once when something in this
process was settled, and every second besides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from sarrapipe.clock import Clock
from sarrapipe.config.model import FlowConfig
from sarrapipe.crashpoints import passing
from sarrapipe.errors import Disposition, InflightDamaged, MessageError, SarrapipeError
from sarrapipe.flow.blocks import announce_block, assembles
from sarrapipe.flow.blockwork import BlockWork
from sarrapipe.flow.closing import OVERTAKEN, Closing, End, Turn, next_step, pause_s, refusal
from sarrapipe.flow.download import IN_ONE_PIECE, Downloads
from sarrapipe.flow.durability import Durability
from sarrapipe.flow.handover import Handover
from sarrapipe.flow.heirs import Heirs
from sarrapipe.flow.names import FarNames, LocalNames
from sarrapipe.flow.places import Places
from sarrapipe.flow.removals import Acted, RemovalTask, is_removal
from sarrapipe.flow.removing import Removing, become_removal, fetched_rename
from sarrapipe.flow.sends import FarName
from sarrapipe.flow.task import Placed, Task, announce, look_again, look_at, raise_pub_time
from sarrapipe.flow.tasks import Tasks
from sarrapipe.flow.waiting import Waitlist
from sarrapipe.ledger.admission import Admission, Admit, Announcement
from sarrapipe.ledger.completion import Commit, Committed, Misplaced
from sarrapipe.ledger.ledger import Decisions, Ledger
from sarrapipe.ledger.records import ASSEMBLING, COMMITTED
from sarrapipe.log import get_logger
from sarrapipe.message.worklist import Report, WorkItem
from sarrapipe.shm.slots import Counter

__all__ = ["Work"]

_log = get_logger(__name__)

_ASK_AGAIN_S: Final = 1.0
"""How often an item that waits for another process is asked about (design of the ledger, step 1)."""


class Work:
    """The tasks of one instance.

    Args:
        config: The flow's configuration.
        ledger: Opened by this process.
        places: Where the flow may write.
        downloads: Fetches files.
        durability: Makes things survive loss of power; None where that is not asked for.
        count_error: Told of each error a task meets, for the counters.
        clock: Source of time.

    Attributes:
        paused_by: The error for which no new work should be taken; whoever resumes clears it.
        paused_at: The path that did not fit.
    """

    def __init__(
        self,
        config: FlowConfig,
        ledger: Ledger,
        places: Places,
        downloads: Downloads,
        durability: Durability | None,
        count_error: Callable[[SarrapipeError], None],
        clock: Clock,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._places = places
        self._downloads = downloads
        self._handover = Handover(durability)
        self._tasks_of = Tasks(config, places, downloads)
        names = LocalNames(places) if downloads.sends is None else FarNames(downloads.sends)
        self._heirs = Heirs(names)
        self._count_error = count_error
        self._clock = clock
        # By generation: admitted and not settled. Their rows in the ledger are owned by this incarnation.
        self._tasks: dict[bytes, Task] = {}
        self._incoming: list[WorkItem] = []
        self._ready: list[Task] = []
        self._closing: list[Closing] = []
        self._gone: list[Task] = []
        self._removing = Removing(self._heirs, count_error, clock)
        # Asked about again at a time, or when something was settled here:
        self._waiting: Waitlist[WorkItem] = Waitlist()
        self._blocked: Waitlist[Task] = Waitlist()
        # At a time only:
        self._pausing: Waitlist[Task] = Waitlist()
        self._starting_anew: Waitlist[WorkItem] = Waitlist()
        # Blocks whose file is not whole yet:
        self._blocks = BlockWork(config, ledger, places, downloads, self._heirs, clock)
        self._stopped = False
        self.paused_by: SarrapipeError | None = None
        self.paused_at = ""

    @property
    def held(self) -> int:
        """Items in hand: under way, waiting for another, or being announced."""
        asking = len(self._incoming) + len(self._waiting) + len(self._starting_anew)
        return len(self._tasks) + asking + self._blocks.held + self._removing.held + self._handover.held

    @property
    def inflight_bytes(self) -> int:
        """Announced bytes of the files under way."""
        return self._downloads.inflight_bytes

    @property
    def streams(self) -> int:
        """Transfers that run."""
        return self._downloads.engine.running

    def held_since(self, before_s: float) -> list[WorkItem]:
        """Return the items in hand since before a monotonic time."""
        held = [item for task in self._tasks.values() for item in task.items]
        held += [removal.item for removal in self._handover.removals]
        held += [*self._removing.items, *self._waiting, *self._starting_anew, *self._blocks.items]
        return [item for item in held if item.since_s < before_s]

    def inherit_orphan(self, generation: bytes) -> None:
        """Drop a row of the ledger that nobody will go on with."""
        self._heirs.inherit_orphan(generation)

    def inherit_removal(self, path: str) -> None:
        """Bring a removal to an end that nobody will go on with."""
        self._heirs.inherit_removal(path)

    def remove_litter(self, before_ns: int) -> int:
        """Remove files under way that the ledger does not know, last changed before a wall time."""
        with self._ledger.view() as view:
            known = {row.nonce.hex() for _, row in view.tables.files()}
        return self._places.remove_litter(known, before_ns)

    def look_for_incomplete(self) -> int:
        """Ask the sources for blocks that do not come, or give their files up.

        Returns:
            How many messages were given up.
        """
        return self._blocks.look_for_incomplete()

    def turn(self, incoming: list[WorkItem], confirmed: list[WorkItem], timeout_s: float) -> Turn:
        """Go on with everything there is.

        Args:
            incoming: Accepted items; they belong to this object now.
            confirmed: Items from an earlier `Turn.worklist.ok` whose announcement the broker has.
            timeout_s: How long to wait for transfers if there is nothing else to do.
        """
        turn = Turn()
        self._incoming += incoming
        self._wake_due(turn)
        self._blocks.collect(turn, self._incoming)
        self.paused_by = self._blocks.paused_by or self.paused_by
        if self._stopped:
            turn.unfinished, self._incoming = self._incoming, []
        ended = turn.rested or turn.forgotten or len(turn.worklist)
        idle = not (confirmed or self._undecided or self._handover.busy or ended)
        verified, broken = self._downloads.poll(self._longest_wait_s(timeout_s) if idle else 0.0)
        self._handover.verified(verified)
        for placed in self._downloads.placed_far():
            self._after_placing(placed, turn)
        ready, unsynced = self._handover.step(turn)
        self._ready += [task for task in ready if task.claim.generation in self._tasks]
        for task in (*broken, *unsynced):
            if task.claim.generation in self._tasks:
                self._fail(task)
        if confirmed or self._undecided or self._downloads.undecided:
            self._decide_and_act(confirmed, turn)
        self._blocks.hand_over(turn)
        self._handover.hand_over(turn)
        return turn

    @property
    def _undecided(self) -> bool:
        """Whether a transaction would bring something on."""
        lists = (self._incoming, self._ready, self._closing, self._gone)
        return any(lists) or self._removing.undecided or self._heirs.undecided or self._blocks.undecided

    def _longest_wait_s(self, timeout_s: float) -> float:
        waitlists = (self._waiting, self._blocked, self._pausing, self._starting_anew, self._removing.full)
        due_s = min(self._blocks.next_due_s, *(waitlist.next_due_s for waitlist in waitlists))
        return max(min(timeout_s, due_s - self._clock.monotonic_s()), 0.0)

    def stop(self) -> list[WorkItem]:
        """Give up what is under way, keeping segments that are written; begin nothing new.

        What was decided goes on: what is placed is announced and settled, what failed is closed.

        Returns:
            Items that were not brought to an end: their messages go back to where they came from.
        """
        self._stopped = True
        unfinished = [*self._incoming, *self._waiting.take_all(), *self._starting_anew.take_all()]
        unfinished += self._removing.stop()
        self._incoming = []
        self._pausing.take_all()
        self._blocked.take_all()
        self._handover.stop()
        self._ready.clear()
        self._gone.clear()
        closing = {one.claim for one in self._closing}
        with self._ledger.transaction() as decide:
            self._removing.undo(decide)
            unfinished += self._blocks.stop(decide)
            for task in list(self._tasks.values()):
                if not self._handover.is_announced(task.item) and task.claim not in closing:
                    unfinished += task.items
                    self._park(decide, task)
        self._downloads.stop()
        return unfinished

    def _park(self, decide: Decisions, task: Task) -> None:
        task.release()
        decide.unclaim(task.claim, task.given_back)
        decide.park(task.claim)
        del self._tasks[task.claim.generation]

    def withdraw(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        """Take back items that were handed on as placed and shall not be announced after all.

        What is in place stays; the ledger forgets that it was under way, so that its message, if it comes
        again, is worked on from the beginning.

        Returns:
            The same items, with the redeliveries of their messages, which share their end.
        """
        placed = [item for item in items if self._handover.is_announced(item)]
        if not placed:
            return list(items)
        redeliveries = []
        with self._ledger.transaction() as decide:
            for item in placed:
                task = self._handover.take_back(item)
                if isinstance(task, RemovalTask):
                    task.undo(decide)
                if not isinstance(task, Task):
                    continue
                decide.drop(task.claim)
                self._tasks.pop(task.claim.generation, None)
                for other in task.attached:
                    other.report = item.report
                redeliveries += task.attached
        self._wake_all()
        return [*items, *redeliveries]

    # ---- one turn

    def _decide_and_act(self, confirmed: list[WorkItem], turn: Turn) -> None:
        ready, self._ready = self._ready, []
        standing = [look_at(task.target, self._config, task.inode) for task in ready]
        if ready:
            passing("verified")
        removals, announced = self._prepare(turn)
        commits = []
        admissions = []
        with self._ledger.transaction() as decide:
            self._settle(decide, confirmed)
            self._close(decide, turn)
            self._restart_gone(decide)
            self._incoming += self._removing.undo(decide)
            self._heirs.decide(decide)
            self._downloads.decide(decide)
            for quiet in self._blocks.quiet(turn):
                self._park(decide, quiet)
                self._blocks.parked(decide, quiet.claim.generation)
            for task, there in zip(ready, standing, strict=True):
                again = partial(look_again, task.target, self._config, task.inode)
                commits.append(decide.commit(task.claim, task.inode, there, again))
            for removal in removals:
                removal.decide(decide)
            for item, announcement in announced:
                admissions.append((item, announcement, decide.admit(announcement)))
        for task, committed in zip(ready, commits, strict=True):
            self._after_commit(task, committed)
        for removal in removals:
            self._act_on(removal, turn)
        for item, announcement, admission in admissions:
            self._after_admission(item, announcement, admission, turn)
        self._heirs.act()
        self._downloads.act()

    def _prepare(self, turn: Turn) -> tuple[list[RemovalTask], list[tuple[WorkItem, Announcement]]]:
        """Work out what to ask the ledger; a message that makes no sense goes no further."""
        incoming, self._incoming = self._blocks.still_asked(self._incoming), []
        removals = []
        announced = []
        for item in incoming:
            try:
                if "fileOp" in item.message and is_removal(item):
                    removals.append(self._tasks_of.removal(item))
                else:
                    announced.append((item, self._announcement(item)))
            except SarrapipeError as error:
                self._count_error(error)
                turn.worklist.reject(item, error.code, str(error))
        return removals, announced

    def _announcement(self, item: WorkItem) -> Announcement:
        if assembles(item.message, self._config):
            return announce_block(item)
        return announce(item, self._config, self._tasks_of.segment_bytes(item))

    # ---- decisions, inside the transaction

    def _settle(self, decide: Decisions, confirmed: list[WorkItem]) -> None:
        for item in confirmed:
            task = self._handover.take_back(item)
            if task is None:  # nothing was put in place for it: a flow that only announces
                self._handover.answered([item])
            elif isinstance(task, RemovalTask):
                decide.settle_removal(task.request)
                self._handover.answered(task.items)
            else:
                self._tasks.pop(task.claim.generation, None)
                closed = decide.settle(task.claim)
                if closed.closed:
                    self._blocks.settled(closed)
                    self._handover.answered(task.items)
                else:
                    # Somebody took us for dead and went on with it: ask what became of it.
                    self._incoming += task.items
        if confirmed:
            self._wake_all()

    def _close(self, decide: Decisions, turn: Turn) -> None:
        closing, self._closing = self._closing, []
        for one in closing:
            if one.end is End.PARK:
                decide.unclaim(one.claim, one.segments)
                decide.park(one.claim)
            else:
                # Further sources that were recorded are woken by this, and begin with their own message.
                decide.drop(one.claim)
            self._tasks.pop(one.claim.generation, None)
            # Redeliveries of the same message share its end.
            for item in one.items:
                item.report = one.report
            if one.end is End.ANEW:
                due_s = self._clock.monotonic_s() + pause_s(one.items[0].attempts)
                for item in one.items:
                    self._starting_anew.add(item, due_s)
            elif one.end is End.REJECT:
                for item in one.items:
                    gone = become_removal(item, one.report)
                    (self._incoming if gone else turn.worklist.rejected).append(item)
            else:
                turn.worklist.failed += one.items
        if closing:
            self._wake_all()

    def _restart_gone(self, decide: Decisions) -> None:
        """Start anew what another flow or a person took away between the commit and the announcement."""
        gone, self._gone = self._gone, []
        for task in gone:
            outcome, claim = decide.misplaced(task.claim)
            if outcome is Misplaced.SUPERSEDED:
                decide.drop(task.claim)  # the messages find out at their admission by what
            elif outcome is Misplaced.RESTART:
                decide.park(claim)  # taken up again through its own admission, with nothing fetched
            self._tasks.pop(task.claim.generation, None)
            self._incoming += task.items

    # ---- acts, after it

    def _after_admission(
        self, item: WorkItem, announcement: Announcement, admission: Admission, turn: Turn
    ) -> None:
        outcome = admission.outcome
        if outcome in (Admit.ADMITTED, Admit.TAKEN_OVER):
            self._take_up(item, announcement, admission)
        elif announcement.total_segments and outcome in (Admit.JOINED, Admit.FURTHER):
            if not self._blocks.join(item, announcement, admission):
                self._wait(item)
        elif outcome is Admit.RUNNING and admission.claim is not None:
            self._attach(item, announcement, admission.claim.generation)
        elif outcome is Admit.ANSWERED:
            self._handover.answered([item])
        elif outcome in (Admit.DUPLICATE, Admit.OVERTAKEN) and (rename := fetched_rename(item)) is not None:
            self._handover.placed(rename)
        elif (report := refusal(item, admission)) is not None:
            if outcome is Admit.CONTRADICTS:
                self._count_error(MessageError(report.message))
            turn.worklist.reject(item, report.code, report.message)
        else:
            if outcome is Admit.FURTHER and admission.claim is not None:
                self._downloads.further_source(admission.claim.generation)
            self._wait(item)

    def _take_up(self, item: WorkItem, announcement: Announcement, admission: Admission) -> None:
        claim = admission.claim
        assert claim is not None
        announcement = self._tasks_of.recut(item, announcement, admission)
        # A row of another cut into segments, or of another place, comes from an earlier configuration.
        foreign = admission.phase == ASSEMBLING and claim.generation != announcement.generation
        if foreign or admission.phase not in (ASSEMBLING, COMMITTED):
            self._start_anew(item, admission)
            return
        try:
            task = self._tasks_of.make(item, announcement, admission)
        except SarrapipeError as error:
            self._count_error(error)
            self._close_unmade(item, admission, error)
            return
        self._tasks[claim.generation] = task
        passing("admitted")
        if admission.phase == COMMITTED:
            self._resume_committed(task, admission.pub_ns)
        else:
            self._begin(task)

    def _start_anew(self, item: WorkItem, admission: Admission) -> None:
        """Clear away what a row stands for that cannot be gone on with, then begin from the admission."""
        assert admission.claim is not None
        self._heirs.discard(admission.target or item.target, admission.claim)
        self._closing.append(Closing(claim=admission.claim, items=[item], end=End.ANEW))

    def _close_unmade(self, item: WorkItem, admission: Admission, error: SarrapipeError) -> None:
        assert admission.claim is not None
        end = next_step(error, self._config.attempts, self._config.attempts, in_segments=False, keeps=False)
        report = Report(error.code, str(error))
        self._closing.append(Closing(claim=admission.claim, items=[item], end=end, report=report))

    def _resume_committed(self, task: Task, pub_ns: int) -> None:
        raise_pub_time(task.item, pub_ns)
        task.is_committed = True
        try:
            placed = task.placed()
        except SarrapipeError as error:
            task.error = error
            self._fail(task)
            return
        if placed is Placed.DONE:
            self._handover.placed(task)
        elif placed is Placed.INFLIGHT:
            self._place(task)
        else:
            self._gone.append(task)

    def _begin(self, task: Task) -> None:
        task.error = None
        try:
            task.begin()
        except SarrapipeError as error:
            task.error = error
            self._fail(task)
            return
        if task.is_lost:
            self._gone.append(task)
        elif task.is_ready:
            self._handover.verified([task])

    def _attach(self, item: WorkItem, announcement: Announcement, generation: bytes) -> None:
        task = self._tasks.get(generation)
        if task is None or task.announcement.message_id != announcement.message_id:
            self._wait(item)  # a sibling's, or another message that this task answers only if it succeeds
        elif not any(item is other for other in task.items):
            task.attached.append(item)

    def _after_commit(self, task: Task, committed: Committed) -> None:
        outcome = committed.outcome
        if outcome is Commit.COMMITTED:
            passing("committed")
            raise_pub_time(task.item, committed.pub_ns)
            task.is_committed = True
            self._place(task)
        elif outcome is Commit.DISCARDED:
            self._downloads.slot.add(Counter.FILES_DISCARDED)
            report = Report(OVERTAKEN, "a newer version was applied meanwhile")
            # A rename is asked about again: it is announced although its new name holds something newer.
            end = End.REJECT if fetched_rename(task.item) is None else End.ANEW
            self._discard(task, end, report)
        elif outcome is Commit.WAIT:
            if committed.blocker is not None and committed.blocker.dead:
                self._heirs.inherit(committed.blocker)
            self._blocked.add(task, self._clock.monotonic_s() + _ASK_AGAIN_S)
        else:
            # LOST: the row belongs to somebody else now; what is inflight is theirs as well.
            task.release()
            self._tasks.pop(task.claim.generation, None)
            self._incoming += task.items

    def _place(self, task: Task) -> None:
        try:
            task.place()
        except SarrapipeError as error:
            task.error = error
            self._fail(task)
            return
        if task.is_placed:
            passing("placed")
            self._handover.placed(task)

    def _after_placing(self, task: FarName, turn: Turn) -> None:
        """A server has done what `place` or a removal asked of it, or has not."""
        if isinstance(task, RemovalTask):
            if self._removing.is_under_way(task):
                self._act_on(task, turn)
            return
        assert isinstance(task, Task)
        if task.claim.generation not in self._tasks:
            return  # given up meanwhile
        if task.is_lost:
            self._gone.append(task)
        elif task.error is not None:
            self._fail(task)
        else:
            passing("placed")
            self._handover.placed(task)

    def _discard(self, task: Task, end: End, report: Report) -> None:
        self._clear_away(task)
        self._closing.append(Closing(claim=task.claim, items=task.items, end=end, report=report))

    def _clear_away(self, task: Task) -> None:
        try:
            task.discard()
        except SarrapipeError as error:
            # What cannot be unlinked now is litter that the ledger no longer knows: housekeeping finds it.
            _log.warning("what was under way for %s stays behind for now: %s", task.target, error)

    def _fail(self, task: Task) -> None:
        """Decide what becomes of a task that met an error."""
        error = task.error
        assert error is not None
        self._count_error(error)
        item = task.item
        item.attempts += 1
        if error.disposition is Disposition.PAUSE:
            self.paused_by, self.paused_at = error, task.target
        end = next_step(
            error,
            item.attempts,
            self._config.attempts,
            in_segments=task.in_segments,
            one_piece=task.wants_one_piece,
            keeps=task.keeps_progress and not task.is_committed,
        )
        report = Report(error.code, str(error))
        if isinstance(error, InflightDamaged) and item.attempts < self._config.attempts:
            _log.warning("%s; it is fetched anew", error)
            self._clear_away(task)
            self._gone.append(task)
        elif end is End.AGAIN:
            self._pausing.add(task, self._clock.monotonic_s() + pause_s(item.attempts))
        elif end is End.PARK:
            task.release()
            self._closing.append(
                Closing(claim=task.claim, items=task.items, end=end, report=report, segments=task.given_back)
            )
        else:
            if end is End.ANEW:
                item[IN_ONE_PIECE] = item.get(IN_ONE_PIECE) or task.wants_one_piece
            self._discard(task, end, report)

    def _act_on(self, removal: RemovalTask, turn: Turn) -> None:
        acted = self._removing.act_on(removal, turn)
        if acted is Acted.DONE:
            self._handover.placed(removal)
        elif acted is Acted.WAIT:
            self._wait(removal.item)
        elif acted is Acted.FETCH:
            self._incoming.append(removal.item)

    # ---- waiting

    def _wait(self, item: WorkItem) -> None:
        self._waiting.add(item, self._clock.monotonic_s() + _ASK_AGAIN_S)

    def _wake_due(self, turn: Turn) -> None:
        now_s = self._clock.monotonic_s()
        self._incoming += self._waiting.take_due(now_s)
        self._ready += self._blocked.take_due(now_s)
        self._incoming += self._starting_anew.take_due(now_s)
        self._incoming += self._blocks.take_due(now_s)
        for task in self._pausing.take_due(now_s):
            if task.is_committed:
                self._place(task)
            else:
                self._begin(task)
        for removal in self._removing.full.take_due(now_s):
            self._act_on(removal, turn)

    def _wake_all(self) -> None:
        """Something was settled here: what waited for it may go on."""
        self._incoming += self._waiting.take_all()
        self._incoming += self._blocks.take_resting()
        self._ready += self._blocked.take_all()

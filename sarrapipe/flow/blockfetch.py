"""Files announced in blocks, put together: each block is fetched by whoever holds its message.

`blockparts` says what such a file is in one instance; here it is brought on. A block is one segment of the
ledger: claimed, fetched by one stream with its digest computed beside the writing, marked. Claims and marks
are made in the turn's one transaction. A block that is written leaves here and *rests* until the file is
settled (`resting`); the owner finishes the file when none is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from sarrapipe.clock import Clock
from sarrapipe.crashpoints import passing
from sarrapipe.errors import (
    Disposition,
    IdentityMismatch,
    InflightDamaged,
    SarrapipeError,
    SourceChanged,
)
from sarrapipe.flow.blockkeep import BlockKeep, Compared
from sarrapipe.flow.blockparts import BlockFetch, BlockToken, Digests, Ended, Part
from sarrapipe.flow.blocks import BlockSource, block_source, is_trusted
from sarrapipe.flow.blocksources import elsewhere, learn_version, other_versions
from sarrapipe.flow.closing import End, next_step, pause_s
from sarrapipe.flow.comparer import Comparer, Recheck
from sarrapipe.flow.filetask import expected_method
from sarrapipe.flow.inplacing import may_write, written_ranges
from sarrapipe.flow.movements import Movement
from sarrapipe.flow.sources import is_of_the_source
from sarrapipe.ledger import blocks as ledger_blocks
from sarrapipe.ledger.completion import Blocker
from sarrapipe.ledger.inplace import MayWrite
from sarrapipe.ledger.ledger import Decisions
from sarrapipe.ledger.order import file_is_older
from sarrapipe.ledger.records import ASSEMBLING, Claim, FileRow
from sarrapipe.log import get_logger, printable
from sarrapipe.message import identity
from sarrapipe.message.worklist import Report, WorkItem
from sarrapipe.segment import assembly
from sarrapipe.segment.plan import SegmentPlan
from sarrapipe.shm.slots import Counter
from sarrapipe.transfer.base import RangeDone, RangeRead

if TYPE_CHECKING:
    from sarrapipe.flow.blocktask import BlockedFile
    from sarrapipe.flow.download import Downloads

__all__ = ["BlockFetches"]

_log = get_logger(__name__)

_ASK_AGAIN_S: Final = 1.0
"""How often a block is looked at that another process is fetching."""


class BlockFetches:
    """All files in blocks that this instance has a hand in.

    Args:
        downloads: The transfers of this instance.
        announce_work: Wakes the siblings: a file was completed, or made.
        clock: Source of time.
        comparer: Compares blocks with what is in place.

    Attributes:
        ended: Taken by the work each turn; not those of a task's own item, which the task has.
        arrived: Items whose block was written here; taken likewise.
        ask_again: Items whose file is no longer under this claim; taken likewise.
        is_woken: A sibling has news: what rests is to be asked about; taken likewise.
        lost: Own files whose row is another's now, or given up; taken likewise.
        paused_by: The error for which no new work should be taken; taken likewise.
        blockers: What dead processes had decided about files that are to be written in place; taken likewise.
    """

    def __init__(
        self, downloads: Downloads, announce_work: Callable[[], None], clock: Clock, comparer: Comparer
    ) -> None:
        self._downloads = downloads
        self._keep = BlockKeep(comparer, downloads.slot)
        self.announce_work = announce_work
        self._clock = clock
        self._fetches: dict[bytes, BlockFetch] = {}
        self._marked = False
        self.ended: list[Ended] = []
        self.arrived: list[WorkItem] = []
        self.ask_again: list[WorkItem] = []
        self.lost: list[BlockedFile] = []
        self.paused_by: SarrapipeError | None = None
        self.is_woken = False
        self.blockers: list[Blocker] = []

    # ---- what the work asks

    @property
    def items(self) -> list[WorkItem]:
        """Every item in hand here, but those that the tasks have."""
        return [item for f in self._fetches.values() for part in f.parts.values() for item in f.others(part)]

    @property
    def undecided(self) -> bool:
        """Whether a transaction would bring something on."""
        now = self._clock.monotonic_s()
        return any(self._wants_decision(fetch, now) for fetch in self._fetches.values())

    @property
    def next_due_s(self) -> float:
        """Monotonic time at which the next block is to be looked at."""
        fetches = self._fetches.values()
        waits = [p.look_again_s for f in fetches for p in f.parts.values() if not p.running]
        waits += [f.look_again_s for f in fetches if f.task is not None and not f.parts]
        return min(waits, default=float("inf"))

    def _wants_decision(self, fetch: BlockFetch, now: float) -> bool:
        if fetch.done or fetch.returned:
            return True
        if not fetch.parts:
            return fetch.task is not None and fetch.look_again_s <= now
        if not self._downloads.free_streams:
            return False
        return any(not part.running and part.look_again_s <= now for part in fetch.parts.values())

    def movements(self) -> Iterator[Movement]:
        """Return how far each file is."""
        return (fetch.movement() for fetch in self._fetches.values())

    def quiet(self, before_s: float) -> list[BlockedFile]:
        """Return own files that have nothing to do here since before a monotonic time."""
        return [
            fetch.task
            for fetch in self._fetches.values()
            if fetch.task is not None
            and not fetch.parts
            and not fetch.complete
            and not fetch.done
            and (fetch.quiet_since_s <= before_s or fetch.task.part_end is not None)
        ]

    def of(self, claim: Claim) -> BlockFetch | None:
        """Return the file under a claim, if this process has a hand in it."""
        fetch = self._fetches.get(claim.generation)
        return fetch if fetch is not None and fetch.claim == claim else None

    # ---- files and blocks

    def own(self, task: BlockedFile, plan: SegmentPlan) -> BlockFetch:
        """Take up a file that this process owns now, perhaps one it had a hand in before."""
        assert task.file is not None
        fetch = BlockFetch(task.claim, plan, task.file, task, self._clock.monotonic_s())
        self._succeed(fetch)
        self.announce_work()
        return fetch

    def helping(self, claim: Claim, plan: SegmentPlan, file: assembly.InflightFile) -> BlockFetch:
        """Take up a file that another process owns."""
        fetch = BlockFetch(claim, plan, file, None, self._clock.monotonic_s())
        self._succeed(fetch)
        return fetch

    def _succeed(self, fetch: BlockFetch) -> None:
        """Put a file in the place of what this process had of it before.

        The segments that were claimed then are given back in the next transaction: as this process lives,
        nobody, not even itself, could claim them otherwise.
        """
        former = self._fetches.pop(fetch.claim.generation, None)
        if former is not None:
            numbers = self._let_go(former)
            if former.claim == fetch.claim:
                fetch.returned += numbers
        self._fetches[fetch.claim.generation] = fetch

    def add(self, fetch: BlockFetch, item: WorkItem, message_id: bytes) -> None:
        """Take up a block of a file."""
        part = fetch.parts.get(message_id)
        if part is not None:
            if not any(item is other for other in part.items):
                part.attached.append(item)
            return
        blocks = item.message.blocks
        assert blocks is not None
        fetch.parts[message_id] = Part(blocks.number, block_source(item.message), item, message_id)
        self._downloads.inflight_bytes += blocks.length

    def add_unannounced(self, fetch: BlockFetch, number: int, url: str) -> None:
        """Take up a block whose message did not come, from a source of the whole file."""
        key = b"unannounced %d" % number
        if key not in fetch.parts:
            segment = fetch.plan[number]
            source = BlockSource(
                url=url,
                url_is_escaped=False,
                offset=segment.offset,
                length=segment.length,
                whole_size=fetch.plan.size,
                ranged=True,
            )
            fetch.parts[key] = Part(number, source, None, key)
            self._downloads.inflight_bytes += segment.length

    def remove(self, fetch: BlockFetch) -> list[int]:
        """Let go of a file and stop its transfers.

        Returns:
            Segments that this process had claimed: to be given back.
        """
        if self._fetches.get(fetch.claim.generation) is fetch:
            del self._fetches[fetch.claim.generation]
        return self._let_go(fetch)

    def _let_go(self, fetch: BlockFetch) -> list[int]:
        """Stop what is fetched; its items ask again."""
        numbers = list(fetch.returned)
        for part in list(fetch.parts.values()):
            if part.running and not self._keep.cancel(part):
                self._downloads.cancel(part.token)
            if part.running or part in fetch.claimed:
                numbers.append(part.number)
            self._forget(fetch, part)
            self.ask_again += fetch.others(part)
        numbers += [part.number for part, _ in fetch.done]
        fetch.is_over = True
        fetch.close()
        return numbers

    def _forget(self, fetch: BlockFetch, part: Part) -> None:
        if fetch.parts.pop(part.message_id, None) is not None:
            self._downloads.inflight_bytes -= part.source.length
        fetch.quiet_since_s = self._clock.monotonic_s()

    def stop(self, decide: Decisions) -> list[WorkItem]:
        """Give up everything; segments that are written stay.

        Returns:
            The items in hand.
        """
        for fetch in list(self._fetches.values()):
            decide.unclaim(fetch.claim, self.remove(fetch))
        items, self.ask_again = self.ask_again, []
        items += [item for ended in self.ended for item in ended.items]
        self.ended = []
        return items

    def wake(self) -> None:
        """A sibling completed or made a file: look at everything anew."""
        self.is_woken = True
        for fetch in self._fetches.values():
            fetch.look_again_s = 0.0
            for part in fetch.parts.values():
                part.look_again_s = min(part.look_again_s, self._clock.monotonic_s())

    # ---- the turn

    def received(self, done: RangeDone) -> None:
        """Take the end of one block's transfer."""
        token = done.token
        assert isinstance(token, BlockToken)
        fetch, part = token.fetch, token.part
        part.running = False
        fetch.moved += done.received
        if fetch.is_over:
            return
        try:
            if done.error is not None:
                raise done.error
            self._check(fetch, part, done)
        except SarrapipeError as error:
            fetch.returned.append(part.number)
            self._failed(fetch, part, error)
            return
        passing("segment_written")
        assert part.digests is not None
        fetch.done.append((part, part.digests.own.digest()))

    def recheck(self, job: Recheck) -> None:
        """Have a file that was written in place read once more."""
        self._keep.recheck(job)

    def forget_recheck(self, job: Recheck) -> None:
        """Nobody wants that any more."""
        self._keep.forget(job)

    @property
    def has_compared(self) -> bool:
        """Whether `collect_compared` has something to do."""
        return self._keep.has_completed

    def collect_compared(self) -> None:
        """Take the blocks that are in the inflight file now; fetch those that are not in place."""
        for compared in self._keep.completed():
            self._compared(compared)

    def _compared(self, compared: Compared) -> None:
        fetch, part, digest = compared
        if digest is None:
            self._downloads.start([self._read(fetch, part)])
        else:
            part.running = False
            fetch.done.append((part, digest))

    def _check(self, fetch: BlockFetch, part: Part, done: RangeDone) -> None:
        validator, url = done.validator, part.source.url
        if validator is not None and fetch.validators.setdefault(url, validator) != validator:
            raise SourceChanged(f"{url}: another version answers than for other blocks")
        item, digests = part.item, part.digests
        if item is None or digests is None or digests.announced is None:
            return
        announced = item.message.identity
        blocks = item.message.blocks
        if announced is None or blocks is None or announced.method == "cod":
            return
        value = digests.announced.value()
        if value == announced.value:
            self._downloads.slot.add(Counter.BYTES_VERIFIED, part.source.length)
            return
        what = f"{item.message.rel_path}: block {part.number}: {announced.method} is {value}"
        if is_trusted(blocks) and not self._downloads.config.recompute_checksum:
            raise IdentityMismatch(f"{what}, announced was {announced.value}")
        self._downloads.slot.add(Counter.BLOCKS_UNCONFIRMED)
        if not fetch.warned:
            fetch.warned = True
            _log.warning(
                "%s, announced was another; not believed, as nothing vouches for it", printable(what)
            )

    def _failed(self, fetch: BlockFetch, part: Part, error: SarrapipeError) -> None:
        slot, config = self._downloads.slot, self._downloads.config
        slot.count_error(error)
        slot.add(Counter.SEGMENTS_RETRIED)
        part.attempts += 1
        end = next_step(error, part.attempts, config.attempts, keeps=True)
        if end is End.AGAIN:
            part.look_again_s = self._clock.monotonic_s() + pause_s(part.attempts)
            return
        part.keeps = part.keeps or end is not End.REJECT
        if is_of_the_source(error):
            part.failure = error  # another source is looked for in the next transaction
            part.look_again_s = self._clock.monotonic_s()
        else:
            self._give_up(fetch, part, error)

    def _ask_elsewhere(self, decide: Decisions, fetch: BlockFetch, part: Part) -> bool:
        """Turn to another source of a block; give it up where there is none left."""
        error, part.failure = part.failure, None
        assert error is not None
        other = elsewhere(decide, fetch, part)
        if other is None:
            self._give_up(fetch, part, error)
            return False
        _log.warning("%s; %s is asked for block %d", error, printable(other.url), part.number)
        part.source, part.attempts = other, 0
        return True

    def _give_up(self, fetch: BlockFetch, part: Part, error: SarrapipeError) -> None:
        self._forget(fetch, part)
        end = End.KEEP if part.keeps else End.REJECT
        self._end(fetch, part, end, Report(error.code, str(error)))
        if error.disposition is Disposition.PAUSE:
            self.paused_by = error

    def _end(self, fetch: BlockFetch, part: Part, end: End | None, report: Report | None = None) -> None:
        others = fetch.others(part)
        if others:
            self.ended.append(Ended(others, end, report))
        if fetch.task is not None and end is not None and len(others) < len(part.items):
            fetch.task.part_end = Ended([fetch.task.item], end, report)

    def decide(self, decide: Decisions, free_streams: int) -> None:
        """Mark what was written, give back what failed, claim what is missing."""
        now = self._clock.monotonic_s()
        for fetch in list(self._fetches.values()):
            self._mark(decide, fetch)
            if fetch.returned:
                decide.unclaim(fetch.claim, fetch.returned)
                fetch.returned = []
            if fetch.task is not None and not fetch.parts and fetch.look_again_s <= now:
                self._look_at_own(decide, fetch, now)
            for part in list(fetch.parts.values()):
                if fetch.is_over:
                    break
                if not part.running and part.look_again_s <= now:
                    free_streams -= self._claim(decide, fetch, part, free_streams)

    def _mark(self, decide: Decisions, fetch: BlockFetch) -> None:
        for part, changed in other_versions(decide, fetch):
            fetch.returned.append(part.number)
            self._failed(fetch, part, changed)
        done, fetch.done = fetch.done, []
        if not done:
            return
        marked = decide.mark(fetch.claim, [(part.number, digest) for part, digest in done])
        fetch.missing = marked.missing
        self._marked = True
        slot = self._downloads.slot
        slot.add(Counter.SEGMENTS_OK, len(done))
        if fetch.task is None:
            slot.add(Counter.SEGMENTS_HELPED, len(done))
        for part, _ in done:
            self._written(fetch, part, here=True)
        if marked.complete:
            self._completed(decide, fetch)

    def _look_at_own(self, decide: Decisions, fetch: BlockFetch, now: float) -> None:
        """See whether siblings wrote the last blocks, or whether missing ones are to be asked of sources."""
        fetch.look_again_s = now + _ASK_AGAIN_S
        row = decide.row(fetch.claim)
        if row is None or row.phase != ASSEMBLING:
            self._lose(decide, fetch)
        elif not row.missing:
            self._completed(decide, fetch)
        elif fetch.task is not None and not _is_there(fetch.file):
            damage = InflightDamaged(f"{row.target}: the file under way was replaced or removed")
            self._downloads.broke(fetch.task, damage)
        elif _is_overtaken(decide, row) and fetch.task is not None:
            fetch.task.part_end = Ended([fetch.task.item], End.ANEW)
        elif row.opened and not fetch.asked_sources:
            fetch.asked_sources = True
            fetch.plan = SegmentPlan(row.size, row.segment_size)
            generation = fetch.claim.generation
            urls = ledger_blocks.ranged_sources(decide.tables, generation)
            for number in range(row.segment_count):
                if not ledger_blocks.is_written(decide.tables, generation, number, 1):
                    self.add_unannounced(fetch, number, urls[number % len(urls)])

    def _written(self, fetch: BlockFetch, part: Part, *, here: bool) -> None:
        self._forget(fetch, part)
        if here and part.item is not None:
            self.arrived.append(part.item)
        self._end(fetch, part, None)
        verification = fetch.task.verification if fetch.task is not None else None
        if verification is not None and here:
            segment = fetch.plan[part.number]
            self._downloads.segments.verifier.wrote(verification, segment.offset, segment.length)

    def _completed(self, decide: Decisions, fetch: BlockFetch) -> None:
        if fetch.task is not None:
            row = decide.row(fetch.claim)
            fetch.size = fetch.plan.size if row is None else row.size
            fetch.ranges = written_ranges(decide, fetch)
            fetch.complete = True
        else:
            self.announce_work()  # its owner is waiting for this

    def _lose(self, decide: Decisions, fetch: BlockFetch) -> None:
        decide.unclaim(fetch.claim, self.remove(fetch))
        if fetch.task is not None:
            self.lost.append(fetch.task)

    def _may_write(self, decide: Decisions, fetch: BlockFetch, part: Part) -> bool:
        answer, blocker = may_write(decide, fetch)
        if answer is MayWrite.YES:
            return True
        part.look_again_s = self._clock.monotonic_s() + _ASK_AGAIN_S
        if blocker is not None and blocker.dead:
            self.blockers.append(blocker)
        elif answer is not MayWrite.WAIT and fetch.task is not None:
            fetch.task.displaced()
        elif answer is not MayWrite.WAIT:
            decide.unclaim(fetch.claim, self.remove(fetch))
        return False

    def _claim(self, decide: Decisions, fetch: BlockFetch, part: Part, free_streams: int) -> int:
        """Return how many streams were taken."""
        tables, claim = decide.tables, fetch.claim
        row = decide.row(claim)
        if row is None or row.phase != ASSEMBLING:
            self._lose(decide, fetch)
            return 0
        fetch.missing = row.missing
        if ledger_blocks.is_written(tables, claim.generation, part.number, 1):
            self._written(fetch, part, here=False)
            if not row.missing and fetch.task is not None:
                self._completed(decide, fetch)
            return 0
        if row.size >= 0 and row.size != fetch.plan.size:
            fetch.plan = SegmentPlan(row.size, row.segment_size)
        if part.failure is not None and not self._ask_elsewhere(decide, fetch, part):
            return 0
        if free_streams <= 0 or not self._may_write(decide, fetch, part):
            return 0
        learn_version(decide, fetch, part.source)
        got = decide.claim(claim, 1, first=part.number, count=1, inode=fetch.file.inode)
        if got is None or not got.numbers:
            part.look_again_s = self._clock.monotonic_s() + _ASK_AGAIN_S
            return 0
        part.running = True
        fetch.claimed.append(part)
        return 1

    def act(self) -> None:
        """Start the claimed blocks, and finish what is complete."""
        if self._marked:
            self._marked = False
            passing("segment_marked")
        for fetch in list(self._fetches.values()):
            claimed, fetch.claimed = fetch.claimed, []
            reads = [self._read(fetch, part) for part in claimed if not self._keep.begin(fetch, part)]
            if reads:
                self._downloads.start(reads)
            if fetch.complete and fetch.task is not None and not fetch.running:
                self._fetches.pop(fetch.claim.generation)
                self._let_go(fetch)
                fetch.task.all_written(fetch.size)

    def _read(self, fetch: BlockFetch, part: Part) -> RangeRead:
        source = part.source
        hasher = None
        if part.item is not None and (method := expected_method(part.item, self._downloads.config)):
            hasher = identity.hasher(method)
        part.digests = Digests(hasher)
        offset = part.number * fetch.plan.segment_bytes
        sink = fetch.file.sink(offset, source.length, part.digests)
        part.token = BlockToken(fetch, part, sink)
        return RangeRead(
            url=source.url,
            sink=sink,
            token=part.token,
            offset=source.offset,
            length=source.length,
            whole_size=source.whole_size,
            validator=fetch.validators.get(source.url),
            url_is_escaped=source.url_is_escaped,
            credentials=self._downloads.credentials(source.url),
        )


def _is_there(file: assembly.InflightFile) -> bool:
    """Whether siblings would still find the file: one that was replaced is finished by nobody."""
    try:
        return file.is_there()
    except SarrapipeError:
        return False


def _is_overtaken(decide: Decisions, row: FileRow) -> bool:
    """Whether a newer version is in place already: the missing blocks of this one are of no use."""
    record = decide.tables.get_path(row.target)
    return record is not None and file_is_older(row.mtime_ns, row.pub_ns, record)

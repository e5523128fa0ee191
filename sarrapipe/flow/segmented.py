"""Files of several segments: claimed through the ledger, fetched in parallel by every idle instance.

A `Fetch` is one such file in one instance: the owner's, or that of a sibling which helps. Claims and marks
are collected over a turn and made in its one transaction. The owner finishes the file when nothing is
missing, whoever wrote the last segment.

What goes wrong with one segment is that segment's matter: it is tried again, from another source where there
is one, while the others go on (`sources`). How many streams a remote gets is measured (`remotes`), and a last
segment that straggles is fetched twice (`straggling`).

A file announced with one digest over all of its bytes is hashed by the `Verifier` behind the writes, while
later segments still arrive; segments have their own xxh3_128 digest in the ledger in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import xxhash

from sarrapipe.clock import Clock
from sarrapipe.crashpoints import passing
from sarrapipe.errors import (
    IdentityMismatch,
    InflightDamaged,
    RangeNotHonoured,
    SarrapipeError,
    SourceChanged,
)
from sarrapipe.flow.closing import pause_s
from sarrapipe.flow.fetch import Fetch, Token, changed_version
from sarrapipe.flow.filetask import FileTask, expected_method
from sarrapipe.flow.movements import Movement, in_segments
from sarrapipe.flow.sources import Source, Sources, is_transient
from sarrapipe.flow.straggling import Scratch
from sarrapipe.flow.task import ALONE, Placed
from sarrapipe.flow.verify import Verification, Verifier
from sarrapipe.flow.watch import Watch
from sarrapipe.ledger.admission import Admission, Announcement
from sarrapipe.ledger.ledger import Decisions
from sarrapipe.ledger.records import ASSEMBLING
from sarrapipe.ledger.segments import Work
from sarrapipe.log import get_logger, printable
from sarrapipe.message.worklist import WorkItem
from sarrapipe.segment import assembly
from sarrapipe.segment.damage import check_intact
from sarrapipe.segment.plan import SegmentPlan
from sarrapipe.shm.slots import Counter
from sarrapipe.transfer.base import RangeDone, RangeRead

if TYPE_CHECKING:
    from sarrapipe.flow.download import Downloads

__all__ = ["Fetch", "SegmentedDownload", "Segments"]

_log = get_logger(__name__)

_ASK_AGAIN_S: Final = 1.0
"""How often a file is looked at whose last segments other instances are fetching."""

_HELPED_FILES: Final = 4


class SegmentedDownload(FileTask):
    """The task of a file of several segments: this instance owns it and will finish it."""

    __slots__ = ("_missing", "fetch", "verification")

    def __init__(
        self, item: WorkItem, announcement: Announcement, admission: Admission, downloads: Downloads
    ) -> None:
        super().__init__(item, announcement, admission, downloads)
        self._missing = admission.missing
        self.fetch: Fetch | None = None
        self.verification: Verification | None = None

    def begin(self) -> None:
        """Make or reopen the inflight file and let segments be claimed.

        Raises:
            StorageError: The file cannot be made, or does not fit.
        """
        if not self.config.overwrite:
            self.refuse_if_there()
        announcement = self.announcement
        plan = SegmentPlan(announcement.size, announcement.segment_size)
        fresh = not self.resumes
        if self.file is None and self._missing < len(plan):
            if not self.reopen_file():
                self.is_lost = True  # what the ledger takes for written is not there
                return
            self.downloads.slot.add(Counter.FILES_RESUMED)
        file = self.open_file()
        if fresh:
            file.preallocate(announcement.size)
        self._forget_verification()
        method = expected_method(self.item, self.config)
        if method is not None:
            self.verification = self.downloads.segments.verifier.follow(
                self, file.fd, announcement.size, method
            )
        message = self.item.message
        source = Source(message.url, is_escaped=message.retrieve_path is not None)
        self.fetch = Fetch(self.claim, plan, file, Sources(source), self)
        self.downloads.segments.add(self.fetch)

    @property
    def in_segments(self) -> bool:
        """It is."""
        return True

    @property
    def wants_one_piece(self) -> bool:
        """A server without ranges, or a file of another size where that does not matter."""
        if isinstance(self.error, RangeNotHonoured):
            return True
        return isinstance(self.error, SourceChanged) and not self.size_is_binding

    @property
    def keeps_progress(self) -> bool:
        """Segments that were verified are kept, unless the file as a whole turned out to be wrong."""
        return not isinstance(self.error, IdentityMismatch | SourceChanged | InflightDamaged)

    def check_intact(self, size: int) -> None:
        """Refuse a file that is whole by the ledger and was cut by somebody meanwhile.

        Args:
            size: Of the whole file.

        Raises:
            InflightDamaged: Something is missing.
        """
        assert self.file is not None
        plan = SegmentPlan(size, self.announcement.segment_size)
        check_intact(self.file, plan, lambda: self.downloads.digests(self.claim.generation))

    def placed(self) -> Placed:
        """Look for our file; one that is still inflight has to be whole."""
        found = super().placed()
        if found is Placed.INFLIGHT:
            self.check_intact(self.announcement.size)
        return found

    def hashed(self, value: str | None, error: SarrapipeError | None) -> None:
        """Take the digest over the whole file, or why there is none."""
        self.verification = None
        self.downloads.segments.finish(self, value, error)

    def verified(self, value: str | None) -> None:
        """Take the digest over the whole file and finish.

        Raises:
            IdentityMismatch: It is not the announced one.
            StorageError: The file system refused.
        """
        self.check_intact(self.announcement.size)
        self.check_size(self.announcement.size)
        try:
            self.check_identity(value)
        except IdentityMismatch:
            # Which of several sources is wrong nobody knows: each is tried by itself.
            self.item[ALONE] = True
            raise
        size = self.announcement.size
        self.finish(size if self._is_in_place else None, size)

    def tokens(self) -> Sequence[object]:
        """Return the tokens of its transfers, which end here."""
        fetch, self.fetch = self.fetch, None
        if fetch is None:
            return ()
        self.downloads.segments.remove(fetch)
        self._forget_verification()
        unmarked = [number for number, _ in fetch.done]
        self.given_back = [*fetch.running, *fetch.resting, *fetch.claimed, *fetch.returned, *unmarked]
        return tuple(fetch.transfers)

    def _forget_verification(self) -> None:
        if self.verification is not None:
            self.downloads.segments.verifier.forget(self.verification)
            self.verification = None

    def wants(self, token: object) -> bool:
        """Return whether a read belongs to it."""
        return isinstance(token, Token) and token.fetch.task is self


class Segments:
    """All files of several segments that this instance has a hand in.

    Args:
        verifier: Hashes whole files on its own thread.
        announce_work: Tells the siblings that there are segments to share, or that a file is complete.
        clock: Source of time.
    """

    def __init__(self, verifier: Verifier, announce_work: Callable[[], None], clock: Clock) -> None:
        self.verifier = verifier
        self.announce_work = announce_work
        self.clock = clock
        self._fetches: list[Fetch] = []
        self._may_help = False
        self._marked = False
        self._stopped = False
        self._downloads: Downloads | None = None
        self._watch: Watch | None = None

    def attach(self, downloads: Downloads) -> None:
        """Say whose transfers these are."""
        self._downloads = downloads
        self._watch = Watch(downloads, self._fetches, self.clock, self._read)

    @property
    def watch(self) -> Watch:
        """Looks at the transfers under way."""
        assert self._watch is not None
        return self._watch

    @property
    def downloads(self) -> Downloads:
        """The transfers of this instance."""
        assert self._downloads is not None
        return self._downloads

    @property
    def undecided(self) -> bool:
        """Whether a transaction would bring something: marks to make, or segments to claim."""
        if self._may_help:
            return True
        now = self.clock.monotonic_s()
        return any(fetch.undecided or self._hungry(fetch, now) for fetch in self._fetches)

    def movements(self) -> Iterator[Movement]:
        """Return how far each file is."""
        for fetch in self._fetches:
            source = next(iter(fetch.sources))
            running = [token.sink.written for token in fetch.running.values()]
            yield in_segments(
                fetch.file.target,
                source.url,
                fetch.plan,
                missing=fetch.missing,
                running=running,
                moved=fetch.moved,
            )

    @property
    def busy(self) -> bool:
        """Whether there is something to do without any transfer going on."""
        return self.verifier.has_completed or self.undecided

    def add(self, fetch: Fetch) -> None:
        """Take up a file."""
        self._fetches.append(fetch)
        self.announce_work()

    def remove(self, fetch: Fetch) -> None:
        """Let go of a file."""
        if fetch in self._fetches:
            self._fetches.remove(fetch)

    def stop(self) -> None:
        """Let go of the files of siblings; what was claimed of them becomes free when this process ends."""
        self._stopped = True
        self._may_help = False
        for fetch in [fetch for fetch in self._fetches if fetch.task is None]:
            self.remove(fetch)
            for token in fetch.transfers:
                self.downloads.cancel(token)
            fetch.file.close()

    def further_source(self, generation: bytes) -> None:
        """The ledger knows another source of a file, which may be ours or a sibling's."""
        for fetch in self._fetches:
            fetch.ask_sources = fetch.ask_sources or fetch.claim.generation == generation
        self.announce_work()

    def work_announced(self) -> None:
        """A sibling has segments to share, wrote the last one of a file of ours, or knows another source."""
        self._may_help = not self._stopped
        self.downloads.blocks.wake()
        if self.downloads.sends is not None:
            self.downloads.sends.further_source()
        for fetch in self._fetches:
            fetch.look_again_s = 0.0
            fetch.ask_sources = True

    def received(self, done: RangeDone) -> None:
        """Take the end of one segment's transfer."""
        token = done.token
        assert isinstance(token, Token)
        took_s = self.clock.monotonic_s() - token.began_s
        self.watch.remotes.of(token.source.remote).ended(done, took_s)
        token.fetch.moved += done.received
        error = done.error or changed_version(token.source, done)
        if token.fetch.second.get(token.number) is token:
            self._second_ended(token, done, error)
        elif (
            token.fetch.running.get(token.number) is token
        ):  # else it lost, and ended before it was cancelled
            self._first_ended(token, done, error)

    def collect_verified(self) -> None:
        """Finish the files whose digest has been computed."""
        for verification in self.verifier.completed():
            verification.owner.hashed(verification.value, verification.error)

    def decide(self, decide: Decisions, free_streams: int) -> None:
        """Mark what was written, give back what failed, claim what is missing."""
        for fetch in list(self._fetches):
            free_streams -= self._decide_one(decide, fetch, free_streams)
        if self._may_help:
            self._may_help = False
            if free_streams > 0:
                self._look_for_work(decide)

    def act(self) -> None:
        """Start the claimed segments, and finish what is complete."""
        if self._marked:
            self._marked = False
            passing("segment_marked")
        for fetch in list(self._fetches):
            if fetch.claimed:
                self.downloads.start([self._read(fetch, number) for number in fetch.claimed])
                fetch.claimed = []
            if fetch.error is not None and not fetch.running:
                self._give_up(fetch, fetch.error)
            elif fetch.complete:
                self._complete(fetch)

    # ---- one file

    def _hungry(self, fetch: Fetch, now: float) -> bool:
        if fetch.error is not None or fetch.complete:
            return not fetch.running
        if fetch.ask_sources:
            return True
        return now >= fetch.look_again_s and self._room_for(fetch) > 0

    def _room_for(self, fetch: Fetch) -> int:
        """Return how many more of its segments may be fetched; those that rest will be."""
        room = fetch.sources.room(self.watch.room) - len(fetch.resting)
        return min(room, self.downloads.free_streams)

    def _first_ended(self, token: Token, done: RangeDone, error: SarrapipeError | None) -> None:
        fetch, number = token.fetch, token.number
        del fetch.running[number]
        second = fetch.second.pop(number, None)
        if error is not None and second is not None:
            fetch.running[number] = second  # the second one goes on
            self._blame(fetch, token.source, error)
        elif error is not None:
            self._failed(token, error)
        else:
            if second is not None:
                self.downloads.cancel(second)
            self._written(token, done)

    def _second_ended(self, token: Token, done: RangeDone, error: SarrapipeError | None) -> None:
        fetch, number = token.fetch, token.number
        del fetch.second[number]
        if error is not None:
            self._blame(fetch, token.source, error)
            return
        self.downloads.cancel(fetch.running.pop(number))
        passing("hedge_won")
        self._written(token, done)

    def _written(self, token: Token, done: RangeDone) -> None:
        fetch, number = token.fetch, token.number
        segment = fetch.plan[number]
        if isinstance(token.sink, Scratch):
            try:
                fetch.file.sink(segment.offset, segment.length).write(token.sink.data)
            except SarrapipeError as error:
                self._failed(token, error)
                return
        passing("segment_written")
        hasher = getattr(done.read.sink, "hasher", None)
        assert hasher is not None
        token.source.failures = 0
        if token.source.validator is None:
            token.source.validator = done.validator
        fetch.tries.pop(number, None)
        fetch.pace.took(segment.length, self.clock.monotonic_s() - token.began_s)
        fetch.done.append((number, hasher.digest()))
        if fetch.task is not None and fetch.task.verification is not None:
            self.verifier.wrote(fetch.task.verification, segment.offset, segment.length)

    def _failed(self, token: Token, error: SarrapipeError) -> None:
        """One segment did not arrive: the others go on, and it is tried again."""
        fetch, number = token.fetch, token.number
        tries = fetch.tries[number] = fetch.tries.get(number, 0) + 1
        fetch.avoid[number] = token.source
        now_s = self.clock.monotonic_s()
        if self._blame(fetch, token.source, error):
            fetch.resting[number] = now_s
        elif is_transient(error) and (len(fetch.sources) > 1 or tries < self.downloads.config.attempts):
            fetch.resting[number] = now_s + pause_s(tries)
        else:
            fetch.returned.append(number)
            fetch.error = error
            if fetch.task is not None and is_transient(error):
                # It was tried as often as a file is: the file is not.
                fetch.task.item.attempts = max(fetch.task.item.attempts, self.downloads.config.attempts - 1)
            return
        self.downloads.slot.add(Counter.SEGMENTS_RETRIED)
        self.downloads.slot.count_error(error)

    def _blame(self, fetch: Fetch, source: Source, error: SarrapipeError) -> bool:
        """Hold an error against a source; what still comes from one that is left out comes from others."""
        if not fetch.sources.failed(source, error, self.downloads.config.attempts):
            return not fetch.sources.is_live(source)
        self.downloads.slot.add(Counter.SOURCES_DROPPED)
        _log.warning("%s is left out, another source goes on: %s", printable(source.url), error)
        for token in [token for token in fetch.second.values() if token.source is source]:
            self.downloads.cancel(fetch.second.pop(token.number))
        for token in [token for token in fetch.running.values() if token.source is source]:
            self.downloads.cancel(fetch.running.pop(token.number))
            second = fetch.second.pop(token.number, None)
            if second is not None:
                fetch.running[token.number] = second
            else:
                fetch.resting[token.number] = self.clock.monotonic_s()
                self.downloads.slot.add(Counter.SEGMENTS_RETRIED)
        return True

    def _decide_one(self, decide: Decisions, fetch: Fetch, free_streams: int) -> int:
        """Return how many streams the claimed segments take."""
        slot = self.downloads.slot
        self._pin(decide, fetch)
        if fetch.done:
            marked = decide.mark(fetch.claim, fetch.done)
            self._marked = True
            slot.add(Counter.SEGMENTS_OK, len(fetch.done))
            if fetch.task is None:
                slot.add(Counter.SEGMENTS_HELPED, len(fetch.done))
            fetch.done = []
            fetch.missing = marked.missing
            fetch.complete = marked.complete
            if marked.complete and fetch.task is None:
                self.announce_work()
            if not marked.accepted and not marked.complete and fetch.task is None:
                fetch.complete = True  # the file is no longer ours to help with
        if fetch.returned:
            decide.unclaim(fetch.claim, fetch.returned)
            slot.add(Counter.SEGMENTS_RETRIED, len(fetch.returned))
            fetch.returned = []
        if fetch.error is not None and fetch.resting:
            decide.unclaim(fetch.claim, fetch.resting)
            fetch.resting = {}
        if fetch.complete or fetch.error is not None:
            return 0
        return self._claim(decide, fetch, free_streams)

    def _claim(self, decide: Decisions, fetch: Fetch, free_streams: int) -> int:
        if fetch.ask_sources:
            self._learn(decide, fetch)
        limit = min(self._room_for(fetch), free_streams)
        if limit <= 0:
            return 0
        segments = decide.claim(fetch.claim, limit, inode=fetch.file.inode)
        if segments is None:
            fetch.complete = True  # the owner finds out at its commit whose the file is now
            return 0
        fetch.claimed = segments.numbers
        fetch.exhausted = len(segments.numbers) < limit
        row = segments.row
        fetch.missing = row.missing
        fetch.sources.pinned(row.url, row.etag)
        if row.further != fetch.further:
            fetch.further = row.further
            self._learn(decide, fetch)
        if not segments.numbers:
            fetch.complete = row.missing == 0
            fetch.look_again_s = self.clock.monotonic_s() + _ASK_AGAIN_S
            if fetch.task is None and not fetch.running and not fetch.resting:
                fetch.complete = True  # nothing left to help with
        return len(segments.numbers)

    def _learn(self, decide: Decisions, fetch: Fetch) -> None:
        """Take up sources that the ledger knows, with the versions that siblings pinned."""
        fetch.ask_sources = False
        if fetch.may_mix:
            fetch.sources.learn(decide.whole_sources(fetch.claim), self._may_use)

    def _may_use(self, url: str) -> bool:
        return not url.startswith(("/", "file:")) and self.downloads.gains_by_ranges(url)

    def _pin(self, decide: Decisions, fetch: Fetch) -> None:
        """Tell the siblings which version of each source is fetched, before any segment of it is marked."""
        new = [source for source in fetch.sources if source.validator is not None and not source.is_pinned]
        if not new:
            return
        row = decide.row(fetch.claim)
        if row is None or row.phase != ASSEMBLING:
            return  # somebody else's now, as the next claim or mark will tell
        for source in new:
            assert source.validator is not None
            source.is_pinned = True
            if decide.pin(fetch.claim, source.validator, "" if source.is_escaped else source.url):
                continue
            changed = SourceChanged(f"{source.url}: another version answers than to a sibling")
            fetch.returned += [number for number, _ in fetch.done]
            fetch.done = []
            if not self._blame(fetch, source, changed):
                fetch.error = changed

    def _read(self, fetch: Fetch, number: int) -> RangeRead:
        """Begin to fetch a segment straight into the file."""
        segment = fetch.plan[number]
        sink = fetch.file.sink(segment.offset, segment.length, xxhash.xxh3_128())
        source = fetch.sources.pick(self.watch.room, avoid=fetch.avoid.pop(number, None))
        token = fetch.running[number] = Token(fetch, number, source, sink, self.clock.monotonic_s())
        return self.watch.range_of(token)

    def _give_up(self, fetch: Fetch, error: SarrapipeError) -> None:
        self.remove(fetch)
        if fetch.task is None:
            self.downloads.slot.count_error(error)
            fetch.file.close()
        else:
            self.downloads.broke(fetch.task, error)

    def _complete(self, fetch: Fetch) -> None:
        if fetch.running:
            return
        self.remove(fetch)
        if fetch.task is None:
            fetch.file.close()
            return
        verification = fetch.task.verification
        if verification is None:
            self.finish(fetch.task)
        else:
            self.verifier.wrote_all(verification)

    def finish(
        self, task: SegmentedDownload, value: str | None = None, error: SarrapipeError | None = None
    ) -> None:
        """Let a task finish its file, all of which is written.

        Args:
            task: The owner's.
            value: The digest over the whole file, if one was computed.
            error: Why there is none.
        """
        try:
            if error is not None:
                raise error
            task.verified(value)
        except SarrapipeError as trouble:
            self.downloads.broke(task, trouble)
        else:
            self.downloads.ready(task)

    # ---- files of siblings

    def _look_for_work(self, decide: Decisions) -> None:
        known = {fetch.claim.generation for fetch in self._fetches}
        for work in decide.open_work(_HELPED_FILES):
            if work.claim.generation not in known:
                fetch = self._join(work)
                if fetch is not None:
                    self._fetches.append(fetch)

    def _join(self, work: Work) -> Fetch | None:
        row = work.row
        if not row.inode or row.blocks or not row.url:
            return None  # its owner has not made the file yet: it will announce the work again
        try:
            destination, path = self.downloads.places.find(row.target)
            nonce, generation = work.claim.nonce.hex(), work.claim.generation
            file = assembly.reopen(destination, path, nonce, row.inode, generation)
        except SarrapipeError as error:
            _log.warning("cannot help with %s: %s", row.target, error)
            return None
        if file is None:
            return None
        sources = Sources(Source(row.url, row.etag))
        return Fetch(work.claim, SegmentPlan(row.size, row.segment_size), file, sources, None)

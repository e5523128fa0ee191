"""The ranges of one file that is relayed, as they are fetched: in order, each tried again by itself.

    added ─► [an earlier one failed? then not yet] ─► read into slots ─► arrived
                        ▲                                  │
                        └── what is missing of it, after a pause, from another source where there is one

What came of a range that failed is in slots, or sent already: only the rest is fetched. So no byte of another
version may come behind it. Each source pins its version with its first answer; one that turns out to have
sent two of them spoils what is under way, which the task begins anew.

**Nothing waits for ever.** Later ranges may hold every stream and every slot while they wait for one that
failed. So the first of those that failed is read again with no stream of its own (`RangeRead.rides_along`),
one at a time and before anything else of the file is begun; its slot is there (`segment.staged`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from sarrapipe.errors import IdentityMismatch, SarrapipeError, SourceChanged, TransferError
from sarrapipe.flow.closing import pause_s
from sarrapipe.flow.sends import SendToken
from sarrapipe.flow.sources import Source, Sources, is_transient
from sarrapipe.ledger.ledger import Decisions
from sarrapipe.ledger.records import Claim
from sarrapipe.log import get_logger, printable
from sarrapipe.segment.plan import Segment
from sarrapipe.segment.staged import StagedLine, StagedRange
from sarrapipe.shm.slots import Counter
from sarrapipe.transfer.base import Done, RangeDone, RangeRead

if TYPE_CHECKING:
    from sarrapipe.flow.download import Downloads

__all__ = ["ReadsOwner", "RelayReads"]

_log = get_logger(__name__)

_AHEAD: Final = 2
"""Ranges asked for, for each stream that there may be: none is idle while the next is planned."""


class ReadsOwner(Protocol):
    """The task of a file that is relayed."""

    claim: Claim

    @property
    def in_segments(self) -> bool:
        """Whether the ledger counts what of it is at the server, of which version it has to know."""

    @property
    def may_mix(self) -> bool:
        """Whether ranges may come from further sources."""

    def arrived(self, number: int) -> None:
        """All of a range is in slots, or further on."""

    def trouble(self, error: SarrapipeError) -> None:
        """A range cannot be had."""


class _Range:
    """One range.

    Attributes:
        number: Of its segment.
        segment: Where it lies.
        staged: Its way through slots, once it was begun.
        in_line: Others are read after it.
        source: It came from last.
        tries: How often it failed.
        rested: It may be tried again.
        token: Of its read, while there is one.
    """

    __slots__ = ("in_line", "number", "rested", "segment", "source", "staged", "token", "tries")

    def __init__(self, number: int, segment: Segment, staged: StagedRange | None) -> None:
        self.number = number
        self.segment = segment
        self.staged = staged
        self.in_line = staged is None
        self.source: Source | None = None
        self.tries = 0
        self.rested = False
        self.token: SendToken | None = None


class RelayReads:
    """What is fetched for one file.

    Args:
        owner: Its task.
        downloads: Runs the engine.
        line: Takes the ranges, in order.
        came: To be called when one handed a slot over.
        sources: Where the file is.
        size: Bytes of the whole file.
        asks: The ledger may know further sources, or versions that are pinned.
    """

    def __init__(
        self,
        owner: ReadsOwner,
        downloads: Downloads,
        line: StagedLine,
        came: Callable[[], None],
        sources: Sources,
        size: int,
        *,
        asks: bool,
    ) -> None:
        self._owner = owner
        self._downloads = downloads
        self._line = line
        self._came = came
        self._size = size
        self._added: deque[tuple[int, Segment]] = deque()
        self._running: list[_Range] = []
        self._failed: list[_Range] = []
        self._alone: list[_Range] = []
        self._again: _Range | None = None
        self._closed = False
        self._other: SourceChanged | None = None
        self.sources = sources
        self.ask = asks

    # ---- what is to be fetched

    def add(self, number: int, segment: Segment) -> None:
        """Let a range be fetched behind the others; `begin` has to follow."""
        self._added.append((number, segment))

    def begin(self) -> None:
        """Ask for as many ranges as there may be streams for, and a few more."""
        most = self._downloads.engine.settings.streams * _AHEAD
        reads = []
        while self._added and not self._failed and len(self._running) < most:
            number, segment = self._added.popleft()
            one = _Range(number, segment, None)
            one.staged = self._line.add(segment.length, self._came, self.sources.first.url)
            reads.append(self._read(one))
        if reads:
            self._downloads.start(reads)

    def fetch(self, number: int, segment: Segment, staged: StagedRange) -> None:
        """Fetch a range by itself, into slots that nobody reads in order."""
        one = _Range(number, segment, staged)
        self._alone.append(one)
        self._downloads.start((self._read(one),))

    def forget(self, staged: StagedRange) -> None:
        """Fetch a range no more that was fetched by itself."""
        for one in [one for one in self._running if one.staged is staged]:
            self._running.remove(one)
            if one.token is not None:
                self._downloads.cancel(one.token)
        self._alone = [one for one in self._alone if one.staged is not staged]

    def _read(self, one: _Range) -> RangeRead:
        assert one.staged is not None
        one.source = source = self.sources.pick(lambda _remote: 0, avoid=one.source if one.tries else None)
        one.token = SendToken(partial(self._ended, one))
        self._running.append(one)
        came = one.staged.written
        return RangeRead(
            url=source.url,
            sink=one.staged,
            token=one.token,
            offset=one.segment.offset + came,
            length=one.segment.length - came,
            whole_size=self._size,
            validator=source.validator,
            url_is_escaped=source.is_escaped,
            credentials=self._downloads.credentials(source.url),
            rides_along=self._again is one,
        )

    # ---- how it went

    def _ended(self, one: _Range, done: Done) -> None:
        assert isinstance(done, RangeDone)
        slot = self._downloads.slot
        slot.add(Counter.BYTES_RECEIVED, done.received)
        slot.add(Counter.BYTES_STAGED, done.received)
        if self._closed or one not in self._running:
            return
        self._running.remove(one)
        one.token = None
        assert one.source is not None
        assert one.staged is not None
        if done.received and self._is_spoiled(one.source, done):
            self._spoiled(one.source, done)
            return
        error = done.error
        if error is not None and one.staged.written == one.segment.length and is_transient(error):
            error = None  # it is here, whatever became of the connection then
        if error is not None:
            self._fail(one, one.source, error)
            return
        one.source.failures = 0
        if self._again is one:
            self._again = None
            self._failed.remove(one)
        if one.in_line:
            self._owner.arrived(one.number)
        else:
            self._alone.remove(one)
        if not self._closed:
            self._read_again()
            self.begin()

    @staticmethod
    def _is_spoiled(source: Source, done: RangeDone) -> bool:
        """Take note of the version that bytes came of; return whether others came of another one."""
        if done.validator is None:
            return False
        if source.validator is None:
            source.validator = done.validator
        return source.validator != done.validator

    def _spoiled(self, source: Source, done: RangeDone) -> None:
        """Bytes of two versions are among what was handed on: all of it begins anew."""
        what = f"ranges of {source.url} are of the versions {source.validator} and {done.validator}"
        changed = SourceChanged(what)
        if self._leave_out(source, changed):
            self._owner.trouble(TransferError(f"{what}: another source is asked for all of it"))
        else:
            self._owner.trouble(changed)

    def _leave_out(self, source: Source, error: SarrapipeError) -> bool:
        """Hold an error against a source; return whether it is left out, as another goes on."""
        if not self.sources.failed(source, error, self._downloads.config.attempts):
            return not self.sources.is_live(source)
        self._downloads.slot.add(Counter.SOURCES_DROPPED)
        _log.warning("%s is left out, another source goes on: %s", printable(source.url), error)
        return True

    def _fail(self, one: _Range, source: Source, error: SarrapipeError) -> None:
        one.tries += 1
        left_out = self._leave_out(source, error)
        others = len(self.sources) > 1
        if isinstance(error, IdentityMismatch) or not (
            left_out or (is_transient(error) and (others or one.tries < self._downloads.config.attempts))
        ):
            self._owner.trouble(error)
            return
        self._downloads.slot.add(Counter.SEGMENTS_RETRIED)
        self._downloads.slot.count_error(error)
        if one.in_line and one not in self._failed:
            self._failed.append(one)
        if self._again is one:
            self._again = None
        one.rested = False
        wait_s = 0.0 if left_out else pause_s(one.tries)
        self._downloads.engine.call_later(wait_s, partial(self._rested, one))

    def _rested(self, one: _Range) -> None:
        if self._closed:
            return
        one.rested = True
        if one.in_line:
            self._read_again()
        elif one in self._alone:
            self._downloads.start((self._read(one),))

    def _read_again(self) -> None:
        """Read on with the first of the ranges that failed: all others may be waiting for it."""
        if not self._failed or self._again is not None:
            return
        first = min(self._failed, key=lambda one: one.segment.offset)
        if first.rested:
            self._again = first
            self._downloads.start((self._read(first),))

    # ---- the ledger

    @property
    def generation(self) -> bytes:
        """Of the file."""
        return self._owner.claim.generation

    @property
    def undecided(self) -> bool:
        """Whether the ledger has to be asked, or told, something."""
        return self.ask or (self._owner.in_segments and bool(self._unpinned()))

    def _unpinned(self) -> list[Source]:
        return [source for source in self.sources if source.validator is not None and not source.is_pinned]

    def decide(self, decide: Decisions) -> None:
        """Pin the versions of the sources, before anything of them is marked, and learn of others."""
        row = decide.row(self._owner.claim)
        if row is None:
            self.ask = False
            return  # somebody else's now: the commit finds out
        if self.ask:
            self.ask = False
            self.sources.pinned("" if self.sources.first.is_escaped else row.url, row.etag)
            if self._owner.may_mix:
                self.sources.learn(decide.whole_sources(self._owner.claim), self._may_use)
        if not self._owner.in_segments:
            return
        for source in self._unpinned():
            assert source.validator is not None
            source.is_pinned = True
            url = "" if source.is_escaped else source.url
            if not decide.pin(self._owner.claim, source.validator, url):
                self._other = SourceChanged(f"{source.url}: another version answers than before")

    def act(self) -> None:
        """Tell the task what came of it."""
        other, self._other = self._other, None
        if other is not None:
            self._owner.trouble(other)

    def _may_use(self, url: str) -> bool:
        return not url.startswith(("/", "file:")) and self._downloads.serves_ranges(url)

    # ---- the end

    def tokens(self) -> list[SendToken]:
        """Return those of what is being fetched."""
        return [one.token for one in self._running if one.token is not None]

    def close(self) -> None:
        """Fetch nothing more."""
        self._closed = True
        self._added.clear()
        self._running.clear()
        self._failed.clear()
        self._alone.clear()

"""The segments of one file that is relayed, as they are written: each is mended by itself.

    read of the line, in order ─► one write a segment ─► answered, and all of it arrived ─► sent
             ▲                            │ broke off
             │                   a pause, a look at what is there
             ├── from here on: the rest, out of the slots
             └── before it: fetched once more by itself, the same bytes by their digest

A server that broke off may have lost what it had answered. So nothing is written to it again before its file
was looked at: it has to reach as far as what was answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from sarrapipe.errors import (
    Disposition,
    IdentityMismatch,
    InflightDamaged,
    SarrapipeError,
    SourceGone,
    TransferError,
)
from sarrapipe.flow.closing import pause_s
from sarrapipe.flow.relayreads import RelayReads
from sarrapipe.flow.sends import Sends, SendToken
from sarrapipe.log import get_logger, printable
from sarrapipe.segment.parts import CheckedRange, LinePart, PartedLine
from sarrapipe.segment.plan import Segment
from sarrapipe.segment.staged import StagedRange, Staging
from sarrapipe.shm.slots import Counter
from sarrapipe.transfer.base import Done
from sarrapipe.transfer.remotecall import CallDone, Operation
from sarrapipe.transfer.writing import Source, WriteDone

if TYPE_CHECKING:
    from sarrapipe.flow.download import Downloads

__all__ = ["PartsOwner", "RelayParts"]

_log = get_logger(__name__)

_AHEAD: Final = 2
"""Writes that are begun: the next one's file is open before the last byte of the one before is read."""


class PartsOwner(Protocol):
    """The task of the file."""

    def sent(self, number: int, digest: bytes) -> None:
        """All of a segment was fetched, and is at the server."""

    def trouble(self, error: SarrapipeError) -> None:
        """It cannot go on; `InflightDamaged` where what is at the server is of no use."""


class _Outgoing:
    """One segment.

    Attributes:
        segment: Where it lies.
        part: Its bytes, in the line.
        writes: What is under way of it at the server.
        begun: A write was.
        arrived: All of it came from the source.
        once_more: What was read of the line when a write broke off, fetched again.
    """

    __slots__ = ("arrived", "begun", "once_more", "part", "segment", "writes")

    def __init__(self, segment: Segment, part: LinePart) -> None:
        self.segment = segment
        self.part = part
        self.writes: list[SendToken] = []
        self.begun = False
        self.arrived = False
        self.once_more: StagedRange | None = None

    @property
    def is_sent(self) -> bool:
        """Whether all of it was fetched, and is at the server."""
        return self.begun and self.arrived and not self.writes and self.part.taken == self.part.length


class RelayParts:
    """The segments of one file on their way to the server.

    Args:
        owner: Its task.
        downloads: Runs the engine.
        sends: Requests to the server.
        staging: Slots for what is fetched once more.
        feed: The bytes, in order.
        reads: Fetches them.
        path: Of the file under way, at the server.
        mode: Its permission bits; None: as the server likes.
        end: It reaches so far already.
    """

    def __init__(
        self,
        owner: PartsOwner,
        downloads: Downloads,
        sends: Sends,
        staging: Staging,
        feed: PartedLine,
        reads: RelayReads,
        path: str,
        mode: int | None,
        end: int,
    ) -> None:
        self._owner = owner
        self._downloads = downloads
        self._sends = sends
        self._staging = staging
        self._feed = feed
        self._reads = reads
        self._path = path
        self._mode = mode
        self._end = end
        self._outgoing: dict[int, _Outgoing] = {}
        self._broken: list[_Outgoing] = []
        self._look: SendToken | None = None
        self._tries = 0
        self._closed = False

    def add(self, segment: Segment, part: LinePart) -> None:
        """Take up the next segment; `begin` has to follow."""
        self._outgoing[segment.number] = _Outgoing(segment, part)

    def begin(self) -> None:
        """Begin the writes whose turn it is, or will be next."""
        if self._broken:
            return
        for part in self._feed.next_to_write(_AHEAD):
            one = self._outgoing[part.number]
            if not one.begun:
                self._write_rest(one)

    def turn_of(self, part: LinePart) -> None:
        """There may be something to write of a part of the line."""
        self.begin()
        self._go_on(self._outgoing[part.number])

    def _go_on(self, one: _Outgoing) -> None:
        for token in one.writes:
            self._downloads.engine.go_on(token)

    def arrived(self, number: int) -> bool:
        """All of a segment has come from the source; return whether it is one of these."""
        one = self._outgoing.get(number)
        if one is None:
            return False
        one.arrived = True
        self._look_whether_sent(one)
        return True

    def _write_rest(self, one: _Outgoing) -> None:
        """Write what the line has of a segment, from where it is."""
        one.begun = True
        if one.part.taken < one.part.length:
            self._write(one, one.part, one.part.taken, one.part.length - one.part.taken)

    def _write(self, one: _Outgoing, source: Source, offset: int, length: int) -> SendToken:
        token = self._sends.write(
            self._path,
            source,
            length,
            partial(self._written, one),
            offset=one.segment.offset + offset,
            whole=False,
            mode=self._mode,
            rides_along=True,
        )
        one.writes.append(token)
        return token

    # ---- how it went

    def _written(self, one: _Outgoing, done: Done) -> None:
        assert isinstance(done, WriteDone)
        if self._closed or not any(done.token is token for token in one.writes):
            return
        self._downloads.slot.add(Counter.BYTES_SENT, done.sent)
        one.writes = [token for token in one.writes if token is not done.token]
        if done.error is not None:
            self._broke(one, done.error)
            return
        self._tries = 0
        self._look_whether_sent(one)

    def _look_whether_sent(self, one: _Outgoing) -> None:
        if not one.is_sent or one in self._broken:
            return
        del self._outgoing[one.segment.number]
        self._end = max(self._end, one.segment.end)
        self._forget_once_more(one)
        self._owner.sent(one.segment.number, one.part.digest())

    def _broke(self, one: _Outgoing, error: SarrapipeError) -> None:
        """A write failed: after a pause, only what is missing of this segment is written again."""
        for token in one.writes:
            self._sends.cancel(token)
        one.writes = []
        self._forget_once_more(one)
        begins = not self._broken
        self._broken.append(one)
        if begins:
            self._try_later(error)
        else:
            self._downloads.slot.add(Counter.SEGMENTS_RETRIED)

    def _try_later(self, error: SarrapipeError) -> None:
        self._tries += 1
        if isinstance(error, SourceGone):
            self._sends.forget_directory(self._path)
        if not _is_passing(error) or self._tries >= self._downloads.config.attempts:
            self._owner.trouble(error)
            return
        self._downloads.slot.add(Counter.SEGMENTS_RETRIED)
        self._downloads.slot.count_error(error)
        _log.info("%s: a part of it is sent once more: %s", printable(self._path), printable(str(error)))
        self._downloads.engine.call_later(pause_s(self._tries), self._look_there)

    def _look_there(self) -> None:
        if self._closed:
            return
        if self._end:
            # Reads that wait for what is mended may hold every stream.
            self._look = self._sends.call(Operation.STAT, self._path, self._looked, rides_along=True)
        else:
            self._mend()

    def _looked(self, done: Done) -> None:
        assert isinstance(done, CallDone)
        if self._closed or done.token is not self._look:
            return
        self._look = None
        if done.error is not None and not isinstance(done.error, SourceGone):
            self._try_later(done.error)
            return
        size = 0 if done.error is not None else done.entries[0].attributes.size or 0
        if size < self._end:
            what = f"{self._path} has {size} bytes, {self._end} were written there"
            self._owner.trouble(InflightDamaged(what))
            return
        self._mend()

    def _mend(self) -> None:
        broken, self._broken = self._broken, []
        for one in broken:
            taken = one.part.taken
            if taken:
                self._fetch_once_more(one, taken)
            self._write_rest(one)
        self.begin()

    def _fetch_once_more(self, one: _Outgoing, count: int) -> None:
        """Fetch and write the first bytes of a segment again, which have left the slots."""
        staged = StagedRange(self._staging, count, partial(self._go_on, one), self._path)
        one.once_more = staged
        self._write(one, CheckedRange(staged, one.part.digest(), self._path), 0, count)
        segment = Segment(one.segment.number, one.segment.offset, count)
        self._reads.fetch(segment.number, segment, staged)

    def _forget_once_more(self, one: _Outgoing) -> None:
        staged, one.once_more = one.once_more, None
        if staged is not None:
            self._reads.forget(staged)
            staged.close()

    # ---- the end

    def tokens(self) -> Sequence[SendToken]:
        """Return those of what is under way at the server."""
        look = [] if self._look is None else [self._look]
        return [*look, *(token for one in self._outgoing.values() for token in one.writes)]

    def close(self) -> None:
        """Write nothing more; with no transfer at work."""
        self._closed = True
        for one in self._outgoing.values():
            one.writes = []
            self._forget_once_more(one)
        self._outgoing.clear()
        self._broken.clear()


def _is_passing(error: SarrapipeError) -> bool:
    """Return whether the server may do better in a moment, with what it has."""
    if isinstance(error, SourceGone | IdentityMismatch):
        return False
    return isinstance(error, TransferError) and error.disposition is Disposition.RETRY

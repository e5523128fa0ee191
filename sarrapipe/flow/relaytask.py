"""The task of a file that is relayed: fetched from one server and sent to another at once, with no disk here.

    source ─► ranges, in parallel ─► slots of shared memory ─► in order, hashed ─► beside the target

The rest of its way is that of every file that is sent (`sendtask`): it gets its times, is committed, renamed
into place and announced. What waits between the two servers is bounded by the slots, which all instances of
the flow share (`stagingBytes`): where there is none free, reading pauses, and the source's server waits.

Where the server takes parts of a file, each segment is a write of its own, and the ledger counts those that
were answered (`sentparts`): one that breaks off is mended by itself (`relayparts`), and after a kill, or when
all else failed, the others are sent. No digest can be taken up in its middle, so what is at the server is
then fetched once more, to be hashed only; each segment has to have the digest that it had when it was sent.
Elsewhere all of the file is one write, which begins anew when it breaks off.

A range that fails is tried again by itself in either case (`relayreads`).

A kill at any instant leaves a file under a name with the row's nonce at the server, which whoever takes the
row over goes on with, or writes anew; slots of the dead are given back by the living.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from sarrapipe.errors import (
    IdentityMismatch,
    InflightDamaged,
    MessageError,
    RangeNotHonoured,
    SarrapipeError,
    SourceChanged,
    StorageError,
)
from sarrapipe.flow.content import expected_method
from sarrapipe.flow.relayparts import RelayParts
from sarrapipe.flow.relayreads import RelayReads
from sarrapipe.flow.sends import Sends, SendToken
from sarrapipe.flow.sendtask import SendTask
from sarrapipe.flow.sources import Source, Sources
from sarrapipe.flow.task import ALONE
from sarrapipe.ledger.admission import Admission, Admit, Announcement
from sarrapipe.log import get_logger, printable
from sarrapipe.message import identity
from sarrapipe.message.worklist import WorkItem
from sarrapipe.segment.hashedline import HashedLine
from sarrapipe.segment.parts import LinePart, PartedLine
from sarrapipe.segment.plan import SegmentPlan, segment_size
from sarrapipe.segment.staged import StagedLine
from sarrapipe.shm.slots import Counter

if TYPE_CHECKING:
    from sarrapipe.flow.download import Downloads
    from sarrapipe.flow.staging import StagedWrites

__all__ = ["RelayTask"]

_log = get_logger(__name__)

_MIN_SEGMENTS: Final = 2


_FAST: Final = frozenset({"xxh3_128"})
"""Methods that take less time than handing a slot to another thread and back."""


class _HashedHere:
    """Ranges read in order: every byte passes the hasher, in this thread.

    Args:
        line: The ranges.
        hasher: None for none.
        came: To be called when a range handed a slot over.
    """

    def __init__(self, line: StagedLine, hasher: identity.Hasher | None, came: Callable[[], None]) -> None:
        self._line = line
        self._hasher = hasher
        self.came = came

    def read(self, count: int) -> memoryview | None:
        """Return the next bytes; see `transfer.writing.Source`."""
        piece = self._line.read(count)
        if piece and self._hasher is not None:
            self._hasher.update(piece)
        return piece

    def close(self) -> None:
        """Give back every slot; with no transfer at work."""
        self._line.close()


class RelayTask(SendTask):
    """One regular file on its way from server to server.

    Args:
        item: The item that began it.
        announcement: What the ledger was told.
        admission: What the ledger answered.
        downloads: Runs the engine.
        sends: Requests to the server that it goes to.
        staged: Slots for what is between them.
        in_one_piece: The source serves no ranges.
    """

    __slots__ = (
        "_asks",
        "_end",
        "_feed",
        "_has_progress",
        "_in_one_piece",
        "_next",
        "_outgoing",
        "_reads",
        "_resumed",
        "_sources",
        "_staged",
        "_was_sent",
    )

    def __init__(
        self,
        item: WorkItem,
        announcement: Announcement,
        admission: Admission,
        downloads: Downloads,
        sends: Sends,
        staged: StagedWrites,
        *,
        in_one_piece: bool,
    ) -> None:
        super().__init__(item, announcement, admission, downloads, sends)
        self._staged = staged
        self._in_one_piece = in_one_piece
        self._asks = self.in_segments or admission.outcome is Admit.TAKEN_OVER
        self._sources = Sources(self._own_source())
        self._feed: PartedLine | None = None
        self._reads: RelayReads | None = None
        self._outgoing: RelayParts | None = None
        self._resumed = self._has_progress = False
        self._next = self._end = 0
        self._was_sent: dict[int, bytes] = {}

    def _writes(self) -> Sequence[SendToken]:
        outgoing = () if self._outgoing is None else self._outgoing.tokens()
        return [*super()._writes(), *outgoing]

    def begin(self) -> None:
        """Have the directory made at the server; fetch and send when it is there.

        Raises:
            MessageError: The size is not announced, or an identity method nobody knows.
        """
        self.release()
        self.downloads.take(self)
        self.is_ready = False
        message = self.item.message
        if message.size is None:
            raise MessageError(f"{message.rel_path}: without a size it cannot be relayed")
        expected_method(self.item, self.config)
        if not self.may_mix:
            self._sources = Sources(self._own_source())
        self._begun = True
        self._sends.in_directory(self._under_way, self._write)

    @property
    def wants_one_piece(self) -> bool:
        """The source serves no ranges."""
        return isinstance(self.error, RangeNotHonoured)

    def _own_source(self) -> Source:
        message = self.item.message
        return Source(message.url, is_escaped=message.retrieve_path is not None)

    @property
    def keeps_progress(self) -> bool:
        """What the server has answered is kept, if that is anything."""
        return super().keeps_progress and self._has_progress

    @property
    def may_mix(self) -> bool:
        """Whether ranges may come from further sources."""
        return not (self.item.local and self.item.local.get(ALONE))

    # ---- slots, and what is between the servers

    def _write_ranges(self) -> None:
        line = StagedLine.open(self._staged.staging)
        if line is None:
            if not self._sends.relay_waits(self._look_for_slots):
                raise StorageError(f"{self.target}: all of stagingBytes is in use by other instances")
            return
        self._sends.relay_begins()
        source = self._hashed(line)
        size = self.item.message.size
        assert size is not None
        self._feed = PartedLine(source, self, digests=self.in_segments)
        self._reads = RelayReads(
            self, self.downloads, line, source.came, self._sources, size, asks=self._asks
        )
        self._sends.relays.append(self._reads)
        if self.in_segments:
            self._ask("")
        else:
            self._send_whole(self._feed, self._reads, size)

    def _hashed(self, line: StagedLine) -> _HashedHere | HashedLine:
        """Return what is read from a line, hashed on the way."""
        method = expected_method(self.item, self.config)
        self._hasher = identity.hasher(method) if method is not None else None
        if self._hasher is None or method in _FAST:
            return _HashedHere(line, self._hasher, self._came)
        return HashedLine(self._staged.line_hasher, line, self._hasher, self._came)

    def _came(self) -> None:
        """There may be something to send."""
        if self._feed is not None:
            self._feed.came()

    def _look_for_slots(self) -> None:
        """Another relay has ended."""
        if self._begun and self._feed is None:
            self._write(None)
        else:
            self._sends.relay_passes_on()

    def soon(self, call: Callable[[], None]) -> None:
        """See `parts.Listener`."""
        self.downloads.engine.call_later(0.0, call)

    # ---- all of it in one write

    def _send_whole(self, feed: PartedLine, reads: RelayReads, size: int) -> None:
        part = feed.add(0, size)
        write = self._sends.write(
            self._under_way, part, size, self._written, mode=self._mode, rides_along=True
        )
        self._tokens = [write]
        plan = SegmentPlan(size, self._segment_bytes(size, self.item.message.url))
        for segment in plan if size else ():
            reads.add(segment.number, segment)
        self._left = 1 + (len(plan) if size else 0)
        reads.begin()

    def _segment_bytes(self, size: int, url: str) -> int:
        """Return how much is asked for at once: all of it, where ranges gain nothing."""
        wanted = self.config.segment_size or segment_size(size)
        gains = self.downloads.gains_by_ranges(url) and size >= _MIN_SEGMENTS * wanted
        return wanted if gains and not self._in_one_piece else max(size, 1)

    # ---- in segments that the ledger counts

    def known(self, end: int) -> None:
        """Go on behind what is at the server, after a look at it."""
        self._end = end
        self._has_progress = end > 0
        super().known(end)

    def _begin_to_send(self) -> None:
        """The ledger has said what is missing, and the server what is there."""
        assert self._parts is not None
        parts, plan = self._parts, self._parts.plan
        self._tokens = []
        missing = parts.missing
        self._resumed = len(missing) < len(plan)
        self._was_sent = {}
        if self._resumed and self._hasher is not None:
            left = frozenset(missing)
            digests = self.downloads.digests(self.claim.generation)
            self._was_sent = {n: digests.get(n, b"") for n in range(len(plan)) if n not in left}
        self._next = 0
        self._left = bool(missing) + bool(self._hasher) + len(self._was_sent)
        assert self._feed is not None
        assert self._reads is not None
        self._outgoing = RelayParts(
            self,
            self.downloads,
            self._sends,
            self._staged.staging,
            self._feed,
            self._reads,
            self._under_way,
            self._mode,
            self._end,
        )
        if not missing:
            self._add_rest()
        parts.start(self.downloads.engine.settings.streams * 2)
        if not self._left:
            self._finish(None)

    def send(self, numbers: Sequence[int]) -> None:
        """Fetch and send some of the segments, and before each what is only to be hashed."""
        assert self._parts is not None
        assert self._feed is not None
        assert self._reads is not None
        assert self._outgoing is not None
        for number in sorted(numbers):
            self._add_sent_before(number)
            segment = self._parts.plan[number]
            self._outgoing.add(segment, self._feed.add(number, segment.length))
            self._reads.add(number, segment)
        if not self._parts.missing:
            self._add_rest()
        self._reads.begin()
        self._outgoing.begin()

    def _add_rest(self) -> None:
        """Nothing more will be sent."""
        assert self._parts is not None
        assert self._feed is not None
        assert self._reads is not None
        self._add_sent_before(len(self._parts.plan))
        self._feed.end()
        self._reads.begin()

    def _add_sent_before(self, end: int) -> None:
        """Let those segments be hashed that are at the server, up to a number."""
        assert self._parts is not None
        assert self._feed is not None
        assert self._reads is not None
        for number in range(self._next, end):
            if number in self._was_sent:
                segment = self._parts.plan[number]
                self._feed.add(number, segment.length, self._was_sent[number])
                self._reads.add(number, segment)
        self._next = max(self._next, end)

    def turn_of(self, part: LinePart) -> None:
        """See `parts.Listener`."""
        if self._outgoing is not None:
            self._outgoing.turn_of(part)
        elif self._tokens:
            self.downloads.engine.go_on(self._tokens[0])

    def passed(self) -> None:
        """See `parts.Listener`."""
        if self.in_segments and self._hasher is not None:
            self._ended(None)
            self._staged.wake()  # said within the engine's wait

    def differs(self, part: LinePart) -> None:
        """See `parts.Listener`."""
        self._damaged(f"segment {part.number} of {self._under_way} is not what the source has now")
        self._staged.wake()

    def arrived(self, number: int) -> None:
        """See `relayreads.ReadsOwner`."""
        if self._outgoing is None or not self._outgoing.arrived(number):
            self._ended(None)

    def sent(self, number: int, digest: bytes) -> None:
        """All of a segment was fetched, and is at the server."""
        assert self._parts is not None
        self._has_progress = True
        self._moved += self._parts.plan[number].length
        self.downloads.slot.add(Counter.SEGMENTS_OK)
        self._parts.wrote(number, digest)

    def trouble(self, error: SarrapipeError) -> None:
        """It cannot go on: see `relayreads.ReadsOwner`."""
        if isinstance(error, InflightDamaged) or (isinstance(error, SourceChanged) and self._resumed):
            self._damaged(str(error))
        else:
            self._broke(error)

    def _damaged(self, what: str) -> None:
        """What is at the server is of no use: send all of it anew."""
        self.downloads.slot.count_error(InflightDamaged(what))
        _log.warning("%s; it is sent anew", printable(what))
        self._send_anew()

    # ---- the end

    def check_identity(self, value: str | None) -> None:
        """Compare with what was announced; which of several sources is wrong nobody knows."""
        try:
            super().check_identity(value)
        except IdentityMismatch:
            self.item[ALONE] = True
            raise

    def _check_unchanged(self) -> None:
        """The versions of all ranges were compared as they came."""

    def tokens(self) -> Sequence[object]:
        """Return the tokens of its transfers, which end here."""
        reads, outgoing = self._reads, self._outgoing
        fetched = [] if reads is None else reads.tokens()
        written = [] if outgoing is None else outgoing.tokens()
        return [*super().tokens(), *fetched, *written]

    def wants(self, token: object) -> bool:
        """Return whether a request belongs to it."""
        return super().wants(token) or any(
            token is one
            for owner in (self._reads, self._outgoing)
            if owner is not None
            for one in owner.tokens()
        )

    def _close(self) -> None:
        super()._close()
        outgoing, self._outgoing = self._outgoing, None
        if outgoing is not None:
            outgoing.close()
        reads, self._reads = self._reads, None
        if reads is not None:
            self._sends.relays.remove(reads)
            reads.close()
        feed, self._feed = self._feed, None
        if feed is not None:
            feed.close()
            self._sends.relay_ended()

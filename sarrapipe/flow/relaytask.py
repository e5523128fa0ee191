"""The task of a file that is relayed: fetched from one server and sent to another at once, with no disk here.

    source ─► ranges, in parallel ─► slots of shared memory ─► in order, hashed ─► one write beside the target

The rest of its way is that of every file that is sent (`sendtask`): it gets its times, is committed, renamed
into place and announced. What waits between the two servers is bounded by the slots, which all instances of
the flow share (`stagingBytes`): where there is none free, reading pauses, and the source's server waits.

A kill at any instant leaves a file under a name with the row's nonce at the server, which whoever takes the
row over writes anew; slots of the dead are given back by the living.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sarrapipe.errors import (
    MessageError,
    RangeNotHonoured,
    SourceChanged,
    StorageError,
)
from sarrapipe.flow.content import expected_method
from sarrapipe.flow.sends import Sends, SendToken
from sarrapipe.flow.sendtask import SendTask
from sarrapipe.ledger.admission import Admission, Announcement
from sarrapipe.message import identity
from sarrapipe.message.worklist import WorkItem
from sarrapipe.segment.hashedline import HashedLine
from sarrapipe.segment.plan import SegmentPlan, segment_size
from sarrapipe.segment.staged import StagedLine
from sarrapipe.shm.slots import Counter
from sarrapipe.transfer.base import Done, RangeDone, RangeRead

if TYPE_CHECKING:
    from sarrapipe.flow.download import Downloads
    from sarrapipe.flow.staging import StagedWrites

__all__ = ["RelayTask"]

_MIN_SEGMENTS: Final = 2


_FAST: Final = frozenset({"xxh3_128"})
"""Methods that take less time than handing a slot to another thread and back."""


class _HashedHere:
    """Ranges read in order, as the source of a write: every byte passes the hasher, in this thread.

    Args:
        line: The ranges.
        hasher: None for none.
        came: To be called when a range handed a slot over.
    """

    def __init__(self, line: StagedLine, hasher: identity.Hasher | None, came: Callable[[], None]) -> None:
        self._line = line
        self.hasher = hasher
        self.came = came

    def read(self, count: int) -> memoryview | None:
        """Return the next bytes; see `transfer.writing.Source`."""
        piece = self._line.read(count)
        if piece and self.hasher is not None:
            self.hasher.update(piece)
        return piece

    def fileno(self) -> int:
        """No descriptor: they were never in a file."""
        return -1

    def position(self) -> int:
        """Of no descriptor."""
        return 0

    def advance(self, count: int) -> None:
        """Nothing is copied past the slots."""
        raise NotImplementedError

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

    __slots__ = ("_in_one_piece", "_source", "_staged", "_validator")

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
        self._source: _HashedHere | HashedLine | None = None
        self._validator: str | None = None

    def begin(self) -> None:
        """Have the directory made at the server; fetch and send when it is there.

        Raises:
            MessageError: The size is not announced, or an identity method nobody knows.
        """
        self.release()
        self.downloads.take(self)
        self.is_ready = False
        self._validator = None
        message = self.item.message
        if message.size is None:
            raise MessageError(f"{message.rel_path}: without a size it cannot be relayed")
        expected_method(self.item, self.config)
        self._begun = True
        self._sends.in_directory(self._under_way, self._write)

    @property
    def wants_one_piece(self) -> bool:
        """The source serves no ranges."""
        return isinstance(self.error, RangeNotHonoured)

    def _write_ranges(self) -> None:
        size = self.item.message.size
        assert size is not None
        line = StagedLine.open(self._staged.staging)
        if line is None:
            if not self._sends.relay_waits(self._look_for_slots):
                raise StorageError(f"{self.target}: all of stagingBytes is in use by other instances")
            return
        self._sends.relay_begins()
        self._source = self._hashed(line)
        source = self._source
        write = self._sends.write(
            self._under_way, source, size, self._written, mode=self._mode, rides_along=True
        )
        self._tokens = [write]
        url = self.item.message.url
        plan = SegmentPlan(size, self._segment_bytes(size, url))
        reads = []
        for segment in plan if size else ():
            token = SendToken(self._fetched)
            self._tokens.append(token)
            sink = line.add(segment.length, source.came, url)
            reads.append(
                RangeRead(
                    url=url,
                    sink=sink,
                    token=token,
                    offset=segment.offset,
                    length=segment.length,
                    whole_size=size,
                    url_is_escaped=self.item.message.retrieve_path is not None,
                    credentials=self.downloads.credentials(url),
                )
            )
        self._left = 1 + len(reads)
        self.downloads.start(reads)

    def _hashed(self, line: StagedLine) -> _HashedHere | HashedLine:
        """Return what is read from a line, hashed on the way."""
        method = expected_method(self.item, self.config)
        self._hasher = identity.hasher(method) if method is not None else None
        if self._hasher is None or method in _FAST:
            return _HashedHere(line, self._hasher, self._go_on)
        return HashedLine(self._staged.line_hasher, line, self._hasher, self._go_on)

    def _go_on(self) -> None:
        """There may be something to send."""
        if self._tokens:
            self.downloads.engine.go_on(self._tokens[0])

    def _look_for_slots(self) -> None:
        """Another relay has ended."""
        if self._begun and self._source is None:
            self._write(None)
        else:
            self._sends.relay_passes_on()

    def _segment_bytes(self, size: int, url: str) -> int:
        """Return how much is asked for at once: all of it, where ranges gain nothing."""
        able = self.downloads.engine.capabilities(url)
        wanted = self.config.segment_size or segment_size(size)
        gains = able.ranges and able.parallel and size >= _MIN_SEGMENTS * wanted
        return wanted if gains and not self._in_one_piece else max(size, 1)

    def _fetched(self, done: Done) -> None:
        """One range was fetched, or was not."""
        assert isinstance(done, RangeDone)
        self.downloads.slot.add(Counter.BYTES_RECEIVED, done.received)
        self.downloads.slot.add(Counter.BYTES_STAGED, done.received)
        if not self.wants(done.token):
            return
        error = done.error
        if error is None and done.validator is not None:
            self._validator = self._validator or done.validator
            if done.validator != self._validator:
                what = f"{self._validator} and {done.validator}"
                error = SourceChanged(f"ranges of {done.read.url} are of the versions {what}")
        self._ended(error)

    def _check_unchanged(self) -> None:
        """The versions of all ranges were compared as they came."""

    def _close(self) -> None:
        super()._close()
        source, self._source = self._source, None
        if source is not None:
            source.close()
            self._sends.relay_ended()

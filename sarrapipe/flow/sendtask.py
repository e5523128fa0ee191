"""The task of a file that is sent: written beside its target, given its times, renamed into place.

    admitted ─► directory made ─► [writes] ─► attributes ─► ready ─► commit ─► renamed ─► published ─► settle

The steps before the commit change nothing that anybody looks at: a kill leaves a file under a name with the
row's nonce, which whoever takes the row over goes on with, or removes. The rename follows the commit, so that
an older version is never put over a newer one. A kill between the two leaves the row COMMITTED; whoever
takes it over renames: where the name under way is gone, and the final one has the announced size and time,
that was done before.

A large file is written in several ranges at a time where the protocol can place them. Its bytes are read from
the file of this machine once for that; the digest that was announced is computed beside it. Where the file
under way can be looked at, the ledger counts which ranges the server has answered (`sentparts`): after a kill
or a broken connection only the others are sent, unless the file there is gone or shorter than that, or the
one here is another now. Then all is sent anew, under another nonce.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from sarrapipe.errors import (
    IdentityMismatch,
    InflightDamaged,
    SarrapipeError,
    SourceChanged,
    SourceGone,
    StorageError,
)
from sarrapipe.flow.content import ContentTask, expected_method
from sarrapipe.flow.localfiles import local_source
from sarrapipe.flow.movements import Movement, in_one_piece, in_segments
from sarrapipe.flow.sends import Sends, SendToken, Then
from sarrapipe.flow.sentparts import SentParts
from sarrapipe.flow.task import Placed
from sarrapipe.flow.verify import Verification
from sarrapipe.ledger.admission import Admission, Announcement
from sarrapipe.log import get_logger, printable
from sarrapipe.message import identity
from sarrapipe.message.worklist import WorkItem
from sarrapipe.segment.plan import Segment, SegmentPlan, segment_size
from sarrapipe.segment.source import FileSource
from sarrapipe.shm.slots import Counter
from sarrapipe.transfer.base import Done
from sarrapipe.transfer.remotecall import Attributes, CallDone, Operation
from sarrapipe.transfer.writing import Source, WriteDone

if TYPE_CHECKING:
    from sarrapipe.flow.download import Downloads

__all__ = ["SendTask"]

_log = get_logger(__name__)

_MIN_SEGMENTS: Final = 2
_SECOND_NS: Final = 1_000_000_000


class SendTask(ContentTask):
    """One regular file of this machine on its way to the server.

    Args:
        item: The item that began it.
        announcement: What the ledger was told.
        admission: What the ledger answered.
        downloads: Runs the engine.
        sends: Requests to the server.
    """

    __slots__ = (
        "_begun",
        "_fd",
        "_found",
        "_hasher",
        "_left",
        "_moved",
        "_parts",
        "_sends",
        "_tokens",
        "_value",
        "_verification",
    )

    def __init__(
        self,
        item: WorkItem,
        announcement: Announcement,
        admission: Admission,
        downloads: Downloads,
        sends: Sends,
    ) -> None:
        super().__init__(item, announcement, admission, downloads)
        self._sends = sends
        self._fd = -1
        self._begun = False
        self._found: os.stat_result | None = None
        self._left = 0
        self._moved = 0
        self._parts: SentParts | None = None
        self._tokens: list[SendToken] = []
        self._hasher: identity.Hasher | None = None
        self._value: str | None = None
        self._verification: Verification | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """None of this machine."""
        return ()

    @property
    def in_segments(self) -> bool:
        """Whether the ledger counts what of it is at the server."""
        return self.announcement.segment_size > 0

    @property
    def keeps_progress(self) -> bool:
        """What the server has answered is kept, unless the file as a whole turned out to be wrong."""
        return self.in_segments and not isinstance(self.error, IdentityMismatch | SourceChanged)

    @property
    def wants_one_piece(self) -> bool:
        """It has another size than was announced, where that does not matter."""
        return self.in_segments and isinstance(self.error, SourceChanged) and not self.size_is_binding

    @property
    def _under_way(self) -> str:
        """Path at the server until it is renamed."""
        return self._sends.far.inflight(self.target, self.nonce)

    def movement(self) -> Movement | None:
        """Return how much of it is at the server; what its ranges have read counts as under way."""
        size, message = self.item.message.size, self.item.message
        running = [token.read for token in self._writes() if token.read is not None]
        if size is None or not self._begun:
            return None
        if self._parts is not None:
            return in_segments(
                self.target,
                message.url,
                self._parts.plan,
                missing=self._parts.unwritten,
                running=running,
                moved=self._moved,
            )
        streams = len(running)
        return in_one_piece(
            self.target, message.url, size, came=sum(running), done=self._moved, streams=streams
        )

    def _writes(self) -> Sequence[SendToken]:
        """Return what is under way at the server."""
        return self._tokens

    # ---- before the commit

    def begin(self) -> None:
        """Open the file and have its directory made at the server.

        Raises:
            SourceGone: There is no such file here.
            SourceChanged: It has another size than announced.
            UnsafePath: It lies outside `baseDir`.
            MessageError: An identity method nobody knows.
        """
        self.release()
        self.downloads.take(self)
        self.is_ready = False
        path = local_source(self.item.message, self.config)
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise SourceGone(f"{self.item.message.rel_path}: {path} is not here") from error
        except OSError as error:
            raise StorageError(f"open {path}: {error.strerror}") from error
        self._found = os.fstat(self._fd)
        self.check_size(self._found.st_size)
        if self.in_segments and self._found.st_size != self.announcement.size:
            raise SourceChanged(f"{self.item.message.rel_path}: cut into segments by a size it does not have")
        self._begun = True
        self._sends.in_directory(self._under_way, self._write)

    def _write(self, error: SarrapipeError | None) -> None:
        """The directory is there, or cannot be: begin to write."""
        if not self._begun:
            return  # given up meanwhile
        try:
            if error is not None:
                raise error
            self._write_ranges()
        except SarrapipeError as trouble:
            self._broke(trouble)

    def _write_ranges(self) -> None:
        assert self._found is not None
        size = self._found.st_size
        if self.in_segments:
            found = self._found
            self._ask(f"{found.st_mtime_ns:x}-{found.st_ino:x}-{size:x}")
            return
        method = expected_method(self.item, self.config)
        plan = SegmentPlan(size, self.config.segment_size or segment_size(size))
        if len(plan) < _MIN_SEGMENTS or not self._sends.positioned:
            self._hasher = identity.hasher(method) if method is not None else None
            source = FileSource(self._fd, 0, size, self._hasher, self.target)
            self._left = 1
            self._tokens = [self._sends.write(self._under_way, source, size, self._written, mode=self._mode)]
            return
        self._left = len(plan) + self._hash_beside(size)
        for segment in plan:
            source = FileSource(self._fd, segment.offset, segment.length, None, self.target)
            self._tokens.append(self._write_part(source, segment, self._written))

    def _hash_beside(self, size: int) -> bool:
        """Have the file of this machine hashed on another thread; return whether anything asks for that."""
        method = expected_method(self.item, self.config)
        if method is not None:
            verifier = self.downloads.segments.verifier
            self._verification = verifier.follow(self, self._fd, size, method)
            verifier.wrote_all(self._verification)
        return method is not None

    def _write_part(self, source: Source, segment: Segment, then: Then) -> SendToken:
        return self._sends.write(
            self._under_way,
            source,
            segment.length,
            then,
            offset=segment.offset,
            whole=False,
            mode=self._mode,
        )

    @property
    def _mode(self) -> int | None:
        return self._final_mode()

    def _written(self, done: Done) -> None:
        """One range is at the server, or is not."""
        if self._took(done):
            self._ended(done.error)

    def _took(self, done: Done) -> bool:
        """Account for a write; return whether it is one that is waited for."""
        assert isinstance(done, WriteDone)
        if not self.wants(done.token):
            return False  # it ended together with another that failed, and the task was given up for that one
        self.downloads.slot.add(Counter.BYTES_SENT, done.sent)
        self._moved += done.sent
        if isinstance(done.error, SourceGone):
            self._sends.forget_directory(self._under_way)  # somebody removed it: made again the next time
        return True

    # ---- in segments that the ledger counts

    def _ask(self, version: str) -> None:
        """Ask the ledger which segments are missing at the server.

        Args:
            version: Of the source; empty where it is not known yet.
        """
        plan = SegmentPlan(self.announcement.size, self.announcement.segment_size)
        self._parts = SentParts(self, self.claim, plan, version, self.given_back)
        self.given_back = []
        self._sends.parts.add(self._parts)

    def known(self, end: int) -> None:
        """Send what is missing, after a look at what is there."""
        if not end:
            self._begin_to_send()
            return
        look = partial(self._looked_at_rest, end)
        self._tokens = [self._sends.call(Operation.STAT, self._under_way, look)]

    def _looked_at_rest(self, end: int, done: Done) -> None:
        """The server says what is under way there."""
        assert isinstance(done, CallDone)
        if not self.wants(done.token):
            return
        if done.error is not None and not isinstance(done.error, SourceGone):
            self._broke(done.error)
            return
        size = 0 if done.error is not None else done.entries[0].attributes.size or 0
        if size < end:
            damage = InflightDamaged(f"{self._under_way} has {size} bytes, {end} were written there")
            self.downloads.slot.count_error(damage)
            _log.warning("%s; it is sent anew", printable(str(damage)))
            self._send_anew()
            return
        self.downloads.slot.add(Counter.FILES_RESUMED)
        self._begin_to_send()

    def _begin_to_send(self) -> None:
        """Begin to send what is missing; what is left to come are all of it together, and the digest."""
        assert self._parts is not None
        self._tokens = []
        try:
            self._left = bool(self._parts.missing) + self._hash_beside(self._parts.plan.size)
        except SarrapipeError as error:
            self._broke(error)
            return
        self._parts.start(self.downloads.engine.settings.streams)
        if not self._left:
            self._finish(None)

    def send(self, numbers: Sequence[int]) -> None:
        """Send some of the segments."""
        assert self._parts is not None
        for number in numbers:
            segment = self._parts.plan[number]
            source = FileSource(self._fd, segment.offset, segment.length, None, self.target)
            self._tokens.append(self._write_part(source, segment, partial(self._part_written, number)))

    def _part_written(self, number: int, done: Done) -> None:
        """One segment is at the server, or is not."""
        if not self._took(done):
            return
        if done.error is not None:
            self._broke(done.error)
            return
        assert self._parts is not None
        self._tokens = [token for token in self._tokens if token is not done.token]
        self.downloads.slot.add(Counter.SEGMENTS_OK)
        self._parts.wrote(number)

    def all_marked(self) -> None:
        """The ledger knows that everything is written."""
        self._ended(None)

    def of_other_version(self) -> None:
        """What is at the server was read from another file than the one that is here now."""
        _log.info("%s is another file than the one of which a part was sent: it is sent anew", self.target)
        self._send_anew()

    def lost_row(self) -> None:
        """Somebody took this process for dead: the commit finds out whose the file is."""
        self.downloads.forget(self)
        self._close()
        self.downloads.ready(self)

    def _send_anew(self) -> None:
        """Let the ledger forget what was written, and the server remove it."""
        self.release()
        self._sends.remove_quietly(self._under_way)
        self.is_lost = True
        self._sends.end(self, None)

    # ---- everything is written

    def hashed(self, value: str | None, error: SarrapipeError | None) -> None:
        """Take the digest over the whole file, computed on another thread, or why there is none."""
        self._verification = None
        self._value = value
        self._ended(error)

    def _ended(self, error: SarrapipeError | None) -> None:
        """One of the ranges, or the digest, came to its end."""
        if error is not None:
            self._broke(error)
            return
        self._left -= 1
        if not self._left:
            self._finish(self._value if self._hasher is None else self._hasher.value())

    def _finish(self, value: str | None) -> None:
        """Everything is written: compare, and give the file its attributes."""
        try:
            self.check_identity(value)
            self._check_unchanged()
        except SarrapipeError as error:
            self._broke(error)
            return
        wanted = self._attributes()
        if Operation.SET not in self._sends.operations or wanted == Attributes():
            self._ready(None)
            return
        self._tokens = [self._sends.call(Operation.SET, self._under_way, self._ready, attributes=wanted)]

    def _attributes(self) -> Attributes:
        message = self.item.message
        copies_times = self.config.time_copy
        return Attributes(
            size=message.size if self._sends.positioned and self._sends.far.in_place else None,
            mode=self._mode,
            mtime_ns=message.mtime_ns if copies_times else None,
            atime_ns=message.atime_ns if copies_times else None,
        )

    def _check_unchanged(self) -> None:
        now, begun = os.fstat(self._fd), self._found
        assert begun is not None
        if (now.st_size, now.st_mtime_ns) != (begun.st_size, begun.st_mtime_ns):
            raise SourceChanged(f"{self.item.message.rel_path} changed while it was sent")

    def _ready(self, done: Done | None) -> None:
        if done is not None and not self.wants(done.token):
            return
        if done is not None and done.error is not None:
            self._broke(done.error)
            return
        self._close()
        self.downloads.ready(self)

    def _broke(self, error: SarrapipeError) -> None:
        self.downloads.forget(self)
        self._close()
        self.downloads.broke(self, error)

    # ---- after it

    def place(self) -> None:
        """Rename it into place at the server; `Sends.ended` tells when that is done. May be repeated."""
        self.is_placed = False
        if self._sends.far.in_place:
            self._sends.end(self, None)
            return
        self._sends.call(Operation.RENAME, self._under_way, self._renamed, to=self.target)

    def _renamed(self, done: Done) -> None:
        if isinstance(done.error, SourceGone):  # done before somebody was killed, or taken away
            self._sends.call(Operation.STAT, self.target, self._looked)
            return
        self._sends.end(self, done.error)

    def _looked(self, done: Done) -> None:
        assert isinstance(done, CallDone)
        if done.error is None and self._is_ours(done):
            self._sends.end(self, None)
            return
        self.is_lost = done.error is None or isinstance(done.error, SourceGone)
        self._sends.end(self, done.error)

    def _is_ours(self, done: CallDone) -> bool:
        found, message = done.entries[0].attributes, self.item.message
        if found.size is not None and found.size != message.size:
            return False
        if found.mtime_ns is None or message.mtime_ns is None or not self.config.time_copy:
            return True
        return abs(found.mtime_ns - message.mtime_ns) < _SECOND_NS

    def placed(self) -> Placed:
        """Where it is only the server knows: renaming it again tells."""
        return Placed.INFLIGHT

    # ---- giving up

    def discard(self) -> None:
        """Stop, and have what was written removed at the server."""
        self.release()
        if not self._sends.far.in_place:
            self._sends.remove_quietly(self._under_way)

    def release(self) -> None:
        """Stop what is under way; what is written stays at the server."""
        self.downloads.forget(self)
        self._close()

    def _close(self) -> None:
        parts, self._parts = self._parts, None
        if parts is not None:
            self._sends.parts.remove(parts)
            self.given_back = parts.held
        if self._verification is not None:
            self.downloads.segments.verifier.forget(self._verification)
            self._verification = None
        self._begun = False
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def tokens(self) -> Sequence[object]:
        """Return the tokens of its transfers, which end here."""
        tokens, self._tokens = self._tokens, []
        return tokens

    def wants(self, token: object) -> bool:
        """Return whether a request belongs to it."""
        return any(token is one for one in self._tokens)

"""Bytes of a range on their way through slots of shared memory: written on one side, read on the other.

    staging = Staging(ring, wake)
    staged = StagedRange(staging, length=8 << 20)
    if staged.room(len(data)):          # else `call_when_room`, and bring nothing until then
        staged.write(data)
    while piece := staged.read(65536):  # None: nothing yet; empty: that was all
        ...

The side that writes is the one thread that receives; the side that reads may be another. A slot is handed
over when the next piece does not fit into it, or with the last byte; so what is read is never half written,
and a range that cannot get a further slot holds none that its reader has not been given.

**Nothing waits for ever.** A range that is read as its bytes come gives every slot back that it was given,
without waiting for anything but its reader. Where ranges are read one after the other (`StagedLine`), later
ones could hold every slot while the first, for which the reader waits, gets none. So a line has a slot of
its own, from before its first range until its end, that only its first range may fill:

- whoever is first and finds no slot elsewhere takes it, if it is there;
- if it is not there, the first range, or one that was first before it, has it. The latter was read to its
  end, so its slots were given back, and the first one that comes back to a line without its own becomes
  that;
- so the first range has it. It is handed over when the next piece does not fit, the reader takes it, as it
  waits for just these bytes, and it comes back.

A line that cannot get its own slot is not begun, and holds nothing while it waits. No line waits for
another, nor for another process.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from sarrapipe.errors import IdentityMismatch, StorageError

__all__ = ["Slab", "SlabPool", "StagedLine", "StagedRange", "Staging"]

_NO_MORE: Final = memoryview(b"")
_TOGETHER: Final = 16
"""Slots that come free before those who wait are woken: 4 MiB. To go on costs a paused transfer as much as
many pieces (docs/explanation/pipeline.md)."""


class Slab(Protocol):
    """One slot, leased (`sarrapipe.shm.ring.Slab`)."""

    view: memoryview

    def full(self) -> None:
        """Its bytes are there."""

    def drain(self) -> None:
        """Its bytes are being taken."""

    def refill(self) -> None:
        """It is kept for other bytes."""

    def give_back(self) -> None:
        """It is nobody's again."""


class SlabPool(Protocol):
    """Where slots come from (`sarrapipe.shm.ring.Ring`)."""

    slab_bytes: int
    slots: int

    def take(self) -> Slab | None:
        """Lease a slot; None if all are taken."""

    def want(self) -> None:
        """Be told when one comes free elsewhere; `take` has to be tried once more after this."""


def _nothing() -> None:
    """Nobody wants to know."""


class _Waiter(NamedTuple):
    """Who waits for a slot, and what to call."""

    staged: StagedRange
    call: Callable[[], None]


class Staging:
    """The slots as one process uses them: who waits for one, first come, first served.

    Args:
        pool: Where they come from.
        wake: Called from any thread when those who wait should be looked at (`resume`).
    """

    def __init__(self, pool: SlabPool, wake: Callable[[], None]) -> None:
        self._pool = pool
        self._wake = wake
        self.slab_bytes = pool.slab_bytes
        self._waiting: deque[_Waiter] = deque()
        self._resuming = False
        self._starved = False
        self._together = max(min(_TOGETHER, pool.slots // 4), 1)
        self._lock = threading.Lock()
        # Both sides: slots handed over and not given back, and given back since somebody found none.
        self._unread = 0
        self._freed = 0
        self._missed = False

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return len(self._waiting)

    def take(self) -> Slab | None:
        """Lease a slot; None if there is none, or if others have been waiting for longer.

        Raises:
            NoSpace: There is no memory for it.
        """
        self._missed = False
        if self._starved if self._resuming else bool(self._waiting):
            return None
        slab = self._pool.take()
        if slab is None:
            self._pool.want()
            with self._lock:
                self._freed = 0
            slab = self._pool.take()
        self._starved = slab is None
        return slab

    def handed_over(self) -> None:
        """Take note of a slot that waits to be read."""
        with self._lock:
            self._unread += 1

    def give_back(self, slab: Slab, *, read: bool = True) -> None:
        """End a lease; from any thread.

        Args:
            slab: The slot.
            read: It had been handed over.
        """
        slab.give_back()
        self.freed(read=read)

    def freed(self, *, read: bool = True, now: bool = False) -> None:
        """Take note that somebody may find a slot; from any thread.

        Those who wait are woken when several slots came free, or nothing is left from which one could.

        Args:
            read: It had been handed over.
            now: Wake them at once.
        """
        with self._lock:
            self._unread -= read
            self._freed += 1
            if not (now or self._freed >= self._together or self._unread <= 0):
                return
            self._missed = True
        if self._waiting:
            self._wake()

    def wait(self, staged: StagedRange, call: Callable[[], None]) -> None:
        """Call once, from `resume`, when there may be room for a range that has just found none."""
        self._waiting.append(_Waiter(staged, call))
        if self._missed:
            self._wake()  # they came free between looking and waiting

    def forget(self, staged: StagedRange) -> None:
        """Call nobody for a range any more."""
        if any(waiter.staged is staged for waiter in self._waiting):
            self._waiting = deque(waiter for waiter in self._waiting if waiter.staged is not staged)

    def nudge(self, staged: StagedRange) -> None:
        """Call for a range now, whether there is room or not: it has to hear of an error."""
        for waiter in [waiter for waiter in self._waiting if waiter.staged is staged]:
            self._waiting.remove(waiter)
            waiter.call()

    def resume(self) -> None:
        """Call those who wait: in turn while there are slots, then those who have one of their own."""
        waiting, self._waiting = self._waiting, deque()
        self._starved = False
        self._resuming = True
        try:
            while waiting:
                waiter = waiting.popleft()
                if self._starved and not waiter.staged.has_own_slot:
                    self._waiting.append(waiter)
                else:
                    waiter.call()
        finally:
            self._resuming = False
            self._waiting.extend(waiting)


class StagedRange:
    """One range: a `transfer.base.Sink` that may be full for a while, and what reads it.

    Args:
        staging: Where slots come from.
        length: Bytes of the range.
        on_full: Called by the side that writes whenever there is more to be read.
        name: For error messages.
        line: The ranges it is read in order with, if it is.
    """

    def __init__(
        self,
        staging: Staging,
        length: int,
        on_full: Callable[[], None] = _nothing,
        name: str = "",
        line: StagedLine | None = None,
    ) -> None:
        self._staging = staging
        self._length = length
        self._on_full = on_full
        self._name = name
        self._line = line
        # Of the side that writes.
        self._came = 0
        self._filling: Slab | None = None
        self._view = _NO_MORE
        self._filled = 0
        # From one side to the other: a slot and how many bytes are in it.
        self._full: deque[tuple[Slab, int]] = deque()
        # Of the side that reads.
        self.taken = 0
        self._reading: Slab | None = None
        self._unread = _NO_MORE

    # ---- the side that writes

    @property
    def written(self) -> int:
        """How many bytes came."""
        return self._came

    def room(self, count: int) -> bool:
        """Return whether `write` would take a piece now; if not, it holds no slot that could be read.

        Args:
            count: Bytes of the piece, at most those of a slot.

        Raises:
            NoSpace: There is no memory for a slot.
        """
        if self._filled + count <= len(self._view) or self._came + count > self._length:
            return True  # more than there are to be is refused by `write`
        self._hand_over()
        self._filling = self._take()
        if self._filling is None:
            return False
        self._view = self._filling.view
        return True

    def call_when_room(self, call: Callable[[], None]) -> None:
        """Call once when `room` should be asked again."""
        self._staging.wait(self, call)

    def write(self, data: memoryview | bytes) -> None:
        """Take the next bytes.

        Raises:
            IdentityMismatch: They reach beyond the end of the range; none of them is taken.
            StorageError: There is no room, which was not asked for.
        """
        count = len(data)
        if self._came + count > self._length:
            what = f"more than the {self._length} bytes of the range came"
            raise IdentityMismatch(f"{what} {self._name}".rstrip())
        end = self._filled + count
        if end > len(self._view):
            if not self.room(count):
                raise StorageError(f"{count} bytes came without room for them {self._name}".rstrip())
            end = count
        self._view[self._filled : end] = data
        self._filled = end
        self._came += count
        if self._came == self._length:
            self._hand_over()

    def fileno(self) -> int:
        """No descriptor: everything passes `write`."""
        return -1

    def position(self) -> int:
        """How many bytes came."""
        return self._came

    def advance(self, count: int) -> None:
        """Nothing can be copied past a slot."""
        raise NotImplementedError

    @property
    def has_own_slot(self) -> bool:
        """Whether it may go on although there is no slot for anybody else."""
        return self._line is not None and self._line.spares(self)

    def _take(self) -> Slab | None:
        return self._staging.take() if self._line is None else self._line.take(self)

    def _hand_over(self) -> None:
        slab, self._filling = self._filling, None
        if slab is not None:
            size, self._filled, self._view = self._filled, 0, _NO_MORE
            slab.full()
            self._staging.handed_over()
            self._full.append((slab, size))
            self._on_full()

    # ---- the side that reads

    @property
    def finished(self) -> bool:
        """Whether all of it was read."""
        return self.taken == self._length

    def read(self, count: int) -> memoryview | None:
        """Return the next bytes, valid until the next call of `read`, `release` or `close`; never waits.

        Args:
            count: At most so many.

        Returns:
            None if nothing is there yet; nothing (an empty view) if all was read.
        """
        self.release()
        if self._reading is None:
            taken = self._pop()
            if taken is None:
                return _NO_MORE if self.finished else None
            self._reading, self._unread = taken
        piece, self._unread = self._unread[:count], self._unread[count:]
        self.taken += len(piece)
        return piece

    def take_slot(self) -> tuple[Slab, memoryview] | None:
        """Return the next slot and the bytes in it, for the caller to give back; None if none is there yet.

        For ranges in a line (`StagedLine.take_slot`), not together with `read`.
        """
        taken = self._pop()
        if taken is not None:
            self.taken += len(taken[1])
        return taken

    def _pop(self) -> tuple[Slab, memoryview] | None:
        try:
            slab, size = self._full.popleft()
        except IndexError:
            return None
        slab.drain()
        return slab, slab.view[:size]

    def release(self) -> None:
        """Give back the slot of which all was read."""
        if self._reading is not None and not self._unread:
            slab, self._reading = self._reading, None
            self._give_back(slab)

    def close(self) -> None:
        """Give back every slot, whatever is in it; with neither side at work. May be repeated."""
        self._staging.forget(self)
        self._unread = _NO_MORE
        self.release()
        while self._full:
            self._give_back(self._full.popleft()[0])
        slab, self._filling = self._filling, None
        self._filled, self._view = 0, _NO_MORE
        if slab is not None:
            self._give_back(slab, read=False)

    def _give_back(self, slab: Slab, *, read: bool = True) -> None:
        if self._line is None or not self._line.keeps(slab, read=read):
            self._staging.give_back(slab, read=read)


class StagedLine:
    """Ranges that are read one after the other, of which the first can always go on.

    Args:
        staging: Where slots come from.
        spare: The line's own slot; see `open`.
    """

    def __init__(self, staging: Staging, spare: Slab) -> None:
        self._staging = staging
        self._spare: Slab | None = spare
        self._ranges: deque[StagedRange] = deque()
        self._closed = False

    @classmethod
    def open(cls, staging: Staging) -> StagedLine | None:
        """Begin a line; None if there is no slot for it now.

        Raises:
            NoSpace: There is no memory for it.
        """
        spare = staging.take()
        return None if spare is None else cls(staging, spare)

    def add(self, length: int, on_full: Callable[[], None] = _nothing, name: str = "") -> StagedRange:
        """Add a range behind the others; its bytes may come before theirs."""
        staged = StagedRange(self._staging, length, on_full, name, self)
        self._ranges.append(staged)
        return staged

    def read(self, count: int) -> memoryview | None:
        """As `StagedRange.read`, over all ranges; empty when all that were added are read."""
        while self._ranges:
            piece = self._ranges[0].read(count)
            if piece is None or piece:
                return piece
            self._ranges.popleft()
            self._staging.freed(read=False, now=True)  # for the line's own slot the next one may be waiting
        return _NO_MORE

    def take_slot(self) -> tuple[Slab, memoryview] | None:
        """Return the next slot in order, to be given back here, and its bytes; None: not there yet."""
        while self._ranges:
            taken = self._ranges[0].take_slot()
            if taken is None and not self._ranges[0].finished:
                return None
            if self._ranges[0].finished:
                self._ranges.popleft()
                self._staging.freed(read=False, now=True)  # as above
            if taken is not None:
                return taken
        return None

    @property
    def finished(self) -> bool:
        """Whether every byte of all ranges that were added was taken."""
        return not self._ranges

    def give_back(self, slab: Slab) -> None:
        """End the lease of a slot that was taken."""
        if not self.keeps(slab, read=True):
            self._staging.give_back(slab)

    def close(self) -> None:
        """Give back every slot; with neither side at work. May be repeated."""
        self._closed = True
        while self._ranges:
            self._ranges.popleft().close()
        spare, self._spare = self._spare, None
        if spare is not None:
            self._staging.give_back(spare, read=False)

    # ---- for its ranges

    def spares(self, staged: StagedRange) -> bool:
        """Whether the line's own slot is there, and for this range."""
        return self._spare is not None and bool(self._ranges) and self._ranges[0] is staged

    def take(self, staged: StagedRange) -> Slab | None:
        """Return a slot, the line's own if there is no other; None if there is none."""
        slab = self._staging.take()
        if slab is None and self.spares(staged):
            slab, self._spare = self._spare, None
        return slab

    def keeps(self, slab: Slab, *, read: bool) -> bool:
        """Keep a slot that comes back as the line's own, if that is missing."""
        if self._spare is not None or self._closed:
            return False
        slab.refill()
        self._spare = slab
        self._staging.freed(read=read, now=True)
        return True

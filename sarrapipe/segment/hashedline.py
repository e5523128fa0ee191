"""A line of staged ranges that is hashed on another thread before it is read: the source of a relay's write.

    source ─► ranges ─► slots ─► in order: hashed by the thread ─► read by the writer, given back

A digest such as sha512 is slower than a network. Computed where the bytes are read it would hold up receiving
and sending, which share one thread; here it runs on another core, a few slots ahead of the writer.

**Nothing waits for ever.** The proof in `segment.staged` asks that the reader takes what the first range
hands over, and gives it back. The thread waits for nothing but slots of the line, and the writer for nothing
but the thread; what is hashed is read and given back in order, so the argument holds with the two of them as
the reader. No further slot is held by that: the line has what its ranges filled.

Killed at any instant, slots are recovered as all slots of the dead are; nothing is recorded here.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from sarrapipe.segment.sink import Updatable
from sarrapipe.segment.staged import Slab, StagedLine

__all__ = ["HashedLine", "LineHasher"]

_NO_MORE: Final = memoryview(b"")
_TOGETHER: Final = 4
"""Slots hashed before a writer that waits is woken, 1 MiB: going on costs it as much as many pieces."""


class HashedLine:
    """Ranges in order; every byte is hashed before it is read.

    Args:
        thread: Hashes.
        line: The ranges.
        hasher: Sees every byte, in order, before it is read.
        go_on: Called from `LineHasher.resume` when there is something to read again.

    Attributes:
        waiting: For the thread: slots and the bytes in them, in order.
        hashed: What it is through with.
        starved: The reader found nothing, and is to be told.
        closed: The thread takes nothing more.
    """

    def __init__(
        self, thread: LineHasher, line: StagedLine, hasher: Updatable, go_on: Callable[[], None]
    ) -> None:
        self._thread = thread
        self._line = line
        self.hasher = hasher
        self.go_on = go_on
        self._reading: Slab | None = None
        self._unread = _NO_MORE
        self.waiting: deque[tuple[Slab, memoryview]] = deque()
        self.hashed: deque[tuple[Slab, memoryview]] = deque()
        self.starved = False
        self.closed = False

    def came(self) -> None:
        """A range handed a slot over: give the thread what is next in order."""
        while (taken := self._line.take_slot()) is not None:
            self._thread.add(self, *taken)

    def read(self, count: int) -> memoryview | None:
        """Return the next bytes, valid until the next call; None if they are not there or not hashed yet."""
        self._release()
        if self._reading is None:
            taken = self._thread.take(self)
            if taken is None:
                return _NO_MORE if self._line.finished and self._thread.is_through(self) else None
            self._reading, self._unread = taken
        piece, self._unread = self._unread[:count], self._unread[count:]
        return piece

    def close(self) -> None:
        """Give back every slot, also those of ranges that are not read; with no transfer at work."""
        self._thread.forget(self)
        self._unread = _NO_MORE
        self._release()
        for slabs in (self.hashed, self.waiting):
            while slabs:
                self._line.give_back(slabs.popleft()[0])
        self._line.close()

    def _release(self) -> None:
        if self._reading is not None and not self._unread:
            slab, self._reading = self._reading, None
            self._line.give_back(slab)


class LineHasher:
    """The thread, for all lines of an instance, started when first needed.

    Args:
        wake: Called from the thread when `resume` should be called.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._condition = threading.Condition()
        self._lines: deque[HashedLine] = deque()
        self._current: HashedLine | None = None
        self._ready: list[HashedLine] = []
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, line: HashedLine, slab: Slab, piece: memoryview) -> None:
        """Take the next slot of a line, and the bytes in it, to be hashed."""
        with self._condition:
            line.waiting.append((slab, piece))
            if line is self._current or line in self._lines:
                return
            self._lines.append(line)
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="hash", daemon=True)
                self._thread.start()
            self._condition.notify_all()

    def take(self, line: HashedLine) -> tuple[Slab, memoryview] | None:
        """Return the next slot that is hashed; None if there is none: the line is told when there is."""
        with self._condition:
            line.starved = not line.hashed
            return line.hashed.popleft() if line.hashed else None

    def is_through(self, line: HashedLine) -> bool:
        """Whether everything that was added is hashed and taken."""
        with self._condition:
            return not line.waiting and not line.hashed

    def forget(self, line: HashedLine) -> None:
        """Hash nothing more of a line; waits for the slot in hand."""
        with self._condition:
            line.closed = True
            self._lines = deque(one for one in self._lines if one is not line)
            while self._current is line:
                self._condition.wait()
            self._ready = [one for one in self._ready if one is not line]

    def resume(self) -> None:
        """Let the writers go on that have something to read again; in the flow's thread."""
        with self._condition:
            ready, self._ready = self._ready, []
        for line in ready:
            line.go_on()

    def close(self) -> None:
        """End the thread; what is not hashed stays so."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _loop(self) -> None:
        while (line := self._next()) is not None:
            line.hasher.update(line.waiting[0][1])
            with self._condition:
                self._current = None
                line.hashed.append(line.waiting.popleft())
                if line.waiting and not line.closed:
                    self._lines.append(line)  # behind the others: each gets its share
                if line.starved and (len(line.hashed) >= _TOGETHER or not line.waiting):
                    line.starved = False
                    self._ready.append(line)
                    self._wake()
                self._condition.notify_all()

    def _next(self) -> HashedLine | None:
        with self._condition:
            while not self._lines and not self._closed:
                self._condition.wait()
            self._current = None if self._closed else self._lines.popleft()
            return self._current

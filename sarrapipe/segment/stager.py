"""A thread that takes full slots, writes them into files and hashes them: the other end of `StagedSink`.

    stager = Stager(Staging(ring, wake), wake_flow)
    sink = stager.sink(fd, offset, length, xxhash.xxh3_128())
    ...                            # a backend writes into it, and pauses while it has no room
    for sink in stager.written():  # after a wake-up: all bytes are in the file, `sink.hasher` has seen them
        ...

The receiving thread only copies. Slots are written in the order in which they were filled, whatever file
they belong to, and given back when their bytes are in the file. So a slot waits for nothing but the file
system, and that the digest of a whole file waits for an earlier segment holds none: the bytes of a segment
are hashed as a segment here, and those of the whole file, in order, from the page cache (`flow.verify`).

Killed at any instant, bytes in slots are lost with their owner: their segment is not marked in the ledger,
which happens after `written`, and is fetched again.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable

from sarrapipe.crashpoints import passing
from sarrapipe.errors import SarrapipeError
from sarrapipe.segment.sink import Updatable, storage_error
from sarrapipe.segment.staged import Slab, StagedRange, Staging

__all__ = ["StagedSink", "Stager"]


class StagedSink(StagedRange):
    """A range on its way into a file.

    Attributes:
        hasher: Sees every byte, in order, once it is in the file; None for none.
        error: Why its bytes cannot be written; raised where the next slot is asked for.
        settled: All bytes are in the file and were hashed, and no slot is held.
    """

    def __init__(
        self, stager: Stager, staging: Staging, fd: int, offset: int, length: int, hasher: Updatable | None,
        name: str,
    ) -> None:  # fmt: skip
        super().__init__(staging, length, lambda: stager.queue(self), name)
        self._fd = fd
        self._at = offset
        self.hasher = hasher
        self.error: SarrapipeError | None = None
        self.settled = False

    @property
    def written(self) -> int:
        """Bytes that were handed over: as with a sink that gathers, those in a slot not full do not count.

        Whoever watches the rate of a transfer (`transfer.adapt`) sees the same steps either way.
        """
        return self._came - self._filled

    def _take(self) -> Slab | None:
        """Return a slot, or raise why what came before could not be written."""
        if self.error is not None:
            raise self.error
        return super()._take()

    def drain_one(self) -> None:
        """Write and hash the bytes of one slot, and give it back; on the stager's thread.

        Raises:
            StorageError: The file system refused.
        """
        piece = self.read(self._staging.slab_bytes)
        if not piece:
            return
        passing("slot_filled")
        try:
            done = os.pwrite(self._fd, piece, self._at)
            while done < len(piece):
                done += os.pwrite(self._fd, piece[done:], self._at + done)
        except OSError as error:
            raise storage_error(error, f"write {self._name or f'descriptor {self._fd}'}") from error
        self._at += done
        if self.hasher is not None:
            self.hasher.update(piece)
        del piece
        passing("slot_drained")
        self.release()


class Stager:
    """The thread, started when first needed.

    Args:
        staging: Where slots come from.
        wake: Called from the thread when a range is written whole.
    """

    def __init__(self, staging: Staging, wake: Callable[[], None]) -> None:
        self._staging = staging
        self._wake = wake
        self._condition = threading.Condition()
        self._queue: deque[StagedSink] = deque()
        self._written: deque[StagedSink] = deque()
        self._current: StagedSink | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def sink(
        self, fd: int, offset: int, length: int, hasher: Updatable | None = None, name: str = ""
    ) -> StagedSink:
        """Return what stages one range of a file.

        Args:
            fd: Descriptor of the file, open for writing until the sink is written or cancelled.
            offset: Where the range begins in the file.
            length: Bytes in the range.
            hasher: Gets every byte, in order.
            name: Path of the file for error messages.
        """
        return StagedSink(self, self._staging, fd, offset, length, hasher, name)

    def queue(self, sink: StagedSink) -> None:
        """Let the thread take one slot of a sink."""
        with self._condition:
            if sink.error is not None:
                return  # its owner is about to hear of it
            self._queue.append(sink)
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="stage", daemon=True)
                self._thread.start()
            self._condition.notify_all()

    def cancel(self, sink: StagedSink) -> None:
        """Write nothing more of a range and give its slots back; waits for the write that is going on."""
        with self._condition:
            self._queue = deque(one for one in self._queue if one is not sink)
            while self._current is sink:
                self._condition.wait()
            if sink in self._written:
                self._written.remove(sink)
        sink.close()

    @property
    def has_written(self) -> bool:
        """Whether `written` would return something; to be asked after the wake-up was cleared."""
        return bool(self._written)

    def written(self) -> list[StagedSink]:
        """Return the ranges that are in their files since the last call, or whose `error` is set."""
        written = []
        while self._written:
            written.append(self._written.popleft())
        return written

    def close(self) -> None:
        """End the thread; what is in slots is not written."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join()
        while self._queue:
            self._queue.popleft().close()

    def _loop(self) -> None:
        while (sink := self._next()) is not None:
            try:
                sink.drain_one()
            except SarrapipeError as error:
                sink.error = error
            with self._condition:
                self._current = None
                if sink.error is not None:
                    self._queue = deque(one for one in self._queue if one is not sink)
                sink.settled = sink.error is None and sink.finished
                if sink.error is not None or sink.settled:
                    self._written.append(sink)
                    self._wake()
                self._condition.notify_all()

    def _next(self) -> StagedSink | None:
        with self._condition:
            while not self._queue and not self._closed:
                self._condition.wait()
            self._current = None if self._closed else self._queue.popleft()
            return self._current

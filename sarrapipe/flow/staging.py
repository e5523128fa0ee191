"""How one instance stages: its slots, the thread behind them, and reads whose bytes are not all written.

A read ends when its last byte is in a slot. What it was for goes on when its last byte is in the file;
until then its end is kept here (`holds`), and comes out of `written`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Final

from sarrapipe.config.model import FlowConfig
from sarrapipe.config.values import Fetching
from sarrapipe.flow.wake import Wake
from sarrapipe.segment.hashedline import LineHasher
from sarrapipe.segment.sink import DirectSink
from sarrapipe.segment.staged import Staging
from sarrapipe.segment.stager import StagedSink, Stager
from sarrapipe.shm.ring import Ring
from sarrapipe.transfer.base import Capabilities, RangeDone, RangeRead
from sarrapipe.transfer.engine import TransferEngine

__all__ = ["RING_FILE", "StagedWrites", "open_ring", "opened"]

RING_FILE: Final = "ring"
"""Name of the slots' file in a flow's state directory."""

_WORTH_STAGING: Final = 1 << 20
"""Bytes of a range from which on the hand-over between threads is small beside them."""


class StagedWrites:
    """What an instance has in slots.

    Args:
        ring: The flow's slots.
        wake: Ends the flow's wait.
        files: Whether files are staged; else only what asks for `staging` is.

    Attributes:
        ring: The same.
        line_hasher: Hashes what is relayed.
        wake: Ends the flow's wait.
    """

    def __init__(self, ring: Ring, wake: Callable[[], None], *, files: bool) -> None:
        self.ring = ring
        self.wake = wake
        self._files = files
        self._room = Wake().open()
        self._staging = Staging(ring, self._room.set)
        self._stager = Stager(self._staging, wake)
        self.line_hasher = LineHasher(self._room.set)
        self._sinks: dict[object, StagedSink] = {}
        self._held: dict[object, RangeDone] = {}

    @property
    def staging(self) -> Staging:
        """The slots, for whoever stages by itself (`relaytask`)."""
        return self._staging

    def attach(self, engine: TransferEngine) -> None:
        """Let reads that wait for a slot go on from within the engine's wait."""
        engine.watch(self._room.fileno(), self._on_room)

    def stage(self, read: RangeRead, able: Capabilities) -> None:
        """Let a read go through slots rather than straight into its file, where that is possible.

        Args:
            read: Not submitted yet.
            able: What its backend can do.
        """
        direct = read.sink
        if (
            not self._files
            or not isinstance(direct, DirectSink)
            or not able.pauses
            or (able.local and direct.fileno() >= 0)
        ):
            return  # the last: copied inside the kernel
        fd, offset, length, name = direct.place
        if length is not None and length >= _WORTH_STAGING:
            read.sink = self._sinks[read.token] = self._stager.sink(fd, offset, length, direct.hasher, name)

    def holds(self, done: RangeDone) -> bool:
        """Whether the end of a read has to wait until its bytes are written."""
        sink = self._sinks.get(done.token)
        if sink is None:
            return False
        if done.error is not None:
            self.cancel(done.token)
            return False
        self._held[done.token] = done
        return True

    def written(self) -> list[RangeDone]:
        """Return the ends of reads whose bytes are written, or cannot be."""
        if not self._sinks:
            return []
        for sink in self._stager.written():
            if sink.error is not None:
                self._staging.nudge(sink)
        ends = []
        for token in [token for token in self._held if self._is_settled(self._sinks[token])]:
            done = self._held.pop(token)
            done.error = self._sinks[token].error
            ends.append(done)
            self.cancel(token)
        return ends

    @property
    def has_written(self) -> bool:
        """Whether `written` may return something."""
        return self._stager.has_written

    def cancel(self, token: object) -> None:
        """Write nothing more for a read, and give its slots back."""
        self._held.pop(token, None)
        sink = self._sinks.pop(token, None)
        if sink is not None:
            self._stager.cancel(sink)

    def resume(self) -> None:
        """Let reads that wait for a slot look again: other processes may have given some back."""
        if self._staging.waiting:
            self._staging.resume()

    def close(self) -> None:
        """End the thread and give everything back."""
        self._stager.close()
        self.line_hasher.close()
        for token in list(self._sinks):
            self.cancel(token)
        self.ring.trim()
        self.ring.close()
        self._room.close()

    def _on_room(self) -> None:
        self._room.clear()
        self._staging.resume()
        self.line_hasher.resume()

    @staticmethod
    def _is_settled(sink: StagedSink) -> bool:
        return sink.settled or sink.error is not None


def opened(
    config: FlowConfig, incarnation: int, announce: Callable[[], None], wake: Callable[[], None]
) -> StagedWrites | None:
    """Return what a flow stages through; None if it does not.

    `staging auto` stages what is relayed, which has nowhere else to go, and no files: nowhere was that
    faster, and it takes more CPU (docs/explanation/pipeline.md).

    Args:
        config: The flow's configuration.
        incarnation: Of this process.
        announce: Tells the siblings that a slot came free for which one of them waits.
        wake: Ends the flow's wait.

    Raises:
        StorageError: The slots cannot be made.
    """
    files = config.staging == "slots"
    if config.staging == "none" or not (files or config.download is Fetching.STREAM):
        # Of an earlier configuration; instances that still run with that keep it until they end.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(config.state_dir, RING_FILE))
        return None
    return StagedWrites(open_ring(config, incarnation, announce), wake, files=files)


def open_ring(config: FlowConfig, incarnation: int, announce: Callable[[], None]) -> Ring:
    """Map the slots of a flow.

    Raises:
        StorageError: They cannot be made.
    """
    os.makedirs(config.state_dir, exist_ok=True)
    path = os.path.join(config.state_dir, RING_FILE)
    ring = Ring.open(path, config.staging_bytes, incarnation, announce)
    ring.trim()  # memory that a former life of the flow left
    return ring

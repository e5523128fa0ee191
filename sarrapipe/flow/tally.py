"""Count what happens to items, in the instance's slot of the arena; `status` reads it from there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sarrapipe.clock import Clock
from sarrapipe.errors import SarrapipeError
from sarrapipe.message.worklist import WorkItem
from sarrapipe.shm.slots import Counter, Slot

__all__ = ["Tally"]

_DUPLICATE: Final = 304
_OVERTAKEN: Final = 406
_EXPIRED: Final = 504


class Tally:
    """The counters of one instance.

    Args:
        slot: Where they are.
        clock: Source of time.
    """

    def __init__(self, slot: Slot, clock: Clock) -> None:
        self.slot = slot
        self._clock = clock

    def error(self, error: SarrapipeError) -> None:
        """Count an error by its kind."""
        self.slot.count_error(error)

    def gathered(self, items: Sequence[WorkItem]) -> None:
        """Count what came in, and how long after its publication."""
        if not items:
            return
        slot = self.slot
        slot.add(Counter.MESSAGES_RECEIVED, len(items))
        now_ns = self._clock.wall_ns()
        size = 0
        for item in items:
            if item.delivery is not None:
                size += len(item.delivery.body)
        slot.add(Counter.MESSAGE_BYTES_RECEIVED, size)
        slot.set(Counter.GAUGE_LAST_MESSAGE, now_ns)

    def lag(self, item: WorkItem) -> None:
        """Count the time from an item's publication to now."""
        slot = self.slot
        lag_ns = max(self._clock.wall_ns() - item.message.pub_time_ns, 0)
        slot.set(Counter.GAUGE_LAG, lag_ns)
        slot.add(Counter.LAG_SUM, lag_ns)
        slot.raise_to(Counter.MAX_LAG, lag_ns)

    def malformed(self, items: Sequence[WorkItem]) -> None:
        """Count messages that could not be decoded."""
        self.slot.add(Counter.MESSAGES_RECEIVED, len(items))
        self.slot.add(Counter.MESSAGES_MALFORMED, len(items))

    def accepted(self, count: int) -> None:
        """Count what the masks took."""
        if count:
            self.slot.add(Counter.MESSAGES_ACCEPTED, count)

    def rejected(self, items: Sequence[WorkItem]) -> None:
        """Count what goes no further, by why."""
        slot = self.slot
        for item in items:
            code = item.report.code if item.report is not None else 0
            if code == _DUPLICATE:
                slot.add(Counter.MESSAGES_DUPLICATE)
            elif code == _OVERTAKEN:
                slot.add(Counter.MESSAGES_OVERTAKEN)
            else:
                slot.add(Counter.MESSAGES_REJECTED)

    def failed(self, items: Sequence[WorkItem]) -> None:
        """Count what will be tried again later."""
        self.slot.add(Counter.MESSAGES_FAILED, len(items))
        self.slot.add(Counter.MESSAGES_KEPT, sum(item.kept is None for item in items))

    def deferred(self, count: int) -> None:
        """Count what waits at the broker to be tried again, by whomever."""
        self.slot.add(Counter.MESSAGES_FAILED, count)
        self.slot.add(Counter.MESSAGES_REQUEUED, count)

    def retried(self, count: int) -> None:
        """Count what is tried again now."""
        self.slot.add(Counter.MESSAGES_RETRIED, count)

    def expired(self, count: int) -> None:
        """Count what was kept for too long and is given up."""
        self.slot.add(Counter.MESSAGES_EXPIRED, count)

    def done(self, items: Sequence[WorkItem]) -> None:
        """Count what is in place now, by its kind."""
        slot = self.slot
        files = 0
        for item in items:
            if "fileOp" not in item.message:
                files += 1
                continue
            operation = item.message.file_op
            assert operation is not None
            if operation.remove:
                slot.add(Counter.FILES_REMOVED)
            elif operation.rename is not None:
                slot.add(Counter.FILES_RENAMED)
            elif operation.directory:
                slot.add(Counter.DIRECTORIES_OK)
            else:
                slot.add(Counter.FILES_LINKED)
        slot.add(Counter.FILES_OK, files)
        slot.set(Counter.GAUGE_LAST_TRANSFER, self._clock.wall_ns())
        self.lag(items[-1])

    def published(self, items: Sequence[WorkItem]) -> None:
        """Count confirmed announcements."""
        self.slot.add(Counter.MESSAGES_PUBLISHED, len(items))

    def unconfirmed(self, count: int) -> None:
        """Count announcements that the broker did not take, and that are sent again."""
        self.slot.add(Counter.MESSAGES_UNCONFIRMED, count)

    def requeued(self, count: int) -> None:
        """Count messages given back to where they came from."""
        self.slot.add(Counter.MESSAGES_REQUEUED, count)

    def answered(self, items: Sequence[WorkItem]) -> None:
        """Count messages whose outcome is durable."""
        self.slot.add(Counter.MESSAGES_ACKNOWLEDGED, len(items))

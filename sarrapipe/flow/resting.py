"""Blocks that are written and wait for the rest of their file.

They are asked about again every second, and when something was settled here. Those that wait for long, and
those beyond a bound, are kept and acknowledged (`take_long`), so that they keep nobody from new messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sarrapipe.message.worklist import WorkItem

__all__ = ["KEEP_AFTER_S", "Resting"]

_ASK_AGAIN_S: Final = 1.0
KEEP_AFTER_S: Final = 5.0
"""Longer than the blocks of a file in transfer need to be fetched by several instances, in most cases; then
one synced write a block is saved."""
_SINCE: Final = "_rests_since"


class Resting:
    """The resting items of one instance, in the order in which they came.

    Args:
        limit: How many may rest here.
    """

    def __init__(self, limit: int) -> None:
        self._limit = max(limit, 1)
        self._asked: dict[WorkItem, float] = {}

    def __len__(self) -> int:
        return len(self._asked)

    def __iter__(self) -> Iterator[WorkItem]:
        return iter(self._asked)

    @property
    def next_due_s(self) -> float:
        """When the first is to be asked about; infinity if nothing rests."""
        return min(self._asked.values(), default=float("inf"))

    @property
    def overflows(self) -> bool:
        """Whether more rest than may."""
        return len(self._asked) > self._limit

    def add(self, item: WorkItem, now_s: float) -> None:
        """Let an item rest, perhaps once more."""
        if item.local is None or _SINCE not in item.local:
            item[_SINCE] = now_s
        self._asked[item] = now_s + _ASK_AGAIN_S

    def take_due(self, now_s: float) -> list[WorkItem]:
        """Return the items to be asked about."""
        due = [item for item, due_s in self._asked.items() if due_s <= now_s]
        return self._take(due)

    def take_all(self) -> list[WorkItem]:
        """Return all items."""
        return self._take(list(self._asked))

    def take_long(self, now_s: float) -> list[WorkItem]:
        """Return the items that are to be kept."""
        beyond = len(self._asked) - self._limit
        long = [
            item
            for number, item in enumerate(self._asked)
            if number < beyond or now_s - float(str(item[_SINCE])) >= KEEP_AFTER_S
        ]
        return self._take(long)

    def _take(self, items: list[WorkItem]) -> list[WorkItem]:
        for item in items:
            del self._asked[item]
        return items

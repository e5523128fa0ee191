"""Things to be looked at again at a time: bounded by what the flow holds, in the order of their times."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["Waitlist"]

_T = TypeVar("_T")


class Waitlist(Generic[_T]):
    """What waits, each with a monotonic time.

    >>> waiting: Waitlist[str] = Waitlist()
    >>> waiting.add("b", 2.0); waiting.add("a", 1.0)
    >>> waiting.take_due(1.5), waiting.next_due_s
    (['a'], 2.0)
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _T]] = []
        self._serial = itertools.count()  # things need no order among themselves

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[_T]:
        return (thing for _, _, thing in self._heap)

    @property
    def next_due_s(self) -> float:
        """When the first of them is due; infinity if nothing waits."""
        return self._heap[0][0] if self._heap else math.inf

    def add(self, thing: _T, due_s: float) -> None:
        """Let something wait until a monotonic time."""
        heapq.heappush(self._heap, (due_s, next(self._serial), thing))

    def take_due(self, now_s: float) -> list[_T]:
        """Return what is due, the first first; it waits no longer."""
        due = []
        while self._heap and self._heap[0][0] <= now_s:
            due.append(heapq.heappop(self._heap)[2])
        return due

    def take_all(self) -> list[_T]:
        """Return everything, the first first; nothing waits any more."""
        return self.take_due(math.inf)

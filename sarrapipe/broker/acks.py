"""Which basic.ack frames acknowledge a set of delivery tags: as few as possible, and never one too many.

A tag belongs to one channel of one connection (an epoch); a tracker is made for each and thrown away with it.
`multiple` acknowledges everything up to a tag, so it may be used only where every lower tag has been settled.

>>> tracker = AckTracker()
>>> for tag in (1, 2, 3, 4): tracker.delivered(tag)
>>> tracker.settle([2, 4])
[(2, False), (4, False)]
>>> tracker.settle([1, 3])
[(3, True)]

Source: https://www.rabbitmq.com/docs/confirms (delivery tags, acknowledging multiple deliveries at once).
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["AckTracker"]


class AckTracker:
    """Delivery tags of one epoch: handed out, and not yet settled.

    Tags of a channel are 1, 2, 3 ... in the order of delivery.
    """

    __slots__ = ("_above", "_floor", "_last")

    def __init__(self) -> None:
        self._floor = 0
        """Every tag up to here is settled."""
        self._above: set[int] = set()
        """Settled tags above the floor."""
        self._last = 0

    @property
    def outstanding(self) -> int:
        """How many tags were delivered and not settled."""
        return self._last - self._floor - len(self._above)

    def delivered(self, tag: int) -> None:
        """Record that the broker delivered `tag`."""
        self._last = tag

    def settle(self, tags: Iterable[int]) -> list[tuple[int, bool]]:
        """Settle `tags` and return what to send for them: (tag, multiple), in ascending order.

        Tags that were never delivered or are settled already are left out: the broker would close the
        channel for them (406, unknown delivery tag). All frames of one call must be of one kind (ack, or
        nack with one value of requeue).
        """
        floor, last, above = self._floor, self._last, self._above
        fresh = sorted({tag for tag in tags if floor < tag <= last and tag not in above})
        if not fresh:
            return []
        above.update(fresh)
        while floor + 1 in above:
            floor += 1
            above.remove(floor)
        self._floor = floor
        below = 0
        while below < len(fresh) and fresh[below] <= floor:
            below += 1
        frames = [(fresh[below - 1], below > 1)] if below else []
        frames.extend((tag, False) for tag in fresh[below:])
        return frames

"""The last stretch of a task: from verified to announced, and from settled to acknowledged.

Where `durability host` is asked for, things pause here until they are on the disk.
"""

from __future__ import annotations

from collections.abc import Iterable

from sarrapipe.flow.closing import Turn
from sarrapipe.flow.durability import Durability
from sarrapipe.flow.removals import RemovalTask
from sarrapipe.flow.task import Task
from sarrapipe.message.worklist import WorkItem

__all__ = ["Handover"]


class Handover:
    """What one instance has finished and not yet given back to the flow.

    Args:
        durability: Makes things survive loss of power; None where that is not asked for.
    """

    def __init__(self, durability: Durability | None) -> None:
        self._durability = durability
        self._verified: list[Task] = []
        self._placed: list[Task | RemovalTask] = []
        self._answered: list[WorkItem] = []
        # By id of the item: placed, announcement on its way.
        self._announced: dict[int, Task | RemovalTask] = {}

    @property
    def held(self) -> int:
        """Items on their way through here, besides the tasks of files."""
        return 0 if self._durability is None else self._durability.held

    @property
    def busy(self) -> bool:
        """Whether there is something to do without waiting."""
        synced = self._durability is not None and self._durability.has_completed
        return bool(self._verified or self._placed or self._answered or synced)

    @property
    def removals(self) -> list[RemovalTask]:
        """Removals and renames that are being announced."""
        return [one for one in self._announced.values() if isinstance(one, RemovalTask)]

    def verified(self, tasks: Iterable[Task]) -> None:
        """These are whole and verified: to be committed."""
        self._verified += tasks

    def placed(self, task: Task | RemovalTask) -> None:
        """This is in place: to be announced."""
        self._announced[id(task.item)] = task
        self._placed.append(task)

    def answered(self, items: Iterable[WorkItem]) -> None:
        """These are settled: to be acknowledged."""
        self._answered += items

    def is_announced(self, item: WorkItem) -> bool:
        """Return whether an item is in place, or being announced."""
        return id(item) in self._announced

    def take_back(self, item: WorkItem) -> Task | RemovalTask | None:
        """Return the task of an item that is being announced, which ends here; None if there is none."""
        return self._announced.pop(id(item), None)

    def step(self, turn: Turn) -> tuple[list[Task], list[Task]]:
        """Let what is durable go on.

        Args:
            turn: Takes what can be announced and acknowledged now.

        Returns:
            Tasks to be committed, and tasks whose `error` is set.
        """
        verified, self._verified = self._verified, []
        if self._durability is None:
            return verified, []
        if verified:
            self._durability.sync_data(verified)
        synced = self._durability.completed()
        turn.worklist.ok += [task.item for task in synced.placed]
        turn.answered += synced.answered
        for task in synced.broken:
            self.take_back(task.item)
        return synced.ready, synced.broken

    def hand_over(self, turn: Turn) -> None:
        """Let what is in place be announced, what is settled acknowledged; durable before, where asked."""
        placed, self._placed = self._placed, []
        answered, self._answered = self._answered, []
        if self._durability is None:
            turn.worklist.ok += [task.item for task in placed]
            turn.answered += answered
            return
        if placed:
            self._durability.sync_names(placed)
        if answered:
            self._durability.sync_decisions(answered)

    def stop(self) -> None:
        """Forget what is not committed; its file may be closed after this."""
        if self._durability is not None:
            self._durability.wait()
        self._verified.clear()

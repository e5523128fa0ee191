"""Durability `host`: what is announced and acknowledged survives loss of power.

Everything of a turn is synced together, on a thread of its own, so that the flow goes on meanwhile:

    verified ─► data of the files ─► commit, rename ─► names in their directories ─► announced
    confirmed ─► settled ─► the ledger's last decision ─► acknowledged

With `durability process` none of this exists: the page cache survives the death of every process.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from sarrapipe.errors import SarrapipeError
from sarrapipe.flow.filetask import FileTask
from sarrapipe.flow.places import Places
from sarrapipe.flow.removals import RemovalTask
from sarrapipe.flow.task import Task
from sarrapipe.message.worklist import WorkItem
from sarrapipe.segment.assembly import sync_group

__all__ = ["Durability", "Synced"]

_DATA: Final = "data"
_NAMES: Final = "names"
_DECISIONS: Final = "decisions"


@dataclass(slots=True)
class Synced:
    """What was made durable since the last look.

    Attributes:
        ready: Files whose data is: to be committed.
        placed: Names that are: to be announced.
        answered: Messages whose settlement is: to be acknowledged.
        broken: Tasks whose data or names could not be synced; their `error` is set.
    """

    ready: list[Task] = field(default_factory=list)
    placed: list[Task | RemovalTask] = field(default_factory=list)
    answered: list[WorkItem] = field(default_factory=list)
    broken: list[Task] = field(default_factory=list)


@dataclass(slots=True)
class _Job:
    kind: str
    call: Callable[[], None]
    tasks: Sequence[Task | RemovalTask] = ()
    items: Sequence[WorkItem] = ()
    error: SarrapipeError | None = None

    @property
    def held(self) -> int:
        return len(self.items) + (len(self.tasks) if self.kind == _NAMES else 0)


class Durability:
    """The syncing thread of one instance, started when first needed.

    Args:
        places: Where files are.
        sync_ledger: Makes the ledger's decisions durable.
        wake: Called from the thread when something is done.
    """

    def __init__(self, places: Places, sync_ledger: Callable[[], None], wake: Callable[[], None]) -> None:
        self._places = places
        self._sync_ledger = sync_ledger
        self._wake = wake
        self._condition = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._done: deque[_Job] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._busy = False
        self._under_way = 0

    @property
    def held(self) -> int:
        """How many names and settlements are on their way; verified files are counted by whoever has them."""
        with self._condition:
            return sum(job.held for job in (*self._jobs, *self._done)) + self._under_way

    @property
    def has_completed(self) -> bool:
        """Whether `completed` would return something; to be asked after the wake-up was cleared."""
        return bool(self._done)

    def sync_data(self, tasks: Sequence[Task]) -> None:
        """Make the bytes of verified files durable."""
        files = [task.file for task in tasks if isinstance(task, FileTask) and task.file is not None]
        self._submit(_Job(_DATA, lambda: sync_group(files), tasks=tasks))

    def sync_names(self, tasks: Sequence[Task | RemovalTask]) -> None:
        """Make renames, new names and removals durable."""
        directories: dict[str, str] = {}
        for task in tasks:
            for target in task.targets:
                directories[os.path.dirname(target)] = target
        self._submit(_Job(_NAMES, lambda: self._sync_directories(directories.values()), tasks=tasks))

    def sync_decisions(self, items: Sequence[WorkItem]) -> None:
        """Make the settlement of messages durable."""
        self._submit(_Job(_DECISIONS, self._sync_ledger, items=items))

    def completed(self) -> Synced:
        """Return what was made durable since the last call.

        Raises:
            LedgerError: The ledger cannot be written to.
            NoSpace: Its disk is full.
        """
        synced = Synced()
        while self._done:
            job = self._done.popleft()
            if job.kind == _DECISIONS:
                if job.error is not None:
                    raise job.error
                synced.answered += job.items
            elif job.error is not None:
                self._break(job, job.error, synced)
            elif job.kind == _DATA:
                synced.ready += [task for task in job.tasks if isinstance(task, Task)]
            else:
                synced.placed += job.tasks
        return synced

    def _break(self, job: _Job, error: SarrapipeError, synced: Synced) -> None:
        for task in job.tasks:
            if isinstance(task, Task):
                task.error = error
                synced.broken.append(task)
            else:  # a removal is repeated if power is lost; to fail it now would gain nothing
                synced.placed.append(task)

    def wait(self) -> None:
        """Wait until nothing is being synced: descriptors may be closed after this."""
        with self._condition:
            self._condition.wait_for(lambda: not self._jobs and not self._busy)

    def close(self) -> None:
        """End the thread once it has done what it was given."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _sync_directories(self, targets: Iterable[str]) -> None:
        for target in targets:
            destination, path = self._places.find(target)
            destination.sync_directory(path)

    def _submit(self, job: _Job) -> None:
        with self._condition:
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="sync", daemon=True)
                self._thread.start()
            self._condition.notify_all()

    def _loop(self) -> None:
        while (job := self._next()) is not None:
            try:
                job.call()
            except SarrapipeError as error:
                job.error = error
            with self._condition:
                self._busy = False
                self._under_way = 0
                self._done.append(job)
                self._condition.notify_all()
            self._wake()

    def _next(self) -> _Job | None:
        with self._condition:
            self._condition.wait_for(lambda: self._jobs or self._closed)
            if not self._jobs:
                return None
            self._busy = True
            job = self._jobs.popleft()
            self._under_way = job.held
            return job

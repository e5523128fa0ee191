"""Run the callbacks of one flow: bundled ones in place, a user's on a thread of its own with a time limit.

A worklist given to `pass_on` comes back, from the same or a later call, when every callback of that hook has
seen it. Nothing is ever lost on the way: items of a callback that raised, overran `callbackTimeout` or
dropped an item from all lists come back on `failed`, and the flow keeps them for another attempt.
"""

from __future__ import annotations

import copy
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from sarrapipe.callbacks.base import HOOKS, FlowCallback
from sarrapipe.callbacks.loader import is_bundled
from sarrapipe.clock import SYSTEM_CLOCK, Clock
from sarrapipe.errors import CallbackError
from sarrapipe.log import get_logger
from sarrapipe.message.worklist import Report, WorkItem, Worklist

__all__ = ["CallbackChain"]

_log = get_logger(__name__)
_FAILED_CODE: Final = 500
_TRANSFER_FAILED_CODE: Final = 499


@dataclass(slots=True, eq=False)
class _Job:
    """One worklist on its way through the callbacks of one hook."""

    hook: str
    worklist: Worklist
    items: list[WorkItem] = field(default_factory=list)
    limit: int = 0
    deadline_s: float = float("inf")
    error: CallbackError | None = None


class CallbackChain:
    """The callbacks of a flow, by hook.

    Args:
        callbacks: In the order they are to be asked.
        timeout_s: Limit of one pass of a worklist through a user's callbacks of one hook.
        wake: Called from the callback thread when a worklist is ready, to end the flow's wait.
        clock: Source of time.
        count_error: Told of each error, for the counters.
    """

    def __init__(
        self,
        callbacks: Sequence[FlowCallback],
        timeout_s: float,
        wake: Callable[[], None],
        clock: Clock = SYSTEM_CLOCK,
        count_error: Callable[[CallbackError], None] = lambda _: None,
    ) -> None:
        self._by_hook = {hook: [cb for cb in callbacks if _overrides(cb, hook)] for hook in HOOKS}
        self._threaded = {
            hook: any(not is_bundled(cb) for cb in chosen) for hook, chosen in self._by_hook.items()
        }
        self._timeout_s = timeout_s
        self._wake = wake
        self._clock = clock
        self._count_error = count_error
        self._worker: _Worker | None = None
        self._pending: deque[_Job] = deque()
        self.errors = 0

    def has(self, hook: str) -> bool:
        """Return whether any callback overrides `hook`."""
        return bool(self._by_hook[hook])

    @property
    def busy(self) -> bool:
        """Whether worklists are still with a user's callbacks."""
        return bool(self._pending)

    @property
    def has_completed(self) -> bool:
        """Whether `completed` would return something; to be asked after the wake-up was cleared."""
        return bool(self._pending and self._worker is not None and self._pending[0] in self._worker.done)

    def pass_on(self, hook: str, worklist: Worklist, limit: int = 0) -> list[Worklist]:
        """Hand a worklist to the callbacks of `hook`.

        Args:
            hook: Name of the hook.
            worklist: For `gather` an empty one: what they gather comes back as `incoming`.
            limit: For `gather`: how many items are wanted.

        Returns:
            Worklists that every callback of this hook has seen by now: usually just this one.
        """
        chosen = self._by_hook[hook]
        if not chosen:
            return [worklist]
        job = _Job(hook, worklist, list(worklist), limit)
        if not self._threaded[hook]:
            _run(job, chosen)
            return [self._finish(job)]
        self._submit(job)
        return self.completed(hook)

    def completed(self, hook: str) -> list[Worklist]:
        """Return the worklists of `hook` that came back from the callback thread, or overran their time."""
        if not self._pending or self._worker is None:
            return []
        self._check_overdue()
        ready = []
        done = self._worker.done
        while self._pending and self._pending[0] in done and self._pending[0].hook == hook:
            job = self._pending.popleft()
            done.remove(job)
            ready.append(self._finish(job))
        return ready

    def call(self, hook: str, *arguments: object) -> list[object]:
        """Call a hook that takes no worklist in place and return what each callback returned.

        A callback that raises is logged and counted; the others are still asked.
        """
        results = []
        for callback in self._by_hook[hook]:
            try:
                results.append(getattr(callback, hook)(*arguments))
            except Exception as error:  # noqa: BLE001 - around a user's hook: a broken one must not stop the flow
                self._count(CallbackError(f"{type(callback).__name__}.{hook}: {error}"))
                _log.exception("callback %s.%s failed; going on without it", type(callback).__name__, hook)
        return results

    def close(self) -> None:
        """End the callback thread once it has finished what it is doing; it is not waited for."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _submit(self, job: _Job) -> None:
        if self._worker is None:
            self._worker = _Worker(self._by_hook, self._wake)
        job.deadline_s = self._clock.monotonic_s() + self._timeout_s
        self._pending.append(job)
        self._worker.submit(job)

    def _check_overdue(self) -> None:
        """Give up on the oldest job if its time is over: a new thread takes the rest, the old one is left."""
        assert self._worker is not None
        oldest = self._pending[0]
        if oldest in self._worker.done or self._clock.monotonic_s() < oldest.deadline_s:
            return
        names = ", ".join(type(cb).__name__ for cb in self._by_hook[oldest.hook])
        oldest.error = CallbackError(f"{names}.{oldest.hook} overran callbackTimeout ({self._timeout_s:g} s)")
        # The abandoned thread may still write to the items it was given: go on with copies.
        oldest.items = [copy.copy(item) for item in oldest.items]
        oldest.worklist = Worklist()
        self._worker.close()
        finished = [job for job in self._worker.done if job is not oldest]
        self._worker = _Worker(self._by_hook, self._wake)
        self._worker.done.extend([*finished, oldest])
        for job in self._pending:
            if job not in self._worker.done:
                job.deadline_s = self._clock.monotonic_s() + self._timeout_s
                self._worker.submit(job)

    def _finish(self, job: _Job) -> Worklist:
        """Make sure that every item that went in is on a list again."""
        if job.error is not None:
            self._count(job.error)
            _log.warning("%s; %d items are kept for another attempt", job.error, len(job.items))
            return _all_failed(job, str(job.error))
        for item in job.worklist.lost(job.items):
            item.report = Report(_FAILED_CODE, f"a callback of {job.hook} dropped the item")
            job.worklist.failed.append(item)
            self._count(CallbackError(f"a callback of {job.hook} dropped an item"))
        return job.worklist

    def _count(self, error: CallbackError) -> None:
        self.errors += 1
        self._count_error(error)


class _Worker:
    """The callback thread: takes jobs in order, puts them on `done`."""

    def __init__(self, by_hook: dict[str, list[FlowCallback]], wake: Callable[[], None]) -> None:
        self.done: deque[_Job] = deque()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._by_hook = by_hook
        self._wake = wake
        self._closed = False
        # A daemon: a callback that never returns must not keep a stopped instance alive.
        threading.Thread(target=self._loop, name="callbacks", daemon=True).start()

    def submit(self, job: _Job) -> None:
        self._jobs.put(job)

    def close(self) -> None:
        self._closed = True
        self._jobs.put(None)

    def _loop(self) -> None:
        while (job := self._jobs.get()) is not None and not self._closed:
            _run(job, self._by_hook[job.hook])
            if self._closed:
                return
            self.done.append(job)
            self._wake()


def _run(job: _Job, callbacks: Sequence[FlowCallback]) -> None:
    for callback in callbacks:
        try:
            if job.hook == "gather":
                if not _gather(job, callback):
                    return
            elif job.hook == "download":
                _download(job.worklist, callback)
            else:
                getattr(callback, job.hook)(job.worklist)
        except Exception as error:  # noqa: BLE001 - around a user's hook: its items are kept
            _log.debug("callback failed", exc_info=True)
            job.error = CallbackError(
                f"{type(callback).__name__}.{job.hook}: {type(error).__name__}: {error}"
            )
            job.error.__cause__ = error
            return


def _gather(job: _Job, callback: FlowCallback) -> bool:
    """Take what a callback gathers; return whether the following ones are asked as well."""
    gathered: object = callback.gather(job.limit - len(job.worklist.incoming))
    # sr3 allows a list alone, after which the following ones are asked (sr3-surface.md 2.2).
    more, items = gathered if isinstance(gathered, tuple) else (True, gathered)
    if not isinstance(items, Sequence):
        raise TypeError(f"gather has to return a list of WorkItems, not {type(items).__name__}")
    for item in items:
        if not isinstance(item, WorkItem):
            raise TypeError(f"gather has to return WorkItems, not {type(item).__name__}")
    job.worklist.incoming += items
    return bool(more)


def _download(worklist: Worklist, callback: FlowCallback) -> None:
    """Offer each incoming item to a callback that may fetch it in the flow's stead."""
    offered, worklist.incoming = worklist.incoming, []
    for item in offered:
        fetched = callback.download(item)
        if fetched is None:
            worklist.incoming.append(item)
        elif fetched:
            worklist.ok.append(item)
        else:
            item.report = item.report or Report(
                _TRANSFER_FAILED_CODE, f"{type(callback).__name__}.download failed"
            )
            worklist.failed.append(item)


def _overrides(callback: FlowCallback, hook: str) -> bool:
    return getattr(type(callback), hook, None) is not getattr(FlowCallback, hook)


def _all_failed(job: _Job, why: str) -> Worklist:
    for item in job.items:
        item.report = Report(_FAILED_CODE, why)
    return Worklist(failed=job.items)

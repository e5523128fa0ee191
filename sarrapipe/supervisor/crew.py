"""The instances of a flow: the wanted set against the running set, and each one's life.

Start, scale, reload, respawn and stop are one piece of code: `reconcile` compares what is wanted (so many
instances, of this generation of the configuration) with what there is, and sends `Start` and `Stop` to the
state machine (`states`); what that says to do is done here.

The crew belongs to the parent's single thread. It waits for nothing: the parent tells it what happened,
asks it for the next deadline, and gives it descriptors to watch.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from sarrapipe.clock import SYSTEM_CLOCK, Clock
from sarrapipe.log import get_logger
from sarrapipe.shm import host
from sarrapipe.shm.arena import Arena
from sarrapipe.shm.slots import Slot
from sarrapipe.supervisor import linux, pinning
from sarrapipe.supervisor.child import Job
from sarrapipe.supervisor.incarnation import IncarnationCounter
from sarrapipe.supervisor.mailbox import Frame, FrameReader, send_frame
from sarrapipe.supervisor.nursery import Nursery, Spawned
from sarrapipe.supervisor.paths import FlowPaths
from sarrapipe.supervisor.plan import FlowPlan
from sarrapipe.supervisor.states import (
    INITIAL,
    Action,
    Event,
    Exited,
    Hung,
    Life,
    Limits,
    Ready,
    Start,
    State,
    Stop,
    Tick,
    describe_exit,
    next_state,
)

__all__ = ["Crew", "Generation", "InstanceHandle"]

_LOG = get_logger(__name__)
_NOT_STARTED: Final = 71  # sysexits.h EX_OSERR: "cannot fork" and the like
_EXCUSED_S: Final = 10.0
_OVERSLEPT_S: Final = (
    1.0  # woken so late, the parent was stopped or starved itself, and so were the instances
)
_UNCLAIMED_LIMIT: Final = 1024


@dataclass(slots=True)
class Generation:
    """One reading of the configuration.

    Attributes:
        number: From 1.
        plan: What it said.
        nursery: Where its instances come from.
    """

    number: int
    plan: FlowPlan
    nursery: Nursery


@dataclass(slots=True, eq=False)
class InstanceHandle:
    """One instance as its parent sees it.

    Attributes:
        number: From 1.
        generation: With which it is started.
        slot: Its part of the arena, kept while it waits to be started again.
        life: Its state.
        retired: Whether it was told to end for good; another handle may have its number by then.
        incarnation: Of its last start.
        pid: Of its process; 0 while there is none, or it is not known yet.
        channel: Our end; None while there is no process.
        frames: What comes in there.
    """

    number: int
    generation: Generation
    slot: Slot
    life: Life = INITIAL
    retired: bool = False
    incarnation: int = 0
    pid: int = 0
    channel: socket.socket | None = None
    frames: FrameReader | None = None


@dataclass(slots=True)
class Watch:
    """How the crew has descriptors watched.

    Attributes:
        add: Called with a new handle's channel and the handle.
        remove: Called before a channel is closed.
    """

    add: Callable[[socket.socket, InstanceHandle], None]
    remove: Callable[[socket.socket], None]


@dataclass(slots=True)
class Crew:
    """All instances of one flow.

    Attributes:
        paths: Of the flow.
        arena: Written to.
        counter: Of incarnations.
        watch: For channels.
        log_to_files: Whether each instance writes its own log file.
        limits: Of the states; `stop_s` comes from the configuration.
        clock: Time.
        wanted: How many there should be.
        generation: Which the wanted ones have; None before the configuration was read.
    """

    paths: FlowPaths
    arena: Arena
    counter: IncarnationCounter
    watch: Watch
    log_to_files: bool
    limits: Limits
    clock: Clock = SYSTEM_CLOCK
    wanted: int = 0
    generation: Generation | None = None
    handles: list[InstanceHandle] = field(default_factory=list)
    _to_spawn: list[InstanceHandle] = field(default_factory=list)
    _unclaimed: dict[int, int] = field(default_factory=dict)
    _excused_until: float = 0.0

    # ---- what is wanted

    def want(self, count: int, generation: Generation) -> None:
        """Have so many instances of this generation, now and from now on."""
        self.wanted, self.generation = count, generation
        self.arena.wanted = count
        self.arena.hung_s = generation.plan.hung_s
        self.reconcile()

    def stop(self, limit_s: float | None = None) -> None:
        """Have no instances any more.

        Args:
            limit_s: Time to finish; None for the usual, 0 for as long as it takes.
        """
        self.wanted = 0
        for handle in self.handles:
            self._retire(handle, limit_s)
        self.reconcile()

    def reconcile(self) -> None:
        """Make what runs follow what is wanted; safe to repeat."""
        if self.generation is not None:
            for number in range(1, self.wanted + 1):
                if self._find(number, self.generation) is None:
                    self._add(number, self.generation)
        for handle in list(self.handles):
            if not handle.retired and not self._is_wanted(handle):
                self._retire(handle, self.limits.drain_s)
            if handle.retired and handle.life.state is State.STOPPED:
                self.handles.remove(handle)
            elif not handle.retired:
                self._apply(handle, Start())  # only a STOPPED one, that is a new one, takes notice
        self.spawn()

    def _retire(self, handle: InstanceHandle, limit_s: float | None) -> None:
        handle.retired = True
        self._apply(handle, Stop(limit_s))

    def _is_wanted(self, handle: InstanceHandle) -> bool:
        if handle.number > self.wanted or self.generation is None:
            return False
        if handle.generation is self.generation:
            return True
        # An older one stays until its successor works, and longer if its successor cannot work at all.
        successor = self._find(handle.number, self.generation)
        if successor is None:
            return True
        if successor.life.state in (State.RUNNING, State.EXITED):
            return False
        return handle.life.has_process or successor.life.state is State.FATAL

    def _find(self, number: int, generation: Generation) -> InstanceHandle | None:
        """Return the instance of this number and generation that is not on its way out."""
        for handle in self.handles:
            if handle.number == number and handle.generation is generation and not handle.retired:
                return handle
        return None

    def _add(self, number: int, generation: Generation) -> None:
        taken = {handle.slot.index for handle in self.handles}
        slot = self.arena.slot(self.arena.free_slot(taken))
        self.handles.append(InstanceHandle(number, generation, slot))

    # ---- the parent tells what happened

    def spawn(self) -> None:
        """Start what waits for it, where the fork server is there."""
        waiting, self._to_spawn = self._to_spawn, []
        for generation in {id(h.generation): h.generation for h in waiting}.values():
            handles = [handle for handle in waiting if handle.generation is generation]
            if generation.nursery.is_open:
                self._spawn(generation, handles)
            else:
                self._to_spawn += handles

    @property
    def waits_for_nursery(self) -> bool:
        """Whether instances cannot be started because a fork server is missing."""
        return bool(self._to_spawn)

    def on_spawned(self, news: Spawned) -> None:
        """Take in the pids of new processes; let them begin."""
        for handle in list(self.handles):
            pid = news.pids.get(handle.incarnation)
            if pid is None or handle.channel is None or handle.pid:
                continue
            if pid < 0:
                _LOG.error("instance %d: cannot be started: %s", handle.number, os.strerror(-pid))
                self._ended(handle, _NOT_STARTED)
                continue
            handle.pid = pid
            handle.slot.set_process(pid, host.start_ticks(pid))
            if pid in self._unclaimed:
                self._ended(handle, self._unclaimed.pop(pid))
            elif handle.life.state is State.STARTING:
                send_frame(handle.channel, Frame.GO, pid)
            else:
                self._close_channel(handle)  # stopped meanwhile: without GO it ends by itself
        if not any(handle.channel is not None and not handle.pid for handle in self.handles):
            self._unclaimed.clear()
        self.reconcile()

    def on_exit(self, pid: int, code: int) -> None:
        """Take in the end of a child process.

        Args:
            pid: Which.
            code: As `os.waitstatus_to_exitcode` gives it.
        """
        for handle in self.handles:
            if handle.pid == pid:
                self._ended(handle, code)
                self.reconcile()
                return
        if len(self._unclaimed) < _UNCLAIMED_LIMIT:
            self._unclaimed[pid] = code  # an instance that we have not been told of yet, or an orphan of one

    def on_channel(self, handle: InstanceHandle) -> None:
        """Take in what an instance says."""
        if handle.frames is None or handle.channel is None:
            return
        for kind, _value in handle.frames.read():
            if kind == Frame.READY:
                self._apply(handle, Ready())
            elif kind == Frame.WORK:
                self._tell_others(handle, Frame.WORK)
        if handle.frames.ended and handle.pid:
            self.watch.remove(handle.channel)  # its process is ending; `on_exit` does the rest
            handle.frames = None
        self.reconcile()

    def on_nursery_gone(self, nursery: Nursery) -> None:
        """Take in the end of a fork server: what it was asked for and had not reported will not come.

        If such a process exists nevertheless, it has not got GO and ends with its channel.
        """
        for handle in list(self.handles):
            if handle.generation.nursery is nursery and handle.channel is not None and not handle.pid:
                self._ended(handle, _NOT_STARTED)
        self.reconcile()

    def tick(self, overslept_s: float) -> None:
        """See to what is due.

        Args:
            overslept_s: By how much the parent woke later than it had asked for. If it was stopped, so were
                its instances: they get time to beat again before they count as hung.
        """
        now = self.clock.monotonic_s()
        if overslept_s > _OVERSLEPT_S:
            self._excused_until = now + _EXCUSED_S
        for handle in list(self.handles):
            self._apply(handle, Tick())
            if now >= self._hung_at(handle):
                self._apply(handle, Hung())
        self.reconcile()

    def deadline(self) -> float:
        """Return the monotonic time at which `tick` has something to do; infinite for never."""
        times = [time for handle in self.handles for time in (handle.life.until, self._hung_at(handle))]
        return min(times, default=math.inf)

    def is_idle(self) -> bool:
        """Whether every instance has ended for good."""
        return all(handle.life.state in (State.EXITED, State.FATAL) for handle in self.handles)

    def states(self) -> Iterator[State]:
        """Yield the state of each instance."""
        for handle in self.handles:
            yield handle.life.state

    def signal_all(self, number: int) -> None:
        """Send a signal to every instance."""
        for handle in self.handles:
            self._kill(handle, number)

    # ---- what the state machine says

    def _apply(self, handle: InstanceHandle, event: Event) -> None:
        before = handle.life
        limits = self._limits(handle)
        handle.life, action = next_state(before, event, self.clock.monotonic_s(), limits)
        handle.slot.set_state(handle.life.state)
        if before.failures and not handle.life.failures and handle.life.state is State.RUNNING:
            self.arena.note = ""  # well again: what `status` said about its death is history
        match action:
            case Action.SPAWN:
                self._to_spawn.append(handle)
            case Action.ASK:
                self._ask(handle)
            case Action.ABORT:
                self._abort(handle)
            case Action.KILL:
                _LOG.warning("instance %d pid=%d does not end: killed", handle.number, handle.pid)
                self._kill(handle, signal.SIGKILL)
            case Action.NOTHING:
                pass

    def _limits(self, handle: InstanceHandle) -> Limits:
        return replace(self.limits, stop_s=handle.generation.plan.stop_s)

    def _ask(self, handle: InstanceHandle) -> None:
        if handle in self._to_spawn:
            self._to_spawn.remove(handle)
            self._apply(handle, Exited(0))
            return
        if handle.channel is not None and handle.pid:
            left_s = handle.life.until - self.clock.monotonic_s()
            send_frame(handle.channel, Frame.STOP, 0 if math.isinf(left_s) else max(1, int(left_s * 1000)))
            self._kill(handle, signal.SIGTERM)

    def _abort(self, handle: InstanceHandle) -> None:
        text = (
            f"instance {handle.number} pid={handle.pid} was silent for {handle.generation.plan.hung_s:g} s: "
            "aborted, its stacks are in the log; started again"
        )
        _LOG.error("%s", text)
        self.arena.note = text
        self._kill(handle, signal.SIGABRT)

    def _kill(self, handle: InstanceHandle, number: int) -> None:
        """Send a signal. The pid is ours until we reap it, so it can mean nobody else."""
        if handle.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(handle.pid, number)
        elif number == signal.SIGKILL and handle.generation.nursery.pid:
            # Its fork server was asked for it and never answered: the request ends with the fork server.
            with contextlib.suppress(ProcessLookupError):
                os.kill(handle.generation.nursery.pid, signal.SIGKILL)

    def _ended(self, handle: InstanceHandle, code: int) -> None:
        """Take in the end of a handle's process, or that there will be none."""
        before = handle.life.state
        said = handle.slot.note
        pid, handle.pid = handle.pid, 0
        self._close_channel(handle)
        self.arena.retire(handle.slot)
        self._apply(handle, Exited(code))
        self._tell_others(handle, Frame.DEATHS, handle.incarnation)
        self._explain(handle, pid, code, before, said)

    def _explain(self, handle: InstanceHandle, pid: int, code: int, before: State, said: str) -> None:
        what = f"instance {handle.number} pid={pid} ended: {describe_exit(code)}"
        match handle.life.state:
            case State.BACKOFF:
                wait_s = handle.life.until - handle.life.since
                text = f"{what}; started again in {wait_s:g} s (death {handle.life.failures} in a row)"
                _LOG.error("%s", text)
                self.arena.note = text
            case State.FATAL:
                why = f": {said}" if said else ""
                text = f"{what}{why}; not started again: mend it and 'sarrapipe reload {self.paths.flow}'"
                _LOG.critical("%s", text)
                self.arena.note = text
            case State.STOPPED if code != 0 and before is State.STOPPING:
                _LOG.warning("%s while stopping; what it had under way is taken over by others", what)
            case _:
                _LOG.info("%s", what)

    def _close_channel(self, handle: InstanceHandle) -> None:
        if handle.channel is None:
            return
        if handle.frames is not None:
            self.watch.remove(handle.channel)
        handle.channel.close()
        handle.channel = handle.frames = None

    def _tell_others(self, handle: InstanceHandle, kind: Frame, value: int = 0) -> None:
        for other in self.handles:
            if other is not handle and other.channel is not None and other.pid:
                send_frame(other.channel, kind, value)

    # ---- processes

    def _spawn(self, generation: Generation, handles: list[InstanceHandle]) -> None:
        jobs: list[tuple[Job, socket.socket]] = []
        usable = linux.usable_cpus()
        nodes = pinning.numa_nodes() if generation.plan.pin == "numa" else []
        for handle in handles:
            ours, theirs = socket.socketpair()
            handle.incarnation = self.counter.take()
            handle.channel, handle.frames = ours, FrameReader(ours)
            self.watch.add(ours, handle)
            cpus = pinning.cpus_for(handle.number, generation.plan.pin, usable, nodes)
            handle.slot.occupy(
                number=handle.number,
                incarnation=handle.incarnation,
                generation=generation.number,
                failures=handle.life.failures,
                cpu=min(cpus) if len(cpus) == 1 else None,
                now_ns=int(self.clock.monotonic_s() * 1e9),
                wall_ns=self.clock.wall_ns(),
            )
            handle.slot.set_state(handle.life.state)
            jobs.append((self._job(handle, cpus), theirs))
        replies = generation.nursery.spawn(jobs)
        for _job, theirs in jobs:
            theirs.close()
        for reply in replies:
            assert isinstance(reply, Spawned)
            self.on_spawned(reply)

    def _job(self, handle: InstanceHandle, cpus: frozenset[int]) -> Job:
        return Job(
            number=handle.number,
            wanted=self.wanted,
            incarnation=handle.incarnation,
            slot=handle.slot.index,
            arena=self.paths.arena,
            state_dir=self.paths.state_dir,
            cpus=tuple(sorted(cpus)),
            log_level=handle.generation.plan.log_level,
            log_path=self.paths.log(handle.number) if self.log_to_files else "",
            log_mode=handle.generation.plan.log_mode,
            parent_pid=os.getpid(),
        )

    def _hung_at(self, handle: InstanceHandle) -> float:
        """Return when the silence of an instance becomes too long."""
        hung_s = handle.generation.plan.hung_s
        if not hung_s or handle.channel is None or handle.life.state not in (State.STARTING, State.RUNNING):
            return math.inf
        return max(handle.slot.heartbeat_ns / 1e9 + hung_s, self._excused_until)

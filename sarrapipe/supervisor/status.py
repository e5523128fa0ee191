"""What a flow is doing, read from its arena without asking anybody.

So it works while instances hang and after a parent was killed. No process is looked for: a flow costs the
reads of one file, and one look at its parent's entry in /proc.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sarrapipe.clock import SYSTEM_CLOCK, Clock
from sarrapipe.shm.arena import Arena, read_arena, read_boards
from sarrapipe.shm.slots import RATED, Counter, Phase, Slot
from sarrapipe.supervisor.paths import FlowPaths
from sarrapipe.supervisor.states import State
from sarrapipe.supervisor.transfers import TransferStatus, describe

__all__ = ["FlowStatus", "Health", "InstanceStatus", "large_transfers", "read_status", "worst"]

# After sr3's runStateThreshold_* defaults (sr3-surface.md 2.4).
_IDLE_AFTER_S: Final = 900.0
_LAG_FROM_S: Final = 30.0
_RETRY_FROM: Final = 1000


class Health(enum.IntEnum):
    """How well a flow is; the value is the exit status of `sarrapipe status`."""

    OK = 0
    DEGRADED = 1
    DOWN = 2


_HEALTH: Final = {
    "run": Health.OK,
    "idle": Health.OK,
    "stop": Health.OK,
    "disabled": Health.OK,
    "starting": Health.DEGRADED,
    "stopping": Health.DEGRADED,
    "part": Health.DEGRADED,
    "hung": Health.DEGRADED,
    "connecting": Health.DEGRADED,
    "paused": Health.DEGRADED,
    "lag": Health.DEGRADED,
    "retry": Health.DEGRADED,
    "down": Health.DOWN,
    "fatal": Health.DOWN,
    "dead": Health.DOWN,
}
"""Every state word. What each means is told in docs/explanation/processes.md."""


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """One instance.

    Attributes:
        number: From 1.
        pid: 0 while there is no process.
        incarnation: Of its last start.
        generation: Of the configuration it runs with.
        state: The supervisor's, in lower case.
        phase: What it says it does.
        silent_s: Since its last heartbeat.
        hung: Whether that is more than half of what is tolerated.
        failures: Deaths in a row.
        cpu: That it is bound to.
        started_wall_ns: Of its last start.
        note: Its own remark.
    """

    number: int
    pid: int
    incarnation: int
    generation: int
    state: str
    phase: str
    silent_s: float
    hung: bool
    failures: int
    cpu: int | None
    started_wall_ns: int
    note: str


@dataclass(frozen=True, slots=True)
class FlowStatus:
    """One flow.

    Attributes:
        flow: `component/name`.
        state: One word.
        health: What that means for whoever watches.
        parent_pid: 0 while there is none.
        foreground: Started by `run` or `foreground`.
        wanted: Instances there should be.
        running: Instances at work.
        started_wall_ns: Of the parent.
        note: What happened last.
        totals: Counters by name, since the parent's start.
        rates: Per second, by counter name.
        instances: Those that live or wait to be started again.
        transfers: The largest files under way.
    """

    flow: str
    state: str
    health: Health
    parent_pid: int = 0
    foreground: bool = False
    wanted: int = 0
    running: int = 0
    started_wall_ns: int = 0
    note: str = ""
    totals: Mapping[str, int] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    instances: Sequence[InstanceStatus] = ()
    transfers: Sequence[TransferStatus] = ()


def read_status(paths: FlowPaths, clock: Clock = SYSTEM_CLOCK) -> FlowStatus:
    """Return how a flow is."""
    arena = read_arena(paths.arena)
    if arena is None:
        word = "disabled" if os.path.exists(paths.disabled) else "stop"
        return FlowStatus(paths.flow, word, _HEALTH[word])
    with arena:
        return _status(paths, arena, clock)


def large_transfers(paths: FlowPaths, clock: Clock = SYSTEM_CLOCK) -> Sequence[TransferStatus]:
    """Return the largest files that a flow has under way."""
    return read_status(paths, clock).transfers


def worst(statuses: Sequence[FlowStatus]) -> Health:
    """Return the health of several flows together."""
    return max((status.health for status in statuses), default=Health.OK)


def _status(paths: FlowPaths, arena: Arena, clock: Clock) -> FlowStatus:
    now_ns = int(clock.monotonic_s() * 1e9)
    alive = arena.parent_alive
    slots = [slot for slot in arena.slots() if slot.alive or slot.state in (State.BACKOFF, State.FATAL)]
    instances = [_instance(slot, arena.hung_s, now_ns) for slot in slots] if alive else []
    running = sum(one.state == "running" and not one.hung for one in instances)
    totals = {counter.name.lower(): value for counter, value in arena.totals().items()}
    rates = {counter.name.lower(): _rate(slots, counter, now_ns) if alive else 0.0 for counter in RATED}
    word, note = _judge(arena, instances, totals, clock) if alive else _judge_ended(paths, arena)
    return FlowStatus(
        flow=paths.flow,
        state=word,
        health=_HEALTH[word],
        parent_pid=arena.parent_pid if alive else 0,
        foreground=arena.foreground,
        wanted=arena.wanted,
        running=running,
        started_wall_ns=arena.started_wall_ns,
        note=note,
        totals=totals,
        rates=rates,
        instances=sorted(instances, key=lambda one: (one.number, one.incarnation)),
        transfers=_transfers(paths, slots, totals) if alive else (),
    )


def _transfers(
    paths: FlowPaths, slots: Sequence[Slot], totals: Mapping[str, int]
) -> Sequence[TransferStatus]:
    """Return the large files under way; none where nothing is, so that idle flows cost no look."""
    if not totals["gauge_inflight_messages"]:
        return ()
    return describe(read_boards(paths.arena, [slot.index for slot in slots if slot.alive]))


def _rate(slots: Sequence[Slot], counter: Counter, now_ns: int) -> float:
    return sum(slot.rate(counter, now_ns) for slot in slots if slot.alive)


def _instance(slot: Slot, hung_s: float, now_ns: int) -> InstanceStatus:
    silent_s = max(0.0, (now_ns - slot.heartbeat_ns) / 1e9) if slot.alive else 0.0
    return InstanceStatus(
        number=slot.number,
        pid=slot.pid,
        incarnation=slot.incarnation,
        generation=slot.generation,
        state=State(slot.state).name.lower(),
        phase=slot.phase.name.lower(),
        silent_s=round(silent_s, 3),
        hung=bool(hung_s) and silent_s > hung_s / 2,
        failures=slot.failures,
        cpu=slot.cpu,
        started_wall_ns=slot.started_wall_ns,
        note=slot.note,
    )


def _judge_ended(paths: FlowPaths, arena: Arena) -> tuple[str, str]:
    """Return state and note of a flow whose parent is gone."""
    if arena.parent_state == State.FATAL:
        return "fatal", arena.note
    if arena.parent_state == State.STOPPED:
        return ("disabled" if os.path.exists(paths.disabled) else "stop"), ""
    if not arena.same_boot:
        return "dead", "the machine was started anew and the flow was not"
    return "dead", f"parent pid {arena.parent_pid} ended without a stop: 'sarrapipe start {paths.flow}'"


def _judge(
    arena: Arena,
    instances: Sequence[InstanceStatus],
    totals: Mapping[str, int],
    clock: Clock,
) -> tuple[str, str]:
    """Return state and note of a flow whose parent lives."""
    by_processes = _judge_processes(arena, instances)
    if by_processes not in ("run", "starting"):
        return by_processes, arena.note
    for word, phase in (("paused", Phase.PAUSED), ("connecting", Phase.CONNECTING)):
        for one in instances:
            if one.phase == phase.name.lower():
                return word, f"instance {one.number}: {one.note}" if one.note else ""
    if by_processes == "starting":
        return by_processes, arena.note
    now_s = clock.wall_ns() / 1e9
    if totals["gauge_lag"] / 1e9 > _LAG_FROM_S * max(1, len(instances)):
        return "lag", arena.note
    if totals["gauge_retry_waiting"] > _RETRY_FROM:
        return "retry", arena.note
    last_s = max(totals["gauge_last_message"], arena.started_wall_ns) / 1e9
    return ("idle" if now_s - last_s > _IDLE_AFTER_S else "run"), arena.note


def _judge_processes(arena: Arena, instances: Sequence[InstanceStatus]) -> str:
    states = [one.state for one in instances]
    running = sum(one.state == "running" and not one.hung for one in instances)
    if arena.parent_state == State.STOPPING:
        return "stopping"
    if any(one.hung for one in instances):
        return "hung"
    if running >= arena.wanted:
        return "run"
    if "starting" in states and "backoff" not in states:
        return "starting"
    if running:
        return "part"
    return "fatal" if states and all(state == "fatal" for state in states) else "down"

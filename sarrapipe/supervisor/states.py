"""The states of an instance, and the one function that moves between them; pure.

    STOPPED  ── start ──► STARTING ── ready ──► RUNNING
                             │  ▲                  │
                   exited    │  └── tick, due ──┐  │ exited
                             ▼                  │  ▼
             0: EXITED   78: FATAL    other: BACKOFF
    STARTING, RUNNING ── stop ──► STOPPING ── exited ──► STOPPED
    STARTING, RUNNING ── hung ──► STOPPING (abort) ── exited ──► BACKOFF

`next_state` says what to do as well: start a process, ask it to end, abort it, kill it. What does not belong
to a state is ignored there, since news may come late: a process that said READY as it was being killed.

FATAL is left only by `Stop`: nothing starts such an instance again by itself.
"""

from __future__ import annotations

import enum
import math
import signal
from dataclasses import dataclass, replace
from typing import Final

__all__ = [
    "EX_CONFIG",
    "EX_UNASKED",
    "INITIAL",
    "Action",
    "Event",
    "Exited",
    "Hung",
    "Life",
    "Limits",
    "Ready",
    "Start",
    "State",
    "Stop",
    "Tick",
    "describe_exit",
    "next_state",
]

EX_CONFIG: Final = 78  # sysexits.h: the configuration is at fault
EX_UNASKED: Final = 75  # sysexits.h EX_TEMPFAIL: a signal ended it in order, but its parent had not asked


class State(enum.IntEnum):
    """Where an instance is in its life."""

    STOPPED = 0
    STARTING = 1
    """The process exists or is about to; it does not consume yet."""
    RUNNING = 2
    STOPPING = 3
    """It was told to end, or is being ended because it hangs."""
    EXITED = 4
    """It ended by itself with status 0: its work is done."""
    BACKOFF = 5
    """It died; it will be started again at `Life.until`."""
    FATAL = 6
    """It ended with 78: starting it again cannot help."""


class Action(enum.Enum):
    """What the caller has to do about a change."""

    NOTHING = "nothing"
    SPAWN = "spawn"
    ASK = "ask"
    """Tell it to end: STOP frame and SIGTERM."""
    ABORT = "abort"
    """SIGABRT: faulthandler writes the stacks and the process dies."""
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may take, in seconds.

    Attributes:
        stop_s: From being asked to end until the kill; 0 for no limit.
        drain_s: The same for an instance that others have taken the place of, or that is one too many.
        abort_s: From SIGABRT until SIGKILL: time to write the stacks.
        backoff_first_s: Wait after the first death; doubled with each that follows.
        backoff_most_s: Longest wait.
        healthy_s: Having run so long, an instance's earlier deaths are forgotten.
    """

    stop_s: float = 10.0
    drain_s: float = 300.0
    abort_s: float = 2.0
    backoff_first_s: float = 1.0
    backoff_most_s: float = 60.0
    healthy_s: float = 60.0

    def backoff_s(self, failures: int) -> float:
        """Return the wait after so many deaths in a row: 1, 2, 4 ... 60 s."""
        doubled = self.backoff_first_s * 2.0 ** min(max(failures, 1) - 1, 62)
        return min(doubled, self.backoff_most_s)


@dataclass(frozen=True, slots=True)
class Life:
    """One instance's state.

    Attributes:
        state: Which.
        since: Monotonic time of its beginning, s.
        until: When `Tick` has something to do; infinite if never.
        failures: Deaths in a row.
        again: In STOPPING: whether it is started again afterwards (it hung) or not (it was told to stop).
    """

    state: State = State.STOPPED
    since: float = 0.0
    until: float = math.inf
    failures: int = 0
    again: bool = False

    @property
    def has_process(self) -> bool:
        """Whether a process exists or is about to."""
        return self.state in (State.STARTING, State.RUNNING, State.STOPPING)


INITIAL: Final = Life()


@dataclass(frozen=True, slots=True)
class Start:
    """It is wanted."""


@dataclass(frozen=True, slots=True)
class Ready:
    """It said that it has begun its work."""


@dataclass(frozen=True, slots=True)
class Stop:
    """It is not wanted any more.

    Attributes:
        limit_s: Time to finish; None for the usual, 0 for as long as it takes.
    """

    limit_s: float | None = None


@dataclass(frozen=True, slots=True)
class Hung:
    """Its heartbeat is late."""


@dataclass(frozen=True, slots=True)
class Exited:
    """Its process ended, or could not be started.

    Attributes:
        code: Exit status, or minus the signal's number (as `os.waitstatus_to_exitcode` says).
    """

    code: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


Event = Start | Ready | Stop | Hung | Exited | Tick

_NO_CHANGE: Final = Action.NOTHING


def next_state(life: Life, event: Event, now: float, limits: Limits) -> tuple[Life, Action]:
    """Return the life after an event, and what to do about it.

    Args:
        life: Before.
        event: What happened.
        now: Monotonic time, s.
        limits: How long things may take.
    """
    match event:
        case Start():
            return _start(life, now)
        case Ready():
            return _ready(life, now, limits)
        case Stop():
            return _stop(life, event, now, limits)
        case Hung():
            return _hung(life, now, limits)
        case Exited():
            return _exited(life, event.code, now, limits), Action.NOTHING
        case Tick():
            return _tick(life, now)


def _start(life: Life, now: float) -> tuple[Life, Action]:
    if life.state is not State.STOPPED:
        return life, _NO_CHANGE
    return Life(State.STARTING, now), Action.SPAWN


def _ready(life: Life, now: float, limits: Limits) -> tuple[Life, Action]:
    if life.state is not State.STARTING:
        return life, _NO_CHANGE
    healthy_at = now + limits.healthy_s if life.failures else math.inf
    return Life(State.RUNNING, now, healthy_at, life.failures), _NO_CHANGE


def _stop(life: Life, event: Stop, now: float, limits: Limits) -> tuple[Life, Action]:
    limit_s = limits.stop_s if event.limit_s is None else event.limit_s
    until = now + limit_s if limit_s else math.inf
    match life.state:
        case State.STOPPED:
            return life, _NO_CHANGE
        case State.STARTING | State.RUNNING:
            return Life(State.STOPPING, now, until, life.failures), Action.ASK
        case State.STOPPING:
            # A hung one keeps its deadline and is not started again. A second stop can only shorten the
            # first.
            shorter = replace(life, until=min(life.until, until), again=False)
            return shorter, _NO_CHANGE if life.again else Action.ASK
        case State.EXITED | State.BACKOFF | State.FATAL:
            return Life(State.STOPPED, now), _NO_CHANGE


def _hung(life: Life, now: float, limits: Limits) -> tuple[Life, Action]:
    if life.state not in (State.STARTING, State.RUNNING):
        return life, _NO_CHANGE
    return Life(State.STOPPING, now, now + limits.abort_s, life.failures, again=True), Action.ABORT


def _exited(life: Life, code: int, now: float, limits: Limits) -> Life:
    if not life.has_process:
        return life
    if life.state is State.STOPPING and not life.again:
        return Life(State.STOPPED, now)
    if life.state is not State.STOPPING and code == 0:
        return Life(State.EXITED, now)
    if life.state is not State.STOPPING and code == EX_CONFIG:
        return Life(State.FATAL, now)
    failures = life.failures + 1
    return Life(State.BACKOFF, now, now + limits.backoff_s(failures), failures)


def _tick(life: Life, now: float) -> tuple[Life, Action]:
    if now < life.until:
        return life, _NO_CHANGE
    match life.state:
        case State.BACKOFF:
            return Life(State.STARTING, now, failures=life.failures), Action.SPAWN
        case State.STOPPING:
            return replace(life, until=math.inf), Action.KILL
        case State.RUNNING:
            return replace(life, until=math.inf, failures=0), _NO_CHANGE
        case State.STOPPED | State.STARTING | State.EXITED | State.FATAL:
            return life, _NO_CHANGE


_MEANINGS: Final = {
    EX_CONFIG: "exit status 78: its configuration is at fault",
    EX_UNASKED: "exit status 75: somebody else told it to stop",
}


def describe_exit(code: int) -> str:
    """Return how a process ended, for people.

    Args:
        code: Exit status, or minus the signal's number.
    """
    if code >= 0:
        return _MEANINGS.get(code, f"exit status {code}")
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if -code == signal.SIGKILL:
        return f"{name}: killed from outside, perhaps the system was out of memory"
    return name

"""The parent of one flow: reads nothing, transfers nothing, waits for descriptors and the next deadline.

    status = Parent(request, foreground=True).run()

It takes the flow's lock, has a fork server read the configuration, makes the arena and the control socket,
and keeps as many instances as are wanted (`crew`). Signals: TERM and INT stop (a second one at once), HUP
reloads, TTIN and TTOU one instance more or less, USR1 opens the logs anew. It opens no broker connection
and imports neither transfers nor callbacks, so there is little in it that can fail.
"""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial
from types import FrameType
from typing import Final, cast

from sarrapipe import log
from sarrapipe.clock import SYSTEM_CLOCK, Clock
from sarrapipe.errors import SarrapipeError, SupervisorError
from sarrapipe.shm.arena import Arena
from sarrapipe.supervisor import child, linux
from sarrapipe.supervisor.control import Client, ControlServer
from sarrapipe.supervisor.crew import Crew, Generation, InstanceHandle, Watch
from sarrapipe.supervisor.incarnation import IncarnationCounter
from sarrapipe.supervisor.nursery import Gone, Nursery, Planned, Refused, Reply, Spawned
from sarrapipe.supervisor.paths import FlowPaths
from sarrapipe.supervisor.pidfile import PidFile
from sarrapipe.supervisor.plan import FlowPlan, FlowRequest
from sarrapipe.supervisor.progress import ProgressLog
from sarrapipe.supervisor.states import EX_CONFIG, Limits, State
from sarrapipe.supervisor.status import large_transfers

__all__ = ["Parent"]

_LOG = log.get_logger(__name__)
_HANDLED: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGCHLD,
)
_HURRY_S: Final = 0.1  # what a second stop leaves
_LAST_CHILDREN_S: Final = 1.0
MOST_INSTANCES: Final = 250
"""Half the slots of the arena: a rolling restart needs two for each."""


class Parent:
    """One flow's parent process.

    Args:
        request: The flow.
        foreground: Under a terminal or container: the log goes to standard error.
        limits: How long things may take.
        forks: Whether to use a fork server; None where the system allows it.
        on_started: Called once, with the exit status so far, when every instance has begun its work or
            ended for good, or the parent ends before that.
        clock: Time.
    """

    def __init__(
        self,
        request: FlowRequest,
        *,
        foreground: bool,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        forks: bool | None = None,
        on_started: Callable[[int], None] = lambda _status: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._request = request
        self._foreground = foreground
        self._limits = limits
        self._forks = forks
        self._on_started: Callable[[int], None] | None = on_started
        self._clock = clock
        self._terminal = foreground and os.isatty(2)
        self._selector = selectors.DefaultSelector()
        self._wakeup: tuple[socket.socket, socket.socket] | None = None
        self._signals: list[int] = []
        # What belongs to the running flow, from `_begin` on.
        self._paths: FlowPaths | None = None
        self._pid_file: PidFile | None = None
        self._arena: Arena | None = None
        self._control: ControlServer | None = None
        self._crew: Crew | None = None
        self._progress: ProgressLog | None = None
        # Fork servers: of each generation that still has instances, and of the one being read.
        self._generations: list[Generation] = []
        self._candidate: Nursery | None = None
        self._failures = 0
        self._retry_at = math.inf
        # Who waits for what.
        self._reloaders: list[Client] = []
        self._stoppers: list[Client] = []
        self._stopping = False
        self._stopped_status = 0
        self._status: int | None = None

    def run(self) -> int:
        """Supervise until stopped, or until every instance has ended for good.

        Returns:
            Exit status: 0 stopped or done, 78 the configuration is at fault, 69 another parent runs.
        """
        self._open()
        try:
            while self._status is None:
                self._turn()
        except SarrapipeError as error:
            # Before it begins, whoever started it reads standard error.
            _LOG.critical("%s", error) if self._crew else sys.stderr.write(f"{error}\n")
            self._status = error.code
        finally:
            self._close()
        return self._status if self._status is not None else child.EX_SOFTWARE

    # ---- the loop

    def _open(self) -> None:
        reader, writer = self._wakeup = socket.socketpair()
        reader.settimeout(0)
        writer.settimeout(0)
        self._selector.register(reader, selectors.EVENT_READ, self._on_signals)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in _HANDLED:
            signal.signal(number, self._note_signal)
        forks = linux.become_subreaper()
        self._forks = forks if self._forks is None else self._forks and forks
        child.set_title(f"parent {self._request.flow}")
        self._read_configuration()

    def _turn(self) -> None:
        """Wait for a descriptor or the next deadline, and see to what came."""
        before = self._clock.monotonic_s()
        due = min(self._crew.deadline() if self._crew else math.inf, self._retry_at)
        if self._progress is not None:
            due = min(due, self._progress.deadline)
        timeout_s = None if math.isinf(due) else max(0.0, due - before)
        for key, _events in self._selector.select(timeout_s):
            # Handling one event may have closed the descriptor of the next, and given its number away.
            if self._selector.get_map().get(key.fd) is key:
                key.data()
        now = self._clock.monotonic_s()
        if now >= self._retry_at:
            self._read_configuration()
        if self._progress is not None:
            self._progress.tick(now)
        if self._crew is not None:
            self._crew.tick(now - max(due, before))
            self._look(self._crew)

    def _look(self, crew: Crew) -> None:
        """See what follows from the instances' states."""
        states = list(crew.states())
        for generation in list(self._generations):
            if generation is not crew.generation and all(
                h.generation is not generation for h in crew.handles
            ):
                self._unwatch(generation.nursery)
                self._generations.remove(generation)
        if self._stopping:
            self._status = None if crew.handles else self._stopped_status
        elif states and crew.is_idle() and self._candidate is None:
            self._status = EX_CONFIG if State.FATAL in states else 0
        if self._status is None and State.STARTING not in states:
            self._tell_started(0)

    def _close(self) -> None:
        status = self._status if self._status is not None else child.EX_SOFTWARE
        for nursery in self._nurseries():
            self._unwatch(nursery)
        self._outwait_children()
        if self._control is not None:
            self._control.stop_listening()
        if self._arena is not None:
            self._arena.parent_state = State.FATAL if status else State.STOPPED
            self._arena.close()
        if self._pid_file is not None:
            self._pid_file.release()
        # The lock is free: whoever waits for our end may start the next parent now.
        for client in self._stoppers:
            client.reply(ok=True)
        for client in self._reloaders:
            client.refuse("the flow was stopped", 69)
        if self._control is not None:
            self._control.close()
        self._close_signals()
        self._tell_started(status)

    def _outwait_children(self) -> None:
        """Reap the fork servers, so that a stop means that all is gone; not for ever, they might hang."""
        deadline = self._clock.monotonic_s() + _LAST_CHILDREN_S
        while any(nursery.pid for nursery in self._nurseries()):
            self._reap()
            if self._clock.monotonic_s() > deadline:
                break
            self._clock.sleep(0.002)

    def _close_signals(self) -> None:
        for number in _HANDLED:
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        self._selector.close()
        for end in self._wakeup or ():
            end.close()

    def _tell_started(self, status: int) -> None:
        if self._on_started is not None:
            self._on_started(status)
            self._on_started = None

    # ---- reading the configuration

    def _read_configuration(self) -> None:
        """Start a fork server and have it read the configuration; `_on_candidate` hears the result."""
        self._retry_at = math.inf
        if self._candidate is not None:
            self._unwatch(self._candidate)  # what it reads is older than what we want to know
        candidate = self._candidate = Nursery(self._request, forks=bool(self._forks))
        candidate.open()
        self._selector.register(candidate, selectors.EVENT_READ, lambda: self._on_candidate(candidate))

    def _on_candidate(self, nursery: Nursery) -> None:
        for reply in self._read(nursery):
            if nursery is not self._candidate:
                return
            match reply:
                case Planned():
                    self._candidate = None
                    self._selector.modify(nursery, selectors.EVENT_READ, lambda: self._on_nursery(nursery))
                    self._failures = 0
                    self._take(nursery, reply.plan)
                case Refused():
                    self._candidate = None
                    self._unwatch(nursery)
                    self._refuse(reply.problems, reply.code)
                case Gone():
                    self._candidate = None
                    self._refuse("the process that read the configuration was killed", child.EX_SOFTWARE)
                case Spawned():
                    raise AssertionError("nothing was asked for")

    def _take(self, nursery: Nursery, plan: FlowPlan) -> None:
        """Act on a configuration that was read: begin, scale, or replace the instances."""
        for warning in plan.warnings:
            _LOG.warning("%s", warning)
        if self._crew is None:
            self._begin(nursery, plan)
            return
        current = self._generations[-1]
        if plan.state_dir != current.plan.state_dir:
            self._unwatch(nursery)
            self._refuse("the state directory would change: stop and start the flow for that", EX_CONFIG)
            return
        changed = plan.instances != current.plan.instances
        count = self._bounded(plan.instances) if changed else self._crew.wanted
        if plan.fingerprint == current.plan.fingerprint:
            change = "nothing changed" if count == self._crew.wanted else f"{count} instances"
            if current.nursery.is_open:
                self._unwatch(nursery)
            else:
                current.nursery = nursery
                self._hold_lock(nursery)
            current.plan = plan
        else:
            change = f"{count} new instances take over from the old ones"
            current = Generation(current.number + 1, plan, nursery)
            self._generations.append(current)
            self._hold_lock(nursery)
            log.configure(plan.log_level, self._log_path())
        _LOG.info("configuration read: %s", change)
        assert self._arena is not None
        self._arena.note = ""
        self._answer_reloaders(change)
        if not self._stopping:
            self._crew.want(count, current)

    def _refuse(self, problems: str, code: int) -> None:
        """Act on a configuration that cannot be read: end if it is the first, else keep the one there is."""
        if self._crew is None:
            sys.stderr.write(problems.rstrip("\n") + "\n")
            self._status = code
            return
        _LOG.error("configuration not taken, the old one stays in force:\n%s", problems)
        assert self._arena is not None
        self._arena.note = f"reload refused: {problems}"
        for client in self._reloaders:
            client.refuse(problems, code)
        self._reloaders.clear()
        if not self._generations[-1].nursery.is_open:
            self._try_again_later()

    def _answer_reloaders(self, change: str) -> None:
        for client in self._reloaders:
            client.reply(ok=True, change=change)
        self._reloaders.clear()

    def _begin(self, nursery: Nursery, plan: FlowPlan) -> None:
        """Take the flow into possession and start its instances.

        Raises:
            SupervisorError: Another parent has it.
        """
        self._generations.append(Generation(1, plan, nursery))
        paths = FlowPaths(self._request.component, self._request.name, plan.state_dir)
        paths.make()
        pid_file = PidFile(paths, self._clock)
        pid_file.acquire()
        self._paths, self._pid_file = paths, pid_file
        self._hold_lock(nursery)
        log.configure(plan.log_level, self._log_path())
        if not self._foreground:
            # What was printed so far went to whoever started us.
            child.redirect_output(paths.log(), plan.log_mode)
            nursery.redirect_output(paths.log(), plan.log_mode)
        counter = IncarnationCounter(paths.incarnation)
        counter.open()
        arena = self._arena = Arena.create(paths.arena, paths.flow, created_wall_ns=self._clock.wall_ns())
        arena.set_parent(os.getpid(), foreground=self._foreground)
        arena.parent_state = State.RUNNING
        self._control = ControlServer(paths.control, self._selector, self._on_request)
        self._control.open()
        self._crew = Crew(
            paths=paths,
            arena=arena,
            counter=counter,
            watch=Watch(self._watch_channel, self._unwatch_channel),
            log_to_files=not self._foreground,
            limits=self._limits,
            clock=self._clock,
        )
        if self._foreground:
            look = partial(large_transfers, paths, self._clock)
            self._progress = ProgressLog(_LOG, look, terminal=self._terminal)
        _LOG.info("parent of %s: %d instances", paths.flow, plan.instances)
        self._crew.want(self._bounded(plan.instances), self._generations[0])

    def _bounded(self, instances: int) -> int:
        if instances > MOST_INSTANCES:
            _LOG.warning("instances %d: %d are started, a flow has no more", instances, MOST_INSTANCES)
        return min(instances, MOST_INSTANCES)

    # ---- fork servers

    def _on_nursery(self, nursery: Nursery) -> None:
        assert self._crew is not None
        for reply in self._read(nursery):
            match reply:
                case Spawned():
                    self._crew.on_spawned(reply)
                case Gone():
                    self._crew.on_nursery_gone(nursery)
                    if nursery is self._generations[-1].nursery and not self._stopping:
                        _LOG.error("the fork server ended; its instances go on, another one is started")
                        self._try_again_later()
                case Planned() | Refused():
                    raise AssertionError("it has told its plan before")

    def _read(self, nursery: Nursery) -> list[Reply]:
        """Read from a nursery; stop watching it when it is gone (its descriptor is closed then)."""
        fd = nursery.fileno()
        replies = nursery.read()
        if not nursery.is_open:
            self._selector.unregister(fd)
        return replies

    def _try_again_later(self) -> None:
        """Replace a fork server: at once for the first time, then with growing pauses."""
        wait_s = self._limits.backoff_s(self._failures) if self._failures else 0.0
        self._failures += 1
        self._retry_at = self._clock.monotonic_s() + wait_s

    def _hold_lock(self, nursery: Nursery) -> None:
        assert self._pid_file is not None
        nursery.hold(self._pid_file.fd)

    def _unwatch(self, nursery: Nursery) -> None:
        if nursery.is_open:
            self._selector.unregister(nursery)
        nursery.close()

    def _nurseries(self) -> list[Nursery]:
        nurseries = [generation.nursery for generation in self._generations]
        return [*nurseries, self._candidate] if self._candidate is not None else nurseries

    def _watch_channel(self, channel: socket.socket, handle: InstanceHandle) -> None:
        assert self._crew is not None
        crew = self._crew
        self._selector.register(channel, selectors.EVENT_READ, lambda: crew.on_channel(handle))

    def _unwatch_channel(self, channel: socket.socket) -> None:
        self._selector.unregister(channel)

    # ---- signals

    def _note_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)  # nothing else: a handler may run between any two instructions

    def _on_signals(self) -> None:
        assert self._wakeup is not None
        with contextlib.suppress(BlockingIOError):
            self._wakeup[0].recv(4096)
        noted, self._signals = self._signals, []
        for number in dict.fromkeys(noted):  # several of a kind are one
            self._on_signal(number)

    def _on_signal(self, number: int) -> None:
        match number:
            case signal.SIGCHLD:
                self._reap()
            case signal.SIGTERM | signal.SIGINT:
                self._stop(_HURRY_S if self._stopping else None)
            case signal.SIGHUP:
                self._hang_up()
            case signal.SIGUSR1:
                self._reopen_logs()
            case signal.SIGTTIN | signal.SIGTTOU if self._crew is not None:
                self._scale(self._crew.wanted + (1 if number == signal.SIGTTIN else -1))

    def _hang_up(self) -> None:
        """Reload; but a terminal that goes away says HUP as well, and then there is nobody to run for."""
        if self._terminal and not os.isatty(2):
            self._stop(None)
        elif self._crew is not None:
            self._read_configuration()

    def _reap(self) -> None:
        """Take in the end of every child: instances, fork servers, helpers, orphans of theirs."""
        while True:
            try:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            for nursery in self._nurseries():
                nursery.on_exit(pid)
            if self._crew is not None:
                self._crew.on_exit(pid, os.waitstatus_to_exitcode(wait_status))
        self._check_state_dir()

    def _check_state_dir(self) -> None:
        """End if somebody removed our state directory: another parent could start, and no instance can."""
        if self._pid_file is None or self._stopping or self._pid_file.is_in_place():
            return
        _LOG.critical("the state directory was removed or replaced: this parent ends")
        self._stopped_status = SupervisorError.code
        self._stop(None)

    def _reopen_logs(self) -> None:
        path = self._log_path()
        if path is not None:
            child.redirect_output(path, self._generations[-1].plan.log_mode)
            for generation in self._generations:
                generation.nursery.redirect_output(path, generation.plan.log_mode)
        log.reopen()
        if self._crew is not None:
            self._crew.signal_all(signal.SIGUSR1)

    def _log_path(self) -> str | None:
        return None if self._foreground or self._paths is None else self._paths.log()

    # ---- what can be asked for

    def _on_request(self, client: Client, asked: Mapping[str, object]) -> None:
        crew = self._crew
        assert crew is not None
        match asked:
            case {"do": "status"}:
                states = [state.name for state in crew.states()]
                stop_s = self._generations[-1].plan.stop_s
                client.reply(ok=True, pid=os.getpid(), wanted=crew.wanted, states=states, stop_s=stop_s)
            case {"do": "scale", "to": int() as count} if 0 <= count <= MOST_INSTANCES:
                self._scale(count)
                client.reply(ok=True, wanted=count)
            case {"do": "scale"}:
                client.refuse(f"instances: 0 to {MOST_INSTANCES}", 2)
            case {"do": "reload"} if not self._stopping:
                self._reloaders.append(client)
                self._read_configuration()
            case {"do": "drain"}:
                self._stoppers.append(client)
                self._stop(0)
            case {"do": "stop"}:
                self._stoppers.append(client)
                self._stop(cast("float | None", asked.get("limit_s")))
            case _:
                client.refuse(f"cannot {str(asked.get('do'))[:40]!r} now", 69)

    def _scale(self, count: int) -> None:
        crew = self._crew
        if crew is None or self._stopping or not 0 <= count <= MOST_INSTANCES:
            return
        _LOG.info("scaled from %d to %d instances", crew.wanted, count)
        crew.want(count, self._generations[-1])

    def _stop(self, limit_s: float | None) -> None:
        self._stopping = True
        if self._crew is None:
            self._status = 0
            return
        _LOG.info("stopping %d instances", len(self._crew.handles))
        assert self._arena is not None
        self._arena.parent_state = State.STOPPING
        self._crew.stop(limit_s)

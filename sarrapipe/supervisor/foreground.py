"""One instance in the calling process, without a parent: to look at it, and where there is no fork (R30).

Lock, arena and incarnation are those of any flow, so `status` shows it and no parent starts beside it. Nobody
starts it again, and nobody ends it when it hangs.
"""

from __future__ import annotations

import faulthandler
import os

from sarrapipe import log
from sarrapipe.clock import SYSTEM_CLOCK, Clock
from sarrapipe.shm import host
from sarrapipe.shm.arena import Arena
from sarrapipe.supervisor import child, linux
from sarrapipe.supervisor.context import InstanceContext
from sarrapipe.supervisor.incarnation import IncarnationCounter
from sarrapipe.supervisor.mailbox import Mailbox
from sarrapipe.supervisor.paths import FlowPaths
from sarrapipe.supervisor.pidfile import PidFile
from sarrapipe.supervisor.plan import FlowPlan, FlowRequest, resolve
from sarrapipe.supervisor.states import State

__all__ = ["run_here"]


def run_here(request: FlowRequest, clock: Clock = SYSTEM_CLOCK) -> int:
    """Do the work of one instance until it ends or is told to stop.

    Returns:
        Its exit status.

    Raises:
        ConfigError: The configuration has problems.
        SupervisorError: The flow runs already.
    """
    log.configure()
    loaded = resolve(request.loader)(request)
    assert isinstance(loaded, tuple)
    plan, config = loaded
    assert isinstance(plan, FlowPlan)
    log.configure(plan.log_level)
    paths = FlowPaths(request.component, request.name, plan.state_dir)
    paths.make()
    pid_file = PidFile(paths, clock)
    pid_file.acquire()
    try:
        with Arena.create(paths.arena, paths.flow, created_wall_ns=clock.wall_ns()) as arena:
            return _work(request, paths, arena, config, plan.hung_s, clock)
    finally:
        pid_file.release()


def _work(
    request: FlowRequest, paths: FlowPaths, arena: Arena, config: object, hung_s: float, clock: Clock
) -> int:
    counter = IncarnationCounter(paths.incarnation)
    counter.open()
    slot = arena.slot(arena.free_slot())
    slot.occupy(
        number=1,
        incarnation=counter.take(),
        generation=1,
        failures=0,
        cpu=None,
        now_ns=int(clock.monotonic_s() * 1e9),
        wall_ns=clock.wall_ns(),
    )
    arena.set_parent(os.getpid(), foreground=True)
    slot.set_process(os.getpid(), host.start_ticks(os.getpid()))
    arena.wanted = 1
    arena.hung_s = hung_s
    arena.parent_state = State.RUNNING
    slot.set_state(State.RUNNING)
    mailbox = Mailbox(None, log.reopen, clock)
    mailbox.open()
    child.set_title(f"{paths.flow} in the foreground")
    faulthandler.enable(file=2)
    linux.limit_core_files()
    context = InstanceContext(
        component=request.component,
        name=request.name,
        instance=1,
        incarnation=slot.incarnation,
        config_home=request.config_home,
        state_dir=paths.state_dir,
        overrides=request.overrides,
        config=config,
        slot=slot,
        arena=arena,
        mailbox=mailbox,
        clock=clock,
    )
    try:
        status = child.call_entry(request.entry, context)
    finally:
        mailbox.close()
    slot.set_state(State.STOPPED)
    arena.retire(slot)
    arena.parent_state = State.FATAL if status else State.STOPPED
    return status

"""One instance of a flow: what a process does between its parent's word to begin and its end.

    main(context) -> exit status

The parent starts it (`supervisor`), the flow does the work (`flow`); here is only the life of the process:
open, turn the loop, listen to the parent, stop in order.
"""

from __future__ import annotations

import os
from typing import Final

from sarrapipe.clock import Clock
from sarrapipe.config.model import FlowConfig
from sarrapipe.errors import BrokerError
from sarrapipe.flow.components import Assembled, Place, assemble
from sarrapipe.flow.topology import reconcile_bindings
from sarrapipe.log import flush as flush_log
from sarrapipe.log import get_logger
from sarrapipe.shm.limiter import Limit, Limiter
from sarrapipe.shm.slots import Phase
from sarrapipe.supervisor.context import InstanceContext

__all__ = ["main", "stop_flow"]

_log = get_logger(__name__)

_GRACE_S: Final = 0.5
"""On a stop, how long files under way may take to end; after that large ones are put aside, segments kept."""

_CONFIRMS_S: Final = 5.0
"""How long to wait for the broker's confirms after that, unless the parent said less."""

_ATTACHED_WITHIN_S: Final = 5.0
"""How long to wait for a broker that does not answer before this instance says that it works."""

_LOOK_AGAIN_S: Final = 1.0
_TRY_AGAIN_S: Final = 10.0


def main(context: InstanceContext) -> int:
    """Run one instance until its parent says stop.

    Returns:
        The exit status: 0 after a stop.

    Raises:
        SarrapipeError: It cannot go on; the parent starts another after a pause.
    """
    config = context.config
    assert isinstance(config, FlowConfig)
    limiter = None
    if config.flow_byte_rate:
        limiter = Limiter(context.arena, Limit.BYTES, config.flow_byte_rate)
    place = Place(
        instance=context.instance,
        incarnation=context.incarnation,
        slot_number=context.slot.index + 1,
        slot=context.slot,
        board=context.arena.board(context.slot.index),
        limiter=limiter,
        announce_work=context.announce_work,
        heartbeat=context.heartbeat,
        wake_fd=context.wake_fd,
    )
    bindings = _Bindings(context, config)
    bindings.reconcile()
    assembled = assemble(config, place, context.clock)
    with assembled.closing:
        assembled.chain.call("on_start")
        _turn_until_stopped(context, assembled, bindings)
        context.slot.set_phase(Phase.STOPPING)
        clock = context.clock
        stop_flow(assembled, clock, context.stop_by_s or clock.monotonic_s() + _CONFIRMS_S)
        assembled.chain.call("on_stop")
    return 0


class _Bindings:
    """Removes the bindings of an earlier configuration, once nobody runs with it who would bind them again.

    Args:
        context: Of the instance; the first of a flow does it.
        config: The configuration there is now.
    """

    def __init__(self, context: InstanceContext, config: FlowConfig) -> None:
        self._context = context
        self._config = config
        self.due = context.instance == 1
        """It is still to be done."""
        self._again_s = 0.0

    def reconcile(self) -> None:
        """Do it if it is due and can be done now."""
        if not self.due or self._context.clock.monotonic_s() < self._again_s:
            return
        pause_s = _LOOK_AGAIN_S
        if not self._has_predecessors():
            try:
                os.makedirs(self._config.state_dir, exist_ok=True)
                reconcile_bindings(self._config)
            except BrokerError as error:
                pause_s = _TRY_AGAIN_S
                _log.warning(
                    "bindings of an earlier configuration stay: %s; tried again in %g s", error, pause_s
                )
            else:
                self.due = False
        self._again_s = self._context.clock.monotonic_s() + pause_s

    def _has_predecessors(self) -> bool:
        mine = self._context.slot.generation
        return any(slot.alive and slot.generation < mine for slot in self._context.arena.slots())


def _turn_until_stopped(context: InstanceContext, assembled: Assembled, bindings: _Bindings) -> None:
    flow = assembled.flow
    ready = not assembled.consumers
    if ready:
        context.ready()
    ready_by_s = context.clock.monotonic_s() + _ATTACHED_WITHIN_S
    while not context.stopping and not flow.finished:
        if not ready and (_is_attached(assembled) or context.clock.monotonic_s() > ready_by_s):
            ready = True
            context.ready()
        flow.turn()
        flush_log()
        bindings.reconcile()
        if not bindings.due:
            assembled.former.look()
        news = context.read_news()
        if news.deaths:
            assembled.housekeeping.deaths_reported()
        if news.work and assembled.segments is not None:
            assembled.segments.work_announced()


def _is_attached(assembled: Assembled) -> bool:
    """Whether each queue is there, bound and read; or its broker has said that it will not have us now.

    Whoever has started a flow may announce something at once, and on a reload the instances of before go on
    until those after them have bound what is new.
    """
    states = [consumer.state for consumer in assembled.consumers]
    return all(state.connected or state.last_error is not None for state in states)


def stop_flow(assembled: Assembled, clock: Clock, limit_s: float) -> None:
    """Take nothing new, let small files end, put large ones aside, wait for confirms.

    A broker that is away, or refuses us, is not waited for: what is not announced goes to whoever comes after
    this process, who may be let in with other credentials.

    Args:
        assembled: The flow.
        clock: Its clock.
        limit_s: Monotonic time at which the process may be killed.
    """
    flow = assembled.flow
    flow.stop()
    assembled.chain.call("please_stop")
    grace_s = min(clock.monotonic_s() + _GRACE_S, limit_s)
    while not flow.finished and clock.monotonic_s() < grace_s:
        flow.turn()
    flow.give_back()
    heard_s = clock.monotonic_s()
    while not flow.finished and clock.monotonic_s() < min(limit_s - _GRACE_S, heard_s + _CONFIRMS_S):
        state = assembled.broker_state()
        if state is None or state.connected:
            heard_s = clock.monotonic_s()
        flow.turn()

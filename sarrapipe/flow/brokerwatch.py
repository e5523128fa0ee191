"""How an instance stands with its brokers, for `status`; and the refusals that end it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sarrapipe.broker.channel import ConnectionState
from sarrapipe.errors import SarrapipeError, TopologyError
from sarrapipe.shm.slots import Counter, Phase, Slot

__all__ = ["BrokerWatch"]

_LEFT_ALONE: Final = frozenset({Phase.PAUSED, Phase.STOPPING})


class BrokerWatch:
    """Looks at the connections once a second.

    Args:
        states: Returns the state of each consumer and of the publisher, in a fixed order.
    """

    def __init__(self, states: Callable[[], Sequence[ConnectionState]]) -> None:
        self._states = states
        self._epochs: dict[int, int] = {}
        self._blocked: dict[int, bool] = {}
        self._errors: dict[int, SarrapipeError | None] = {}

    def look(self, slot: Slot) -> None:
        """Count connections and refusals; say what is waited for.

        Args:
            slot: Takes the figures, the phase and the note.

        Raises:
            TopologyError: A queue or exchange exists with other properties: a person has to act.
        """
        states = self._states()
        missing = None
        for number, state in enumerate(states):
            self._count(slot, number, state)
            if not state.connected and state.last_error is not None:
                if isinstance(state.last_error, TopologyError):
                    raise state.last_error
                missing = missing or state.last_error
        slot.set(Counter.GAUGE_BROKERS_WANTED, len(states))
        slot.set(Counter.GAUGE_BROKERS_CONNECTED, sum(state.connected for state in states))
        if slot.phase in _LEFT_ALONE:
            return
        if missing is not None:
            slot.set_phase(Phase.CONNECTING, str(missing))
        elif slot.phase is not Phase.RUNNING and all(state.connected for state in states):
            slot.set_phase(Phase.RUNNING)

    def _count(self, slot: Slot, number: int, state: ConnectionState) -> None:
        if state.epoch != self._epochs.get(number, 0) and state.connected:
            self._epochs[number] = state.epoch
            slot.add(Counter.BROKER_CONNECTS)
        if state.blocked and not self._blocked.get(number):
            slot.add(Counter.BROKER_BLOCKED)
        self._blocked[number] = state.blocked
        if state.last_error is not None and state.last_error is not self._errors.get(number):
            slot.count_error(state.last_error)
        self._errors[number] = state.last_error

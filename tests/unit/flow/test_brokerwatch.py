"""How the brokers stand, as it is counted and shown."""

from __future__ import annotations

import pytest

from sarrapipe.broker.channel import ConnectionState
from sarrapipe.errors import BrokerError, TopologyError
from sarrapipe.flow.brokerwatch import BrokerWatch
from sarrapipe.shm.slots import SLOT_SIZE, Counter, Phase, Slot

UP = ConnectionState(connected=True, epoch=1)
AWAY = ConnectionState(last_error=BrokerError("broker.example: connection refused"))


class Stand:
    def __init__(self) -> None:
        self.slot = Slot(0, memoryview(bytearray(SLOT_SIZE)))
        self.slot.set_phase(Phase.RUNNING)
        self.states: list[ConnectionState] = []
        self.watch = BrokerWatch(lambda: self.states)

    def look(self, *states: ConnectionState) -> tuple[Phase, str]:
        self.states = list(states)
        self.watch.look(self.slot)
        return self.slot.phase, self.slot.note

    def count(self, counter: Counter) -> int:
        return self.slot.get(counter)


@pytest.fixture
def stand():
    return Stand()


def test_all_connected(stand):
    assert stand.look(UP, ConnectionState(connected=True, epoch=2)) == (Phase.RUNNING, "")
    assert stand.count(Counter.GAUGE_BROKERS_WANTED) == 2
    assert stand.count(Counter.GAUGE_BROKERS_CONNECTED) == 2
    assert stand.count(Counter.BROKER_CONNECTS) == 2


def test_one_that_is_away_is_named_until_it_is_back(stand):
    stand.look(UP)
    assert stand.look(AWAY) == (Phase.CONNECTING, "broker.example: connection refused")
    assert stand.count(Counter.GAUGE_BROKERS_CONNECTED) == 0
    assert stand.look(ConnectionState(connected=True, epoch=2)) == (Phase.RUNNING, "")
    assert stand.count(Counter.BROKER_CONNECTS) == 2


def test_each_refusal_is_counted_once(stand):
    again = ConnectionState(last_error=BrokerError("again"))
    for states in ((AWAY,), (AWAY,), (again,), (again,)):
        stand.look(*states)
    assert stand.count(Counter.ERRORS_BROKER) == 2


def test_one_that_was_not_used_yet_is_not_missed(stand):
    assert stand.look(UP, ConnectionState()) == (Phase.RUNNING, "")


def test_blocked_is_counted_when_it_begins(stand):
    blocked = ConnectionState(connected=True, blocked=True, epoch=1)
    for state in (UP, blocked, blocked, UP, blocked):
        stand.look(state)
    assert stand.count(Counter.BROKER_BLOCKED) == 2


@pytest.mark.parametrize("phase", [Phase.PAUSED, Phase.STOPPING])
def test_what_somebody_else_says_is_left_alone(stand, phase):
    stand.slot.set_phase(phase, "because")
    assert stand.look(AWAY) == (phase, "because")
    assert stand.look(UP) == (phase, "because")


def test_other_properties_need_a_person(stand):
    error = TopologyError("queue q exists with durable False")
    with pytest.raises(TopologyError, match="queue q"):
        stand.look(UP, ConnectionState(last_error=error))
    assert stand.count(Counter.ERRORS_TOPOLOGY) == 1

"""The state machine, exhaustively: every state against every event."""

import itertools
import math
import signal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe.supervisor.states import (
    EX_UNASKED,
    INITIAL,
    Action,
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
)  # fmt: skip

LIMITS = Limits(stop_s=10, abort_s=2, backoff_first_s=1, backoff_most_s=60, healthy_s=30)
NOW = 100.0

# state before, `again` before -> event -> state after, action
LIVES = {
    "stopped": Life(State.STOPPED),
    "starting": Life(State.STARTING, 90, failures=2),
    "running": Life(State.RUNNING, 90, failures=2),
    "stopping": Life(State.STOPPING, 90, 105, 2),
    "aborting": Life(State.STOPPING, 90, 105, 2, again=True),
    "exited": Life(State.EXITED, 90),
    "backoff": Life(State.BACKOFF, 90, 105, 2),
    "fatal": Life(State.FATAL, 90),
}
EVENTS = {
    "start": Start(), "ready": Ready(), "stop": Stop(), "hung": Hung(), "done": Exited(0), "died": Exited(-9),
    "crashed": Exited(1), "refused": Exited(78), "early tick": Tick(), "due tick": Tick(),
}  # fmt: skip
SAME = object()
NONE = Action.NOTHING
EXPECTED = {
    ("stopped", "start"): (State.STARTING, Action.SPAWN),
    ("starting", "ready"): (State.RUNNING, NONE),
    ("starting", "stop"): (State.STOPPING, Action.ASK),
    ("starting", "hung"): (State.STOPPING, Action.ABORT),
    ("starting", "done"): (State.EXITED, NONE),
    ("starting", "died"): (State.BACKOFF, NONE),
    ("starting", "crashed"): (State.BACKOFF, NONE),
    ("starting", "refused"): (State.FATAL, NONE),
    ("running", "stop"): (State.STOPPING, Action.ASK),
    ("running", "hung"): (State.STOPPING, Action.ABORT),
    ("running", "done"): (State.EXITED, NONE),
    ("running", "died"): (State.BACKOFF, NONE),
    ("running", "crashed"): (State.BACKOFF, NONE),
    ("running", "refused"): (State.FATAL, NONE),
    ("stopping", "stop"): (State.STOPPING, Action.ASK),
    ("stopping", "done"): (State.STOPPED, NONE),
    ("stopping", "died"): (State.STOPPED, NONE),
    ("stopping", "crashed"): (State.STOPPED, NONE),
    ("stopping", "refused"): (State.STOPPED, NONE),
    ("stopping", "due tick"): (State.STOPPING, Action.KILL),
    ("aborting", "stop"): (State.STOPPING, NONE),
    ("aborting", "done"): (State.BACKOFF, NONE),
    ("aborting", "died"): (State.BACKOFF, NONE),
    ("aborting", "crashed"): (State.BACKOFF, NONE),
    ("aborting", "refused"): (State.BACKOFF, NONE),
    ("aborting", "due tick"): (State.STOPPING, Action.KILL),
    ("exited", "stop"): (State.STOPPED, NONE),
    ("backoff", "stop"): (State.STOPPED, NONE),
    ("backoff", "due tick"): (State.STARTING, Action.SPAWN),
    ("fatal", "stop"): (State.STOPPED, NONE),
}


@pytest.mark.parametrize(("life_name", "event_name"), list(itertools.product(LIVES, EVENTS)))
def test_every_state_against_every_event(life_name, event_name):
    life = LIVES[life_name]
    now = 200.0 if event_name == "due tick" else NOW
    after, action = next_state(life, EVENTS[event_name], now, LIMITS)
    expected = EXPECTED.get((life_name, event_name), SAME)
    if expected is SAME:
        assert (after, action) == (life, NONE)
    else:
        assert (after.state, action) == expected
        if after.state is not life.state:
            assert after.since == now


def test_the_table_above_names_every_state():
    assert {life.state for life in LIVES.values()} == set(State)


def test_waits_double_up_to_a_minute_and_are_forgotten_after_good_health():
    life, waits = Life(State.RUNNING), []
    for _death in range(8):
        life, _action = next_state(life, Exited(1), NOW, LIMITS)
        waits.append(life.until - NOW)
        life, _action = next_state(life, Tick(), life.until, LIMITS)
        life, _action = next_state(life, Ready(), NOW, LIMITS)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert life.failures == 8
    life, _action = next_state(life, Tick(), life.until, LIMITS)
    assert (life.state, life.failures) == (State.RUNNING, 0)


def test_backoff_is_finite_whatever_the_number_of_deaths():
    assert LIMITS.backoff_s(10**9) == 60


def test_an_instance_that_hangs_is_aborted_then_killed_then_started_again():
    life, action = next_state(Life(State.RUNNING), Hung(), NOW, LIMITS)
    assert (action, life.until) == (Action.ABORT, NOW + 2)
    life, action = next_state(life, Tick(), NOW + 2, LIMITS)
    assert (action, life.until) == (Action.KILL, math.inf)
    life, _action = next_state(life, Exited(-signal.SIGKILL), NOW + 3, LIMITS)
    assert life.state is State.BACKOFF


def test_a_stop_has_its_limit_or_none():
    running = Life(State.RUNNING)
    assert next_state(running, Stop(), NOW, LIMITS)[0].until == NOW + 10
    assert next_state(running, Stop(3), NOW, LIMITS)[0].until == NOW + 3
    drained, _action = next_state(running, Stop(0), NOW, LIMITS)
    assert math.isinf(drained.until)
    assert next_state(drained, Stop(3), NOW, LIMITS)[0].until == NOW + 3
    assert next_state(next_state(running, Stop(3), NOW, LIMITS)[0], Stop(9), NOW, LIMITS)[0].until == NOW + 3


def test_an_instance_told_to_stop_while_it_is_aborted_is_not_started_again():
    aborting, _action = next_state(Life(State.RUNNING), Hung(), NOW, LIMITS)
    life, _action = next_state(aborting, Stop(), NOW, LIMITS)
    assert next_state(life, Exited(-6), NOW, LIMITS)[0].state is State.STOPPED


events = st.one_of(
    st.sampled_from([Start(), Ready(), Hung(), Tick(), Stop(), Stop(0), Stop(2)]),
    st.builds(Exited, st.sampled_from([0, 1, 70, 78, -6, -9, -15])),
)


@given(st.lists(st.tuples(events, st.floats(0, 100)), max_size=60))
@settings(max_examples=300)
def test_fatal_is_left_by_stop_only_and_processes_are_counted_right(steps):
    life, now, processes = INITIAL, 0.0, 0
    for event, pause in steps:
        now += pause
        if isinstance(event, Exited) and not processes:
            continue  # nobody can end
        after, action = next_state(life, event, now, LIMITS)
        if life.state is State.FATAL and not isinstance(event, Stop):
            assert after == life
            assert action is NONE
        if action is Action.SPAWN:
            assert processes == 0  # never two processes of one life
            processes = 1
        if isinstance(event, Exited):
            processes = 0
        if action in (Action.ASK, Action.ABORT, Action.KILL):
            assert processes == 1
        assert after.has_process == (processes == 1)
        life = after


def test_deaths_are_explained():
    assert "out of memory" in describe_exit(-9)
    assert describe_exit(-6) == "SIGABRT"
    assert describe_exit(3) == "exit status 3"
    assert "somebody else" in describe_exit(EX_UNASKED)
    assert "configuration" in describe_exit(78)
    assert describe_exit(-63) == "signal 63"

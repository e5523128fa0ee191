"""Status words and health, from the arena alone."""

import os

import pytest

from sarrapipe.shm import host
from sarrapipe.shm.arena import Arena
from sarrapipe.shm.slots import Counter, Phase
from sarrapipe.supervisor.paths import FlowPaths
from sarrapipe.supervisor.states import State
from sarrapipe.supervisor.status import Health, read_status, worst

NOW_S = 10_000.0
WALL_S = 50_000.0


class FakeClock:
    def monotonic_s(self):
        return NOW_S

    def wall_ns(self):
        return int(WALL_S * 1e9)


@pytest.fixture
def paths(tmp_path):
    made = FlowPaths("sarra", "x", str(tmp_path / "sarra" / "x"))
    made.make()
    return made


@pytest.fixture
def arena(paths):
    with Arena.create(paths.arena, paths.flow, created_wall_ns=int((WALL_S - 60) * 1e9)) as made:
        made.set_parent(os.getpid(), foreground=False)
        made.parent_state = State.RUNNING
        made.wanted = 2
        made.hung_s = 60
        yield made


def add(arena, number, state, *, silent_s=1.0, alive=True, phase=Phase.RUNNING):
    slot = arena.slot(arena.free_slot({slot.index for slot in arena.slots()}))
    now_ns = int((NOW_S - silent_s) * 1e9)
    who = {"number": number, "incarnation": number, "generation": 1, "failures": 0, "cpu": None}
    slot.occupy(**who, now_ns=now_ns, wall_ns=0)
    slot.set_process(os.getpid(), host.start_ticks(os.getpid()))
    slot.set_state(state)
    slot.set_phase(phase, "for the broker" if phase in (Phase.CONNECTING, Phase.PAUSED) else "")
    if not alive:
        slot.vacate()
    return slot


def status(paths):
    return read_status(paths, FakeClock())


def test_never_started(paths):
    assert (status(paths).state, status(paths).health) == ("stop", Health.OK)
    with open(paths.disabled, "w"):
        pass
    assert (status(paths).state, status(paths).health) == ("disabled", Health.OK)


CASES = {
    "run": [(State.RUNNING, {}), (State.RUNNING, {})],
    "starting": [(State.RUNNING, {}), (State.STARTING, {})],
    "part": [(State.RUNNING, {}), (State.BACKOFF, {"alive": False})],
    "down": [(State.BACKOFF, {"alive": False}), (State.BACKOFF, {"alive": False})],
    "fatal": [(State.FATAL, {"alive": False}), (State.FATAL, {"alive": False})],
    "hung": [(State.RUNNING, {}), (State.RUNNING, {"silent_s": 40})],
    "connecting": [(State.RUNNING, {}), (State.RUNNING, {"phase": Phase.CONNECTING})],
    "paused": [(State.RUNNING, {"phase": Phase.PAUSED}), (State.RUNNING, {})],
}
HEALTH = {"run": 0, "starting": 1, "part": 1, "down": 2, "fatal": 2, "hung": 1, "connecting": 1, "paused": 1}


@pytest.mark.parametrize("word", CASES)
def test_words_from_instances(paths, arena, word):
    for number, (state, changes) in enumerate(CASES[word], start=1):
        add(arena, number, state, **changes)
    got = status(paths)
    assert (got.state, got.health) == (word, HEALTH[word])
    assert len(got.instances) == 2
    assert got.parent_pid == os.getpid()
    if word in ("connecting", "paused"):
        assert "for the broker" in got.note


def test_starting_instances_without_a_broker_are_connecting(paths, arena):
    for number in (1, 2):
        add(arena, number, State.STARTING, phase=Phase.CONNECTING)
    assert status(paths).state == "connecting"


@pytest.mark.parametrize(
    ("counter", "value", "word"),
    [
        (Counter.GAUGE_LAG, 40_000_000_000, "run"),  # of one instance of two: 20 s on average
        (Counter.GAUGE_LAG, 80_000_000_000, "lag"),
        (Counter.GAUGE_RETRY_WAITING, 1001, "retry"),
    ],
)
def test_words_from_gauges(paths, arena, counter, value, word):
    add(arena, 1, State.RUNNING).set(counter, value)
    add(arena, 2, State.RUNNING)
    assert status(paths).state == word


def test_idle_after_a_quarter_of_an_hour_without_messages(paths):
    with Arena.create(paths.arena, paths.flow, created_wall_ns=int((WALL_S - 1000) * 1e9)) as arena:
        arena.set_parent(os.getpid(), foreground=False)
        arena.wanted = 1
        slot = add(arena, 1, State.RUNNING)
        assert (status(paths).state, status(paths).health) == ("idle", Health.OK)
        slot.set(Counter.GAUGE_LAST_MESSAGE, int((WALL_S - 800) * 1e9))
        assert status(paths).state == "run"


def test_stopping(paths, arena):
    arena.parent_state = State.STOPPING
    assert status(paths).state == "stopping"


@pytest.mark.parametrize(
    ("parent_state", "word", "health"),
    [
        (State.STOPPED, "stop", 0),
        (State.FATAL, "fatal", 2),
        (State.RUNNING, "dead", 2),
        (State.STOPPING, "dead", 2),
    ],
)
def test_a_flow_whose_parent_is_gone(paths, arena, parent_state, word, health):
    arena.parent_state = parent_state
    arena.set_parent(2**22 + 1, foreground=False)  # nobody has this pid
    add(arena, 1, State.RUNNING)
    got = status(paths)
    assert (got.state, got.health, got.parent_pid, got.instances) == (word, health, 0, [])


def test_a_flow_from_before_a_reboot(paths, arena):
    with open(paths.arena, "r+b") as file:
        file.seek(40)
        file.write(bytes(16))  # the boot id
    got = status(paths)
    assert (got.state, got.health) == ("dead", Health.DOWN)
    assert "started anew" in got.note


def test_counters_rates_and_the_ended_are_in_the_totals(paths, arena):
    ended = add(arena, 1, State.RUNNING)
    ended.add(Counter.FILES_OK, 5)
    ended.set_state(State.STOPPED)
    arena.retire(ended)
    add(arena, 1, State.RUNNING).add(Counter.FILES_OK, 2)
    got = status(paths)
    assert got.totals["files_ok"] == 7
    assert got.rates["files_ok"] == 0.0
    assert [one.number for one in got.instances] == [1]


def test_several_flows_are_as_well_as_the_worst(paths, arena):
    good = status(paths)
    assert worst([]) is Health.OK
    assert worst([good]) is good.health

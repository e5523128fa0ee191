"""The wanted set against the running set, without processes: a nursery that does as it is told."""

import errno
import math
import socket

import pytest

from sarrapipe.shm.arena import Arena
from sarrapipe.supervisor.crew import Crew, Generation, Watch
from sarrapipe.supervisor.incarnation import IncarnationCounter
from sarrapipe.supervisor.mailbox import Frame, send_frame
from sarrapipe.supervisor.nursery import Spawned
from sarrapipe.supervisor.paths import FlowPaths
from sarrapipe.supervisor.plan import FlowPlan
from sarrapipe.supervisor.states import Limits, State

NOBODY = 2**22 + 1  # above the kernel's largest pid: signals to it reach nobody


class FakeClock:
    now = 1000.0

    def monotonic_s(self):
        return self.now

    def wall_ns(self):
        return 0


class ObedientNursery:
    """Keeps what it was asked for; the test says what comes of it."""

    def __init__(self):
        self.is_open = True
        self.pid = 0
        self.asked = []
        self.ends = {}

    def spawn(self, jobs):
        for job, channel in jobs:
            self.asked.append(job)
            self.ends[job.incarnation] = channel.dup()
        return []


class Setting:
    def __init__(self, tmp_path):
        self.paths = FlowPaths("sarra", "x", str(tmp_path / "sarra" / "x"))
        self.paths.make()
        self.arena = Arena.create(self.paths.arena, "sarra/x", created_wall_ns=0)
        counter = IncarnationCounter(self.paths.incarnation)
        counter.open()
        self.clock = FakeClock()
        self.watched = []
        self.crew = Crew(
            paths=self.paths, arena=self.arena, counter=counter, log_to_files=False, clock=self.clock,
            limits=Limits(backoff_first_s=1, abort_s=2),
            watch=Watch(lambda channel, handle: self.watched.append(channel), self.watched.remove),
        )  # fmt: skip
        self.nurseries = []

    def generation(self, number=1, **plan):
        nursery = ObedientNursery()
        self.nurseries.append(nursery)
        return Generation(number, FlowPlan(state_dir=self.paths.state_dir, **plan), nursery)

    def let_live(self, nursery, pid=NOBODY):
        """The fork server reports everything it was asked for; each process says that it is ready."""
        jobs, nursery.asked = nursery.asked, []
        self.crew.on_spawned(Spawned({job.incarnation: pid + job.incarnation for job in jobs}))
        for handle in list(self.crew.handles):
            if handle.life.state is State.STARTING and handle.pid:
                send_frame(nursery.ends[handle.incarnation], Frame.READY)
                self.crew.on_channel(handle)

    def let_die(self, handle, code):
        self.crew.on_exit(handle.pid, code)

    def states(self):
        return sorted((h.number, h.generation.number, h.life.state.name) for h in self.crew.handles)

    def close(self):
        for handle in self.crew.handles:
            if handle.channel is not None:
                handle.channel.close()
        for nursery in self.nurseries:
            for end in nursery.ends.values():
                end.close()
        self.arena.close()


@pytest.fixture
def setting(tmp_path):
    made = Setting(tmp_path)
    yield made
    made.close()


def test_what_is_wanted_is_asked_for_once(setting):
    generation = setting.generation()
    setting.crew.want(3, generation)
    setting.crew.reconcile()
    assert [job.number for job in generation.nursery.asked] == [1, 2, 3]
    assert setting.arena.alive() == {1, 2, 3}  # before any process exists
    setting.let_live(generation.nursery)
    assert setting.states() == [(n, 1, "RUNNING") for n in (1, 2, 3)]
    assert setting.arena.wanted == 3


def test_a_fork_that_fails_backs_off(setting):
    generation = setting.generation()
    setting.crew.want(1, generation)
    (job,) = generation.nursery.asked
    setting.crew.on_spawned(Spawned({job.incarnation: -errno.EAGAIN}))
    assert setting.states() == [(1, 1, "BACKOFF")]
    assert setting.arena.alive() == frozenset()
    assert setting.crew.deadline() == 1001.0
    setting.clock.now = 1001.0
    setting.crew.tick(0.0)
    assert len(generation.nursery.asked) == 2
    assert setting.arena.alive() == {2}


def test_a_process_that_ended_before_it_was_reported(setting):
    generation = setting.generation()
    setting.crew.want(1, generation)
    setting.crew.on_exit(NOBODY + 1, -9)
    setting.let_live(generation.nursery)
    assert setting.states() == [(1, 1, "BACKOFF")]


def test_a_lost_fork_server_ends_what_it_was_asked_for_and_spawning_waits_for_another(setting):
    generation = setting.generation()
    setting.crew.want(2, generation)
    generation.nursery.is_open = False
    setting.crew.on_nursery_gone(generation.nursery)
    assert setting.states() == [(1, 1, "BACKOFF"), (2, 1, "BACKOFF")]
    setting.clock.now += 1
    setting.crew.tick(0.0)
    assert setting.states() == [(1, 1, "STARTING"), (2, 1, "STARTING")]
    generation.nursery = ObedientNursery()
    setting.nurseries.append(generation.nursery)
    setting.crew.reconcile()
    assert [job.number for job in generation.nursery.asked] == [1, 2]
    setting.crew.stop()
    assert setting.states() == [(1, 1, "STOPPING"), (2, 1, "STOPPING")]


def test_stopping_what_was_never_asked_for_takes_no_time(setting):
    generation = setting.generation()
    generation.nursery.is_open = False
    setting.crew.want(2, generation)
    setting.crew.stop()
    assert setting.crew.handles == []


def test_stopped_before_its_process_was_reported(setting):
    generation = setting.generation()
    setting.crew.want(1, generation)
    setting.crew.stop()
    assert setting.states() == [(1, 1, "STOPPING")]
    setting.let_live(generation.nursery)  # it gets no GO but the end of its channel
    (end,) = generation.nursery.ends.values()
    assert end.recv(100) == b""
    setting.let_die(setting.crew.handles[0], 0)
    assert setting.crew.handles == []
    assert setting.watched == []


def test_scaled_down_and_up_again_at_once(setting):
    generation = setting.generation()
    setting.crew.want(2, generation)
    setting.let_live(generation.nursery)
    setting.crew.want(1, generation)
    old = setting.crew.handles[1]
    setting.crew.want(2, generation)
    assert setting.states() == [(1, 1, "RUNNING"), (2, 1, "STARTING"), (2, 1, "STOPPING")]
    assert len({handle.slot.index for handle in setting.crew.handles}) == 3
    setting.let_die(old, 0)
    setting.let_live(generation.nursery)
    assert setting.states() == [(1, 1, "RUNNING"), (2, 1, "RUNNING")]


def test_new_generation_first_then_the_old_one_is_drained(setting):
    first, second = setting.generation(1), setting.generation(2)
    setting.crew.want(1, first)
    setting.let_live(first.nursery)
    (old,) = setting.crew.handles
    setting.crew.want(1, second)
    assert setting.states() == [(1, 1, "RUNNING"), (1, 2, "STARTING")]
    setting.let_live(second.nursery)
    assert setting.states() == [(1, 1, "STOPPING"), (1, 2, "RUNNING")]
    assert old.life.until == 1000.0 + Limits().drain_s
    setting.let_die(old, 0)
    assert setting.states() == [(1, 2, "RUNNING")]


def test_an_old_one_is_kept_and_even_started_again_while_its_successor_is_fatal(setting):
    first, second, third = (setting.generation(number) for number in (1, 2, 3))
    setting.crew.want(1, first)
    setting.let_live(first.nursery)
    setting.crew.want(1, second)
    setting.crew.on_spawned(Spawned({2: NOBODY + 2}))
    setting.crew.on_exit(NOBODY + 2, 78)
    assert setting.states() == [(1, 1, "RUNNING"), (1, 2, "FATAL")]
    assert not setting.crew.is_idle()
    setting.crew.on_exit(NOBODY + 1, -9)
    assert setting.states() == [(1, 1, "BACKOFF"), (1, 2, "FATAL")]
    setting.clock.now += 1
    setting.crew.tick(0.0)
    setting.let_live(first.nursery)
    assert setting.states() == [(1, 1, "RUNNING"), (1, 2, "FATAL")]
    setting.crew.want(1, third)
    setting.let_live(third.nursery)
    for handle in list(setting.crew.handles):
        if handle.retired:
            setting.let_die(handle, 0)
    assert setting.states() == [(1, 3, "RUNNING")]


def test_silence_is_measured_from_the_start_and_forgiven_after_oversleeping(setting):
    generation = setting.generation(hung_s=60.0)
    setting.crew.want(1, generation)
    setting.let_live(generation.nursery)
    assert setting.crew.deadline() == 1060.0
    setting.clock.now = 1059.9
    setting.crew.tick(0.0)
    assert setting.states() == [(1, 1, "RUNNING")]
    setting.clock.now = 1100.0
    setting.crew.tick(40.0)  # the parent itself was stopped
    assert setting.states() == [(1, 1, "RUNNING")]
    assert setting.crew.deadline() == 1110.0
    setting.clock.now = 1110.0
    setting.crew.tick(0.0)
    assert setting.states() == [(1, 1, "STOPPING")]
    assert setting.crew.deadline() == 1112.0


def test_no_limit_of_silence_is_no_deadline(setting):
    generation = setting.generation(hung_s=0.0)
    setting.crew.want(1, generation)
    setting.let_live(generation.nursery)
    assert math.isinf(setting.crew.deadline())


def test_an_instance_stopped_for_good_has_the_time_its_configuration_gives(setting):
    generation = setting.generation(stop_s=7.0)
    setting.crew.want(1, generation)
    setting.let_live(generation.nursery)
    setting.crew.stop()
    assert setting.crew.handles[0].life.until == 1007.0
    kind = generation.nursery.ends[1].recv(16)  # GO
    stop = generation.nursery.ends[1].recv(16)
    assert (kind[0], stop[0], int.from_bytes(stop[8:], "little")) == (Frame.GO, Frame.STOP, 7000)


def test_every_instance_gets_a_title_number_and_log(setting):
    generation = setting.generation()
    setting.crew.log_to_files = True
    setting.crew.want(12, generation)
    job = generation.nursery.asked[11]
    assert (job.number, job.wanted, job.log_path) == (12, 12, setting.paths.log(12))
    assert isinstance(setting.crew.handles[0].channel, socket.socket)

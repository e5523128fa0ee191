"""One parent for each flow; a stale pid file hinders nobody (issue 2: two parents, stale pid file)."""

import os
import signal
import subprocess
import sys

import pytest

from sarrapipe.errors import SupervisorError
from sarrapipe.shm import host
from sarrapipe.shm.arena import Arena
from sarrapipe.supervisor.paths import FlowPaths
from sarrapipe.supervisor.pidfile import PidFile, read_pid

HOLD = """
import os, sys
from sarrapipe.supervisor.paths import FlowPaths
from sarrapipe.supervisor.pidfile import PidFile
held = PidFile(FlowPaths("sarra", "x", sys.argv[1]))
held.acquire()
if len(sys.argv) > 2:
    os.set_inheritable(held.fd, True)
    if os.fork() == 0:
        print(os.getpid(), flush=True)
    else:
        os.kill(os.getpid(), 9)
print("held", flush=True)
sys.stdin.read()
"""


class FakeClock:
    """Time that passes only by sleeping; `on_sleep` is called with every nap."""

    def __init__(self, on_sleep=lambda now: None):
        self.now = 0.0
        self.on_sleep = on_sleep

    def monotonic_s(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.on_sleep(self.now)


@pytest.fixture
def paths(tmp_path):
    made = FlowPaths("sarra", "x", str(tmp_path / "sarra" / "x"))
    made.make()
    return made


@pytest.fixture
def hold(paths):
    processes = []

    def start(*extra):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, paths.state_dir, *extra],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        processes.append(process)
        first = process.stdout.readline().strip()
        assert first
        return process, first

    yield start
    for process in processes:
        process.stdin.close()
        process.stdout.close()
        process.wait()


def test_a_second_parent_is_told_the_pid_of_the_first(paths, hold):
    process, _said = hold()
    assert read_pid(paths.pid_file) == process.pid
    with pytest.raises(SupervisorError, match=f"sarra/x runs already: parent pid {process.pid}") as caught:
        PidFile(paths, FakeClock()).acquire()
    assert caught.value.code == 69


@pytest.mark.parametrize("content", ["", "garbage", "999999 5\n", "{this} 1\n", "1"])
def test_a_stale_pid_file_is_recognised(paths, content):
    with open(paths.pid_file, "w") as file:
        file.write(content.format(this=os.getpid()))
    assert read_pid(paths.pid_file) == 0
    held = PidFile(paths, FakeClock())
    held.acquire()
    assert read_pid(paths.pid_file) == os.getpid()
    held.release()
    assert read_pid(paths.pid_file) == 0
    assert os.path.exists(paths.pid_file)


def test_after_kill_9_the_next_parent_starts(paths, hold):
    process, _said = hold()
    process.kill()
    process.wait()
    held = PidFile(paths, FakeClock())
    held.acquire()
    held.release()


def test_instances_of_a_dead_parent_are_waited_for_and_then_killed(paths, hold):
    process, leftover = hold("with-child")
    process.wait()
    pid = int(leftover)
    with Arena.create(paths.arena, "sarra/x", created_wall_ns=0) as arena:
        slot = arena.slot(arena.free_slot())
        slot.occupy(number=1, incarnation=1, generation=1, failures=0, cpu=None, now_ns=0, wall_ns=0)
        slot.set_process(pid, host.start_ticks(pid))
    patience = []
    held = PidFile(paths, FakeClock(lambda now: patience.append((now, host.is_alive(pid, 0)))))
    held.acquire()
    held.release()
    assert max(now for now, alive in patience if alive) >= 1.0  # it had a second to go by itself


def test_leftovers_that_do_not_end_are_named(paths, hold):
    process, leftover = hold("with-child")  # and no arena knows its child
    process.wait()
    with pytest.raises(SupervisorError, match="do not end"):
        PidFile(paths, FakeClock()).acquire()
    os.kill(int(leftover), signal.SIGKILL)


def test_no_directory_is_an_error_that_names_the_path(tmp_path):
    with pytest.raises(SupervisorError, match="nowhere"):
        PidFile(FlowPaths("sarra", "x", str(tmp_path / "nowhere"))).acquire()

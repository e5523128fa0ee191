"""What happens when each process is killed, at each instant (docs/explanation/processes.md)."""

import os
import random
import re
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest
from supervisor_harness import SECOND, Flow, wait_for

from sarrapipe.shm import host
from sarrapipe.supervisor.remote import ask


@pytest.fixture
def flow(tmp_path):
    with Flow(tmp_path, instances=3) as made:
        yield made


def test_a_killed_instance_is_started_again_with_a_new_incarnation(flow):
    pids = flow.start().running(3)
    incarnation = flow.slot(2).incarnation
    os.kill(pids[2], signal.SIGKILL)
    again = wait_for(lambda: (p := flow.running(3)) and p[2] != pids[2] and p)
    assert {1: again[1], 3: again[3]} == {1: pids[1], 3: pids[3]}
    assert flow.slot(2).incarnation > incarnation
    assert "instance 2" in flow.status().note
    assert "perhaps the system was out of memory" in flow.log


def test_instances_killed_at_random_moments(flow):
    """Whenever it hits them, in the end all run, none twice, and no incarnation comes again."""
    chance = random.Random(7)
    flow.start().running(3)
    for _round in range(25):
        living = [one for one in flow.status().instances if one.pid]
        if living:
            victim = chance.choice(living)
            ticks = host.start_ticks(victim.pid)
            if ticks and host.is_alive(victim.pid, ticks):
                os.kill(victim.pid, chance.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM]))
        time.sleep(chance.random() * 0.1)  # the random moment

    assert set(flow.running(3)) == {1, 2, 3}
    incarnations = [incarnation for _number, incarnation, _pid, _config in flow.starts()]
    assert len(set(incarnations)) == len(incarnations)
    assert flow.stop() == 0
    assert flow.all_gone()


def test_a_killed_fork_server_is_replaced_and_its_instances_go_on(flow):
    pids = flow.start().running(3)
    server = wait_for(flow.fork_server)
    os.kill(server, signal.SIGKILL)
    replaced = wait_for(lambda: (new := flow.fork_server()) and new != server and new)
    assert flow.running(3) == pids
    os.kill(pids[1], signal.SIGKILL)
    wait_for(lambda: (p := flow.running(3)) and p[1] != pids[1])
    assert flow.fork_server() == replaced


def test_fork_server_and_instances_killed_together(flow):
    pids = flow.start().running(3)
    for pid in (wait_for(flow.fork_server), *pids.values()):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not set(flow.running(3).values()) & set(pids.values()))
    assert flow.stop() == 0


def test_a_fork_server_killed_while_the_configuration_is_wrong(flow):
    """It cannot be replaced; instances go on, and once the file is mended everything is well."""
    pids = flow.start().running(3)
    flow.configure(problem="x")
    os.kill(wait_for(flow.fork_server), signal.SIGKILL)
    wait_for(lambda: "configuration not taken" in flow.log)
    assert flow.running(3) == pids
    os.kill(pids[1], signal.SIGKILL)
    wait_for(lambda: flow.status().running == 2)
    del flow.plan["problem"]
    flow.configure()
    flow.running(3)


def test_a_fork_server_killed_in_the_middle_of_forking(flow):
    """Whichever instant the kill hits, nobody works that the parent does not know."""
    flow.start().running(3)
    for round_ in range(6):
        server = wait_for(flow.fork_server)
        ask(flow.paths, do="scale", to=12)
        time.sleep(round_ * 0.004)
        os.kill(server, signal.SIGKILL)
        flow.running(12)
        working = {pid for _number, _incarnation, pid, _config in flow.starts() if host.start_ticks(pid)}
        assert working == set(flow.running(12).values())
        ask(flow.paths, do="scale", to=3)
        flow.running(3)
    assert flow.stop() == 0
    wait_for(flow.all_gone)


@pytest.mark.parametrize("entry", ["beating", "deaf", "slow_to_start"])
@pytest.mark.parametrize("forks", [True, False], ids=["fork server", "fresh exec"])
def test_no_instance_outlives_a_killed_parent(tmp_path, entry, forks):
    with Flow(tmp_path, entry, instances=3, forks=forks) as flow:
        flow.start()
        wait_for(lambda: len(flow.starts()) == 3)
        flow.status()
        flow.process.kill()
        flow.process.wait()
        wait_for(flow.all_gone)
        status = flow.status()
        assert (status.state, status.health) == ("dead", 2)
        flow.entry = "beating"
        flow.start().running(3)  # what the dead one left is in nobody's way
        assert flow.stop() == 0


@pytest.mark.parametrize("delay_ms", [50, 100, 130, 160, 200, 250])
def test_a_parent_killed_while_it_starts(tmp_path, delay_ms):
    with Flow(tmp_path, instances=4) as flow:
        flow.start()
        time.sleep(delay_ms / 1000)
        flow.process.kill()
        flow.process.wait()
        flow.start().running(4)
        pids = [pid for _number, _incarnation, pid, _config in flow.starts()]
        assert {pid for pid in pids if host.start_ticks(pid)} == set(flow.running(4).values())
        incarnations = [incarnation for _number, incarnation, _pid, _config in flow.starts()]
        assert len(set(incarnations)) == len(incarnations)
        assert flow.stop() == 0


def test_a_parent_killed_while_it_stops(tmp_path):
    with Flow(tmp_path, "deaf", instances=3, stop_s=60) as flow:
        flow.start().running(3)
        flow.process.send_signal(signal.SIGTERM)
        wait_for(lambda: flow.status().state == "stopping")
        flow.process.kill()
        flow.process.wait()
        wait_for(flow.all_gone)


def test_a_hung_instance_leaves_its_stacks_and_is_started_again(tmp_path):
    with Flow(tmp_path, "hanging", instances=1, hung_s=1.0 * SECOND) as flow:
        pids = flow.start().running(1)
        again = wait_for(lambda: (p := flow.running(1)) and p[1] != pids[1] and p)
        assert "was silent for" in flow.log
        assert "Fatal Python error: Aborted" in flow.log
        assert re.search(r'supervisor_workers.py", line \d+ in _spin_for_ever', flow.log)
        assert "SIGABRT" in flow.log
        time.sleep(2.2 * SECOND)  # two limits later
        assert flow.running(1) == again  # an instance that beats is left alone
        assert not list(Path(flow.paths.state_dir).glob("core*"))


def test_a_stopped_instance_is_killed_since_it_cannot_abort(tmp_path):
    with Flow(tmp_path, "beating", instances=2, hung_s=1.0 * SECOND) as flow:
        flow.limits["abort_s"] = 0.3 * SECOND
        pids = flow.start().running(2)
        os.kill(pids[1], signal.SIGSTOP)
        wait_for(lambda: flow.status().state == "hung")
        again = wait_for(lambda: (p := flow.running(2)) and p[1] != pids[1] and p)
        assert again[2] == pids[2]
        assert "does not end: killed" in flow.log


def test_when_everything_was_stopped_nobody_counts_as_hung(tmp_path):
    """Ctrl-Z, a debugger, a machine that was suspended: the parent sees that it overslept itself."""
    with Flow(tmp_path, "beating", instances=3, hung_s=1.0 * SECOND) as flow:
        pids = flow.start().running(3)
        everyone = [flow.process.pid, *pids.values()]
        for pid in everyone:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(3 * SECOND)  # the span of the stop
        for pid in everyone:
            os.kill(pid, signal.SIGCONT)
        time.sleep(1 * SECOND)
        assert flow.running(3) == pids
        assert "silent" not in flow.log


def test_a_fork_server_that_cannot_fork_any_more_is_replaced(tmp_path):
    with Flow(tmp_path, instances=2) as flow:
        pids = flow.start().running(2)
        server = wait_for(flow.fork_server)
        resource.prlimit(server, resource.RLIMIT_NOFILE, (3, 4096))  # no descriptors left
        ask(flow.paths, do="scale", to=3)
        assert flow.running(3).items() > pids.items()
        assert "the fork server ended" in flow.log


def test_sigterm_from_somebody_else_is_no_reason_to_stay_away(flow):
    pids = flow.start().running(3)
    os.kill(pids[3], signal.SIGTERM)
    again = wait_for(lambda: (p := flow.running(3)) and p[3] != pids[3] and p)
    assert "somebody else told it to stop" in flow.log
    assert again[1] == pids[1]


def test_a_parent_whose_state_directory_was_removed_ends(flow):
    """Another parent could take the lock of a new directory, and instances find no arena."""
    pids = flow.start().running(3)
    shutil.rmtree(flow.home / "state")
    os.kill(pids[1], signal.SIGKILL)
    assert flow.ended() == 69
    assert "state directory was removed" in flow.log
    assert flow.all_gone()

"""Parent, fork server and instances as real processes: start, scale, reload, stop (design 3; R48)."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
from supervisor_harness import SECOND, Flow, wait_for

from sarrapipe.errors import SupervisorError
from sarrapipe.supervisor.control import request
from sarrapipe.supervisor.pidfile import read_pid
from sarrapipe.supervisor.remote import ask, stop


@pytest.fixture
def flow(tmp_path):
    with Flow(tmp_path, instances=3) as made:
        yield made


def title(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode().strip()


@pytest.mark.parametrize("forks", [True, False], ids=["fork server", "fresh exec"])
def test_start_and_stop(tmp_path, forks):
    with Flow(tmp_path, instances=3, forks=forks) as flow:
        flow.start()
        pids = flow.running(3)
        status = flow.status()
        assert (status.state, status.running, status.wanted) == ("run", 3, 3)
        assert {title(pid) for pid in pids.values()} == {f"sarrapipe: sarra/x 0{n}/03" for n in (1, 2, 3)}
        assert title(flow.process.pid) == "sarrapipe: parent sarra/x"
        assert sorted((number, incarnation) for number, incarnation, _pid, _config in flow.starts()) == [
            (1, 1), (2, 2), (3, 3),
        ]  # fmt: skip
        assert flow.stop() == 0
        assert flow.all_gone()
        assert flow.status().state == "stop"
        assert not os.path.exists(flow.paths.control)
        assert "ended: exit status 0" in flow.log


def test_instances_are_children_of_the_parent_not_of_the_fork_server(flow):
    flow.start()
    pids = set(flow.running(3).values())
    parent = flow.process.pid
    children = set(map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split()))
    assert pids < children
    assert len(children - pids) == 1


def test_the_second_start_has_new_incarnations(flow):
    flow.start().running(3)
    flow.stop()
    flow.start().running(3)
    incarnations = [incarnation for _number, incarnation, _pid, _config in flow.starts()]
    assert len(set(incarnations)) == 6
    assert min(incarnations[3:]) > max(incarnations[:3])


def test_a_second_parent_is_refused_and_harms_nothing(flow, tmp_path):
    pids = flow.start().running(3)
    second = Flow(tmp_path, instances=3)
    second.start()
    assert second.ended() == 69
    assert f"sarra/x runs already: parent pid {flow.process.pid}" in second.log
    assert flow.running(3) == pids
    assert ask(flow.paths, do="status")["wanted"] == 3


def test_a_wrong_configuration_starts_nothing(tmp_path):
    with Flow(tmp_path, instances=2, problem="instances: 'x' is no number") as flow:
        flow.start()
        assert flow.ended() == 78
        assert flow.log.strip() == "plan.json:1:1: instances: 'x' is no number"
        assert flow.starts() == []


def test_scale_up_and_down_by_socket_and_by_signal(flow):
    first = flow.start().running(3)
    assert ask(flow.paths, do="scale", to=5)["wanted"] == 5
    assert flow.running(5).items() > first.items()
    flow.process.send_signal(signal.SIGTTOU)
    assert set(flow.running(4)) == {1, 2, 3, 4}
    flow.process.send_signal(signal.SIGTTIN)
    assert set(flow.running(5)) == {1, 2, 3, 4, 5}
    ask(flow.paths, do="scale", to=1)
    assert flow.running(1) == {1: first[1]}
    ask(flow.paths, do="scale", to=0)
    flow.running(0)
    assert flow.process.poll() is None  # it waits to be scaled up again
    with pytest.raises(SupervisorError, match="0 to 250"):
        ask(flow.paths, do="scale", to=100_000)
    ask(flow.paths, do="scale", to=2)
    flow.running(2)


def test_reload_replaces_instances_new_ones_first(flow):
    flow.configure(settings={"version": 1})
    old = flow.start().running(3)
    flow.configure(settings={"version": 2})
    assert "3 new instances" in ask(flow.paths, do="reload")["change"]
    new = wait_for(lambda: (pids := flow.running(3)) and not set(pids.values()) & set(old.values()) and pids)
    assert set(new) == {1, 2, 3}
    assert [config["version"] for *_rest, config in flow.starts()] == [1, 1, 1, 2, 2, 2]
    assert {one.generation for one in flow.status().instances} == {2}


def test_reload_scales_without_touching_the_others(flow):
    old = flow.start().running(3)
    flow.configure(instances=4)
    assert ask(flow.paths, do="reload")["change"] == "4 instances"
    assert flow.running(4).items() > old.items()
    assert ask(flow.paths, do="reload")["change"] == "nothing changed"
    ask(flow.paths, do="scale", to=2)
    flow.running(2)
    assert ask(flow.paths, do="reload")["change"] == "nothing changed"  # what scale did lasts
    assert len(flow.running(2)) == 2


def test_a_wrong_configuration_is_refused_and_the_old_one_stays_in_force(flow):
    flow.configure(settings={"version": 1})
    old = flow.start().running(3)
    flow.configure(problem="prefetch: 'x' is no number", settings={"version": 2})
    with pytest.raises(SupervisorError, match=r"plan.json:1:1: prefetch") as caught:
        ask(flow.paths, do="reload")
    assert caught.value.code == 78
    assert flow.running(3) == old
    assert "prefetch" in flow.status().note
    flow.process.send_signal(signal.SIGHUP)
    wait_for(lambda: flow.log.count("configuration not taken") == 2)
    # An instance that dies now is started with the old configuration, whatever the file says.
    os.kill(old[2], signal.SIGKILL)
    wait_for(lambda: (pids := flow.running(3)) and pids[2] != old[2])
    assert flow.starts()[-1][3] == {"version": 1}


def test_an_old_instance_stays_while_its_successor_cannot_work(tmp_path):
    with Flow(tmp_path, "beating", instances=1, settings={"version": 1}) as flow:
        old = flow.start().running(1)
        # The successor hangs in its start: it lives, but is never ready.
        flow.configure(settings={"version": 2, "never_ready": True})
        ask(flow.paths, do="reload")
        wait_for(lambda: len(flow.starts()) == 2)
        states = {one.generation: (one.state, one.pid) for one in flow.status().instances}
        assert states[1] == ("running", old[1])
        assert states[2][0] == "starting"
        flow.configure(settings={"version": 3})
        ask(flow.paths, do="reload")
        wait_for(lambda: [one.generation for one in flow.status().instances] == [3])
        assert flow.running(1) != old


def test_stop_is_answered_when_everything_is_gone(flow):
    flow.start().running(3)
    assert "stopped" in stop(flow.paths, None)
    assert flow.all_gone()
    assert flow.ended() == 0
    assert stop(flow.paths, None) == "does not run"


def test_stop_kills_what_does_not_end(tmp_path):
    with Flow(tmp_path, "deaf", instances=2, stop_s=0.3) as flow:
        flow.start().running(2)
        start = time.monotonic()
        stop(flow.paths, None)
        assert 0.3 <= time.monotonic() - start < 5 * SECOND
        assert flow.all_gone()
        assert flow.log.count("does not end: killed") == 2


def test_a_second_signal_hurries(tmp_path):
    with Flow(tmp_path, "deaf", instances=2, stop_s=600) as flow:
        flow.start().running(2)
        flow.process.send_signal(signal.SIGINT)
        wait_for(lambda: flow.status().state == "stopping")
        flow.process.send_signal(signal.SIGINT)
        assert flow.ended() == 0


def test_drain_has_no_limit_and_a_stop_after_it_has(tmp_path):
    with Flow(tmp_path, "deaf", instances=1, stop_s=0.1) as flow:
        flow.start().running(1)
        with pytest.raises(SupervisorError, match="no answer"):
            request(flow.paths.control, 0.5, do="drain")
        assert flow.status().state == "stopping"
        with pytest.raises(SupervisorError, match="now"):
            request(flow.paths.control, 5, do="reload")
        stop(flow.paths, 0.1)
        assert flow.ended() == 0


def test_stop_while_starting(tmp_path):
    with Flow(tmp_path, "slow_to_start", instances=4) as flow:
        flow.start()
        wait_for(lambda: len(flow.starts()) == 4)
        assert flow.status().state == "starting"
        assert flow.stop() == 0
        assert flow.all_gone()


@pytest.mark.parametrize("delay_ms", [0, 30, 60, 90, 120, 150, 200, 250])
def test_stop_at_any_moment_of_the_start(tmp_path, delay_ms):
    with Flow(tmp_path, instances=4) as flow:
        flow.start()
        time.sleep(delay_ms / 1000)
        flow.process.send_signal(signal.SIGTERM)
        # Before it has set up its handlers the signal ends it like any process.
        assert flow.ended() in (0, -signal.SIGTERM)
        flow.status()
        wait_for(flow.all_gone)


def test_a_stopped_parent_is_killed_by_stop_and_its_instances_go_with_it(flow, monkeypatch):
    monkeypatch.setattr("sarrapipe.supervisor.remote._GRACE_S", 0.2)
    flow.start().running(3)
    flow.process.send_signal(signal.SIGSTOP)
    assert "stopped" in stop(flow.paths, 0.2)
    assert flow.ended() == -signal.SIGKILL
    wait_for(flow.all_gone)


def test_an_instance_that_finds_the_configuration_at_fault_is_not_started_again(tmp_path):
    with Flow(tmp_path, "refusing", instances=2) as flow:
        flow.start()
        assert flow.ended() == 78
        assert len(flow.starts()) == 2
        status = flow.status()
        assert (status.state, status.health) == ("fatal", 2)
        assert "x.conf:3:8: broker: no such thing" in flow.log
        assert "x.conf:3:8: broker: no such thing" in status.note


def test_instances_that_are_done_are_not_started_again(tmp_path):
    with Flow(tmp_path, "finishing", instances=2) as flow:
        flow.start()
        assert flow.ended() == 0
        assert len(flow.starts()) == 2
        assert flow.status().state == "stop"


def test_an_instance_that_crashes_is_started_again_after_growing_waits(tmp_path):
    with Flow(tmp_path, "crashing", instances=1) as flow:
        flow.start()
        waits = wait_for(lambda: len(found := re.findall(r"again in (\S+) s", flow.log)) >= 4 and found)
        assert len(flow.starts()) >= 4
        assert waits[:4] == ["0.05", "0.1", "0.2", "0.4"]
        assert flow.status().state in ("down", "starting")
        assert "exit status 3" in flow.status().note
        flow.stop()


def test_an_instance_with_a_bug_leaves_its_traceback(tmp_path):
    with Flow(tmp_path, "raising", instances=1) as flow:
        flow.start()
        wait_for(lambda: "ValueError: boom" in flow.log)
        assert "exit status 70" in wait_for(lambda: flow.status().note)


def test_siblings_hear_of_deaths_and_of_work(tmp_path):
    with Flow(tmp_path, "watching", instances=3, settings={"announce": 1}) as flow:
        flow.start()
        incarnations = {
            n: i for n, i, _pid, _config in wait_for(lambda: len(flow.starts()) == 3 and flow.starts())
        }

        def heard(number):
            path = Path(flow.paths.state_dir, f"heard.{incarnations[number]}")
            return json.loads(path.read_text()) if path.exists() else None

        for number in (2, 3):
            assert wait_for(lambda number=number: heard(number))["work"]
        os.kill(flow.slot(3).pid, signal.SIGKILL)
        for number in (1, 2):
            told = wait_for(lambda number=number: (h := heard(number)) and h["deaths"] and h)
            assert incarnations[3] not in told["alive"]


def test_logs_are_opened_anew_by_usr1(tmp_path):
    with Flow(tmp_path, "raising", instances=1, foreground=False) as flow:
        flow.limits["backoff_first_s"] = 0.3
        flow.start()
        log = Path(flow.paths.log(1))
        wait_for(lambda: log.exists() and "boom" in log.read_text())
        parent_log = Path(flow.paths.log())
        for path in (log, parent_log):
            path.rename(f"{path}.1")
        flow.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: parent_log.exists() and "started again" in parent_log.read_text())
        wait_for(lambda: log.exists() and "boom" in log.read_text())
        flow.stop()


def test_logs_of_a_running_instance_are_opened_anew(tmp_path):
    with Flow(tmp_path, "beating", instances=1, foreground=False, log_mode=0o640) as flow:
        pids = flow.start().running(1)
        log = Path(flow.paths.log(1))
        modes = [path.stat().st_mode & 0o777 for path in (log, Path(flow.paths.log()))]
        assert modes == [0o640, 0o640]  # option permLog, whatever the umask
        log.rename(f"{log}.1")
        flow.process.send_signal(signal.SIGUSR1)
        wait_for(log.exists)
        wait_for(lambda: os.readlink(f"/proc/{pids[1]}/fd/2") == str(log))
        assert flow.stop() == 0


def test_nothing_of_the_parent_leaks_into_instances(flow):
    """Descriptors: channel, signals, selector, lock, log; no control socket and no sibling's channel."""
    pids = flow.start().running(3)
    counts = {len(os.listdir(f"/proc/{pid}/fd")) for pid in pids.values()}
    assert len(counts) == 1
    for pid in pids.values():
        targets = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        # The channel and the pair for signals.
        assert sum(target.startswith("socket:") for target in targets) == 3, targets
        assert flow.paths.pid_file in targets
    assert read_pid(flow.paths.pid_file) == flow.process.pid


def test_the_parent_sleeps_when_there_is_nothing_to_do(flow):
    flow.configure(hung_s=600)
    flow.start().running(3)
    path = Path(f"/proc/{flow.process.pid}/status")

    def switches():
        return int(path.read_text().split("\nvoluntary_ctxt_switches:")[1].split()[0])

    def in_a_second():
        before = switches()
        time.sleep(1.0)  # a span to look at, not a wait for something
        return switches() - before

    # The first span may hold what is left of the start.
    wait_for(lambda: in_a_second() <= 2, seconds=10)

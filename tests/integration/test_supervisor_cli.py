"""The life-cycle commands, as a person or a container runs them (issue 2, point 5)."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from supervisor_harness import SECOND, wait_for

from sarrapipe.config.load import ConfigHome
from sarrapipe.shm import host
from sarrapipe.shm.arena import Arena
from sarrapipe.supervisor.paths import FlowPaths
from sarrapipe.supervisor.pidfile import read_pid
from sarrapipe.supervisor.status import read_status

CONFIG = """
broker amqp://tfeed@localhost/
instances 2
subtopic #
directory /tmp
post_broker amqp://tfeed@localhost/
post_exchange xpublic
post_baseUrl http://localhost/
"""


class Home:
    """A home directory with configurations, and the command run in it."""

    def __init__(self, directory):
        self.config = ConfigHome(str(directory / "config"), str(directory / "state"))
        self.environment = dict(
            os.environ,
            SARRA_CONFIG_HOME=self.config.config_dir,
            SARRA_STATE_HOME=self.config.state_dir,
            SARRAPIPE_INSTANCE="supervisor_workers:beating",
            PYTHONPATH=str(Path(__file__).parent),
        )
        os.makedirs(self.config.config_dir)
        with open(self.config.credentials_file, "w", opener=lambda p, f: os.open(p, f, 0o600)) as file:
            file.write("amqp://tfeed:pw@localhost/\n")
        self.running = []
        self.seen = set()

    def add(self, component, name, text=CONFIG):
        path = Path(self.config.config_file(component, name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def paths(self, flow):
        component, name = flow.split("/")
        return FlowPaths(component, name, self.config.flow_state_dir(component, name))

    def command(self, *arguments):
        return [sys.executable, "-m", "sarrapipe", *arguments]

    def run(self, *arguments, status=0):
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60 * SECOND,
        )
        assert done.returncode == status, done.stdout + done.stderr
        self.look()
        return done.stdout + done.stderr

    def begin(self, *arguments):
        """Start a command that stays."""
        with open(Path(self.config.state_dir).parent / "output", "ab") as log:
            process = subprocess.Popen(self.command(*arguments), env=self.environment, stdout=log, stderr=log)
        self.running.append(process)
        return process

    def output(self):
        return (Path(self.config.state_dir).parent / "output").read_text()

    def status(self, flow):
        return read_status(self.paths(flow))

    def wait_running(self, flow, count):
        wait_for(lambda: self.status(flow).running == count)
        self.look()

    def look(self):
        """Remember every process, to be sure in the end that none is left."""
        for arena in Path(self.config.state_dir).glob("*/*/arena"):
            status = read_status(FlowPaths("x", "x", str(arena.parent)))
            pids = [one.pid for one in status.instances] + [status.parent_pid]
            self.seen.update((pid, host.start_ticks(pid)) for pid in pids if pid)

    def close(self):
        self.look()
        for pid, ticks in self.seen:
            if host.is_alive(pid, ticks):
                os.kill(pid, signal.SIGKILL)
        for process in self.running:
            process.kill()
            process.wait()


def cpu_of_children():
    """CPU seconds of every process that was waited for, by us and in turn by those."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.fixture
def home(tmp_path):
    made = Home(tmp_path)
    made.add("sarra", "one")
    made.add("sarra", "two")
    yield made
    made.close()


def test_start_status_stop(home):
    said = home.run("start", "sarra", "--instances", "3")
    assert said.count("started, parent pid") == 2
    parents = {flow: read_pid(home.paths(flow).pid_file) for flow in ("sarra/one", "sarra/two")}
    assert all(parents.values())
    assert os.getsid(parents["sarra/one"]) != os.getsid(0)
    statuses = json.loads(home.run("status", "--json"))
    assert [(s["flow"], s["state"], s["running"], s["wanted"]) for s in statuses] == [
        ("sarra/one", "run", 3, 3),
        ("sarra/two", "run", 3, 3),
    ]
    table = home.run("status", "--full", "sarra/one")
    assert "3/3" in table
    assert table.count("running") == 6
    assert "runs already: parent pid" in home.run("start", "sarra/one", status=69)
    home.run("stop", "sarra/one")
    assert home.status("sarra/one").state == "stop"
    assert home.status("sarra/two").state == "run"
    home.run("stop")
    assert not any(host.is_alive(pid, ticks) for pid, ticks in home.seen)
    assert "does not run" in home.run("stop")


def test_exit_status_for_monitoring(home):
    assert home.run("status", status=0)
    home.run("start", "sarra")
    os.kill(home.status("sarra/two").instances[0].pid, signal.SIGSTOP)
    os.kill(home.status("sarra/one").parent_pid, signal.SIGKILL)
    wait_for(lambda: home.status("sarra/one").state == "dead")
    said = home.run("status", status=2)
    assert "ended without a stop" in said
    home.run("status", "sarra/two", status=0)  # silent for less than half of what is tolerated
    os.kill(home.status("sarra/two").instances[0].pid, signal.SIGCONT)


def test_a_wrong_configuration_is_told_and_starts_nothing(home):
    home.add("sarra", "bad", CONFIG + "instances many\n")
    for verb in ("start", "run", "foreground"):
        assert "bad.conf:9:" in home.run(verb, "sarra/bad", status=78)
    assert home.status("sarra/bad").state == "stop"
    assert "sarra/bad" in home.run("start", "sarra/bda", status=2)
    assert "started" in home.run("start", "sarra", status=78)  # the others are
    home.run("stop")


def test_scale_reload_restart_log(home):
    home.run("start", "sarra/one")
    first = read_pid(home.paths("sarra/one").pid_file)
    assert "5 instances" in home.run("scale", "sarra/one", "5")
    home.wait_running("sarra/one", 5)
    assert "4 instances" in home.run("scale", "sarra/one", "-1")
    assert "6 instances" in home.run("scale", "sarra/one", "+2")
    assert "no number" in home.run("scale", "sarra/one", "many", status=2)
    home.add("sarra", "one", CONFIG + "prefetch 7\n")
    assert "new instances take over" in home.run("reload", "sarra/one")
    wait_for(lambda: {one.generation for one in home.status("sarra/one").instances} == {2})
    home.add("sarra", "one", CONFIG + "prefetch many\n")
    assert "one.conf:9:" in home.run("reload", "sarra/one", status=78)
    home.add("sarra", "one")
    home.run("restart", "sarra/one")
    assert read_pid(home.paths("sarra/one").pid_file) not in (0, first)
    assert "does not run" in home.run("reload", "sarra/two", status=69)
    log = home.run("log", "sarra/one", "-n", "200")
    assert "parent of sarra/one: 2 instances" in log
    times = [line[:24] for line in log.splitlines() if line.startswith("20")]
    assert times == sorted(times)
    assert len(home.run("log", "sarra/one", "-n", "3").splitlines()) == 3
    assert "has no log" in home.run("log", "sarra/two", status=2)
    home.run("stop")
    # The end of a traceback has the time of its beginning.
    with open(home.paths("sarra/one").log(1), "a") as file:
        file.write("2099-01-01T00:00:00.000Z CRITICAL ends\n" + "  File x\n" * 30 + "ValueError: boom\n")
    shown = home.run("log", "sarra/one", "-n", "3").splitlines()
    assert shown == ["  File x", "  File x", "ValueError: boom"]


@pytest.mark.parametrize("flows", [["sarra/one"], ["sarra"]], ids=["one", "several"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_stays_until_told(home, flows, number):
    process = home.begin("run", *flows)
    names = ["sarra/one"] if flows == ["sarra/one"] else ["sarra/one", "sarra/two"]
    for flow in names:
        home.wait_running(flow, 2)
    assert home.status("sarra/one").foreground
    process.send_signal(number)
    assert process.wait(20 * SECOND) == 0
    assert not any(host.is_alive(pid, ticks) for pid, ticks in home.seen)
    assert "Traceback" not in home.output()


def test_run_of_several_ends_with_the_one_in_front(home):
    process = home.begin("run", "sarra")
    for flow in ("sarra/one", "sarra/two"):
        home.wait_running(flow, 2)
    process.kill()
    wait_for(lambda: not any(host.is_alive(pid, ticks) for pid, ticks in home.seen))


def test_run_of_several_tells_of_the_one_that_cannot_run(home):
    home.add("sarra", "bad", CONFIG + "instances many\n")
    process = home.begin("run", "sarra")
    home.wait_running("sarra/one", 2)
    wait_for(lambda: "sarra/bad ended: status 78" in home.output())
    process.terminate()
    assert process.wait(20 * SECOND) == 78


def test_stop_ends_what_run_started_and_restart_leaves_it_alone(home):
    process = home.begin("run", "sarra/one")
    home.wait_running("sarra/one", 2)
    assert "in the foreground" in home.run("restart", "sarra/one", status=2)
    home.run("stop", "sarra/one")
    assert process.wait(20 * SECOND) == 0


def test_foreground_is_one_instance_in_this_process(home):
    process = home.begin("foreground", "sarra/one")
    home.wait_running("sarra/one", 1)
    status = home.status("sarra/one")
    assert (status.wanted, status.parent_pid, status.instances[0].pid) == (1, process.pid, process.pid)
    assert "runs already" in home.run("start", "sarra/one", status=69)
    process.send_signal(signal.SIGINT)
    assert process.wait(20 * SECOND) == 0
    assert home.status("sarra/one").state == "stop"
    home.run("start", "sarra/one")  # and nothing of it is in the way
    home.run("stop")
    home.environment["SARRAPIPE_INSTANCE"] = "supervisor_workers:refusing"
    assert "x.conf:3:8: broker" in home.run("foreground", "sarra/one", status=78)
    assert "names 2 flows" in home.run("foreground", "sarra", status=2)


def test_stop_ends_an_instance_in_the_foreground(home):
    process = home.begin("foreground", "sarra/one")
    home.wait_running("sarra/one", 1)
    home.run("stop", "sarra/one")
    assert process.wait(20 * SECOND) == 0


def test_instances_that_are_not_ready_in_time_go_on_by_themselves(home):
    home.environment["SARRAPIPE_INSTANCE"] = "supervisor_workers:slow_to_start"
    assert "not ready yet" in home.run("start", "sarra/one", "--wait", "1s")
    assert "starting" in home.run("status", "sarra/one", status=1)
    home.run("stop")


def test_status_of_a_hundred_flows_is_quick(home):
    """Issue 2: under 0.3 s for 100 flows, with 16 instances each, and no process looked for."""
    parent = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    for number in range(100):
        home.add("subscribe", f"f{number:03d}")
        paths = home.paths(f"subscribe/f{number:03d}")
        paths.make()
        with Arena.create(paths.arena, paths.flow, created_wall_ns=0) as arena:
            arena.set_parent(parent.pid, foreground=False)
            arena.wanted = 16
            for one in range(1, 17):
                slot = arena.slot(arena.free_slot())
                who = {"number": one, "incarnation": one, "generation": 1, "failures": 0, "cpu": None}
                slot.occupy(**who, now_ns=time.monotonic_ns(), wall_ns=0)
                slot.set_process(parent.pid, 1)
                slot.set_state(2)
    took = []
    for _try in range(5):
        before = cpu_of_children()
        command = home.command("status", "--json", "subscribe")
        done = subprocess.run(command, env=home.environment, stdout=subprocess.PIPE, check=True)
        took.append(cpu_of_children() - before)
    statuses = json.loads(done.stdout)
    parent.communicate()
    assert len(statuses) == 100
    assert all(status["running"] == 16 for status in statuses)
    # One thread that waits for nothing: its CPU time is what it takes on a machine that is not busy.
    assert min(took) < 0.3 * SECOND, took


def test_sixteen_instances_run_soon_after_the_command_and_end_sooner(home):
    """Issue 2: command to running; what connecting takes comes on top.

    The machine that tests may be busy, so it is the CPU time of all processes that is held to the limit.
    """
    took = []
    for _try in range(3):
        before = cpu_of_children()
        process = home.begin("run", "sarra/one", "--instances", "16")
        home.wait_running("sarra/one", 16)
        process.terminate()
        assert process.wait(20 * SECOND) == 0
        took.append(cpu_of_children() - before)
    assert min(took) < 0.7 * SECOND, took

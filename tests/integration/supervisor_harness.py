"""A real parent in a process of its own, and waiting for what it does.

Nothing here sleeps for luck: `wait_for` looks until something is so, and fails after a limit that
SARRAPIPE_TEST_MS stretches, as it does all limits (`servers.MS`).
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from servers import MS

from sarrapipe.shm import host
from sarrapipe.shm.arena import read_arena
from sarrapipe.supervisor.paths import FlowPaths
from sarrapipe.supervisor.pidfile import read_pid
from sarrapipe.supervisor.states import State
from sarrapipe.supervisor.status import read_status

SECOND = MS

PARENT = """
import json, sys
from sarrapipe.supervisor.parent import Parent
from sarrapipe.supervisor.plan import FlowRequest
from sarrapipe.supervisor.states import Limits
told = json.loads(sys.argv[1])
from sarrapipe import log
log.configure()
parent = Parent(
    FlowRequest(**told["request"]), foreground=told["foreground"], limits=Limits(**told["limits"]),
    forks=told["forks"],
)
sys.exit(parent.run())
"""


def wait_for(condition, seconds=20):
    """Return what a condition returns once it is true."""
    deadline = time.monotonic() + seconds * SECOND
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.005)


class Flow:
    """One flow: its directories, its parent process, and what its instances did."""

    def __init__(self, directory, entry="beating", *, name="x", forks=None, foreground=True, **plan):
        self.home = Path(directory)
        self.entry = entry
        self.forks = forks
        self.foreground = foreground
        self.limits = {
            "backoff_first_s": 0.05,
            "backoff_most_s": 0.4,
            "abort_s": 1 * SECOND,
            "drain_s": 5 * SECOND,
        }
        (self.home / "config").mkdir(parents=True, exist_ok=True)
        self.plan = {}
        self.configure(**plan)
        self.paths = FlowPaths("sarra", name, str(self.home / "state" / "sarra" / name))
        self.python_path = ""
        self.process = None
        self.seen = set()

    def configure(self, **plan):
        self.plan.update(plan)
        path = self.home / "config" / "plan.json"
        path.with_suffix(".new").write_text(json.dumps(self.plan))
        path.with_suffix(".new").rename(path)

    def start(self):
        told = {
            "request": {
                "component": "sarra", "name": self.paths.name, "config_home": str(self.home / "config"),
                "state_home": str(self.home / "state"), "entry": f"supervisor_workers:{self.entry}",
                "loader": "supervisor_workers:load",
            },
            "forks": self.forks, "limits": self.limits, "foreground": self.foreground,
        }  # fmt: skip
        path = os.pathsep.join(filter(None, (self.python_path, str(Path(__file__).parent))))
        environment = dict(os.environ, PYTHONPATH=path)
        with open(self.home / "parent.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PARENT, json.dumps(told)], env=environment, stdout=log, stderr=log
            )
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_info):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        for pid, ticks in self.seen:
            if host.is_alive(pid, ticks):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    # ---- looking

    @property
    def log(self):
        return (self.home / "parent.log").read_text()

    def status(self):
        status = read_status(self.paths)
        self.seen.update((one.pid, host.start_ticks(one.pid)) for one in status.instances if one.pid)
        return status

    def running(self, count):
        """Wait until so many instances run and no others exist; return their pids by number."""

        def look():
            instances = self.status().instances
            pids = {one.number: one.pid for one in instances if one.state == "running"}
            return pids if len(pids) == len(instances) == count else None

        return wait_for(look) if count else wait_for(lambda: self.status().running == 0)

    def starts(self):
        """(instance, incarnation, pid, configuration) of every start so far."""
        try:
            lines = Path(self.paths.state_dir, "starts").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [(*map(int, line.split(" ", 3)[:3]), json.loads(line.split(" ", 3)[3])) for line in lines]

    def fork_server(self):
        """Pid of the fork server: the only child that is no instance."""
        pid = self.process.pid
        children = set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
        children -= {one.pid for one in self.status().instances}
        return next(iter(children)) if len(children) == 1 else None

    def ended(self, seconds=20):
        """Wait for the parent's end; return its exit status."""
        return self.process.wait(seconds * SECOND)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def all_gone(self):
        """Whether nothing of this flow lives: parent, instances seen, holders of the lock."""
        instances = any(host.is_alive(pid, ticks) for pid, ticks in self.seen)
        return not read_pid(self.paths.pid_file) and not instances

    def slot(self, number):
        slots = read_arena(self.paths.arena).slots()
        (found,) = [slot for slot in slots if slot.number == number and slot.state != State.STOPPED]
        return found

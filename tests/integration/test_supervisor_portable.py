"""Without what only Linux has (R30), and what the processes are made of."""

import os
import re
import signal
from pathlib import Path

from supervisor_harness import Flow, wait_for

from sarrapipe.shm import host

# What other systems lack, taken away in every process of the flow before any of our code runs.
SITECUSTOMIZE = """
import os, ctypes, socket
for name in ("pidfd_open", "memfd_create", "sched_getaffinity", "sched_setaffinity", "eventfd"):
    if hasattr(os, name):
        delattr(os, name)
class NoPrctl:
    def __init__(self, *args, **kwargs):
        pass
ctypes.CDLL = NoPrctl
for name in ("SO_PEERCRED",):
    delattr(socket, name)
"""


def test_a_flow_of_one_instance_runs_without_linux_calls(tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITECUSTOMIZE)
    with Flow(tmp_path, instances=1, pin="core") as flow:
        flow.python_path = str(tmp_path / "site")
        pids = flow.start().running(1)
        os.kill(pids[1], signal.SIGKILL)
        wait_for(lambda: (p := flow.running(1)) and p != pids)
        flow.configure(settings={"version": 2})
        flow.process.send_signal(signal.SIGHUP)
        wait_for(lambda: [one.generation for one in flow.status().instances] == [2])
        # No signal tells of the parent's end: the channel does.
        flow.running(1)
        flow.process.kill()
        flow.process.wait()
        wait_for(lambda: not any(host.is_alive(pid, ticks) for pid, ticks in flow.seen))
        flow.start().running(1)
        assert flow.stop() == 0


def test_the_parent_stays_small_and_holds_nothing_that_can_fail(tmp_path):
    with Flow(tmp_path, instances=2) as flow:
        flow.start().running(2)
        maps = Path(f"/proc/{flow.process.pid}/maps").read_text()
        assert not re.search(r"pycurl|lmdb|libssl|libcrypto|cryptography|_bcrypt", maps)
        status = Path(f"/proc/{flow.process.pid}/status").read_text()
        assert int(re.search(r"VmRSS:\s+(\d+)", status)[1]) < 40_000  # kB; 17,000 when written
        assert "\nThreads:\t1\n" in status


def test_the_fork_server_has_no_thread_and_no_connection(tmp_path):
    with Flow(tmp_path, instances=2) as flow:
        flow.start().running(2)
        server = wait_for(flow.fork_server)
        assert "\nThreads:\t1\n" in Path(f"/proc/{server}/status").read_text()
        targets = [os.readlink(f"/proc/{server}/fd/{fd}") for fd in os.listdir(f"/proc/{server}/fd")]
        assert sum(target.startswith("socket:") for target in targets) == 1
        assert flow.paths.pid_file in targets
        assert len(targets) == 5, targets  # and the three of every process


def test_instances_share_most_of_their_memory(tmp_path):
    """A guard, not a benchmark: half of what an instance holds is the fork server's."""
    with Flow(tmp_path, instances=8) as flow:
        pids = flow.start().running(8)
        for pid in pids.values():
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            rss, pss = (int(re.search(rf"^{name}:\s+(\d+)", rollup, re.M)[1]) for name in ("Rss", "Pss"))
            assert pss < rss / 2, (rss, pss)

"""A cage names everything that a command leaves running, and ends it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from perf import procstat
from perf.cage import Cage, CageError


def _eventually(condition: object) -> bool:
    assert callable(condition)
    until = time.monotonic() + 10
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def test_a_command_tells_its_exit_code_and_logs_its_output(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Cage(isolated=False) as cage:
        assert cage.run(["sh", "-c", "echo said; exit 3"], log=str(log)).code == 3
        assert cage.run(["/no/such/program"], log=str(log)).code == 127
    assert "said" in log.read_text()


def test_detached_processes_are_named_measured_and_ended() -> None:
    detach = "setsid sh -c 'while :; do :; done' >/dev/null 2>&1 &"
    with Cage(isolated=False) as cage:
        assert cage.run(["sh", "-c", detach]).code == 0
        assert _eventually(lambda: len(cage.pids()) == 1)
        used = cage.cpu_s()
        assert _eventually(lambda: cage.cpu_s() > used)
        (pid,) = cage.pids()
    assert not os.path.exists(f"/proc/{pid}")


def test_cpu_time_of_ended_children_counts() -> None:
    with Cage(isolated=False) as cage:
        cage.run(["sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"])
        assert cage.pids() == []
        assert cage.cpu_s() > 0.02


def test_a_command_that_takes_too_long_is_ended() -> None:
    with Cage(isolated=False) as cage, pytest.raises(CageError, match="did not end"):
        cage.run(["sleep", "60"], timeout_s=0.1)


def test_suspended_processes_do_nothing_until_resumed() -> None:
    with Cage(isolated=False) as cage:
        cage.run(["sh", "-c", "setsid sh -c 'while :; do :; done' >/dev/null 2>&1 &"])
        assert _eventually(lambda: cage.pids() != [] and cage.cpu_s() > 0)
        pids = cage.pids()
        procstat.suspend(pids)
        time.sleep(0.05)
        used = cage.cpu_s()
        time.sleep(0.1)
        assert cage.cpu_s() == used
        procstat.resume(pids)
        assert _eventually(lambda: cage.cpu_s() > used)


def test_memory_of_a_process_is_counted() -> None:
    assert procstat.pss_bytes([os.getpid()]) > 1_000_000
    assert procstat.pss_bytes([]) == 0

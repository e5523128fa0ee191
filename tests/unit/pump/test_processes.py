"""Servers that outlive their starter: found again by number and start time, never mistaken for another."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from servers import wait_until

from sarrapipe.errors import SupervisorError
from sarrapipe.pump.processes import (
    ServerProcess,
    is_running,
    kill_all,
    marked,
    session_members,
    spawn,
    stop,
    tail,
    wait_ended,
)

SLEEPER = "import time, os\nprint(os.getsid(0) == os.getpid(), flush=True)\ntime.sleep(60)"
STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEPER
WITH_CHILD = "import os\nos.fork()\n" + SLEEPER
STRAY = "import os\nif os.fork() == 0:\n    os.setsid()\n" + SLEEPER


def start(tmp_path: Path, program: str) -> ServerProcess:
    log = tmp_path / "log"
    process = spawn([sys.executable, "-c", program], {"PATH": "/usr/bin:/bin"}, str(log))
    wait_until(lambda: log.read_text(), 10, "the server has started")
    return process


def test_a_server_leads_a_session_and_writes_to_its_log(tmp_path: Path) -> None:
    process = start(tmp_path, SLEEPER)
    assert (tmp_path / "log").read_text() == "True\n"
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
    assert is_running(process)
    assert os.readlink(f"/proc/{process.pid}/fd/0") == os.devnull
    assert session_members(process) == [process.pid]
    assert not wait_ended(process, 0.01)
    stop(process, 5.0)
    assert not is_running(process)
    assert wait_ended(process, 0.0)
    assert session_members(process) == []


def test_one_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    process = start(tmp_path, STUBBORN)
    stop(process, 0.05)
    assert not is_running(process)


def test_what_a_killed_server_left_is_found(tmp_path: Path) -> None:
    process = start(tmp_path, WITH_CHILD)
    wait_until(lambda: len(session_members(process)) == 2, 10, "the server has a child")
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: not is_running(process), 5, "the first process has ended")
    assert len(session_members(process)) == 1
    stop(process, 0.0)
    assert session_members(process) == []


def test_what_left_the_session_is_found_by_its_mark(tmp_path: Path) -> None:
    process = start(tmp_path, STRAY)
    wait_until(lambda: len(marked(str(tmp_path))) == 2, 10, "the server has a child in another session")
    stop(process, 0.0)
    (stray,) = marked(str(tmp_path))
    assert marked(str(tmp_path), "no such command") == []
    assert stray != process.pid
    kill_all(lambda: marked(str(tmp_path)))
    assert marked(str(tmp_path)) == []
    assert marked(str(tmp_path) + "x") == []


def test_a_number_handed_out_again_is_not_our_server(tmp_path: Path) -> None:
    """A stale record names a living process: it is neither seen as ours nor signalled."""
    process = start(tmp_path, SLEEPER)
    for stale in (replace(process, start_ticks=process.start_ticks - 1), replace(process, boot="another")):
        assert not is_running(stale)
        stop(replace(stale, log="/elsewhere/log"), 0.0)
        assert is_running(process)
    stop(process, 0.0)


def test_one_killed_a_moment_ago_does_not_count(tmp_path: Path) -> None:
    process = start(tmp_path, SLEEPER)
    os.kill(process.pid, signal.SIGKILL)
    assert not is_running(process)
    wait_until(lambda: wait_ended(process, 0.0), 5, "the kernel has torn it down")


def test_the_record_survives_a_file(tmp_path: Path) -> None:
    process = start(tmp_path, SLEEPER)
    stop(process, 0.0)
    assert ServerProcess.from_json(process.to_json()) == process
    with pytest.raises(KeyError):
        ServerProcess.from_json({"pid": 1})


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SupervisorError, match="/no/such/program"):
        spawn(["/no/such/program"], {}, str(tmp_path / "log"))


def test_tail_is_the_end_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a" * 3000 + "the end\n")
    assert tail(str(tmp_path / "log"), 8) == "the end"
    assert "No such file" in tail(str(tmp_path / "none"))

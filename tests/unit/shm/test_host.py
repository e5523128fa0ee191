import os
import subprocess
import sys

from sarrapipe.shm import host


def test_a_process_is_known_by_pid_and_start_time():
    ticks = host.start_ticks(os.getpid())
    assert ticks > 0
    assert host.is_alive(os.getpid(), ticks)
    assert not host.is_alive(os.getpid(), ticks + 1)  # its pid was given to another one


def test_an_ended_process_is_not_alive_even_before_it_was_reaped():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ticks = host.start_ticks(child.pid)
    assert host.is_alive(child.pid, ticks)
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not host.is_alive(child.pid, ticks)
    child.wait()
    assert host.start_ticks(child.pid) == 0


def test_without_start_times_any_process_of_that_pid_counts():
    assert host.is_alive(os.getpid(), 0)
    assert host.is_alive(1, 0)
    assert not host.is_alive(0, 0)
    assert not host.is_alive(2**22 + 1, 0)  # above the kernel's largest pid_max


def test_boot_id(tmp_path):
    assert len(host.boot_id()) == 16
    assert host.boot_id() == host.boot_id()
    assert host.boot_id(str(tmp_path / "missing")) == bytes(16)
    (tmp_path / "odd").write_text("not an id")
    assert host.boot_id(str(tmp_path / "odd")) == bytes(16)

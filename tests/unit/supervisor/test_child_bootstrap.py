"""From the fork to `main(context)`, and the calls that only Linux has."""

import os
import resource
import signal
import socket
import subprocess
import sys
import types

import pytest

from sarrapipe.errors import BrokerError, ConfigError, LedgerError, TopologyError
from sarrapipe.supervisor import child, linux
from sarrapipe.supervisor.child import Job, call_entry
from sarrapipe.supervisor.wire import Reader, pack


def entry(outcome):
    module = types.ModuleType("outcome_of_test")

    def main(context):
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    module.main = main
    sys.modules["outcome_of_test"] = module
    return "outcome_of_test:main"


def a_context():
    notes = []
    slot = types.SimpleNamespace(set_note=notes.append)
    return types.SimpleNamespace(flow="sarra/x", instance=1, slot=slot, notes=notes)


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (0, 0),
        (3, 3),
        (ConfigError("x", "f", 1), 78),
        (LedgerError("x"), 74),
        (BrokerError("x"), 70),  # 503 is a report's code, no exit status
        (ValueError("x"), 70),
    ],
)
def test_exit_status_of_what_an_instance_does(outcome, status, caplog):
    context = a_context()
    assert call_entry(entry(outcome), context) == status
    assert bool(caplog.records) == isinstance(outcome, Exception)


def test_why_an_instance_ended_is_in_its_slot():
    context = a_context()
    assert call_entry(entry(TopologyError("queue q exists otherwise\nand so on")), context) == 78
    assert context.notes == ["queue q exists otherwise"]


def test_an_entry_that_cannot_be_imported_is_a_matter_of_configuration():
    assert call_entry("no.such:main", a_context()) == 78


def test_jobs_travel():
    job = Job(
        number=1, wanted=2, incarnation=3, slot=4, arena="a", state_dir="s", cpus=(1, 2), log_level="info",
        log_path="", parent_pid=5,
    )  # fmt: skip
    (data,) = Reader().feed(pack(job.to_wire()))
    assert Job.from_wire(data) == job


def in_fork(function):
    """Run a function in a fork; return what it returned, at most 255."""
    pid = os.fork()
    if pid == 0:
        status = 255
        try:
            status = function()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_without_go_nothing_is_done():
    ours, theirs = socket.socketpair()
    job = Job(
        number=1, wanted=1, incarnation=1, slot=0, arena="/nowhere", state_dir="/", cpus=(), log_level="info",
        log_path="", parent_pid=os.getpid(),
    )  # fmt: skip

    def become():
        ours.close()
        child.run(None, job, theirs, None)

    pid = os.fork()
    if pid == 0:
        become()
    theirs.close()
    ours.close()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_no_core_file_holds_our_memory():
    def limit():
        linux.limit_core_files()
        return resource.getrlimit(resource.RLIMIT_CORE)[0]

    assert in_fork(limit) in (0, 1)


def test_affinity_is_set_where_it_can_be():
    usable = linux.usable_cpus()
    assert usable == sorted(os.sched_getaffinity(0))
    assert in_fork(lambda: int(linux.set_affinity(frozenset(usable[:1])))) == 1
    assert not linux.set_affinity(frozenset({4095}))


def test_a_process_dies_with_the_parent_it_means():
    """The middle one asks for the signal and waits; its parent, the fork, ends; it must end too."""
    code = """
import os, signal, sys, time
from sarrapipe.supervisor import linux
reader, writer = os.pipe()
middle = os.fork()
if middle == 0:
    parent = os.getpid()
    if os.fork() == 0:
        assert linux.die_with_parent(parent)
        os.write(writer, b"x")
        time.sleep(60)
        os._exit(0)
    os.read(reader, 1)
    os._exit(0)
os.close(writer)
os.waitpid(middle, 0)
assert os.read(reader, 1) == b""   # the last holder of the writing end is gone
assert not linux.die_with_parent(1)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_where_linux_calls_are_missing_there_are_answers(monkeypatch):
    """R30: no prctl, no affinity."""
    import ctypes

    class NoPrctl:
        def __init__(self, *_args, **_kwargs):
            pass

    monkeypatch.setattr(ctypes, "CDLL", NoPrctl)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.delattr(os, "sched_setaffinity")
    assert linux.become_subreaper() is False
    assert linux.die_with_parent(os.getppid(), number=signal.SIGTERM) is True
    assert linux.die_with_parent(os.getpid()) is False
    assert linux.usable_cpus() == []
    assert linux.set_affinity(frozenset({0})) is False


def test_output_goes_to_a_file_and_later_to_another(tmp_path):
    def work():
        child.redirect_output(str(tmp_path / "one"))
        os.write(1, b"a")
        child.redirect_output(str(tmp_path / "two"), 0o666)
        os.write(2, b"b")
        return 0

    assert in_fork(work) == 0
    assert [(tmp_path / name).read_text() for name in ("one", "two")] == ["a", "b"]
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("one", "two")] == [0o600, 0o666]

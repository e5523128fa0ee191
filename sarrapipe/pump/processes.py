"""Server processes that outlive the command that started them, and how to find and end them again.

A process number alone says nothing once its process has ended: the kernel hands it out again. A process is
remembered by its number, its start time and the boot it belongs to; what it started is known by its session
and where its standard error goes, or by a mark in its environment. So a stale record never makes us signal a
stranger.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sarrapipe.clock import SYSTEM_CLOCK
from sarrapipe.errors import SupervisorError

__all__ = [
    "ServerProcess",
    "boot_id",
    "is_running",
    "kill_all",
    "marked",
    "session_members",
    "spawn",
    "stop",
    "tail",
    "wait_ended",
]

_MARK: Final = "SARRAPIPE_SERVER"

_STAT_STATE = 0  # fields of /proc/PID/stat counted after the command name (proc(5))
_STAT_SESSION = 3
_STAT_FLAGS = 6
_STAT_START = 19
_STAT_PENDING = 28

_PF_EXITING = 0x4  # include/linux/sched.h
_SIGKILL_PENDING = 1 << (signal.SIGKILL - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerProcess:
    """A process we started, in a session of its own.

    Attributes:
        pid: Process number; also its session's.
        start_ticks: Start time in clock ticks since boot, field 22 of proc(5).
        boot: The kernel's boot id at that time.
        log: File its standard output and error go to.
    """

    pid: int
    start_ticks: int
    boot: str
    log: str

    def to_json(self) -> dict[str, object]:
        """Return the record to keep in a file."""
        return {"pid": self.pid, "start_ticks": self.start_ticks, "boot": self.boot, "log": self.log}

    @classmethod
    def from_json(cls, record: Mapping[str, object]) -> ServerProcess:
        """Return what `to_json` wrote.

        Raises:
            KeyError: A field is missing.
            ValueError: A field is not what it should be.
        """
        return cls(
            pid=int(str(record["pid"])),
            start_ticks=int(str(record["start_ticks"])),
            boot=str(record["boot"]),
            log=str(record["log"]),
        )


def boot_id() -> str:
    """Return the kernel's name for this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def spawn(argv: Sequence[str], env: Mapping[str, str], log: str) -> ServerProcess:
    """Start a server in a session of its own, detached from this terminal, and return at once.

    Args:
        argv: Absolute path of the program, then its arguments. Never holds a secret.
        env: Its whole environment.
        log: File to append its standard output and error to; made with mode 600.

    Raises:
        SupervisorError: It cannot be started, or ended at once.
    """
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    try:
        marked_env = {**env, _MARK: os.path.dirname(log)}
        pid = os.posix_spawn(argv[0], list(argv), marked_env, file_actions=actions, setsid=True)
    except OSError as error:
        raise SupervisorError(f"cannot start {argv[0]}: {error.strerror}") from error
    stat = _stat(pid)
    if stat is None:
        raise SupervisorError(f"{argv[0]} ended at once; see {log}")
    return ServerProcess(pid=pid, start_ticks=int(stat[_STAT_START]), boot=boot_id(), log=log)


def is_running(process: ServerProcess) -> bool:
    """Whether that very process is alive; a zombie of our own is collected.

    One that was killed and is being torn down, which takes a large one some milliseconds, does not count.
    """
    with contextlib.suppress(ChildProcessError):  # only a child of this very process can be collected
        os.waitpid(process.pid, os.WNOHANG)
    stat = _stat(process.pid)
    return (
        stat is not None
        and not _is_ending(stat)
        and int(stat[_STAT_START]) == process.start_ticks
        and process.boot == boot_id()
    )


def session_members(process: ServerProcess) -> list[int]:
    """Return the processes of that server's session which still write to its log, itself included.

    They are what is left when a server's first process was killed: nginx's workers, for one, go on serving.
    """
    if process.boot != boot_id():
        return []
    return [
        int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _is_member(int(entry), process)
    ]


def marked(directory: str, command: str | None = None) -> list[int]:
    """Return the processes that a server whose log is in `directory` left behind, in whatever session.

    Args:
        directory: Where the log of the server is.
        command: Only processes of this name, as in /proc/PID/comm.
    """
    mark = f"{_MARK}={directory}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            environment = Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
            name = Path(f"/proc/{entry}/comm").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            continue  # ended in between, or another user's: not ours to end
        if mark in environment and command in (None, name):
            found.append(int(entry))
    return found


def kill_all(find: Callable[[], list[int]]) -> None:
    """Kill what `find` returns and wait, 5 s at most, until it returns nothing any more."""
    deadline = SYSTEM_CLOCK.monotonic_s() + 5.0
    while pids := find():
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        if SYSTEM_CLOCK.monotonic_s() > deadline:
            raise SupervisorError(f"killed, but still there: {pids}")
        SYSTEM_CLOCK.sleep(0.01)  # the kernel tears a process down a moment after kill() returns


def stop(process: ServerProcess, grace_s: float, sig: signal.Signals = signal.SIGTERM) -> None:
    """End a server and whatever its session still runs.

    Args:
        process: What `spawn` returned, perhaps long ago.
        grace_s: How long it may take after `sig` before it is killed; 0 kills at once.
        sig: The signal that asks it to end.
    """
    if is_running(process):
        if grace_s > 0:
            _signal(process.pid, sig)
            wait_ended(process, grace_s)
        if is_running(process):
            _signal(process.pid, signal.SIGKILL)
            wait_ended(process, 10.0)
    kill_all(lambda: session_members(process))


def wait_ended(process: ServerProcess, timeout_s: float) -> bool:
    """Wait until that process has ended; return whether it has."""
    deadline = SYSTEM_CLOCK.monotonic_s() + timeout_s
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        poller = select.poll()
        poller.register(handle, select.POLLIN)
        left_s = timeout_s
        while is_running(process) and not poller.poll(max(0.0, left_s) * 1000):
            left_s = deadline - SYSTEM_CLOCK.monotonic_s()
            if left_s <= 0:
                return False
    finally:
        os.close(handle)
    return True


def tail(path: str, limit_bytes: int = 2000) -> str:
    """Return the end of a server's log, for the error message that tells why it ended."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - limit_bytes))
            return file.read().decode("utf-8", "replace").strip()
    except OSError as error:
        return f"({error})"


def _signal(pid: int, sig: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # ended in between, which is what was wanted
        os.kill(pid, sig)


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat after the command name, or None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()


def _is_ending(stat: list[str]) -> bool:
    return (
        stat[_STAT_STATE] in "ZX"
        or bool(int(stat[_STAT_FLAGS]) & _PF_EXITING)
        or bool(int(stat[_STAT_PENDING]) & _SIGKILL_PENDING)
    )


def _is_member(pid: int, process: ServerProcess) -> bool:
    stat = _stat(pid)
    if stat is None or _is_ending(stat) or int(stat[_STAT_SESSION]) != process.pid:
        return False
    if int(stat[_STAT_START]) < process.start_ticks:
        return False
    directory = os.path.dirname(process.log)
    try:
        return os.path.dirname(os.readlink(f"/proc/{pid}/fd/2")) == directory
    except OSError:
        return False  # ended in between, or another user's: not ours to end

"""What processes and the machine use, read from /proc.

CPU seconds are utime + stime + cutime + cstime of every process of a tree, so children that ended and were
waited for count; memory is Pss of `smaps_rollup`, which shares pages fairly between the processes that map
them. Sources: proc(5); Documentation/filesystems/proc.rst.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = [
    "CpuClock",
    "Usage",
    "cpu_clock",
    "cpu_s",
    "established_connections",
    "machine_facts",
    "peak_rss_bytes",
    "pss_bytes",
    "resume",
    "steal_share",
    "suspend",
    "tree",
    "usage",
]

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_TCP_ESTABLISHED: Final = "01"


def _stat_fields(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat after the name (state first), or None if the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def tree(root: int) -> list[int]:
    """Return the live processes below `root`, without it, parents before children; zombies are left out."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _stat_fields(int(name))) is not None and fields[0] not in "ZX":
            children.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    queue = [root]
    while queue:
        below = sorted(children.get(queue.pop(0), ()))
        found += below
        queue += below
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """Return the CPU seconds these processes, and the children they waited for, have used so far."""
    ticks = 0
    for pid in pids:
        fields = _stat_fields(pid)
        if fields is not None:
            ticks += sum(int(fields[i]) for i in (11, 12, 13, 14))
    return ticks / _TICKS_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What some processes and the children they waited for have used since they were started."""

    user_s: float = 0.0
    system_s: float = 0.0
    written_bytes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            user_s=self.user_s + other.user_s,
            system_s=self.system_s + other.system_s,
            written_bytes=self.written_bytes + other.written_bytes,
        )

    def __sub__(self, other: Usage) -> Usage:
        return Usage(
            user_s=self.user_s - other.user_s,
            system_s=self.system_s - other.system_s,
            written_bytes=self.written_bytes - other.written_bytes,
        )


def usage(pids: Iterable[int]) -> Usage:
    """Return what these processes have used so far.

    Bytes written are `write_bytes` of /proc/PID/io: what was given to a file system on a disk, not what went
    into /dev/shm or a socket. The kernel adds a child's to its parent's when that waits for it, as it does
    with CPU time (wait_task_zombie in Linux, kernel/exit.c).
    """
    total = Usage()
    for pid in pids:
        fields = _stat_fields(pid)
        if fields is None:
            continue
        user, system, child_user, child_system = (int(fields[i]) / _TICKS_PER_S for i in (11, 12, 13, 14))
        written = _written_bytes(pid)
        total += Usage(user_s=user + child_user, system_s=system + child_system, written_bytes=written)
    return total


def _written_bytes(pid: int) -> int:
    with (
        contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError),
        open(f"/proc/{pid}/io", encoding="ascii") as file,
    ):
        for line in file:
            if line.startswith("write_bytes:"):
                return int(line.split()[1])
    return 0


def pss_bytes(pids: Iterable[int]) -> int:
    """Return the proportional set size of these processes together."""
    total = 0
    for pid in pids:
        with (
            contextlib.suppress(FileNotFoundError, ProcessLookupError),
            open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file,
        ):
            total += sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
    return total


def peak_rss_bytes(pids: Iterable[int]) -> int:
    """Return the largest resident set that any of these processes has had so far (VmHWM)."""
    peak = 0
    for pid in pids:
        with (
            contextlib.suppress(FileNotFoundError, ProcessLookupError),
            open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file,
        ):
            peak = max(peak, *(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:")), 0)
    return peak


def suspend(pids: Iterable[int]) -> None:
    """Stop processes (SIGSTOP), so that work can be laid out while nobody takes it."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)


def resume(pids: Iterable[int]) -> None:
    """Let stopped processes go on, the youngest first: a parent must not find its children silent."""
    for pid in reversed(list(pids)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def established_connections(port: int) -> int:
    """Return how many TCP connections to a local port are established (client ends)."""
    count = 0
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError), open(table, encoding="ascii") as file:
            rows = [line.split() for line in file][1:]
            count += sum(r[3] == _TCP_ESTABLISHED and int(r[2].rpartition(":")[2], 16) == port for r in rows)
    return count


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuClock:
    """The machine's CPU time at one moment, in seconds over all CPUs since boot."""

    busy_s: float
    steal_s: float
    total_s: float


def cpu_clock() -> CpuClock:
    """Read the first line of /proc/stat."""
    with open("/proc/stat", encoding="ascii") as file:
        ticks = [int(field) / _TICKS_PER_S for field in file.readline().split()[1:9]]
    user, nice, system, idle, iowait, irq, softirq, steal = ticks
    busy = user + nice + system + irq + softirq
    return CpuClock(busy_s=busy, steal_s=steal, total_s=busy + idle + iowait + steal)


def steal_share(before: CpuClock, after: CpuClock) -> float:
    """Return the share of CPU time that the host took away between two readings, 0..1."""
    total = after.total_s - before.total_s
    return (after.steal_s - before.steal_s) / total if total > 0 else 0.0


def _first_line(*command: str) -> str:
    """Return the first line that a command prints; `absent` without it, `unknown` if it fails."""
    if shutil.which(command[0]) is None:
        return "absent"
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0] if lines and not done.returncode else "unknown"


def _cpu_model() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _package_version(package: str) -> str:
    return _first_line("dpkg-query", "-W", "-f", "${Version}", package)


def machine_facts(place: str) -> dict[str, object]:
    """Return what a reader needs to judge figures: kernel, CPUs, memory, versions, commit, load.

    Args:
        place: Directory in which the benchmark works; its file system is told.
    """
    import pika
    import pycurl
    import xxhash

    here = os.path.dirname(os.path.abspath(__file__))
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _first_line("git", "-C", here, "describe", "--always", "--dirty"),
        "kernel": platform.release(),
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "pika": pika.__version__,
        "pycurl": pycurl.version,
        "xxhash": xxhash.VERSION,
        "rabbitmq": _package_version("rabbitmq-server"),
        "nginx": _first_line("nginx", "-v").removeprefix("nginx version: "),
        "curl": _first_line("curl", "--version").partition(" (")[0],
        "aria2c": _first_line("aria2c", "--version"),
        "wget": _first_line("wget", "--version").partition(" built")[0],
        "axel": _first_line("axel", "--version"),
        "lftp": _first_line("lftp", "--version").partition(" | Copy")[0],
        "rclone": _first_line("rclone", "--version"),
        "rsync": _first_line("rsync", "--version").partition(" protocol")[0],
        "openssh": _first_line("ssh", "-V"),
        "place": f"{place} ({_first_line('stat', '-f', '-c', '%T', place)})",
        "load": os.getloadavg(),
    }

"""What this host says about itself and its processes, with answers where /proc does not exist (R30).

A pid alone names nobody: pids are used again. A pid with the time its process started does, within one boot.
"""

from __future__ import annotations

import os
from typing import Final

__all__ = ["boot_id", "is_alive", "start_ticks"]

_BOOT_ID_FILE: Final = "/proc/sys/kernel/random/boot_id"


def boot_id(path: str = _BOOT_ID_FILE) -> bytes:
    """Return 16 bytes that change with every boot; zeros where the system does not tell."""
    try:
        with open(path, encoding="ascii") as file:
            return bytes.fromhex(file.read().strip().replace("-", ""))
    except (OSError, ValueError):
        return bytes(16)


def start_ticks(pid: int) -> int:
    """Return when a process started, in clock ticks since boot (proc(5), stat field 22); 0 if unknown."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field is the name in parentheses and may itself hold blanks and parentheses.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == b"Z" else int(fields[19])


def is_alive(pid: int, started_ticks: int) -> bool:
    """Return whether the process that had `pid` and started at `started_ticks` still runs.

    Args:
        pid: Process id; 0 is nobody.
        started_ticks: What `start_ticks` said while it ran; 0 where the system does not tell, and then any
            process of that pid is taken for it.
    """
    if pid <= 0:
        return False
    if started_ticks:
        return start_ticks(pid) == started_ticks
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

"""Calls that only Linux has, each with an answer where it is missing (R30).

Nothing else in this package asks which system it runs on. Without them an instance is started by a fresh exec
instead of a fork server's fork, and notices its parent's end by the end of their channel instead of a signal.
"""

from __future__ import annotations

import os
import signal
from typing import Final

__all__ = ["become_subreaper", "die_with_parent", "limit_core_files", "set_affinity", "usable_cpus"]

# prctl(2) operations, from linux/prctl.h.
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36


def _prctl(operation: int, value: int) -> bool:
    """Call prctl; False where it is missing or refuses."""
    import ctypes

    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (AttributeError, OSError):
        return False
    return bool(prctl(operation, ctypes.c_ulong(value), 0, 0, 0) == 0)


def become_subreaper() -> bool:
    """Become the parent of every orphan among one's descendants; False where the system has no such thing."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent_pid: int, *, number: int = signal.SIGKILL) -> bool:
    """Have the kernel send a signal when the parent ends, whatever ended it.

    Args:
        parent_pid: Whose end is meant: the parent may have ended before the call, and then the wish would be
            for somebody else's end.
        number: The signal.

    Returns:
        False if the parent is gone already. Where the system cannot do it, the parent is only looked at.
    """
    _prctl(_PR_SET_PDEATHSIG, number)
    return os.getppid() == parent_pid


def usable_cpus() -> list[int]:
    """Return the CPUs this process may use, in order (honours cpusets); empty if the system does not tell."""
    try:
        return sorted(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return []


def set_affinity(cpus: frozenset[int]) -> bool:
    """Bind this process to some CPUs; False where that cannot be."""
    try:
        os.sched_setaffinity(0, cpus)
    except (AttributeError, OSError):
        return False
    return True


def limit_core_files() -> None:
    """Let this process leave no core file: its memory holds credentials.

    One byte rather than none: it is too small for a file, and with a pipe in core_pattern the kernel heeds
    only this very value (fs/coredump.c).
    """
    import resource

    _soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    limit = 1 if hard == resource.RLIM_INFINITY or hard >= 1 else 0
    resource.setrlimit(resource.RLIMIT_CORE, (limit, hard))

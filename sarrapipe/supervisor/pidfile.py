"""One parent for each flow, and no instances of a dead parent beside those of a new one.

The lock is flock(2) on the pid file. It belongs to the open file description, which fork server and instances
inherit: it is free only when all of them are gone. So whoever gets it knows that every incarnation recorded
so far is dead. The file is never removed (a lock on an unlinked file excludes nobody); its content says who
the parent is, with its start time, so a pid file left by a crash or a reboot misleads nobody.
"""

from __future__ import annotations

import fcntl
import os
import signal
from typing import Final

from sarrapipe.clock import SYSTEM_CLOCK, Clock
from sarrapipe.errors import SupervisorError
from sarrapipe.log import get_logger
from sarrapipe.shm import host
from sarrapipe.shm.arena import read_arena
from sarrapipe.supervisor.paths import FlowPaths

__all__ = ["PidFile", "read_pid"]

_LOG = get_logger(__name__)
_LEFTOVERS_LIMIT_S: Final = 10.0
_LEFTOVERS_PATIENCE_S: Final = 1.0  # the kernel kills them with their parent; after this we do
_LEFTOVERS_CHECK_S: Final = 0.01


def read_pid(path: str) -> int:
    """Return the pid of the running parent that this pid file names; 0 if there is none."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            fields = file.read(64).split()
        pid, ticks = int(fields[0]), int(fields[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pid if host.is_alive(pid, ticks) else 0


class PidFile:
    """The pid file of one flow, held by its parent.

    Args:
        paths: Of the flow.
        clock: For waiting until the instances of a dead parent are gone.
    """

    def __init__(self, paths: FlowPaths, clock: Clock = SYSTEM_CLOCK) -> None:
        self._paths = paths
        self._clock = clock
        self.fd = -1
        """The locked descriptor; children that must end before another parent may start inherit it."""

    def acquire(self) -> None:
        """Take the lock and write this process into the file.

        Raises:
            SupervisorError: Another parent runs; its pid is in the text. Or instances of a dead one do not
                end.
        """
        path = self._paths.pid_file
        try:
            self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SupervisorError(f"{path}: {error.strerror}") from error
        try:
            if not self._try_lock():
                self._refuse_if_parent_lives()
                self._outwait_leftovers()
        except BaseException:
            os.close(self.fd)
            raise
        pid = os.getpid()
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, f"{pid} {host.start_ticks(pid)}\n".encode(), 0)

    def is_in_place(self) -> bool:
        """Return whether the file we hold is still the one that another parent would lock."""
        try:
            found = os.stat(self._paths.pid_file)
        except OSError:
            return False
        ours = os.fstat(self.fd)
        return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)

    def release(self) -> None:
        """Give the lock back."""
        os.ftruncate(self.fd, 0)
        os.close(self.fd)

    def _try_lock(self) -> bool:
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _refuse_if_parent_lives(self) -> None:
        pid = read_pid(self._paths.pid_file)
        if pid:
            flow = self._paths.flow
            raise SupervisorError(f"{flow} runs already: parent pid {pid}; 'sarrapipe stop {flow}' ends it")

    def _outwait_leftovers(self) -> None:
        """Wait until the instances of a dead parent are gone; help those that linger."""
        start = self._clock.monotonic_s()
        killed = False
        while not self._try_lock():
            self._refuse_if_parent_lives()  # another one may have won the race for the lock
            waited = self._clock.monotonic_s() - start
            if waited > _LEFTOVERS_PATIENCE_S and not killed:
                self._kill_leftovers()
                killed = True
            if waited > _LEFTOVERS_LIMIT_S:
                pids = ", ".join(map(str, self._leftovers())) or "unknown pid"
                raise SupervisorError(f"{self._paths.flow}: instances of a dead parent do not end ({pids})")
            self._clock.sleep(_LEFTOVERS_CHECK_S)

    def _leftovers(self) -> list[int]:
        arena = read_arena(self._paths.arena)
        if arena is None or not arena.same_boot:
            return []
        return [slot.pid for slot in arena.slots() if host.is_alive(slot.pid, slot.started_ticks)]

    def _kill_leftovers(self) -> None:
        for pid in self._leftovers():
            _LOG.warning("instance pid=%d outlived its parent: killed", pid)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

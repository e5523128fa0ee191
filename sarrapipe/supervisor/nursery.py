"""The parent's side of the fork server: ask for the configuration, ask for instances.

One nursery belongs to one reading of the configuration (a generation). Where the system allows no fork server
(no child subreaper), the process that read the configuration ends after telling the plan, and every
instance is started by a fresh exec; nothing else differs.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sarrapipe.errors import SupervisorError
from sarrapipe.supervisor.child import Job
from sarrapipe.supervisor.forkserver import BATCH
from sarrapipe.supervisor.plan import FlowPlan, FlowRequest
from sarrapipe.supervisor.wire import Reader, pack

__all__ = ["Gone", "Nursery", "Planned", "Refused", "Reply", "Spawned"]

_START: Final = (
    "import sys; sys.path[:] = {path!r}; from sarrapipe.supervisor.{module} import {function} as f; f({args})"
)


@dataclass(frozen=True, slots=True)
class Planned:
    """The configuration was read."""

    plan: FlowPlan


@dataclass(frozen=True, slots=True)
class Refused:
    """It could not be read.

    Attributes:
        problems: For people, one a line.
        code: Exit status that fits.
    """

    problems: str
    code: int


@dataclass(frozen=True, slots=True)
class Spawned:
    """Processes were started, or could not be.

    Attributes:
        pids: Process id by incarnation; minus an error number where there is none.
    """

    pids: dict[int, int]


@dataclass(frozen=True, slots=True)
class Gone:
    """The fork server ended."""


Reply = Planned | Refused | Spawned | Gone


class Nursery:
    """Where the instances of one reading of the configuration come from.

    Args:
        request: The flow.
        forks: Whether orphans are given to the parent, so that a fork server can be used.
    """

    def __init__(self, request: FlowRequest, *, forks: bool) -> None:
        self._request = request
        self._lock_fd = -1
        self._forks = forks
        self._socket: socket.socket | None = None
        self._reader = Reader()
        self.pid = 0
        """Of the fork server; 0 once it was reaped."""

    def open(self) -> None:
        """Start the fork server and have it read the configuration; the answer comes by `read`."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self.pid = _exec("forkserver", "main", (theirs.fileno(),), os.getpid())
            except OSError as error:
                ours.close()
                raise SupervisorError(f"{sys.executable}: cannot be started: {error.strerror}") from error
        self._socket = ours
        ours.settimeout(0)
        self._send({"do": "load", "request": self._request.to_wire()})

    def hold(self, lock_fd: int) -> None:
        """Have all processes that come from here hold the parent's lock with it.

        Args:
            lock_fd: Stays the caller's.
        """
        self._lock_fd = lock_fd
        if self._forks:
            self._send({"do": "hold"}, [lock_fd])

    def close(self) -> None:
        """End the fork server; the parent reaps it like any child."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self.pid:
            # It has nothing to tidy up, and may be busy with somebody's slow import.
            os.kill(self.pid, signal.SIGKILL)

    def on_exit(self, pid: int) -> None:
        """Take in that the parent has reaped a process: its number may mean another one from now on."""
        if pid == self.pid:
            self.pid = 0

    @property
    def is_open(self) -> bool:
        """Whether instances can be had from here."""
        return self._socket is not None

    def fileno(self) -> int:
        """The descriptor to wait for; -1 if closed."""
        return self._socket.fileno() if self._socket is not None else -1

    def read(self) -> list[Reply]:
        """Return what the fork server answered, without waiting."""
        if self._socket is None:
            return []
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self._socket.close()
            self._socket = None
            return [Gone()]
        return [_reply(value) for value in self._reader.feed(data)]

    def spawn(self, jobs: Sequence[tuple[Job, socket.socket]]) -> list[Reply]:
        """Start instances; `Spawned` for them comes by `read`, or is returned here if it is known at once.

        Args:
            jobs: Each with the instance's end of its channel, which stays the caller's to close.
        """
        if not self._forks:
            return [Spawned({job.incarnation: self._exec_instance(job, channel) for job, channel in jobs})]
        for start in range(0, len(jobs), BATCH):
            batch = jobs[start : start + BATCH]
            request: dict[str, object] = {"do": "spawn", "jobs": [job.to_wire() for job, _channel in batch]}
            self._send(request, [channel.fileno() for _job, channel in batch])
        return []

    def redirect_output(self, path: str, mode: int) -> None:
        """Have the fork server print to a new file, after log rotation."""
        if self._socket is not None:
            self._send({"do": "output", "path": path, "mode": mode})

    def _send(self, request: dict[str, object], fds: Sequence[int] = ()) -> None:
        if self._socket is None:
            return
        frame = pack(request)
        try:
            sent = socket.send_fds(self._socket, [frame], list(fds))
        except OSError:  # it ended: `read` will say so
            return
        if sent != len(frame):
            # It does not read: stopped, or hopelessly behind. As good as gone.
            self._socket.shutdown(socket.SHUT_RDWR)

    def _exec_instance(self, job: Job, channel: socket.socket) -> int:
        reader, writer = os.pipe()
        try:
            os.write(writer, pack({"request": self._request.to_wire(), "job": job.to_wire()}))
            os.close(writer)
            return _exec("child", "run_after_exec", (channel.fileno(), reader, self._lock_fd))
        except OSError as error:
            return -(error.errno or 1)
        finally:
            os.close(reader)


def _exec(module: str, function: str, fds: tuple[int, ...], *arguments: int) -> int:
    """Start a fresh interpreter that inherits `fds` and calls our `module.function(*fds, *arguments)`."""
    call = ", ".join(map(str, fds + arguments))
    code = _START.format(path=sys.path, module=module, function=function, args=call)
    inherited = [fd for fd in fds if fd >= 0]
    for fd in inherited:
        os.set_inheritable(fd, True)  # noqa: FBT003 - the library's signature
    try:
        return os.posix_spawn(sys.executable, [sys.executable, "-c", code], os.environ)
    finally:
        for fd in inherited:
            os.set_inheritable(fd, False)  # noqa: FBT003 - as above


def _reply(value: object) -> Reply:
    match value:
        case {"plan": dict() as plan}:
            return Planned(FlowPlan.from_wire(plan))
        case {"problems": str() as problems, "code": int() as code}:
            return Refused(problems, code)
        case {"spawned": list() as pids}:
            return Spawned({incarnation: pid for incarnation, pid in pids})
        case _:
            raise SupervisorError(f"the fork server said {str(value)[:80]!r}")

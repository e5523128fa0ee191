"""A process that adopts whatever a command leaves running, so that it can be measured and ended for sure.

`sr3 start` and `sarrapipe start` detach their processes. Here they are started below a *cage*, a child
subreaper (prctl(2)): every descendant stays in its tree whatever it does, `Cage.pids` names them all, and
nothing outlives the cage, which ends with its owner. With `isolated` it is also the first process of a pid
namespace of its own: `sr3 stop` ends every process of the user that looks like sr3's and is not in its own
configuration, and must not see anybody else's.

>>> with Cage(isolated=False) as cage:
...     cage.run(["true"]).code
0
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from perf import procstat

__all__ = ["Cage", "CageError", "Completed", "can_isolate"]

_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h
_GRACE_S: Final = 10.0
_LOOK_S: Final = 0.25


class CageError(RuntimeError):
    """A command did not end in time, or the cage itself ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """One command that has ended: exit code (negative for a signal) and when it ran, monotonic seconds."""

    code: int
    started_s: float
    ended_s: float

    @property
    def seconds(self) -> float:
        """How long it ran."""
        return self.ended_s - self.started_s


def can_isolate() -> bool:
    """Tell whether a pid namespace may be made here (root, or a capability)."""
    probe = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run(probe, check=False, capture_output=True).returncode == 0
    return False


class Cage:
    """Runs commands and keeps everything they leave behind in one tree.

    Args:
        isolated: Give it a pid namespace of its own.
    """

    def __init__(self, *, isolated: bool) -> None:
        self._isolated = isolated
        self._process: subprocess.Popen[str] | None = None
        self._root = 0

    def open(self) -> Self:
        """Start the cage.

        Raises:
            CageError: It did not start.
        """
        namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
        command = [*(namespace if self._isolated else []), sys.executable, "-m", "perf.cage"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL
            if self._isolated
            else None,  # unshare complains when its child is killed
            text=True,
            start_new_session=True,
            cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
        )
        self._read()
        self._root = procstat.tree(self._process.pid)[0] if self._isolated else self._process.pid
        return self

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        log: str = os.devnull,
        timeout_s: float = 300.0,
    ) -> Completed:
        """Run one command to its end; what it leaves running stays in the cage.

        Args:
            command: Program and arguments.
            env: Its whole environment; this process's own if not given.
            log: File that its output is appended to.
            timeout_s: After this it is killed.

        Raises:
            CageError: It took too long.
        """
        assert self._process is not None and self._process.stdin is not None, "open() first"
        request = {
            "command": list(command),
            "env": dict(env or os.environ),
            "log": log,
            "timeout_s": timeout_s,
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        if answer.get("late"):
            raise CageError(f"{command[0]} did not end within {timeout_s:g} s; its output is in {log}")
        return Completed(code=int(answer["code"]), started_s=answer["started_s"], ended_s=answer["ended_s"])

    def pids(self) -> list[int]:
        """Return the live processes in the cage, without the cage itself, parents first."""
        return procstat.tree(self._root)

    def processes(self) -> list[int]:
        """Return the same with the cage itself, whose counters hold what ended processes have used."""
        return [self._root, *self.pids()]

    def cpu_s(self) -> float:
        """Return the CPU seconds that everything in the cage has used, processes that ended included."""
        return procstat.cpu_s(self.processes())

    def wait_empty(self, timeout_s: float) -> float:
        """Wait until nothing runs in the cage; return the monotonic time at which that was so.

        Raises:
            CageError: Something still runs.
        """
        until = time.monotonic() + timeout_s
        while pids := self.pids():
            if time.monotonic() > until:
                raise CageError(f"still running after {timeout_s:.0f} s: {pids}")
            time.sleep(0.005)
        return time.monotonic()

    def kill(self) -> None:
        """End everything in the cage at once."""
        until = time.monotonic() + _GRACE_S
        while (pids := self.pids()) and time.monotonic() < until:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def close(self) -> None:
        """End everything in the cage, then the cage."""
        if self._process is None:
            return
        self.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _read(self) -> dict[str, float]:
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise CageError("the cage ended unexpectedly")
        answer: dict[str, float] = json.loads(line)
        return answer


class _Inside:
    """The cage's own loop: takes one request a line, reaps everything, ends with its owner."""

    def __init__(self) -> None:
        self._wake, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self._selector = selectors.DefaultSelector()
        self._ended: dict[int, int] = {}

    def serve(self) -> None:
        """Answer requests until the owner closes the pipe."""
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._selector.register(0, selectors.EVENT_READ)
        self._answer({"ready": 1})
        while True:
            for key, _events in self._selector.select():
                if key.fd == self._wake:
                    self._reap()
                elif not (line := sys.stdin.readline()):
                    return
                else:
                    self._answer(self._run(json.loads(line)))

    def _run(self, request: dict[str, object]) -> dict[str, float]:
        command, env = request["command"], request["env"]
        assert isinstance(command, list) and isinstance(env, dict)
        log = os.open(str(request["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        null = os.open(os.devnull, os.O_RDONLY)
        actions = [
            (os.POSIX_SPAWN_DUP2, null, 0),
            (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2),
        ]
        self._ended.clear()  # orphans' numbers come round again
        started_s = time.monotonic()
        try:
            pid = os.posix_spawnp(command[0], command, env, file_actions=actions)
        except OSError as error:
            os.write(log, f"{command[0]}: {error}\n".encode())
            return {"code": 127, "started_s": started_s, "ended_s": time.monotonic()}
        finally:
            os.close(log)
            os.close(null)
        return self._wait(pid, started_s, float(str(request["timeout_s"])))

    def _wait(self, pid: int, started_s: float, timeout_s: float) -> dict[str, float]:
        late = False
        while pid not in self._ended:
            if time.monotonic() - started_s > timeout_s and not late:
                late = True
                os.kill(pid, signal.SIGKILL)
            self._reap()
            if pid not in self._ended:
                # Woken by a child's end, so that waiting costs the command under test nothing.
                select.select([self._wake], [], [], _LOOK_S)
        code = os.waitstatus_to_exitcode(self._ended.pop(pid))
        return {"code": code, "started_s": started_s, "ended_s": time.monotonic(), "late": late}

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 512)
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self._ended[ended[0]] = ended[1]

    @staticmethod
    def _answer(answer: Mapping[str, float]) -> None:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _main() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        _Inside().serve()
    finally:
        while below := procstat.tree(os.getpid()):
            for pid in below:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)


if __name__ == "__main__":
    _main()

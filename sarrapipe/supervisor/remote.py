"""Asking running parents for something, several at once, and ending one that does not answer."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from sarrapipe.clock import SYSTEM_CLOCK, Clock
from sarrapipe.errors import SarrapipeError, SupervisorError
from sarrapipe.supervisor.control import request
from sarrapipe.supervisor.paths import FlowPaths
from sarrapipe.supervisor.pidfile import read_pid

__all__ = ["Answer", "ask", "ask_all", "stop"]

_ANSWER_LIMIT_S: Final = 60.0  # reading a configuration anew, on a slow machine
_GRACE_S: Final = 5.0  # beyond the limit of the instances, for the parent itself
_CHECK_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request to one flow.

    Attributes:
        flow: `component/name`.
        ok: Whether it was done.
        text: What was done, or why not.
        code: Exit status that fits.
    """

    flow: str
    ok: bool
    text: str
    code: int = 0


def ask(paths: FlowPaths, limit_s: float | None = _ANSWER_LIMIT_S, **asked: object) -> dict[str, object]:
    """Ask one flow's parent.

    Raises:
        SupervisorError: It does not run, does not answer, or refuses.
    """
    if not read_pid(paths.pid_file):
        raise SupervisorError(f"{paths.flow} does not run")
    return request(paths.control, limit_s, **asked)


def ask_all(flows: Sequence[FlowPaths], action: Callable[[FlowPaths], str]) -> list[Answer]:
    """Do something to several flows at the same time; one that fails does not keep the others from it.

    Args:
        flows: To which.
        action: Returns what was done.
    """

    def attempt(paths: FlowPaths) -> Answer:
        try:
            return Answer(paths.flow, ok=True, text=action(paths))
        except SarrapipeError as error:
            return Answer(paths.flow, ok=False, text=str(error), code=error.code)

    if len(flows) == 1:
        return [attempt(flows[0])]
    with ThreadPoolExecutor(max_workers=32) as pool:
        return list(pool.map(attempt, flows))


def stop(paths: FlowPaths, limit_s: float | None, *, drain: bool = False, clock: Clock = SYSTEM_CLOCK) -> str:
    """Stop one flow and return when all its processes are gone.

    Args:
        paths: Of the flow.
        limit_s: Time for its instances to finish; None for what its configuration says.
        drain: Let them finish whatever is under way, however long it takes.
        clock: For waiting.

    Returns:
        What was done.

    Raises:
        SupervisorError: It cannot be ended.
    """
    pid = read_pid(paths.pid_file)
    if not pid:
        return "does not run"
    try:
        usual_s = request(paths.control, _GRACE_S, do="status")["stop_s"]
        if drain:
            request(paths.control, None, do="drain")
        else:
            assert isinstance(usual_s, (int, float))
            patience_s = (usual_s if limit_s is None else limit_s) + 2 * _GRACE_S
            request(paths.control, patience_s, do="stop", limit_s=limit_s)
    except SupervisorError:
        # A parent that does not answer is stopped or lost; one without a control socket runs one instance in
        # the foreground, or ended just now.
        _stop_by_signal(paths, pid, limit_s, clock)
    return f"stopped, parent was pid {pid}"


def _stop_by_signal(paths: FlowPaths, pid: int, limit_s: float | None, clock: Clock) -> None:
    patience_s = (limit_s if limit_s is not None else 30.0) + _GRACE_S
    for number, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, _GRACE_S)):
        with contextlib.suppress(ProcessLookupError):
            _kill(paths, pid, number)
        deadline = clock.monotonic_s() + wait_s
        while read_pid(paths.pid_file) == pid:
            if clock.monotonic_s() > deadline:
                break
            clock.sleep(_CHECK_S)
        else:
            return
    raise SupervisorError(f"{paths.flow}: parent pid {pid} does not end")


def _kill(paths: FlowPaths, pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except PermissionError as error:
        raise SupervisorError(f"{paths.flow}: parent pid {pid} belongs to somebody else") from error

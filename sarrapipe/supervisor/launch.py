"""Ways to start parents: in this process, one beside the other in the foreground, or as daemons."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from sarrapipe import log
from sarrapipe.clock import SYSTEM_CLOCK
from sarrapipe.errors import SupervisorError
from sarrapipe.supervisor import child, linux
from sarrapipe.supervisor.parent import Parent
from sarrapipe.supervisor.plan import FlowRequest
from sarrapipe.supervisor.remote import Answer

__all__ = ["Started", "run_parents", "start_parents"]

_LOG = log.get_logger(__name__)
_TEXT_LIMIT: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Started:
    """What became of one daemon.

    Attributes:
        flow: `component/name`.
        pid: Of the parent.
        status: 0 all instances have begun their work; None if they had not within the time; else the exit
            status the parent ended with.
        text: What it printed before it had a log.
    """

    flow: str
    pid: int
    status: int | None
    text: str

    def answer(self) -> Answer:
        """Return this as commands print it."""
        if self.status == 0:
            return Answer(self.flow, ok=True, text=f"started, parent pid {self.pid}")
        if self.status is None:
            return Answer(self.flow, ok=True, text="started; its instances are not ready yet, see 'status'")
        what = self.text or f"ended with status {self.status}, see its log"
        return Answer(self.flow, ok=False, text=what, code=self.status)


def run_parents(requests: Sequence[FlowRequest]) -> int:
    """Run flows in the foreground until they end: one in this process, several in one child each.

    TERM, INT, HUP and USR1 to this process are passed on to all.

    Returns:
        The first exit status that is not 0, else 0.
    """
    log.configure()
    if len(requests) == 1:
        return Parent(requests[0], foreground=True).run()
    children = dict(_fork_parent(request) for request in requests)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, lambda number, _frame: _pass_on(number, children))
    child.set_title(f"run {len(requests)} flows")
    statuses: list[int] = []
    while children:
        pid, wait_status = os.waitpid(-1, 0)
        code = os.waitstatus_to_exitcode(wait_status)
        flow = children.pop(pid, "")
        if flow:
            _LOG.info("%s ended: status %d", flow, code)
            statuses.append(code if code >= 0 else 128 - code)
    return next((status for status in statuses if status), 0)


def start_parents(requests: Sequence[FlowRequest], wait_s: float) -> list[Started]:
    """Start flows as daemons, one parent each, and wait until their instances work.

    Args:
        requests: The flows.
        wait_s: How long to wait for all of them; what is not ready then goes on by itself.
    """
    waiting = [_Starting(request) for request in requests]
    with selectors.DefaultSelector() as selector:
        for starting in waiting:
            starting.open()
            selector.register(starting.status_fd, selectors.EVENT_READ, starting)
        deadline = SYSTEM_CLOCK.monotonic_s() + wait_s
        while selector.get_map():
            left_s = deadline - SYSTEM_CLOCK.monotonic_s()
            events = selector.select(max(0.0, left_s))
            if not events:
                break
            for key, _events in events:
                selector.unregister(key.fileobj)
                key.data.take_status()
    return [starting.close() for starting in waiting]


def _fork_parent(request: FlowRequest) -> tuple[int, str]:
    front = os.getpid()
    pid = os.fork()
    if pid == 0:
        # A group of its own: Ctrl-C reaches the one in front only, which passes it on once.
        os.setpgid(0, 0)
        linux.die_with_parent(front, number=signal.SIGTERM)
        _end_with(Parent(request, foreground=True))
    return pid, request.flow


def _end_with(parent: Parent) -> NoReturn:
    """Run a parent and end this process, a fork, with its status."""
    status = child.EX_SOFTWARE
    try:
        status = parent.run()
    except BaseException:  # noqa: BLE001 - top of a process
        traceback.print_exc()
    with contextlib.suppress(OSError, ValueError):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _pass_on(number: int, children: dict[int, str]) -> None:
    for pid in list(children):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class _Starting:
    """One daemon on its way: two pipes, one for its status, one for what it prints until it has a log."""

    def __init__(self, request: FlowRequest) -> None:
        self._request = request
        self.status_fd = self._text_fd = -1
        self._pid = 0
        self._status: int | None = None

    def open(self) -> None:
        self.status_fd, status_writer = os.pipe()
        self._text_fd, text_writer = os.pipe()
        try:
            pid = os.fork()
        except OSError as error:
            raise SupervisorError(f"{self._request.flow}: cannot fork: {error.strerror}") from error
        if pid == 0:
            self._become_daemon(status_writer, text_writer)
        os.close(status_writer)
        os.close(text_writer)
        os.waitpid(pid, 0)  # the middle one of the double fork

    def take_status(self) -> None:
        data = os.read(self.status_fd, 4096)
        said = json.loads(data) if data else {"pid": 0, "status": child.EX_SOFTWARE}  # killed before it spoke
        self._pid, self._status = said["pid"], said["status"]

    def close(self) -> Started:
        os.set_blocking(self._text_fd, False)
        try:
            text = os.read(self._text_fd, _TEXT_LIMIT)
        except BlockingIOError:
            text = b""
        os.close(self._text_fd)
        os.close(self.status_fd)
        return Started(self._request.flow, self._pid, self._status, text.decode("utf-8", "replace").strip())

    def _become_daemon(self, status_writer: int, text_writer: int) -> NoReturn:
        """Leave session, terminal and the caller's family; become the parent."""
        os.setsid()
        if os.fork():
            os._exit(0)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(text_writer, 1)
        os.dup2(text_writer, 2)
        os.closerange(3, status_writer)  # other daemons' pipes
        os.closerange(status_writer + 1, max(null, text_writer) + 1)
        log.configure()

        def tell(status: int) -> None:
            with contextlib.suppress(OSError):  # the caller did not wait
                os.write(status_writer, json.dumps({"pid": os.getpid(), "status": status}).encode())
            os.close(status_writer)

        _end_with(Parent(self._request, foreground=False, on_started=tell))

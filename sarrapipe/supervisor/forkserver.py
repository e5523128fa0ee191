"""The fork server: a process that has read the configuration, imported what instances need, and forks them.

It holds no connection, thread or transfer handle, only modules and the parsed configuration, which the
instances share with it copy-on-write. It is started by a fresh exec, so a reload gets the code and modules
of that time.

Its children are not its own: each request is served by a short-lived helper that forks the instances and
ends, whereupon the kernel gives them to the parent, a child subreaper. So the parent waits for its
instances itself, they end with the parent and not with the fork server, and a fork server that was killed
is simply replaced.

Requests and replies are frames (`wire`) on one socket pair; the channels of new instances come along as
descriptors. When the socket ends, so does the fork server.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import traceback
from collections.abc import Mapping
from typing import Final, NoReturn

from sarrapipe.errors import ConfigError, SarrapipeError
from sarrapipe.supervisor import child, linux
from sarrapipe.supervisor.plan import FlowPlan, FlowRequest, resolve
from sarrapipe.supervisor.wire import HEADER, Reader, pack

__all__ = ["BATCH", "main"]

BATCH: Final = 64
"""Most instances in one request: the kernel passes up to 253 descriptors at once (SCM_MAX_FD)."""


def main(parent_fd: int, parent_pid: int) -> NoReturn:
    """Serve a parent until it closes the socket.

    Args:
        parent_fd: Our end of the socket pair.
        parent_pid: Whose end is ours.
    """
    os.setsid()  # a terminal's Ctrl-C is for the parent, which then stops the instances in order
    os.set_inheritable(parent_fd, False)  # noqa: FBT003 - the library's signature
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if not linux.die_with_parent(parent_pid):
        os._exit(0)
    gc.disable()  # until the fork: a collection would only move what is about to be frozen
    _Server(socket.socket(fileno=parent_fd), parent_pid).serve()
    os._exit(0)


class _Server:
    """The loop of the fork server."""

    def __init__(self, parent: socket.socket, parent_pid: int) -> None:
        self._parent = parent
        self._parent_pid = parent_pid
        self._request: FlowRequest | None = None
        self._config: object = None

    def serve(self) -> None:
        """Answer until the socket ends."""
        while True:
            data, fds = self._receive()
            if data is None:
                return
            for fd in fds:
                os.set_inheritable(fd, False)  # noqa: FBT003 - the library's signature
            if data["do"] == "hold":
                continue  # the lock lasts as long as this descriptor is open, here and in our instances
            channels = [socket.socket(fileno=fd) for fd in fds]
            match data:
                case {"do": "load", "request": dict() as request}:
                    self._parent.sendall(pack(self._load(FlowRequest.from_wire(request))))
                case {"do": "spawn", "jobs": list() as wire_jobs}:
                    jobs = [child.Job.from_wire(job) for job in wire_jobs]
                    self._parent.sendall(pack({"spawned": self._spawn(jobs, channels)}))
                case {"do": "output", "path": str() as path, "mode": int() as mode}:
                    child.redirect_output(path, mode)
            for channel in channels:
                channel.close()

    def _receive(self) -> tuple[dict[str, object] | None, list[int]]:
        """Read exactly one frame, since the descriptors of the next come with its first byte."""
        header, fds, _flags, _address = socket.recv_fds(self._parent, HEADER.size, BATCH)
        if len(header) < HEADER.size:
            return None, fds
        (length,) = HEADER.unpack(header)
        body = self._parent.recv(length, socket.MSG_WAITALL)
        if len(body) < length:
            return None, fds
        (value,) = Reader().feed(header + body)
        assert isinstance(value, dict)
        return value, fds

    def _load(self, request: FlowRequest) -> Mapping[str, object]:
        """Read the configuration and import what instances need; the answer for the parent."""
        child.set_title(f"fork server {request.flow}")
        try:
            loaded = resolve(request.loader)(request)
            resolve(request.entry)
        except ConfigError as error:
            return {"problems": str(error), "code": error.code}
        except SarrapipeError as error:
            return {"problems": f"{type(error).__name__}: {error}", "code": error.code}
        except Exception:  # noqa: BLE001 - top of a process: user code is imported; the parent tells
            return {"problems": traceback.format_exc(), "code": child.EX_SOFTWARE}
        assert isinstance(loaded, tuple)
        plan, self._config = loaded
        assert isinstance(plan, FlowPlan)
        self._request = request
        gc.collect()
        gc.freeze()  # nothing of this is garbage: keep the collector's hands, and its writes, off these pages
        return {"plan": plan.to_wire()}

    def _spawn(self, jobs: list[child.Job], channels: list[socket.socket]) -> list[tuple[int, int]]:
        """Fork the instances through a helper that ends at once.

        Returns:
            (incarnation, pid) of each; pid is minus the error number where a fork failed.
        """
        reader, writer = os.pipe()
        try:
            helper = os.fork()
        except OSError as error:
            os.close(reader)
            os.close(writer)
            return [(job.incarnation, -(error.errno or 1)) for job in jobs]
        if helper == 0:
            os.close(reader)
            self._help(jobs, channels, writer)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            reports = Reader().feed(pipe.read())
        # Once the helper is reaped, its children have been given to the parent: only now may it be told of
        # them.
        os.waitpid(helper, 0)
        assert len(reports) == 1
        assert isinstance(reports[0], list)
        return [(incarnation, pid) for incarnation, pid in reports[0]]

    def _help(self, jobs: list[child.Job], channels: list[socket.socket], writer: int) -> NoReturn:
        """The helper: fork every instance, report, end."""
        pids: list[tuple[int, int]] = []
        for job, channel in zip(jobs, channels, strict=True):
            try:
                pid = os.fork()
            except OSError as error:
                pids.append((job.incarnation, -(error.errno or 1)))
                continue
            if pid == 0:
                os.close(writer)
                self._become_instance(job, channel, channels)
            pids.append((job.incarnation, pid))
        os.write(writer, pack(pids))
        os._exit(0)

    def _become_instance(
        self, job: child.Job, channel: socket.socket, channels: list[socket.socket]
    ) -> NoReturn:
        for other in channels:
            if other is not channel:
                other.close()
        self._parent.close()
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        gc.enable()
        assert self._request is not None
        child.run(self._request, job, channel, self._config)

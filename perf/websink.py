"""A web server that takes files (PUT, MOVE), for benchmarks that send."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from perf import procstat
from perf.cage import CageError
from sarrapipe.pump.ports import LOOPBACK, free_ports
from sarrapipe.pump.webserver import find_server

__all__ = ["WebSink", "open_web_sink"]

_LIMIT_S: Final = 10.0
_CONFIGURATION: Final = """
daemon off; pid {home}/nginx.pid; error_log {home}/error.log error; worker_processes 1; {user}
events {{ worker_connections 128; }}
http {{
    access_log off; keepalive_requests 100000; client_max_body_size 0; client_body_temp_path {root}/.body;
    proxy_temp_path {home}/t2; fastcgi_temp_path {home}/t3; uwsgi_temp_path {home}/t4;
    scgi_temp_path {home}/t5; client_body_buffer_size 1m;
    server {{ listen {host}:{port}; root {root}; dav_methods PUT DELETE MKCOL MOVE; }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSink:
    """A server that is up.

    Args:
        root: What it writes into.
        url: Of that.
        pid: The listening process.
    """

    root: str
    url: str
    pid: int

    def pids(self) -> list[int]:
        """Return the server and its workers."""
        return [self.pid, *procstat.tree(self.pid)]


@contextlib.contextmanager
def open_web_sink(home: str) -> Iterator[WebSink]:
    """Start one whose files are below `home`; end it with the context.

    Raises:
        CageError: There is no nginx, or it does not answer.
    """
    program = find_server()
    if program is None:
        raise CageError("nginx is not installed")
    root = os.path.join(home, "data")
    os.makedirs(root)
    [port] = free_ports(1)
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = os.path.join(home, "nginx.conf")
    with open(configuration, "w", encoding="utf-8") as file:
        file.write(_CONFIGURATION.format(home=home, root=root, port=port, user=user, host=LOOPBACK))
    server = subprocess.Popen([program, "-e", os.path.join(home, "error.log"), "-c", configuration])
    try:
        _wait(port)
        yield WebSink(root=root, url=f"http://{LOOPBACK}:{port}/", pid=server.pid)
    finally:
        server.terminate()
        server.wait()


def _wait(port: int) -> None:
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), 1):
            return
        time.sleep(0.05)
    raise CageError(f"nginx does not answer within {_LIMIT_S:g} s")

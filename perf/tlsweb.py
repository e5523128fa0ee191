"""The document root over HTTPS: an nginx on loopback with a certificate of an authority made for it."""

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
from sarrapipe.pump.certificates import ensure_certificates
from sarrapipe.pump.ports import LOOPBACK, free_ports
from sarrapipe.pump.webserver import find_server

__all__ = ["TlsWeb", "open_tls_web"]

_LIMIT_S: Final = 10.0
_WORKERS: Final = 2
_CONFIGURATION: Final = """
daemon off; pid {home}/nginx.pid; error_log {home}/error.log error; worker_processes {workers}; {user}
events {{ worker_connections 512; }}
http {{
    access_log off; sendfile on; keepalive_requests 100000; client_body_temp_path {home}/t1;
    proxy_temp_path {home}/t2; fastcgi_temp_path {home}/t3; uwsgi_temp_path {home}/t4;
    scgi_temp_path {home}/t5;
    server {{
        listen {host}:{port} ssl; root {root};
        ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;
    }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsWeb:
    """A server that is up.

    Args:
        url: Its base URL.
        authority: Certificate (PEM) of the authority that signed its own.
        pid: The listening process.
    """

    url: str
    authority: str
    pid: int

    def pids(self) -> list[int]:
        """Return the server and its workers."""
        return [self.pid, *procstat.tree(self.pid)]


@contextlib.contextmanager
def open_tls_web(home: str, document_root: str) -> Iterator[TlsWeb]:
    """Start one whose own files are below `home`; end it with the context.

    Args:
        home: Made if missing.
        document_root: What it serves.

    Raises:
        CageError: There is no nginx, or it does not answer.
        SupervisorError: `openssl` is missing or refuses.
    """
    program = find_server()
    if program is None:
        raise CageError("nginx is not installed")
    files = ensure_certificates(os.path.join(home, "certificates"))
    [port] = free_ports(1)
    configuration = os.path.join(home, "nginx.conf")
    with open(configuration, "w", encoding="utf-8") as file:
        file.write(
            _CONFIGURATION.format(
                home=home,
                root=document_root,
                host=LOOPBACK,
                port=port,
                workers=_WORKERS,
                user="user root;" if os.geteuid() == 0 else "",
                certificate=files.certificate,
                key=files.key,
            )
        )
    server = subprocess.Popen([program, "-e", os.path.join(home, "error.log"), "-c", configuration])
    try:
        _wait(port)
        yield TlsWeb(url=f"https://{LOOPBACK}:{port}/", authority=files.authority, pid=server.pid)
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

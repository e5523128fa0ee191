"""An nginx of our own that serves one directory over HTTP on loopback, with byte ranges and etags.

It runs in the foreground of a session of its own, as the user who started it, with every file it writes
under one directory. Symbolic links in the document root are followed: what is put there is served to every
user of this host.
"""

from __future__ import annotations

import http.client
import os
import pwd
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sarrapipe.clock import SYSTEM_CLOCK
from sarrapipe.errors import SupervisorError
from sarrapipe.pump.ports import LOOPBACK
from sarrapipe.pump.processes import ServerProcess, is_running, spawn, tail

__all__ = ["WebServer", "WebSettings", "check_path", "find_server"]

_POLL_S: Final = 0.02

# keepalive_requests: nginx closes a connection after 1,000 requests by default, which a flow of small files
# reaches in a fraction of a second. sendfile_max_chunk: without it one fast client can hold a worker.
_CONFIGURATION: Final = """\
daemon off;
pid {home}/nginx.pid;
error_log {home}/error.log warn;
worker_processes {workers};
{user}
events {{
    worker_connections 4096;
}}
http {{
    access_log off;
    server_tokens off;
    default_type application/octet-stream;
    charset utf-8;
    sendfile on;
    sendfile_max_chunk 2m;
    tcp_nodelay on;
    etag on;
    gzip off;
    keepalive_timeout 300s;
    keepalive_requests 100000000;
    client_body_temp_path {home}/tmp/body;
    proxy_temp_path {home}/tmp/proxy;
    fastcgi_temp_path {home}/tmp/fastcgi;
    uwsgi_temp_path {home}/tmp/uwsgi;
    scgi_temp_path {home}/tmp/scgi;
    server {{
        listen {host}:{port} backlog=1024;
        server_name localhost;
        root {root};
        autoindex on;
    }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """What makes one web server.

    Attributes:
        directory: Configuration, logs and temporary files.
        port: Where it listens.
        document_root: What it serves.
        workers: Worker processes.
        host: Address it listens on; loopback but for a benchmark over a link.
    """

    directory: str
    port: int
    document_root: str
    workers: int
    host: str = LOOPBACK


def find_server() -> str | None:
    """Return nginx's path, or None if it is not installed."""
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


class WebServer:
    """One nginx: writes its files, starts it, waits until it serves.

    Args:
        settings: What makes it.
    """

    def __init__(self, settings: WebSettings) -> None:
        self._settings = settings

    def start(self) -> ServerProcess:
        """Write the configuration and start the server; `wait_ready` tells when it serves.

        Raises:
            SupervisorError: nginx is not installed.
        """
        program = find_server()
        if program is None:
            raise SupervisorError("nginx is missing: install the package nginx-light")
        home = Path(self._settings.directory)
        (home / "tmp").mkdir(parents=True, exist_ok=True, mode=0o700)
        configuration = home / "nginx.conf"
        configuration.write_text(self._configuration(), encoding="utf-8")
        argv = [program, "-p", str(home), "-e", str(home / "error.log"), "-c", str(configuration)]
        return spawn(argv, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, str(home / "nginx.out"))

    def wait_ready(self, process: ServerProcess, timeout_s: float = 10.0) -> None:
        """Wait until the server answers.

        Args:
            process: What `start` returned.
            timeout_s: Limit.

        Raises:
            SupervisorError: It ended, with what it said; or the time is over.
        """
        deadline = SYSTEM_CLOCK.monotonic_s() + timeout_s
        while not self._answers():
            if not is_running(process):
                raise SupervisorError(f"nginx ended: {tail(process.log)}")
            if SYSTEM_CLOCK.monotonic_s() > deadline:
                raise SupervisorError(f"nginx: no answer on port {self._settings.port}; see {process.log}")
            SYSTEM_CLOCK.sleep(_POLL_S)

    def _configuration(self) -> str:
        s = self._settings
        # Only a master that is root may name a user; then the workers keep the rights of who started it, so
        # that they can read what he posts, whatever its mode.
        user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
        return _CONFIGURATION.format(
            home=s.directory, root=s.document_root, user=user,
            host=s.host, port=s.port, workers=s.workers,
        )  # fmt: skip

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(self._settings.host, self._settings.port, timeout=2.0)
        try:
            connection.request("HEAD", "/")
            connection.getresponse()
        except (OSError, http.client.HTTPException):
            return False
        else:
            return True
        finally:
            connection.close()


def check_path(path: str) -> None:
    """Refuse a directory that nginx's configuration and RabbitMQ's scripts cannot hold.

    Raises:
        SupervisorError: The path holds a blank, a quote, `$`, `;`, a brace or a control character.
    """
    if any(c in "\"'$;{}\\#" or c.isspace() or not c.isprintable() for c in path):
        raise SupervisorError(
            f"directory {path!r}: no blanks, quotes, '$', ';', '#' or braces in its path, please"
        )

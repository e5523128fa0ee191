"""A real nginx that is slow on purpose and logs every request: which bytes were asked for, and when."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import NamedTuple, Self

import servers

from sarrapipe.pump.ports import free_ports
from sarrapipe.pump.webserver import find_server

_CONFIGURATION = """
daemon off; pid {home}/nginx.pid; error_log {home}/error.log error; worker_processes 1; {user}
events {{ worker_connections 512; }}
http {{
    log_format ranges '$msec $request_time $status $body_bytes_sent "$http_range" $request_uri $remote_addr';
    access_log {home}/access.log ranges; sendfile off; default_type application/octet-stream;
    client_body_temp_path {home}/t1; proxy_temp_path {home}/t2; fastcgi_temp_path {home}/t3;
    uwsgi_temp_path {home}/t4; scgi_temp_path {home}/t5;
    server {{ listen 127.0.0.1:{port}; root {root}; limit_rate {rate}; }}
}}
"""
_LINE = re.compile(r'([\d.]+) ([\d.]+) (\d+) (\d+) "(?:bytes=(\d+)-(\d+)|-)" (\S+) (\S+)\n')


class Request(NamedTuple):
    """One line of the log; times are wall seconds."""

    began_s: float
    status: int
    sent: int
    first: int | None
    last: int | None
    path: str
    client: str
    """Address it was asked from."""


class LoggingNginx:
    """One server for one directory.

    Args:
        home: Its files.
        root: What it serves.
        rate: Bytes per second of each connection.
    """

    def __init__(self, home: Path, root: Path, rate: int) -> None:
        self.home = home
        self._root = root
        self._rate = rate
        [self._port] = free_ports(1)

    def __enter__(self) -> Self:
        program = find_server()
        if program is None:
            servers.missing("nginx")
        assert program is not None
        self.home.mkdir(parents=True)
        user = "user root;" if os.geteuid() == 0 else ""
        configuration = self.home / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                home=self.home, root=self._root, port=self._port, rate=self._rate, user=user
            )
        )
        self._process = subprocess.Popen(
            [program, "-e", str(self.home / "error.log"), "-c", str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        servers.wait_until(lambda: (self.home / "nginx.pid").exists(), 10, "nginx is up")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/"

    def requests(self) -> list[Request]:
        """What was asked so far and is answered, or given up."""
        found = []
        for line in (self.home / "access.log").read_text().splitlines(keepends=True):
            match = _LINE.fullmatch(line)
            assert match is not None, line
            ended_s, took_s, status, sent, first, last, path, client = match.groups()
            begin, end = (None, None) if first is None else (int(first), int(last))
            began_s = float(ended_s) - float(took_s)
            found.append(Request(began_s, int(status), int(sent), begin, end, path, client))
        return found

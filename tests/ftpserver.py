"""A real FTP server (pyftpdlib) for tests: a process of its own, a user, a directory, TLS where asked for.

with Ftpd(tmp_path, tls=True) as ftpd:
    ftpd.url("/a/b")          # ftps://127.0.0.1:PORT/a/b; the paths are those below `ftpd.root`
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Self

import servers

from sarrapipe.pump.ports import free_ports

USER, PASSWORD = "alice", "pass word:ü"

_PROGRAM = """
import sys
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
from pyftpdlib.servers import FTPServer
root, port, user, password, certificate = sys.argv[1:]
authorizer = DummyAuthorizer()
authorizer.add_user(user, password, root, perm="elradfmwMT")
authorizer.add_anonymous(root)
handler = TLS_FTPHandler if certificate else FTPHandler
handler.authorizer = authorizer
handler.max_login_attempts = 3
handler.unicode_errors = "surrogateescape"
if certificate:
    handler.certfile = certificate
    handler.tls_control_required = handler.tls_data_required = True
server = FTPServer(("127.0.0.1", int(port)), handler)
server.max_cons = 256
server.serve_forever()
"""


class Ftpd:
    """One server in one directory."""

    def __init__(self, directory: Path, *, tls: bool = False) -> None:
        self.root = directory / "ftp"
        self.tls = tls
        self._certificate = directory / "ftp.pem"

    def __enter__(self) -> Self:
        self.root.mkdir(parents=True)
        if self.tls:
            self._make_certificate()
        [self.port] = free_ports(1)
        arguments = [
            str(self.root),
            str(self.port),
            USER,
            PASSWORD,
            str(self._certificate) if self.tls else "",
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        servers.wait_until(self._answers, 15, "the FTP server is up")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def _make_certificate(self) -> None:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
             "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", self._certificate,
             "-out", f"{self._certificate}.crt"],
            check=True, capture_output=True,
        )  # fmt: skip
        with open(self._certificate, "a") as file:
            file.write(Path(self.ca_file).read_text())

    @property
    def ca_file(self) -> str:
        return f"{self._certificate}.crt"

    def url(self, path: str) -> str:
        """URL of a path below the root, as a message announces it."""
        return f"{'ftps' if self.tls else 'ftp'}://127.0.0.1:{self.port}{path}"

    def put(self, name: str, data: bytes) -> str:
        """Put a file into the root; return its URL."""
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        return self.url(f"/{name}")

"""A real FTP server (pyftpdlib) for tests: a process of its own, a user, a directory, TLS where asked for.

with Ftpd(tmp_path, tls=True) as ftpd:
    ftpd.url("/a/b")          # ftps://127.0.0.1:PORT/a/b; the paths are those below `ftpd.root`
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import servers

from sarrapipe.pump.ports import free_ports

USER, PASSWORD = "alice", "pass word:ü"

_PROGRAM = """
import json, sys
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
from pyftpdlib.servers import FTPServer
root, port, user, password, certificate, log, habits = sys.argv[1:]
habits = json.loads(habits)
authorizer = DummyAuthorizer()
authorizer.add_user(user, password, root, perm="elradfmwMT")
authorizer.add_anonymous(root)

def note(word):
    with open(log, "a") as file:
        file.write(word + "\\n")

class Handler(TLS_FTPHandler if certificate else FTPHandler):
    served = ""

    def handle(self):
        if habits["implicit"]:
            self.secure_connection(self.ssl_context)
        else:
            super().handle()

    def handle_ssl_established(self):
        if habits["implicit"]:
            super().handle()

    def on_login(self, username):
        note("login")

    def on_disconnect(self):
        note("gone")

    def pre_process_command(self, line, cmd, arg):
        note(cmd)
        if cmd in habits["unknown"]:
            self.respond("500 what is " + cmd + "?")
            return
        if cmd in ("RETR", "STOR"):
            self.served = arg
        super().pre_process_command(line, cmd, arg)

    def respond(self, resp, **kwargs):
        if resp[:3] in ("226", "426") and self.served.endswith("late"):
            self.served = ""
            self.ioloop.call_later(habits["late_s"], self.respond, resp, **kwargs)
        else:
            super().respond(resp, **kwargs)

Handler.authorizer = authorizer
Handler.max_login_attempts = 3
Handler.auth_failed_timeout = 0
Handler.unicode_errors = "surrogateescape"
Handler.timeout = habits["idle_s"]
Handler.masquerade_address = habits["names_host"]
if certificate:
    Handler.certfile = certificate
    Handler.tls_control_required = Handler.tls_data_required = True
server = FTPServer(("127.0.0.1", int(port)), Handler)
server.max_cons = 256
server.max_cons_per_ip = habits["per_host"]
server.serve_forever()
"""


class Ftpd:
    """One server in one directory.

    Args:
        directory: For its root and what it needs.
        tls: It wants all connections encrypted.
        per_host: Connections that it takes from one address; 0 for any number.
        implicit: TLS is from the first byte on.
        late_s: How late it is with its last word on files whose names end in `late`.
        idle_s: After so long it closes a connection that says nothing (421).
        unknown: Commands that it does not know.
        names_host: What it takes for its address in passive mode (227).
    """

    def __init__(
        self,
        directory: Path,
        *,
        tls: bool = False,
        per_host: int = 0,
        late_s: float = 0.0,
        idle_s: float = 300.0,
        unknown: Sequence[str] = (),
        implicit: bool = False,
        names_host: str | None = None,
    ) -> None:
        self.root = directory / "ftp"
        self.tls = tls
        self._certificate = directory / "ftp.pem"
        self._log = directory / "ftp.log"
        self._habits = {
            "per_host": per_host,
            "late_s": late_s,
            "idle_s": idle_s,
            "unknown": list(unknown),
            "implicit": implicit,
            "names_host": names_host,
        }

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
            str(self._log),
            json.dumps(self._habits),
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

    def heard(self, what: str) -> int:
        """How many commands `what` it got; `login`: how many it let in; `gone`: how many went."""
        return self._log.read_text().split().count(what) if self._log.exists() else 0

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

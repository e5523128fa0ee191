"""A real sshd for tests of transfers: keys, a password, accounts of its own, on a free port.

with Sshd(directory) as sshd:
    sshd.put("a/b", b"bytes")              # returns sftp://root@127.0.0.1:PORT/DIRECTORY/a/b
    Credentials(key_file=sshd.key_file)

As root it runs in a mount namespace where /etc/passwd and /etc/shadow also hold `alice` (root's number, with
a password) and `bob` (nobody's, same password), who exist for this server alone.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import servers

from sarrapipe.pump.ports import free_ports

PASSWORD = "pass word:ü"
_BOB = 65533
_CONFIGURATION = """
Port {port}
ListenAddress 127.0.0.1
HostKey {home}/hostkey
PidFile none
AuthorizedKeysFile {home}/authorized
StrictModes no
UsePAM no
PasswordAuthentication yes
KbdInteractiveAuthentication no
PermitRootLogin yes
MaxStartups {startups}
MaxSessions 100
LogLevel ERROR
Subsystem sftp {subsystem}
"""


class Sshd:
    """One server; its files are in a directory that every account may enter.

    `startups` is how many may connect and not be logged in; `subsystem` what serves SFTP.
    """

    def __init__(
        self, directory: Path, *, startups: str = "200:30:400", subsystem: str = "internal-sftp"
    ) -> None:
        self.home = directory / "sshd"
        self.startups = startups
        self.subsystem = subsystem
        self.port = 0
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self.has_accounts = os.geteuid() == 0

    def __enter__(self) -> Self:
        self.program = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
        if self.program is None or shutil.which("ssh-keygen") is None:
            servers.missing("openssh-server")
        self.home.mkdir(parents=True)
        self.root = Path(tempfile.mkdtemp(prefix="sarrapipe-sftp-"))
        self.root.chmod(0o755)
        for name in ("hostkey", "id", "other"):
            self._make_key(name)
        shutil.copy(self.home / "id.pub", self.home / "authorized")
        self.write_known_hosts("hostkey")
        [self.port] = free_ports(1)
        self.write_known_hosts("hostkey")
        if self.has_accounts:
            os.makedirs("/run/sshd", exist_ok=True)
            self._make_accounts()
        (self.home / "sshd.conf").write_text(
            _CONFIGURATION.format(
                home=self.home, port=self.port, startups=self.startups, subsystem=self.subsystem
            )
        )
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def start(self) -> None:
        assert self.program is not None
        command = [self.program, "-D", "-f", str(self.home / "sshd.conf"), "-E", str(self.home / "log")]
        if self.has_accounts:
            mounts = "".join(
                f"mount --bind {self.home}/{name} /etc/{name}; " for name in ("passwd", "shadow")
            )
            shell = ["sh", "-ec", mounts + 'exec "$@"', "sh"]
            command = ["unshare", "-m", "--propagation", "private", *shell, *command]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        servers.wait_until(self._answers, 10, "sshd is up")

    def stop(self) -> None:
        """End the server and every session of it."""
        self.kill_sessions()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)

    def kill_sessions(self) -> None:
        """End the processes of all sessions at once, as a crash would."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def pids(self) -> list[int]:
        """The processes of all sessions."""
        return descendants(self._process.pid)

    def sessions(self) -> int:
        """Connections that are open now."""
        return len(_children(self._process.pid))

    @property
    def key_file(self) -> str:
        return str(self.home / "id")

    @property
    def other_key_file(self) -> str:
        """A key that the server does not know."""
        return str(self.home / "other")

    @property
    def known_hosts(self) -> str:
        return str(self.home / "known_hosts")

    def write_known_hosts(self, key: str) -> None:
        """Make this key (`hostkey` or `other`) the one that clients expect; "" for none."""
        public = (self.home / f"{key}.pub").read_text() if key else ""
        line = f"[127.0.0.1]:{self.port} {public}" if key else ""
        Path(self.known_hosts).write_text(line)

    def url(self, path: str, user: str = "") -> str:
        """URL of a path, as a message announces it."""
        return f"sftp://{user or self.user}@127.0.0.1:{self.port}{path}"

    def put(self, name: str, data: bytes) -> str:
        """Put a file into the server's directory; return its URL."""
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        return self.url(path)

    def log(self) -> str:
        return (self.home / "log").read_text()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as one:
            return one.recv(4) == b"SSH-"
        return False

    def _make_key(self, name: str) -> None:
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.home / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)

    def _make_accounts(self) -> None:
        digest = subprocess.run(
            ["openssl", "passwd", "-6", PASSWORD], check=True, capture_output=True, text=True
        ).stdout.strip()
        users = (("alice", 0), ("bob", _BOB))
        for name, lines in (
            ("passwd", [f"{user}:x:{number}:{number}::{self.root}:/bin/sh" for user, number in users]),
            ("shadow", [f"{user}:{digest}:19000::::::" for user, _ in users]),
        ):
            mine = self.home / name
            shutil.copy(f"/etc/{name}", mine)
            with open(mine, "a") as file:
                file.writelines(f"{line}\n" for line in lines)


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(one) for one in file.read().split()]
    return []


def descendants(pid: int) -> list[int]:
    found = []
    for child in _children(pid):
        found += [child, *descendants(child)]
    return found

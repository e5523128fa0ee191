"""A private sshd for a bench: a key to log in with, a configuration for peers, one cipher for all of them."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from perf import procstat
from perf.cage import CageError
from perf.peers.ssh import SshTarget
from sarrapipe.pump.ports import free_ports

__all__ = ["CIPHER", "SshSite", "open_ssh_site"]

CIPHER: Final = "aes128-gcm@openssh.com"
"""What every side uses: the fastest of OpenSSH's where the processor has AES."""

_HOST: Final = "127.0.0.1"
_NAME: Final = "peer"
_SSHD: Final = "/usr/sbin/sshd"  # sshd wants to be called by its absolute path
_PRIVILEGE_SEPARATION: Final = "/run/sshd"
_LIMIT_S: Final = 10.0
_CONFIGURATION: Final = """
Port {port}
ListenAddress {host}
HostKey {home}/hostkey
AuthorizedKeysFile {home}/id.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
MaxStartups 200:30:400
MaxSessions 100
LogLevel ERROR
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SshSite:
    """An sshd that is up.

    Args:
        target: What peers need to know.
        url: Base URL of `/`.
        pid: The listening process.
    """

    target: SshTarget
    url: str
    pid: int

    @property
    def credential(self) -> str:
        """A line for credentials.conf."""
        return f"{self.url} ssh_keyfile={self.target.key}"

    def pids(self) -> list[int]:
        """Return the server and its sessions."""
        return [self.pid, *procstat.tree(self.pid)]


@contextlib.contextmanager
def open_ssh_site(home: str) -> Iterator[SshSite]:
    """Start an sshd whose files are in `home`; end it with the context.

    Raises:
        CageError: It does not answer.
    """
    os.makedirs(home, mode=0o700)
    if os.geteuid() == 0:
        os.makedirs(_PRIVILEGE_SEPARATION, exist_ok=True)
    for name in ("hostkey", "id"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{home}/{name}"]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    target = _target(home)
    _write(f"{home}/sshd.conf", _CONFIGURATION.format(port=target.port, host=_HOST, home=home))
    _write(target.config, target.client_config(cipher=CIPHER))
    with open(f"{home}/hostkey.pub", encoding="ascii") as file:
        _write(target.known_hosts, f"[{_HOST}]:{target.port} {file.read()}")
    server = subprocess.Popen([_SSHD, "-D", "-f", f"{home}/sshd.conf", "-E", f"{home}/log"])
    try:
        _wait(target.port)
        url = f"sftp://{target.user}@{_HOST}:{target.port}/"
        yield SshSite(target=target, url=url, pid=server.pid)
    finally:
        server.terminate()
        server.wait()


def _target(home: str) -> SshTarget:
    [port] = free_ports(1)
    return SshTarget(
        config=f"{home}/ssh_config",
        host=_NAME,
        address=_HOST,
        port=port,
        user=pwd.getpwuid(os.geteuid()).pw_name,
        key=f"{home}/id",
        known_hosts=f"{home}/known_hosts",
    )


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _wait(port: int) -> None:
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((_HOST, port), 1) as one:
            if one.recv(4) == b"SSH-":
                return
        time.sleep(0.05)
    raise CageError(f"sshd does not answer within {_LIMIT_S:g} s")

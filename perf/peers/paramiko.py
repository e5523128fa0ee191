"""paramiko's own `get` and `put`, as a program of a few lines would call them."""

from __future__ import annotations

import sys
from typing import Final

from perf.peers.fetcher import Fetcher
from perf.peers.ssh import SshTarget

__all__ = ["paramiko_get", "paramiko_put"]

_PROGRAM: Final = """
import sys, paramiko
verb, host, port, user, key, known_hosts, cipher, source, path = sys.argv[1:]
def transport(*args, **options):
    made = paramiko.Transport(*args, **options)
    made.get_security_options().ciphers = (cipher,)
    return made
client = paramiko.SSHClient()
client.load_host_keys(known_hosts)
client.connect(host, int(port), user, key_filename=key, allow_agent=False, look_for_keys=False,
               transport_factory=transport)
getattr(client.open_sftp(), verb)(source, path)
client.close()
"""


def paramiko_get(target: SshTarget, cipher: str) -> Fetcher:
    """Fetch with `SFTPClient.get`, which asks ahead for the whole file."""
    return _paramiko("get", target, cipher)


def paramiko_put(target: SshTarget, cipher: str) -> Fetcher:
    """Send with `SFTPClient.put`."""
    return _paramiko("put", target, cipher)


def _paramiko(verb: str, target: SshTarget, cipher: str) -> Fetcher:
    facts = [verb, target.address, str(target.port), target.user, target.key, target.known_hosts, cipher]
    return Fetcher(
        name="paramiko",
        program=sys.executable,
        arguments=lambda source, path: [sys.executable, "-c", _PROGRAM, *facts, source, path],
    )

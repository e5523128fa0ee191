"""What people move a large file over SSH with: OpenSSH's sftp and scp, rsync, rclone, lftp.

    target = SshTarget(config="/tmp/x/ssh_config", host="peer", ...)
    fetch = sftp_get(target).fetch(cage, "/srv/file", "/dev/shm/file", log)

The source (or for `put` the destination) is a path on the server. One OpenSSH configuration says how to reach
it for all but rclone, which speaks SSH by itself and gets the same facts as options.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass

from perf.peers.fetcher import Fetcher

__all__ = [
    "SshTarget",
    "lftp_get",
    "lftp_put",
    "rclone_get",
    "rclone_put",
    "rsync_get",
    "rsync_put",
    "scp_get",
    "scp_put",
    "sftp_get",
    "sftp_put",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SshTarget:
    """An SSH server as the peers see it.

    Args:
        config: OpenSSH client configuration with a `Host` entry named `host`.
        host: That entry's name.
        address: Where the server listens.
        port: Its port.
        user: Whom to log in as.
        key: Path of the private key.
        known_hosts: File with the server's key.
    """

    config: str
    host: str
    address: str
    port: int
    user: str
    key: str
    known_hosts: str

    def client_config(self, *, cipher: str = "") -> str:
        """Return the text of such a configuration: no agent, no user's settings, one key."""
        lines = [
            f"Host {self.host}",
            f"HostName {self.address}",
            f"Port {self.port}",
            f"User {self.user}",
            f"IdentityFile {self.key}",
            f"UserKnownHostsFile {self.known_hosts}",
            "GlobalKnownHostsFile /dev/null",
            "IdentitiesOnly yes",
            "IdentityAgent none",
            "StrictHostKeyChecking yes",
            "BatchMode yes",
            "LogLevel ERROR",
        ]
        if cipher:
            lines.append(f"Ciphers {cipher}")
        return "".join(f"{line}\n" for line in lines)


def _fetcher(name: str, program: str, arguments: Callable[[str, str], list[str]]) -> Fetcher:
    return Fetcher(name=name, program=program, arguments=arguments)


def _batch(target: SshTarget, command: str) -> list[str]:
    """Return how to give sftp one command; it ends with 1 when that fails (sftp(1), -b)."""
    call = f"sftp -q -F {shlex.quote(target.config)} -b - {shlex.quote(target.host)}"
    return ["sh", "-c", f"printf '%s\\n' \"$1\" | {call}", "sh", command]


def sftp_get(target: SshTarget) -> Fetcher:
    """OpenSSH sftp, from the server."""
    return _fetcher("sftp", "sftp", lambda source, path: _batch(target, f'get "{source}" "{path}"'))


def sftp_put(target: SshTarget) -> Fetcher:
    """OpenSSH sftp, to the server."""
    return _fetcher("sftp", "sftp", lambda source, path: _batch(target, f'put "{source}" "{path}"'))


def scp_get(target: SshTarget) -> Fetcher:
    """OpenSSH scp, from the server."""
    return _fetcher(
        "scp", "scp", lambda source, path: ["scp", "-q", "-F", target.config, f"{target.host}:{source}", path]
    )


def scp_put(target: SshTarget) -> Fetcher:
    """OpenSSH scp, to the server."""
    return _fetcher(
        "scp", "scp", lambda source, path: ["scp", "-q", "-F", target.config, source, f"{target.host}:{path}"]
    )


def _rsync(target: SshTarget, *paths: str) -> list[str]:
    return ["rsync", "-t", "-e", f"ssh -F {shlex.quote(target.config)}", *paths]


def rsync_get(target: SshTarget, *options: str, name: str = "rsync") -> Fetcher:
    """Rsync over ssh, from the server; a file that is there already is brought up to date."""
    return _fetcher(
        name, "rsync", lambda source, path: _rsync(target, *options, f"{target.host}:{source}", path)
    )


def rsync_put(target: SshTarget) -> Fetcher:
    """Rsync over ssh, to the server."""
    return _fetcher("rsync", "rsync", lambda source, path: _rsync(target, source, f"{target.host}:{path}"))


def _rclone_remote(target: SshTarget, path: str) -> str:
    settings = {
        "host": target.address,
        "port": str(target.port),
        "user": target.user,
        "key_file": target.key,
        "known_hosts_file": target.known_hosts,
        "md5sum_command": "none",
        "sha1sum_command": "none",
        "shell_type": "none",
    }
    return ":sftp," + ",".join(f"{key}='{value}'" for key, value in settings.items()) + f":{path}"


def _rclone(source: str, destination: str) -> list[str]:
    streams = ["--multi-thread-streams", "4", "--multi-thread-cutoff", "16M"]
    return ["rclone", "--config", "", "-q", *streams, "copyto", source, destination]


def rclone_get(target: SshTarget) -> Fetcher:
    """Rclone with four streams, from the server."""
    return _fetcher("rclone", "rclone", lambda source, path: _rclone(_rclone_remote(target, source), path))


def rclone_put(target: SshTarget) -> Fetcher:
    """Rclone, to the server."""
    return _fetcher("rclone", "rclone", lambda source, path: _rclone(source, _rclone_remote(target, path)))


def _lftp(target: SshTarget, command: str) -> list[str]:
    connect = f'set sftp:connect-program "ssh -a -x -F {target.config}"; set cmd:fail-exit yes'
    return ["lftp", "--norc", "-c", f"{connect}; open sftp://{target.user}:x@{target.host}; {command}"]


def lftp_get(target: SshTarget) -> Fetcher:
    """Lftp with four connections, from the server."""
    return _fetcher("lftp", "lftp", lambda source, path: _lftp(target, f"pget -n 4 {source} -o {path}"))


def lftp_put(target: SshTarget) -> Fetcher:
    """Lftp, to the server."""
    return _fetcher("lftp", "lftp", lambda source, path: _lftp(target, f"put {source} -o {path}"))

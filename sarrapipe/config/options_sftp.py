"""Options about SFTP servers. Source: R116; sr3-surface.md 4 (sr3 takes the key of an unknown host)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sarrapipe.config.kinds import choice, natural, optional_path
from sarrapipe.config.option import option

__all__ = ["SftpOptions"]

_SFTP: Final = "SFTP"


@dataclass(frozen=True, init=False, repr=False, eq=False)
class SftpOptions:
    """How SFTP servers are spoken to."""

    sftp_driver: str = option(
        choice("auto", "openssh", "paramiko"),
        "auto",
        section=_SFTP,
        help="What carries SFTP: openssh (the ssh program, the fastest), paramiko (in Python), or auto: "
        "openssh where it is installed.",
    )
    sftp_host_keys: str = option(
        choice("strict", "new", "off"),
        "strict",
        sr3="new",
        section=_SFTP,
        help="Which host keys are believed: strict, those in known_hosts; new, also those of hosts that are "
        "not in it, which are noted down; off, any. A key that changed is refused except with off.",
    )
    sftp_known_hosts: str | None = option(
        optional_path,
        None,
        section=_SFTP,
        help="File of known host keys. Default: ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts.",
    )
    sftp_connections: int = option(
        natural,
        4,
        section=_SFTP,
        help="Connections of one instance to one SFTP server, at most. There is more than one only for large "
        "files: two where there are CPUs for them, more where the server is far away.",
    )

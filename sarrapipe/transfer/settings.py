"""Limits and habits of an instance's transfers; imports no library, so that a parent may build them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sarrapipe.clock import Clock

if TYPE_CHECKING:
    # For the type checker alone: these modules import pycurl.
    from sarrapipe.transfer.curlloop import CurlLoop
    from sarrapipe.transfer.pacing import Pacer

__all__ = ["HttpSettings", "SftpSettings", "Surroundings", "TransferSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """How requests are made; the same for all of a flow."""

    connect_timeout_s: float = 15.0
    stall_bytes_s: int = 1000
    """A transfer slower than this for `stall_s` is given up; one paused by the rate limit is not."""
    stall_s: int = 30
    max_redirects: int = 5
    redirect_to_http: bool = True
    """Whether a redirect may lead to clear HTTP; to anything but http and https it never may."""
    tls_verify: bool = True
    ca_file: str | None = None
    """Certificates to trust instead of the system's."""
    proxy: str | None = None
    """URL of a proxy; None is none, whatever the environment says; "environment" is what that says."""
    user_agent: str = "sarrapipe"
    buffer_bytes: int = 524_288
    """Most that is read from a socket at once; docs/explanation/pipeline.md has the measurement."""
    shared_buffer_bytes: int = 65_536
    """The same of large transfers while small ones come: what one call reads is what those wait for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SftpSettings:
    """How SFTP servers are spoken to; the same for all of a flow."""

    driver: str = "auto"
    """`openssh` (its `ssh` carries the protocol), `paramiko`, or `auto`: openssh where it is installed."""
    host_keys: str = "strict"
    """`strict` refuses a host whose key is unknown, `new` notes it down; both refuse one that changed. `off`
    takes any."""
    known_hosts: str | None = None
    """File of known host keys; None is what OpenSSH takes: the user's and the system's."""
    connections: int = 4
    """Connections to one server, at most; how many pay is `sftp.connections_for`."""
    far_s: float = 0.005
    """A round trip from which on a connection is bound by OpenSSH's channel window of 2 MiB, not by its speed
    (400 MB/s, docs/explanation/pipeline.md)."""
    connect_timeout_s: float = 15.0
    stall_bytes_s: int = 1000
    """A connection slower than this for `stall_s`, and without an answer, is given up."""
    stall_s: float = 30.0
    idle_s: float = 60.0
    """How long a connection with nothing under way is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSettings:
    """Limits of one instance's engine, and how its backends behave."""

    streams: int = 16
    """Reads that run at a time (option `streams`)."""
    streams_per_remote: int = 16
    max_inflight_bytes: int = 1 << 30
    """Bytes of all reads taken in, waiting or running (option `maxInflightBytes`); one read always is
    taken."""
    max_waiting: int = 4096
    """Reads taken in and not started yet."""
    gather_s: float = 0.03
    """How long `poll` goes on after the first read ended, while others run. Against 2 ms the batches of
    sixteen instances on two cores are half as large again, for a tenth less CPU time (perf `sarra-small`)."""
    gather_reads: int = 64
    """So many are enough."""
    gather_bytes: int = 1 << 20
    """A larger read that ended is handed over at once: its stream wants the next segment."""
    http: HttpSettings = field(default_factory=HttpSettings)
    sftp: SftpSettings = field(default_factory=SftpSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a backend is made with."""

    loop: CurlLoop
    settings: TransferSettings
    pacer: Pacer | None
    clock: Clock

"""A RabbitMQ node of our own: its files, its environment, its two processes.

The node runs beside any other on the host: own data, cookie, name and port mapper, all under one directory,
and listens on loopback only. Its name server (epmd) is started here, in the foreground of a session of its
own, so that it can be found and ended again; left to itself the node would start one that outlives it.

Users, permissions and exchanges come from a definitions file imported at each start, with hashed passwords:
no `rabbitmqctl`, no password on a command line, no default `guest`.

Sources: RabbitMQ documentation (configuration, definitions, networking); the start scripts of Debian's
rabbitmq-server 3.10 for the environment.
"""

from __future__ import annotations

import glob
import http.client
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sarrapipe.clock import SYSTEM_CLOCK
from sarrapipe.errors import SupervisorError
from sarrapipe.pump.ports import LOOPBACK
from sarrapipe.pump.privatefiles import write_private
from sarrapipe.pump.processes import ServerProcess, is_running, spawn, tail

__all__ = ["NodeSettings", "RabbitNode", "TlsFiles", "find_server"]

_SCRIPT_CANDIDATES: Final = ("/usr/lib/rabbitmq/bin/rabbitmq-server",)
_SCRIPT_GLOB: Final = "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"
_POLL_S: Final = 0.05
_COOKIE_BYTES: Final = 24
_DISK_FREE_LIMIT: Final = "100MB"  # the alarm exists, yet a small test volume does not trip it
_MEMORY_LIMIT: Final = "0.4"  # of the machine's memory: RabbitMQ's own default, written out
_DEFAULT_TICK_MS: Final = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Paths of the certificate authority, the server's certificate and its key, all PEM."""

    authority: str
    certificate: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """What makes one node.

    Attributes:
        directory: Everything the node keeps lives under it.
        name: Node name without host; fixed for the life of the data.
        amqp_port: Listener for AMQP in clear.
        amqps_port: Listener for AMQP over TLS; None for none.
        management_port: Listener of the management HTTP API.
        distribution_port: Listener for Erlang distribution.
        epmd_port: Listener of the node's own port mapper.
        consumer_timeout_s: A consumer that holds a message longer is ended; None for RabbitMQ's 30 minutes.
        tls: Needed with `amqps_port`.
    """

    directory: str
    name: str
    amqp_port: int
    amqps_port: int | None
    management_port: int
    distribution_port: int
    epmd_port: int
    consumer_timeout_s: float | None = None
    tls: TlsFiles | None = None


def find_server() -> str | None:
    """Return the path of RabbitMQ's own start script, or None if it is not installed.

    The wrapper in /usr/sbin changes user and paths, so it will not do.
    """
    for path in (*_SCRIPT_CANDIDATES, *sorted(glob.glob(_SCRIPT_GLOB), reverse=True)):
        if os.access(path, os.X_OK):
            return path
    return None


class RabbitNode:
    """One node: writes its files, starts it, waits until it serves.

    Args:
        settings: What makes the node.
    """

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._home = Path(settings.directory)

    def write_files(self, definitions_json: str) -> None:
        """Write the node's configuration and definitions anew.

        Args:
            definitions_json: Users (hashed passwords), permissions, exchanges, as RabbitMQ imports them.
        """
        for name in ("log", "data"):
            (self._home / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(str(self._home / "definitions.json"), definitions_json)
        write_private(str(self._home / "rabbitmq.conf"), self._configuration())
        write_private(str(self._home / "advanced.config"), self._advanced())
        write_private(str(self._home / "enabled_plugins"), "[rabbitmq_management].\n")
        write_private(str(self._home / "rabbitmq-env.conf"), "")  # empty: the host's own must not be read
        cookie = self._home / ".erlang.cookie"
        if not cookie.exists():
            # Whoever knows it commands the node; what Erlang would make up itself can be guessed.
            write_private(str(cookie), secrets.token_hex(_COOKIE_BYTES))

    def start_epmd(self) -> ServerProcess:
        """Start the node's port mapper; `wait_epmd` tells when it listens.

        Raises:
            SupervisorError: Erlang is not installed.
        """
        program = shutil.which("epmd")
        if program is None:
            raise SupervisorError("epmd is missing: install the package erlang-base")
        argv = [program, "-address", LOOPBACK, "-port", str(self._settings.epmd_port)]
        return spawn(argv, self._environment(), str(self._home / "log" / "epmd.log"))

    def wait_epmd(self, process: ServerProcess) -> None:
        """Wait until the port mapper listens.

        Raises:
            SupervisorError: It ended instead.
        """
        self._wait(lambda: _accepts(self._settings.epmd_port), process, "epmd", 10.0)

    def start(self) -> ServerProcess:
        """Start the node; `wait_ready` tells when it serves.

        Raises:
            SupervisorError: RabbitMQ is not installed.
        """
        script = find_server()
        if script is None:
            raise SupervisorError("RabbitMQ is missing: install the package rabbitmq-server")
        return spawn([script], self._environment(), str(self._home / "log" / "node.out"))

    def wait_ready(self, process: ServerProcess, timeout_s: float) -> None:
        """Wait until AMQP and the management API both answer; the API comes later.

        Args:
            process: What `start` returned.
            timeout_s: Limit.

        Raises:
            SupervisorError: The node ended, with the end of its log; or the time is over.
        """
        ports = [self._settings.amqp_port]
        if self._settings.amqps_port is not None:
            ports.append(self._settings.amqps_port)
        deadline = SYSTEM_CLOCK.monotonic_s() + timeout_s
        for port in ports:
            left_s = deadline - SYSTEM_CLOCK.monotonic_s()
            self._wait(lambda port=port: _accepts(port), process, f"AMQP port {port}", left_s)  # type: ignore[misc]
        left_s = deadline - SYSTEM_CLOCK.monotonic_s()
        self._wait(lambda: _answers(self._settings.management_port), process, "management API", left_s)

    def _wait(self, ready: Callable[[], bool], process: ServerProcess, what: str, timeout_s: float) -> None:
        deadline = SYSTEM_CLOCK.monotonic_s() + timeout_s
        while not ready():
            if not is_running(process):
                raise SupervisorError(
                    f"{what}: the server ended; {process.log} ends with:\n{tail(process.log)}"
                )
            if SYSTEM_CLOCK.monotonic_s() > deadline:
                raise SupervisorError(f"{what}: no answer within {timeout_s:.0f} s; see {process.log}")
            SYSTEM_CLOCK.sleep(_POLL_S)

    def _configuration(self) -> str:
        s = self._settings
        lines = [
            f"listeners.tcp.1 = {LOOPBACK}:{s.amqp_port}",
            f"management.tcp.ip = {LOOPBACK}",
            f"management.tcp.port = {s.management_port}",
            f"load_definitions = {self._home / 'definitions.json'}",
            "loopback_users = none",
            f"disk_free_limit.absolute = {_DISK_FREE_LIMIT}",
            f"vm_memory_high_watermark.relative = {_MEMORY_LIMIT}",
            "log.file.level = info",
            "log.console = false",
        ]
        if s.consumer_timeout_s is not None:
            lines.append(f"consumer_timeout = {int(s.consumer_timeout_s * 1000)}")
        if s.amqps_port is not None:
            assert s.tls is not None, "a TLS listener needs its certificate"
            lines += [
                f"listeners.ssl.1 = {LOOPBACK}:{s.amqps_port}",
                f"ssl_options.cacertfile = {s.tls.authority}",
                f"ssl_options.certfile = {s.tls.certificate}",
                f"ssl_options.keyfile = {s.tls.key}",
                "ssl_options.verify = verify_none",  # clients authenticate by password (R117)
                "ssl_options.fail_if_no_peer_cert = false",
            ]
        return "\n".join(lines) + "\n"

    def _advanced(self) -> str:
        """Return Erlang terms for what rabbitmq.conf cannot say.

        RabbitMQ looks for overdue consumers once a tick, by default a minute; a shorter `consumer_timeout`
        needs a shorter tick to be kept.
        """
        timeout_s = self._settings.consumer_timeout_s
        tick_ms = (
            _DEFAULT_TICK_MS if timeout_s is None else min(_DEFAULT_TICK_MS, max(500, int(timeout_s * 500)))
        )
        return f"[{{rabbit, [{{channel_tick_interval, {tick_ms}}}]}}].\n"

    def _environment(self) -> Mapping[str, str]:
        s, home = self._settings, self._home
        on_loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(home),  # holds the cookie
            "LANG": "C.UTF-8",
            "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the node instead of waiting for it
            "RABBITMQ_NODENAME": f"{s.name}@localhost",
            "RABBITMQ_CONF_ENV_FILE": str(home / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_PID_FILE": str(home / "node.pid"),
            "RABBITMQ_DIST_PORT": str(s.distribution_port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_EPMD_PORT": str(s.epmd_port),
            # The node briefly starts a second Erlang to see that epmd runs: that one listens too.
            "ERL_AFLAGS": on_loopback,
            "ERL_CRASH_DUMP_BYTES": "0",  # a crash dump would hold messages and credentials
        }


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1.0):
            return True
    except OSError:
        return False


def _answers(port: int) -> bool:
    """Whether an HTTP server answers at all; asking without credentials needs none here."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2.0)
    try:
        connection.request("GET", "/api/overview")
        return connection.getresponse().status == http.client.UNAUTHORIZED
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()

"""The private pump: a broker and a data server of our own on loopback, started and ended as one.

    pump = LocalPump("/srv/pump")
    info = pump.up()
    ...                       # post to info.url("tsource"), put files in info.document_root
    pump.down()

Under its directory: `pump.json` (ports, users, processes), `config/` (credentials.conf with mode 600,
admin.conf), `data/` (the document root), `broker/`, `web/`, `tls/`. Nothing needs a service manager or a
particular user. `up` may be called at any time, also after any of the processes was killed: it starts what is
missing and leaves alone what runs. A second pump in another directory does not disturb it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from sarrapipe.clock import SYSTEM_CLOCK
from sarrapipe.errors import SupervisorError
from sarrapipe.pump import rabbitnode, webserver
from sarrapipe.pump.accounts import Account, check_names, definitions
from sarrapipe.pump.certificates import ensure_certificates
from sarrapipe.pump.ports import PortReservation, is_free
from sarrapipe.pump.privatefiles import write_private
from sarrapipe.pump.processes import ServerProcess, is_running, kill_all, marked, session_members, stop
from sarrapipe.pump.pumpinfo import (
    NOTHING_RUNS,
    PumpInfo,
    PumpOptions,
    PumpStatus,
    add_roles,
    asked_roles,
    first_roles,
    refuse_changes,
)
from sarrapipe.pump.pumpstate import PumpState, admin_conf, credentials_conf, read_if_there, read_passwords
from sarrapipe.pump.rabbitnode import NodeSettings, RabbitNode, TlsFiles
from sarrapipe.pump.webserver import WebServer, WebSettings

__all__ = ["LocalPump", "PumpInfo", "PumpOptions", "PumpStatus", "missing_packages"]

_BOOT_TIMEOUT_S: Final = 120.0  # 5-8 s on two idle cores; a loaded machine takes many times that
_STOP_GRACE_S: Final = 15.0  # RabbitMQ's management agent alone holds a graceful stop up for 5 s
_TEARDOWN_S: Final = 3.0
_WEB_WORKERS: Final = 2  # sendfile from one worker fills a loopback stream; two keep many clients apart
_PASSWORD_BYTES: Final = 18
_SERVERS: Final = ("epmd", "rabbitmq", "nginx")

Progress = Callable[[str], None]
"""Takes one line about what is waited for."""


def missing_packages() -> tuple[str, ...]:
    """Return the Debian packages a private pump needs and this host lacks."""
    missing = []
    if rabbitnode.find_server() is None:
        missing.append("rabbitmq-server")
    if webserver.find_server() is None:
        missing.append("nginx-light")
    return tuple(missing)


class LocalPump:
    """One private pump in one directory.

    Args:
        directory: Made if missing. Its path may hold no blanks or quotes.
        progress: Told what is waited for, one line each.
    """

    def __init__(self, directory: str, progress: Progress | None = None) -> None:
        self._home = Path(os.path.abspath(directory))
        self._progress = progress or _silent

    @property
    def directory(self) -> str:
        """Where the pump lives, as an absolute path."""
        return str(self._home)

    def up(self, options: PumpOptions | None = None) -> PumpInfo:
        """Start what does not run, wait until it serves, and tell how to reach it.

        Args:
            options: Settings for a new pump, or changes to one that is down.

        Raises:
            SupervisorError: A server is missing, does not start, runs with other settings than asked for, or
                a recorded port is taken by a stranger.
            UsageError: A user name is malformed.
        """
        options = options or PumpOptions()
        lacking = missing_packages()
        if lacking:
            raise SupervisorError(f"missing servers: apt-get install {' '.join(lacking)}")
        webserver.check_path(str(self._home))
        with _storage_errors():
            self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _storage_errors(), self._locked():
            state = PumpState.load(self._state_path)
            if state is not None and self._status(state).exit_code != NOTHING_RUNS:
                refuse_changes(state, options)
                if self._status(state).exit_code == 0:
                    return self._info(state, self._known_accounts(state))
            former = [] if state is None else list(state.ports.values())
            reservation = PortReservation()
            try:
                state = self._renewed(state, options, reservation)
            finally:
                reservation.release()
            accounts = self._write_config(state, former)
            state.save(self._state_path)
            state = self._start_web(state)
            self._start_broker(state, accounts)
            return self._info(state, accounts)

    def down(self, *, graceful: bool = True) -> None:
        """End all that runs; the data stay. Nothing running is no error.

        Args:
            graceful: Let the broker close its files (about 6 s); False kills it, which loses nothing that was
                confirmed and makes the next start slower.
        """
        if not self._home.is_dir():
            return
        with _storage_errors(), self._locked():
            state = PumpState.load(self._state_path)
            if state is None:
                return
            for name, grace_s in (("nginx", 2.0), ("rabbitmq", _STOP_GRACE_S), ("epmd", 0.0)):
                if name in state.processes:
                    self._progress(f"stopping {name}")
                    stop(state.processes[name], grace_s if graceful else 0.0)
                    state = state.with_process(name, None)
                    state.save(self._state_path)
            kill_all(lambda: marked(self._broker_logs))

    def status(self) -> PumpStatus:
        """Return what runs, without touching anything."""
        state = PumpState.load(self._state_path)
        if state is None:
            return PumpStatus(exists=False, running=dict.fromkeys(_SERVERS))
        return self._status(state)

    def info(self) -> PumpInfo:
        """Return how to reach the pump, running or not.

        Raises:
            SupervisorError: There is no pump in the directory.
        """
        state = PumpState.load(self._state_path)
        if state is None:
            raise SupervisorError(
                f"no pump in {self._home}: make one with 'sarrapipe pump up --dir {self._home}'"
            )
        return self._info(state, self._known_accounts(state))

    @property
    def _state_path(self) -> str:
        return str(self._home / "pump.json")

    @property
    def _broker_logs(self) -> str:
        return str(self._home / "broker" / "log")

    @property
    def _credentials_path(self) -> str:
        return str(self._home / "config" / "credentials.conf")

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        """Let one `up` or `down` at a time work on this directory."""
        with open(self._home / "pump.lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _status(self, state: PumpState) -> PumpStatus:
        running = {name: state.processes.get(name) for name in _SERVERS}
        return PumpStatus(
            exists=True,
            running={name: p.pid if p is not None and is_running(p) else None for name, p in running.items()},
        )

    def _renewed(
        self, state: PumpState | None, options: PumpOptions, reservation: PortReservation
    ) -> PumpState:
        """Return the state to start with: what stands still cleared away, what is asked for added."""
        if state is None:
            state = PumpState(node=f"pump-{secrets.token_hex(4)}", ports={}, roles=first_roles(options))
        state = self._clear_remains(state)
        roles = add_roles(state.roles, asked_roles(options))
        check_names(list(roles))
        wanted = ["amqp", "management", "distribution", "epmd", "http"]
        if options.tls or "amqps" in state.ports:
            wanted.append("amqps")
        known = {**state.ports, **dict(options.ports)}
        ports = {name: known[name] if name in known else reservation.take() for name in wanted}
        self._check_ports(state, {name: port for name, port in ports.items() if name in known})
        timeout_s = (
            options.consumer_timeout_s if options.consumer_timeout_s is not None else state.consumer_timeout_s
        )
        return replace(state, ports=ports, roles=roles, consumer_timeout_s=timeout_s)

    def _clear_remains(self, state: PumpState) -> PumpState:
        """End what is left of servers whose first process was killed, and forget dead ones."""
        for name, process in state.processes.items():
            if is_running(process):
                continue
            if session_members(process):
                self._progress(f"{name} was killed: ending what it left running")
            stop(process, 0.0)
            state = state.with_process(name, None)
        if "epmd" not in state.processes:
            # A node whose port mapper was killed starts another after a minute, outside our session.
            kill_all(lambda: marked(self._broker_logs, "epmd"))
        if "rabbitmq" not in state.processes:
            kill_all(lambda: [pid for pid in marked(self._broker_logs) if pid != _pid(state, "epmd")])
        return state

    def _check_ports(self, state: PumpState, ports: Mapping[str, int]) -> None:
        owner = {
            "amqp": "rabbitmq",
            "amqps": "rabbitmq",
            "management": "rabbitmq",
            "distribution": "rabbitmq",
        }
        owner |= {"epmd": "epmd", "http": "nginx"}
        for name, port in ports.items():
            if owner[name] not in state.processes and not self._comes_free(port):
                raise SupervisorError(
                    f"{name} port {port} is in use by another program: end it, or choose with --port {name}=N"
                )

    def _comes_free(self, port: int) -> bool:
        """Whether a port is free, or becomes so while the kernel tears down a server that was just killed."""
        deadline = SYSTEM_CLOCK.monotonic_s() + _TEARDOWN_S
        while not is_free(port):
            if SYSTEM_CLOCK.monotonic_s() > deadline:
                return False
            SYSTEM_CLOCK.sleep(0.05)
        return True

    def _known_accounts(self, state: PumpState) -> list[Account]:
        """Return the accounts with the passwords that credentials.conf has.

        Raises:
            SupervisorError: It lacks one.
        """
        known = read_passwords(read_if_there(self._credentials_path), list(state.ports.values()))
        for name in state.roles:
            if name not in known:
                raise SupervisorError(
                    f"{self._credentials_path} has no password for {name}: 'pump down' and 'pump up' make one"
                )
        return [Account(name=name, role=role, password=known[name]) for name, role in state.roles.items()]

    def _write_config(self, state: PumpState, former: Sequence[int]) -> list[Account]:
        """Write credentials.conf and admin.conf; return the accounts, old passwords kept and new ones made.

        Args:
            state: What the pump will be.
            former: Its ports until now.
        """
        for name in ("config", "broker", "web", "data"):
            # The data are served to every user of the host; the rest is the administrator's.
            (self._home / name).mkdir(exist_ok=True, mode=0o755 if name == "data" else 0o700)
        old = read_if_there(self._credentials_path)
        known = read_passwords(old, [*former, *state.ports.values()])
        accounts = [
            Account(name=name, role=role, password=known.get(name) or secrets.token_urlsafe(_PASSWORD_BYTES))
            for name, role in state.roles.items()
        ]
        write_private(self._credentials_path, credentials_conf(accounts, state.ports, old, former))
        path = str(self._home / "config" / "admin.conf")
        write_private(path, admin_conf(state.roles, state.ports, read_if_there(path)))
        return accounts

    def _start_web(self, state: PumpState) -> PumpState:
        server = WebServer(
            WebSettings(
                directory=str(self._home / "web"),
                port=state.ports["http"],
                document_root=str(self._home / "data"),
                workers=_WEB_WORKERS,
            )
        )
        if "nginx" not in state.processes:
            self._progress(f"starting nginx on port {state.ports['http']}")
            state = self._recorded(state, "nginx", server.start())
        server.wait_ready(state.processes["nginx"])
        return state

    def _recorded(self, state: PumpState, name: str, process: ServerProcess) -> PumpState:
        """Record a process before anything is waited for, so that an interrupted `up` loses none."""
        state = state.with_process(name, process)
        state.save(self._state_path)
        return state

    def _start_broker(self, state: PumpState, accounts: Sequence[Account]) -> None:
        node = RabbitNode(self._node_settings(state))
        began_s = SYSTEM_CLOCK.monotonic_s()
        if "rabbitmq" not in state.processes:
            salts = [secrets.token_bytes(4) for _ in accounts]
            node.write_files(json.dumps(definitions(accounts, "/", salts)))
        if "epmd" not in state.processes:
            # A running node notices within a minute and registers again; AMQP does not depend on it.
            state = self._recorded(state, "epmd", node.start_epmd())
            node.wait_epmd(state.processes["epmd"])
        if "rabbitmq" not in state.processes:
            state = self._recorded(state, "rabbitmq", node.start())
        self._progress(f"waiting for RabbitMQ on port {state.ports['amqp']}")
        node.wait_ready(state.processes["rabbitmq"], _BOOT_TIMEOUT_S)
        self._progress(f"ready after {SYSTEM_CLOCK.monotonic_s() - began_s:.1f} s")

    def _node_settings(self, state: PumpState) -> NodeSettings:
        return NodeSettings(
            directory=str(self._home / "broker"),
            name=state.node,
            amqp_port=state.ports["amqp"],
            amqps_port=state.ports.get("amqps"),
            management_port=state.ports["management"],
            distribution_port=state.ports["distribution"],
            epmd_port=state.ports["epmd"],
            consumer_timeout_s=state.consumer_timeout_s,
            tls=self._tls() if "amqps" in state.ports else None,
        )

    def _tls(self) -> TlsFiles:
        return ensure_certificates(str(self._home / "tls"))

    def _info(self, state: PumpState, accounts: Sequence[Account]) -> PumpInfo:
        return PumpInfo(
            directory=str(self._home),
            amqp_port=state.ports["amqp"],
            amqps_port=state.ports.get("amqps"),
            management_port=state.ports["management"],
            http_port=state.ports["http"],
            document_root=str(self._home / "data"),
            config_home=str(self._home / "config"),
            authority=self._tls().authority if "amqps" in state.ports else None,
            users={account.name: account for account in accounts},
        )


@contextlib.contextmanager
def _storage_errors() -> Generator[None]:
    """Translate what the file system refuses.

    Raises:
        SupervisorError: Names the file.
    """
    try:
        yield
    except OSError as error:
        raise SupervisorError(f"{error.filename}: {error.strerror}") from error


def _pid(state: PumpState, name: str) -> int | None:
    process = state.processes.get(name)
    return None if process is None else process.pid


def _silent(_line: str) -> None:
    """Say nothing."""

"""What a private pump may be told, and what it tells of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sarrapipe.errors import SupervisorError, UsageError
from sarrapipe.pump.accounts import Account, Role
from sarrapipe.pump.managementapi import ManagementApi
from sarrapipe.pump.ports import LOOPBACK
from sarrapipe.pump.pumpstate import PumpState, amqp_url

__all__ = [
    "NOTHING_RUNS",
    "PumpInfo",
    "PumpOptions",
    "PumpStatus",
    "add_roles",
    "asked_roles",
    "first_roles",
    "refuse_changes",
]

NOTHING_RUNS: Final = 3
"""Exit status of `status` when nothing runs (the Linux Standard Base's code for a stopped service)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PumpOptions:
    """What `up` may be told. What is left at its default stays as it is on a pump that exists already.

    Attributes:
        sources: Names of accounts that may post; `tsource` on a new pump if none is given.
        subscribers: Names of accounts that may read and report; `tsub` on a new pump if none is given.
            `anonymous` is always there too (R128).
        ports: Fixed ports by name (`amqp`, `management`, `http`, ...); the others are chosen.
        tls: Open an amqps listener too.
        consumer_timeout_s: A consumer that holds a message longer is ended by the broker.
    """

    sources: tuple[str, ...] = ()
    subscribers: tuple[str, ...] = ()
    ports: tuple[tuple[str, int], ...] = ()
    tls: bool = False
    consumer_timeout_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PumpInfo:
    """How to reach a running pump.

    Attributes:
        directory: Where it lives.
        amqp_port: AMQP in clear.
        amqps_port: AMQP over TLS; None without.
        management_port: RabbitMQ's management HTTP API.
        http_port: The data server.
        document_root: What the data server serves.
        config_home: Holds credentials.conf and admin.conf; use it as SARRA_CONFIG_HOME.
        authority: Certificate of the TLS listener's authority; None without.
        users: Accounts by name.
    """

    directory: str
    amqp_port: int
    amqps_port: int | None
    management_port: int
    http_port: int
    document_root: str
    config_home: str
    authority: str | None
    users: Mapping[str, Account]

    def url(self, user: str, *, vhost: str = "/", password: bool = True, tls: bool = False) -> str:
        """Return the broker's URL for one user, with the password unless told otherwise."""
        port = self.amqps_port if tls else self.amqp_port
        assert port is not None, "this pump has no TLS listener"
        return amqp_url(port, user, self.users[user].password if password else None, tls=tls, vhost=vhost)

    @property
    def http_url(self) -> str:
        """The data server's base URL, with its trailing slash."""
        return f"http://{LOOPBACK}:{self.http_port}/"

    def api(self) -> ManagementApi:
        """Return the management API under the administrator's account."""
        admin = next(account for account in self.users.values() if account.role is Role.ADMIN)
        return ManagementApi(LOOPBACK, self.management_port, admin.name, admin.password)

    def to_json(self) -> dict[str, object]:
        """Return everything but the passwords."""
        return {
            "directory": self.directory,
            "amqp_port": self.amqp_port,
            "amqps_port": self.amqps_port,
            "management_port": self.management_port,
            "http_port": self.http_port,
            "http_url": self.http_url,
            "document_root": self.document_root,
            "config_home": self.config_home,
            "authority": self.authority,
            "users": {name: account.role.value for name, account in self.users.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PumpStatus:
    """What runs of a pump.

    Attributes:
        exists: Whether there is a pump in the directory.
        running: Server name to process number; None where it does not run.
    """

    exists: bool
    running: Mapping[str, int | None]

    @property
    def exit_code(self) -> int:
        """0 all runs, 1 a part of it, 3 nothing."""
        up = sum(pid is not None for pid in self.running.values())
        if up == len(self.running):
            return 0
        return 1 if up else NOTHING_RUNS


def asked_roles(options: PumpOptions) -> dict[str, Role]:
    """Return the accounts the options name."""
    return dict.fromkeys(options.sources, Role.SOURCE) | dict.fromkeys(options.subscribers, Role.SUBSCRIBER)


def first_roles(options: PumpOptions) -> dict[str, Role]:
    """Return the accounts of a new pump: the seeds' (R127, R128), and one of each kind unless named."""
    roles: dict[str, Role] = {"admin": Role.ADMIN, "feeder": Role.FEEDER, "anonymous": Role.SUBSCRIBER}
    roles = add_roles(roles, dict.fromkeys(options.sources or ("tsource",), Role.SOURCE))
    return add_roles(roles, dict.fromkeys(options.subscribers or ("tsub",), Role.SUBSCRIBER))


def add_roles(known: Mapping[str, Role], asked: Mapping[str, Role]) -> dict[str, Role]:
    """Return both together.

    Raises:
        UsageError: A name is asked for in another role than it has.
    """
    for name, role in asked.items():
        if known.get(name, role) is not role:
            raise UsageError(f"user {name!r} is {known[name].value} on this pump: choose another name")
    return {**known, **asked}


def refuse_changes(state: PumpState, options: PumpOptions) -> None:
    """Refuse settings that a running pump does not have; they are read when its servers start.

    Raises:
        SupervisorError: Names what differs.
    """
    differing = [
        f"user {name}" for name, role in asked_roles(options).items() if state.roles.get(name) is not role
    ]
    differing += [f"{name} port {port}" for name, port in options.ports if state.ports.get(name) != port]
    if options.tls and "amqps" not in state.ports:
        differing.append("TLS")
    if options.consumer_timeout_s not in (None, state.consumer_timeout_s):
        differing.append("consumer timeout")
    if differing:
        raise SupervisorError(f"runs without {', '.join(differing)}: 'sarrapipe pump down' first")

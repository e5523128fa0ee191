"""What a private pump remembers of itself: `pump.json` (no secrets), `credentials.conf`, `admin.conf`."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sarrapipe.config.urls import UrlParts, split_url
from sarrapipe.errors import SupervisorError
from sarrapipe.pump.accounts import Account, Role
from sarrapipe.pump.ports import LOOPBACK
from sarrapipe.pump.privatefiles import write_private
from sarrapipe.pump.processes import ServerProcess

__all__ = ["PumpState", "admin_conf", "amqp_url", "credentials_conf", "read_if_there", "read_passwords"]

_VERSION: Final = 1
_URL_ROLES: Final = (Role.ADMIN, Role.FEEDER)
_LOCAL_HOSTS: Final = (LOOPBACK, "localhost")


@dataclass(frozen=True, slots=True, kw_only=True)
class PumpState:
    """One private pump, as recorded in `pump.json`.

    Attributes:
        node: RabbitMQ node name; fixed, since the data are stored under it.
        ports: `amqp`, `management`, `distribution`, `epmd`, `http`, and `amqps` where asked for.
        roles: User name to role.
        consumer_timeout_s: What the node was started with; None for RabbitMQ's default.
        processes: `epmd`, `rabbitmq` and `nginx`, as far as they were started and not stopped.
    """

    node: str
    ports: Mapping[str, int]
    roles: Mapping[str, Role]
    consumer_timeout_s: float | None = None
    processes: Mapping[str, ServerProcess] = field(default_factory=dict)

    def with_process(self, name: str, process: ServerProcess | None) -> PumpState:
        """Return the state with one process recorded, or forgotten."""
        processes = {key: value for key, value in self.processes.items() if key != name}
        if process is not None:
            processes[name] = process
        return replace(self, processes=processes)

    def save(self, path: str) -> None:
        """Write the state; whoever reads it sees the old one or the new one."""
        tree = {
            "version": _VERSION,
            "node": self.node,
            "ports": dict(self.ports),
            "users": {name: role.value for name, role in self.roles.items()},
            "consumer_timeout_s": self.consumer_timeout_s,
            "processes": {name: process.to_json() for name, process in self.processes.items()},
        }
        write_private(path, json.dumps(tree, indent=2) + "\n")

    @classmethod
    def load(cls, path: str) -> PumpState | None:
        """Return the recorded state; None if there is none.

        Raises:
            SupervisorError: The file is not what `save` writes.
        """
        try:
            tree = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise SupervisorError(f"{path}: {error}") from error
        try:
            if tree["version"] != _VERSION:
                raise SupervisorError(f"{path}: version {tree['version']}, this program knows {_VERSION}")
            return cls(
                node=str(tree["node"]),
                ports={str(name): int(port) for name, port in tree["ports"].items()},
                roles={str(name): Role(role) for name, role in tree["users"].items()},
                consumer_timeout_s=tree["consumer_timeout_s"],
                processes={name: ServerProcess.from_json(entry) for name, entry in tree["processes"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SupervisorError(f"{path}: not written by this program: {error!r}") from error


def amqp_url(
    port: int, user: str, password: str | None = None, *, tls: bool = False, vhost: str = "/"
) -> str:
    """Return the URL of a loopback broker as configuration files write it.

    Args:
        port: Listener.
        user: User name.
        password: In clear; None leaves it out.
        tls: amqps; the host is then `localhost`, the name in the certificate.
        vhost: Virtual host; `/` is written as a trailing slash, others after it.
    """
    who = quote(user, safe="") if password is None else f"{quote(user, safe='')}:{quote(password, safe='')}"
    host = "localhost" if tls else LOOPBACK
    path = "" if vhost == "/" else quote(vhost, safe="")
    return f"{'amqps' if tls else 'amqp'}://{who}@{host}:{port}/{path}"


def credentials_conf(
    accounts: Sequence[Account], ports: Mapping[str, int], old: str = "", former: Collection[int] = ()
) -> str:
    """Return the text of credentials.conf: one URL with password a line (R133).

    Args:
        accounts: The pump's users.
        ports: Of its listeners.
        old: What the file says now; lines that are not about the pump's users at its ports stay.
        former: Ports it had before.
    """
    lines = [amqp_url(ports["amqp"], account.name, account.password) for account in accounts]
    if "amqps" in ports:
        lines += [amqp_url(ports["amqps"], account.name, account.password, tls=True) for account in accounts]
    users = {account.name for account in accounts}
    own = {*ports.values(), *former}
    kept = []
    for line in old.splitlines():
        url = _local_url(line, 0)
        if url is None or url.port not in own or url.user not in users:
            kept.append(line)
    return "\n".join([*lines, *kept]) + "\n"


def admin_conf(roles: Mapping[str, Role], ports: Mapping[str, int], old: str = "") -> str:
    """Return the text of admin.conf: cluster, administrator, feeder, declared users (R132).

    Args:
        roles: The pump's users.
        ports: Of its listeners.
        old: What the file says now; lines that are not about this pump stay.
    """
    lines = [
        f"{role.value} {amqp_url(ports['amqp'], name)}" for name, role in roles.items() if role in _URL_ROLES
    ]
    lines += [f"declare {role.value} {name}" for name, role in roles.items() if role not in _URL_ROLES]
    kept = [line for line in old.splitlines() if line not in lines and not _is_own_role(line, roles)]
    if not any(line.split()[:1] == ["cluster"] for line in kept):
        lines.insert(0, "cluster localhost")
    return "\n".join([*lines, *kept]) + "\n"


def read_passwords(text: str, ports: Collection[int]) -> dict[str, str]:
    """Return user to password of a credentials.conf, as far as it is about these ports of loopback."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        url = _local_url(line, 0)
        if url is not None and url.port in ports and url.user and url.password:
            found[url.user] = url.password
    return found


def read_if_there(path: str) -> str:
    """Return the text of a file; "" if there is none. A file of secrets is forced to mode 600 (R115)."""
    try:
        if os.stat(path).st_mode & 0o077:
            os.chmod(path, 0o600)
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _local_url(line: str, position: int) -> UrlParts | None:
    """Return the AMQP URL that a line has as its word at `position`, if it is one of a broker on loopback."""
    words = line.split()
    if len(words) <= position:
        return None
    try:
        url = split_url(words[position])
    except ValueError:
        return None  # a comment, or a line that the reader of the configuration complains of
    return url if url.scheme in ("amqp", "amqps") and url.host in _LOCAL_HOSTS else None


def _is_own_role(line: str, roles: Mapping[str, Role]) -> bool:
    """Whether a line of admin.conf names this pump's administrator or feeder, perhaps at an older port."""
    url = _local_url(line, 1)
    return (
        url is not None
        and roles.get(url.user) in _URL_ROLES
        and line.split(maxsplit=1)[0] == roles[url.user].value
    )

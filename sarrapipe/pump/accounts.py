"""Who may do what on a pump's broker: roles, permissions, exchanges, passwords. Pure; no I/O.

A pump has an administrator, a feeder (the pump's own processes), sources, which may post, and subscribers,
which may only read and report (R127-R131). Each permission is one regular expression for each of the broker's
three verbs, which match the *whole* name of an exchange or queue, and hold the user's name escaped: `al` owns
nothing of `alice`'s, and the dot in `al.ice` stands for a dot (R109, R110).

>>> permissions(Role.SUBSCRIBER, "bob").configure
'^q[cs]?_bob([._].*)?$'

Sources: requirements.md 1.6 (R109-R113), 1.7 (R126-R133) and section 0 for the names; wire.md 5 for what sr3
grants, of which this is a subset for sources and subscribers. RabbitMQ documentation: access control, topic
authorisation, password hashing.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from sarrapipe.errors import UsageError

__all__ = [
    "PUMP_EXCHANGES",
    "Account",
    "Permissions",
    "Role",
    "TopicPermission",
    "check_names",
    "definitions",
    "exchange_links",
    "exchanges",
    "password_hash",
    "permissions",
    "topic_permissions",
]

PUMP_EXCHANGES: Final = ("xpublic", "xprivate", "xinput", "xreport")
"""Exchanges every pump has, whoever its users are (requirements.md section 0)."""

_NAME_RE: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_REPORT_TOPIC_RE: Final = r"^v0[23]\.(report|log)(\..*)?$"
_HASH_ALGORITHM: Final = "rabbit_password_hashing_sha256"
_SALT_BYTES: Final = 4  # fixed by RabbitMQ's hashing scheme


class Role(enum.Enum):
    """What an account is for (R127)."""

    ADMIN = "admin"
    """Manages users and exchanges; the broker's own administrator (R131)."""
    FEEDER = "feeder"
    """The pump itself: runs sarra and the report shovels (R130)."""
    SOURCE = "source"
    """Posts to `xs_<user>` and `xs_<user>_*`, reads its reports (R129)."""
    SUBSCRIBER = "subscriber"
    """Reads what is public; may publish nothing but reports to `xs_<user>` (R128)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One user of a pump.

    Attributes:
        name: The user's name on broker and data servers.
        role: What the account is for.
        password: In clear; never shown by `repr`.
    """

    name: str
    role: Role
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """The three expressions RabbitMQ matches names of exchanges and queues against.

    Attributes:
        configure: Names the user may declare and delete.
        write: Names the user may publish to, or bind (as destination).
        read: Names the user may consume from, or bind to (as source).
    """

    configure: str
    write: str
    read: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicPermission:
    """What routing keys a user may write to and read from one exchange.

    Attributes:
        exchange: Name of a topic exchange.
        write: Expression for keys to publish with.
        read: Expression for keys to bind with.
    """

    exchange: str
    write: str
    read: str


def permissions(role: Role, user: str) -> Permissions:
    """Return what `user` may do, as `role`, in a virtual host.

    Queues are `q_<user>` and what follows after `.` or `_`; `qs_<user>` and `qc_<user>` are the other
    spellings of the seeds. Exchanges are `xs_<user>` with an optional `_suffix`; reports are read from
    `xr_<user>` and `xl_<user>`. Everybody may read every exchange whose name ends in `public` (R113).

    Args:
        role: What the account is for.
        user: Its name; any text, escaped here.
    """
    if role in (Role.ADMIN, Role.FEEDER):
        return Permissions(configure=".*", write=".*", read=".*")
    name = re.escape(user)
    queues = f"q[cs]?_{name}([._].*)?"
    read = f"^({queues}|x[lrs]_{name}(_.*)?|x.*public)$"
    if role is Role.SOURCE:
        own = f"^({queues}|xs_{name}(_.*)?)$"
        return Permissions(configure=own, write=own, read=read)
    return Permissions(configure=f"^{queues}$", write=f"^({queues}|xs_{name})$", read=read)


def topic_permissions(role: Role, user: str) -> tuple[TopicPermission, ...]:
    """Return the routing keys `user` may use where not all are allowed.

    A subscriber may publish to `xs_<user>`, but only reports: he may not inject data (R128).
    """
    if role is not Role.SUBSCRIBER:
        return ()
    return (TopicPermission(exchange=f"xs_{user}", write=_REPORT_TOPIC_RE, read=".*"),)


def exchanges(accounts: Iterable[Account]) -> tuple[str, ...]:
    """Return the names of the topic exchanges a pump with these accounts has.

    Sources and subscribers each have `xs_` (written by them), `xr_` (their reports, written by the pump) and
    `xl_` (the same, under the older name).
    """
    users = [account.name for account in accounts if account.role in (Role.SOURCE, Role.SUBSCRIBER)]
    own = [f"{prefix}_{user}" for user in users for prefix in ("xs", "xr", "xl")]
    return (*PUMP_EXCHANGES, *own)


def exchange_links(accounts: Iterable[Account]) -> tuple[tuple[str, str], ...]:
    """Return (source, destination) pairs of exchanges bound with `#`: `xl_<user>` is fed from `xr_<user>`."""
    users = [account.name for account in accounts if account.role in (Role.SOURCE, Role.SUBSCRIBER)]
    return tuple((f"xr_{user}", f"xl_{user}") for user in users)


def check_names(names: Sequence[str]) -> None:
    """Refuse names that are malformed, used twice, or that would share names of broker objects.

    `a` and `a_b` cannot both be users: `xs_a_b` would belong to both of them.

    Raises:
        UsageError: Names the user at fault.
    """
    for name in names:
        if not _NAME_RE.fullmatch(name):
            raise UsageError(f"user name {name!r}: use letters, digits, '-' and '_' (R126)")
        if names.count(name) > 1:
            raise UsageError(f"user name {name!r} is used twice")
        for other in names:
            if other.startswith(f"{name}_"):
                raise UsageError(f"users {name!r} and {other!r}: xs_{other} would belong to both; rename one")


def password_hash(password: str, salt: bytes) -> str:
    """Return what RabbitMQ keeps of a password: base64 of the salt and sha256(salt + password).

    Args:
        password: In clear.
        salt: Four random bytes.
    """
    assert len(salt) == _SALT_BYTES, "RabbitMQ takes the first four bytes for the salt"
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode("ascii")


def definitions(accounts: Sequence[Account], vhost: str, salts: Sequence[bytes] | None) -> dict[str, object]:
    """Return one virtual host with its users' permissions and exchanges, as RabbitMQ imports definitions.

    Args:
        accounts: Every user of the pump.
        vhost: The virtual host to describe.
        salts: One salt an account, to define the users as well; None if the broker knows them already.
    """
    tree: dict[str, object] = {
        "vhosts": [{"name": vhost}],
        "permissions": [_permission_entry(account, vhost) for account in accounts],
        "topic_permissions": [
            {"user": account.name, "vhost": vhost, "exchange": t.exchange, "write": t.write, "read": t.read}
            for account in accounts
            for t in topic_permissions(account.role, account.name)
        ],
        "exchanges": [_exchange_entry(name, vhost) for name in exchanges(accounts)],
        "bindings": [_link_entry(source, to, vhost) for source, to in exchange_links(accounts)],
    }
    if salts is not None:
        tree["users"] = [_user_entry(*pair) for pair in zip(accounts, salts, strict=True)]
    return tree


def _permission_entry(account: Account, vhost: str) -> dict[str, str]:
    granted = permissions(account.role, account.name)
    return {
        "user": account.name,
        "vhost": vhost,
        "configure": granted.configure,
        "write": granted.write,
        "read": granted.read,
    }


def _exchange_entry(name: str, vhost: str) -> dict[str, object]:
    return {
        "name": name,
        "vhost": vhost,
        "type": "topic",
        "durable": True,
        "auto_delete": False,
        "internal": False,
        "arguments": {},
    }


def _link_entry(source: str, destination: str, vhost: str) -> dict[str, object]:
    return {
        "source": source,
        "vhost": vhost,
        "destination": destination,
        "destination_type": "exchange",
        "routing_key": "#",
        "arguments": {},
    }


def _user_entry(account: Account, salt: bytes) -> dict[str, str]:
    return {
        "name": account.name,
        "password_hash": password_hash(account.password, salt),
        "hashing_algorithm": _HASH_ALGORITHM,
        "tags": "administrator" if account.role is Role.ADMIN else "",
    }

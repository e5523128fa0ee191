"""Roles, permissions and definitions; the broker's view of the same is in integration/test_localpump.py."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe.errors import UsageError
from sarrapipe.pump.accounts import (
    Account,
    Role,
    check_names,
    definitions,
    exchanges,
    password_hash,
    permissions,
    topic_permissions,
)

PREFIX_USERS = ["al", "alice", "al.ice", "al-ice", "alXice"]
OWN = {
    "configure": ["q_{}", "q_{}.sarra.x", "q_{}_sarra_x", "qs_{}.x", "qc_{}.1234", "xs_{}", "xs_{}_public"],
    "read": ["q_{}.sarra.x", "xs_{}", "xr_{}", "xl_{}", "xs_{}_more"],
}


def allowed(expression: str, name: str) -> bool:
    """What RabbitMQ does with an expression: it searches, so that anchors count."""
    return re.search(expression, name) is not None


@pytest.mark.parametrize(
    ("user", "other"), [p for p in itertools.product(PREFIX_USERS, repeat=2) if p != ("al", "al.ice")]
)
@pytest.mark.parametrize("verb", ["configure", "read"])
def test_no_user_owns_what_is_anothers(user: str, other: str, verb: str) -> None:
    """R109, R110: prefix of a name, dot as a wildcard.

    `q_al.ice` is a queue of `al`'s, which is why names with dots are refused (`test_names_that_cannot_be`).
    """
    expression = getattr(permissions(Role.SOURCE, user), verb)
    for pattern in OWN[verb]:
        assert allowed(expression, pattern.format(other)) == (user == other), (pattern, user, other)


def test_a_source_may_not_write_its_reports() -> None:
    """R109: reports come from the pump."""
    granted = permissions(Role.SOURCE, "alice")
    assert granted.write == granted.configure
    for name in ("xr_alice", "xl_alice", "xpublic", "xreport", "xq_alice", "amq.default", "amq.gen-x"):
        assert not allowed(granted.write, name)


def test_only_the_pump_itself_may_let_messages_wait_at_the_broker() -> None:
    """`retry_driver broker` publishes to the default exchange, whose deliveries are believed (deadletter)."""
    feeder = permissions(Role.FEEDER, "feeder")
    assert allowed(feeder.configure, "q_feeder.sarra.movers.retry.10s")
    assert allowed(feeder.write, "amq.default")
    assert allowed(feeder.read, "q_feeder.sarra.movers.retry.10s"), "who dead-letters reads it"
    for role in (Role.SOURCE, Role.SUBSCRIBER):
        assert not allowed(permissions(role, "alice").write, "amq.default")


def test_everybody_reads_public_exchanges_only() -> None:
    """R113: `x...public`, not a queue whose name ends so."""
    for role in (Role.SOURCE, Role.SUBSCRIBER):
        read = permissions(role, "bob").read
        assert allowed(read, "xpublic")
        assert allowed(read, "xs_alice_public")
        for name in ("q_alice_public", "xpublic_not", "xprivate", "xinput", "xreport"):
            assert not allowed(read, name)


def test_a_subscriber_has_no_exchange_and_writes_reports_only() -> None:
    """R128."""
    granted = permissions(Role.SUBSCRIBER, "bob")
    assert allowed(granted.write, "xs_bob")
    assert not allowed(granted.write, "xs_bob_more")
    assert not allowed(granted.configure, "xs_bob")
    (topic,) = topic_permissions(Role.SUBSCRIBER, "bob")
    assert topic.exchange == "xs_bob"
    for key in ("v03.report", "v03.report.a.b", "v02.report.x", "v02.log.x"):
        assert allowed(topic.write, key)
    for key in ("v03", "v03.a", "v03.reports.a", "v02.post.report", "xv03.report", "v03.post.v03.report.x"):
        assert not allowed(topic.write, key)
    assert topic_permissions(Role.SOURCE, "bob") == ()


@pytest.mark.parametrize("role", [Role.ADMIN, Role.FEEDER])
def test_the_pump_may_everything(role: Role) -> None:
    """R130, R131."""
    granted = permissions(role, "feeder")
    assert all(allowed(e, "xs_anything") for e in (granted.configure, granted.write, granted.read))


@given(user=st.text(min_size=1, max_size=12), other=st.text(min_size=1, max_size=12))
@settings(max_examples=200)
def test_any_name_is_escaped(user: str, other: str) -> None:
    """Whatever a name is made of, it stands for itself."""
    configure = permissions(Role.SOURCE, user).configure
    assert allowed(configure, f"q_{user}.x")
    if not other.startswith((user + "_", user + ".")) and other.rstrip("\n") != user.rstrip("\n"):
        assert not allowed(configure, f"q_{other}.x") or f"q_{other}.x".startswith(f"q_{user}.")


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (["al.ice"], "al.ice"),
        ([""], "''"),
        (["a b"], "a b"),
        (["ç"], "ç"),
        (["bob\n"], "bob"),
        (["bob", "bob"], "twice"),
        (["bob", "bob_x"], "bob_x"),
    ],
)
def test_names_that_cannot_be(names: list[str], fault: str) -> None:
    """R126, and that no two users share names of objects."""
    with pytest.raises(UsageError, match=re.escape(fault)):
        check_names(names)


def test_names_that_can_be() -> None:
    check_names(["al", "alice", "al-ice", "Al", "a_l", "_"])


def test_password_hash_is_rabbitmqs() -> None:
    """The worked example of RabbitMQ's documentation (passwords): salt 908DC60A, password test12."""
    salt = bytes.fromhex("908DC60A")
    assert password_hash("test12", salt) == "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
    assert base64.b64decode(password_hash("ü", salt))[4:] == hashlib.sha256(salt + "ü".encode()).digest()


def test_exchanges_and_definitions() -> None:
    accounts = [
        Account(name="admin", role=Role.ADMIN, password="a"),
        Account(name="feeder", role=Role.FEEDER, password="f"),
        Account(name="alice", role=Role.SOURCE, password="s3cret"),
        Account(name="anonymous", role=Role.SUBSCRIBER, password="p"),
    ]
    names = exchanges(accounts)
    assert set(names) == {
        "xpublic", "xprivate", "xinput", "xreport", "xs_alice", "xr_alice", "xl_alice",
        "xs_anonymous", "xr_anonymous", "xl_anonymous",
    }  # fmt: skip
    tree = definitions(accounts, "/", [b"salt"] * 4)
    assert "s3cret" not in repr(tree)
    assert "s3cret" not in repr(accounts)
    users = tree["users"]
    assert isinstance(users, list)
    assert [(user["name"], user["tags"]) for user in users] == [
        ("admin", "administrator"), ("feeder", ""), ("alice", ""), ("anonymous", ""),
    ]  # fmt: skip
    assert "users" not in definitions(accounts, "other", None)

"""What a private pump may be told, and what it tells of itself."""

from __future__ import annotations

import re

import pytest

from sarrapipe.errors import SupervisorError, UsageError
from sarrapipe.pump.accounts import Account, Role
from sarrapipe.pump.localpump import LocalPump
from sarrapipe.pump.pumpinfo import (
    PumpInfo,
    PumpOptions,
    PumpStatus,
    add_roles,
    asked_roles,
    first_roles,
    refuse_changes,
)
from sarrapipe.pump.pumpstate import PumpState
from sarrapipe.pump.webserver import check_path

INFO = PumpInfo(
    directory="/d", amqp_port=1, amqps_port=2, management_port=3, http_port=4, document_root="/d/data",
    config_home="/d/config", authority="/d/ca.pem",
    users={
        "admin": Account(name="admin", role=Role.ADMIN, password="adm1n"),
        "bob": Account(name="bob", role=Role.SOURCE, password="b0b"),
    },
)  # fmt: skip


def test_urls() -> None:
    assert INFO.url("bob") == "amqp://bob:b0b@127.0.0.1:1/"
    assert INFO.url("bob", vhost="v", password=False, tls=True) == "amqps://bob@localhost:2/v"
    assert INFO.http_url == "http://127.0.0.1:4/"


def test_no_password_in_what_is_printed() -> None:
    for text in (repr(INFO), str(INFO.to_json()), repr(INFO.api())):
        assert "adm1n" not in text
        assert "b0b" not in text


def test_exit_codes() -> None:
    assert PumpStatus(exists=True, running={"a": 1, "b": 2}).exit_code == 0
    assert PumpStatus(exists=True, running={"a": 1, "b": None}).exit_code == 1
    assert PumpStatus(exists=False, running={"a": None}).exit_code == 3


def test_accounts_of_a_new_pump() -> None:
    """R127, R128: the seeds' accounts, anonymous always."""
    assert first_roles(PumpOptions()) == {
        "admin": Role.ADMIN, "feeder": Role.FEEDER, "tsource": Role.SOURCE,
        "tsub": Role.SUBSCRIBER, "anonymous": Role.SUBSCRIBER,
    }  # fmt: skip
    named = first_roles(PumpOptions(sources=("alice", "carol"), subscribers=("bob",)))
    assert [name for name, role in named.items() if role is Role.SOURCE] == ["alice", "carol"]
    assert "tsub" not in named
    for name in ("admin", "feeder", "anonymous"):
        with pytest.raises(UsageError, match=name):
            first_roles(PumpOptions(sources=(name,)))
    with pytest.raises(UsageError, match="bob"):
        add_roles({"bob": Role.SUBSCRIBER}, asked_roles(PumpOptions(sources=("bob",))))


def test_a_running_pump_is_not_changed_silently() -> None:
    state = PumpState(node="n", ports={"amqp": 1}, roles=first_roles(PumpOptions()), consumer_timeout_s=60.0)
    refuse_changes(state, PumpOptions())
    refuse_changes(state, PumpOptions(sources=("tsource",), ports=(("amqp", 1),), consumer_timeout_s=60.0))
    asked = PumpOptions(sources=("x",), ports=(("amqp", 2),), tls=True, consumer_timeout_s=5.0)
    with pytest.raises(SupervisorError, match="user x, amqp port 2, TLS, consumer timeout"):
        refuse_changes(state, asked)


@pytest.mark.parametrize(
    "path", ["/a b", "/a'b", '/a"b', "/a$b", "/a;b", "/a\nb", "/a{b}", "/a#b", "/a\x01b"]
)
def test_directories_that_a_servers_configuration_cannot_hold(path: str) -> None:
    with pytest.raises(SupervisorError, match=re.escape(repr(path))):
        check_path(path)
    check_path("/srv/größe/pump-1_2.x")


def test_a_pump_that_is_not_there(tmp_path) -> None:
    pump = LocalPump(str(tmp_path / "none"))
    assert pump.status() == PumpStatus(exists=False, running={"epmd": None, "rabbitmq": None, "nginx": None})
    pump.down()
    assert not (tmp_path / "none").exists()
    with pytest.raises(SupervisorError, match="sarrapipe pump up"):
        pump.info()

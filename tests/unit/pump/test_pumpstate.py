"""What a private pump remembers, in files whose mode is right from their first instant."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarrapipe.config.credentials import parse_credentials
from sarrapipe.errors import SupervisorError
from sarrapipe.pump.accounts import Account, Role
from sarrapipe.pump.privatefiles import write_private
from sarrapipe.pump.processes import ServerProcess
from sarrapipe.pump.pumpstate import (
    PumpState,
    admin_conf,
    amqp_url,
    credentials_conf,
    read_if_there,
    read_passwords,
)

PORTS = {"amqp": 1234, "http": 80}
STATE = PumpState(
    node="pump-1",
    ports=PORTS,
    roles={"admin": Role.ADMIN, "feeder": Role.FEEDER, "alice": Role.SOURCE, "anonymous": Role.SUBSCRIBER},
    consumer_timeout_s=60.0,
    processes={"nginx": ServerProcess(pid=7, start_ticks=9, boot="b", log="/l")},
)


def test_state_survives_its_file(tmp_path: Path) -> None:
    path = str(tmp_path / "pump.json")
    assert PumpState.load(path) is None
    STATE.save(path)
    assert PumpState.load(path) == STATE
    assert STATE.with_process("nginx", None).processes == {}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", '{"version": 1}', '{"version": 2}', json.dumps({"version": 1, "node": 3})],
)
def test_a_state_that_is_not_ours_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pump.json"
    path.write_text(text)
    with pytest.raises(SupervisorError, match=r"pump\.json"):
        PumpState.load(str(path))


def test_admin_conf_is_the_seeds_example() -> None:
    """R132: the keywords and their order."""
    assert admin_conf(STATE.roles, PORTS).splitlines() == [
        "cluster localhost",
        "admin amqp://admin@127.0.0.1:1234/",
        "feeder amqp://feeder@127.0.0.1:1234/",
        "declare source alice",
        "declare subscriber anonymous",
    ]


@given(password=st.text(min_size=1, max_size=20))
def test_passwords_survive_credentials_conf(tmp_path_factory: pytest.TempPathFactory, password: str) -> None:
    """R133: one URL a line, passwords URL-encoded."""
    if any("\ud800" <= character <= "\udfff" for character in password):
        return  # cannot be written as UTF-8
    path = tmp_path_factory.mktemp("c") / "credentials.conf"
    account = Account(name="a-b", role=Role.SOURCE, password=password)
    text = credentials_conf([account], {**PORTS, "amqps": 5})
    assert len(text.splitlines()) == 2
    write_private(str(path), text)
    assert read_passwords(read_if_there(str(path)), [1234]) == {"a-b": password}
    entries, errors = parse_credentials(text, "credentials.conf", {}, "/")
    assert not errors
    for url in ("amqp://a-b@127.0.0.1:1234/", "amqps://a-b@localhost:5/vhost"):
        found = entries.lookup(url)
        assert found is not None
        assert found.password == password


def test_credentials_that_others_can_read_are_repaired(tmp_path: Path) -> None:
    """R115."""
    path = tmp_path / "credentials.conf"
    path.write_text("amqp://bob:pw@host/\n")
    path.chmod(0o644)
    assert read_if_there(str(path)) == "amqp://bob:pw@host/\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_if_there(str(tmp_path / "none")) == ""


def test_what_the_administrator_added_stays() -> None:
    accounts = [Account(name=name, role=role, password="new") for name, role in STATE.roles.items()]
    old = (
        "amqp://alice:old@127.0.0.1:9/\n"
        "# mine\n\n"
        "amqp://alice:theirs@far.example/\n"
        "amqp://alice:another@localhost:5672/\n"
        "sftp://x@h/ ssh_keyfile=k\n"
    )
    text = credentials_conf(accounts, PORTS, old, [9])
    assert text.splitlines()[4:] == old.splitlines()[1:]
    assert credentials_conf(accounts, PORTS, text) == text
    assert read_passwords(text, [1234]) == dict.fromkeys(STATE.roles, "new")
    assert read_passwords(old, [9, 1234]) == {"alice": "old"}

    old = "cluster ours\nadmin amqp://admin@localhost:9/\ndeclare exchange xmore\ndeclare source alice\n"
    text = admin_conf(STATE.roles, PORTS, old)
    assert "9/" not in text
    assert "cluster localhost" not in text
    assert text.splitlines()[-2:] == ["cluster ours", "declare exchange xmore"]
    assert text.count("declare source alice") == 1
    assert admin_conf(STATE.roles, PORTS, text) == text


def test_a_private_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o666)
    target = tmp_path / "target"
    before = os.umask(0)
    try:
        write_private(str(path), "new")
    finally:
        os.umask(before)
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    path.unlink()
    path.symlink_to(target)  # a planted link is replaced, not followed
    write_private(str(path), "mine")
    assert not path.is_symlink()
    assert not target.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_private(str(path), "old")
    with pytest.raises(UnicodeEncodeError):
        write_private(str(path), "\ud800")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


def test_amqp_url() -> None:
    assert amqp_url(5, "a/b", "p@:/") == "amqp://a%2Fb:p%40%3A%2F@127.0.0.1:5/"
    assert amqp_url(5, "a", tls=True, vhost="v/w") == "amqps://a@localhost:5/v%2Fw"

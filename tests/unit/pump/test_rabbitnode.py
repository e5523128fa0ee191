"""What a node is told: loopback only, nothing of the host's, secrets in private files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sarrapipe.pump.rabbitnode import NodeSettings, RabbitNode, TlsFiles


def settings(tmp_path: Path) -> NodeSettings:
    return NodeSettings(
        directory=str(tmp_path), name="pump-x", amqp_port=1, amqps_port=None, management_port=2,
        distribution_port=3, epmd_port=4,
    )  # fmt: skip


def test_files_are_private_and_listen_on_loopback(tmp_path: Path) -> None:
    RabbitNode(settings(tmp_path)).write_files('{"users": []}')
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    assert {path.name for path in files} == {
        ".erlang.cookie", "advanced.config", "definitions.json", "enabled_plugins", "rabbitmq-env.conf",
        "rabbitmq.conf",
    }  # fmt: skip
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    lines = (tmp_path / "rabbitmq.conf").read_text().splitlines()
    assert [line for line in lines if line.startswith(("listeners", "management"))] == [
        "listeners.tcp.1 = 127.0.0.1:1",
        "management.tcp.ip = 127.0.0.1",
        "management.tcp.port = 2",
    ]
    assert not any("timeout" in line or "ssl" in line for line in lines)


def test_the_cookie_is_long_random_and_kept(tmp_path: Path) -> None:
    node = RabbitNode(settings(tmp_path))
    node.write_files("{}")
    cookie = (tmp_path / ".erlang.cookie").read_text()
    assert len(cookie) == 48
    node.write_files("{}")
    assert (tmp_path / ".erlang.cookie").read_text() == cookie


@pytest.mark.parametrize(
    ("timeout_s", "tick_ms"), [(None, 60_000), (1800.0, 60_000), (60.0, 30_000), (2.0, 1000), (0.1, 500)]
)
def test_overdue_consumers_are_looked_for_often_enough(
    tmp_path: Path, timeout_s: float | None, tick_ms: int
) -> None:
    RabbitNode(replace(settings(tmp_path), consumer_timeout_s=timeout_s)).write_files("{}")
    assert f"{{channel_tick_interval, {tick_ms}}}" in (tmp_path / "advanced.config").read_text()
    configured = (tmp_path / "rabbitmq.conf").read_text()
    assert ("consumer_timeout" in configured) == (timeout_s is not None)


def test_tls(tmp_path: Path) -> None:
    tls = TlsFiles(authority="/ca", certificate="/crt", key="/key")
    RabbitNode(replace(settings(tmp_path), amqps_port=5, tls=tls)).write_files("{}")
    text = (tmp_path / "rabbitmq.conf").read_text()
    assert "listeners.ssl.1 = 127.0.0.1:5\n" in text
    assert "ssl_options.keyfile = /key\n" in text

"""A configuration as text, read with the real reader."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sarrapipe.config.load import ConfigHome, load_flow, read_environment
from sarrapipe.config.model import FlowConfig


@pytest.fixture
def flow_config(tmp_path) -> Callable[..., FlowConfig]:
    """Returns what reads a configuration of a component."""

    def read(component: str, lines: str = "") -> FlowConfig:
        home = ConfigHome(str(tmp_path / "config"), str(tmp_path / "state"))
        directory = tmp_path / "config" / component
        directory.mkdir(parents=True, exist_ok=True)
        (tmp_path / "config/credentials.conf").write_text("amqp://feeder:secret@broker.example/\n")
        (tmp_path / "config/credentials.conf").chmod(0o600)
        usual = {
            "sarra": f"""
                broker amqp://feeder@broker.example/
                post_exchange xpublic
                directory {tmp_path}/dest
                post_baseDir {tmp_path}/dest
                post_baseUrl http://pump.example/data/
                """,
            "post": f"""
                post_broker amqp://feeder@broker.example/
                post_exchange xs_feeder
                post_baseDir {tmp_path}/dest
                post_baseUrl http://pump.example/data/
                """,
        }[component]
        text = "\n".join(line.strip() for line in f"{usual}\n{lines}".splitlines())
        (directory / "t.conf").write_text(text + "\n")
        return load_flow(home, component, "t", (), read_environment())

    return read

"""Names at the server that files are sent to."""

from __future__ import annotations

import dataclasses

import pytest

from sarrapipe.config.model import FlowConfig
from sarrapipe.config.values import Inflight, InflightMode
from sarrapipe.flow.farside import FarSide

NONCE = "5f3c"


def far(url: str = "sftp://alice@pump.example.com:2222/in", inflight: Inflight | None = None) -> FarSide:
    config = FlowConfig(component="sender", send_to=url)
    return FarSide(config if inflight is None else dataclasses.replace(config, inflight=inflight))


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("sftp://alice@pump.example.com:2222/in", "sftp://alice@pump.example.com:2222/a b/c%#"),
        ("FTP://pump/", "ftp://pump/a b/c%#"),
        ("file:///data/in", "file:///a b/c%#"),
        ("https://pump", "https://pump/a b/c%#"),
    ],
)
def test_urls(url: str, named: str) -> None:
    assert far(url).url("/a b/c%#") == named


@pytest.mark.parametrize(
    ("inflight", "name"),
    [
        (None, "/in/.f.5f3c"),
        (Inflight(InflightMode.SUFFIX, ".tmp"), "/in/f.5f3c.tmp"),
        (Inflight(InflightMode.PREFIX, "."), "/in/.f.5f3c"),
        (Inflight(InflightMode.DIRECTORY, "part"), "/in/part/f.5f3c"),
        (Inflight(InflightMode.DIRECTORY, "/part"), "/part/f.5f3c"),
        (Inflight(InflightMode.NONE), "/in/f"),
        (Inflight(InflightMode.AGE, age_s=5), "/in/f"),
    ],
)
def test_what_is_under_way(inflight: Inflight | None, name: str) -> None:
    named = far(inflight=inflight)
    assert named.inflight("/in/f", NONCE) == name
    assert named.in_place == (name == "/in/f")


def test_a_name_that_would_be_too_long_is_hashed() -> None:
    name = far().inflight("/in/" + "x" * 255, NONCE)
    assert len(name.rpartition("/")[2]) < 255

from __future__ import annotations

import subprocess
import sys

import pytest

from sarrapipe.errors import ConfigError, MessageError
from sarrapipe.transfer.file import make_backend
from sarrapipe.transfer.registry import BACKENDS, factory_of, scheme_of


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("http://h/x", "http"),
        ("HTTPS://h", "https"),
        ("file:/a", "file"),
        ("/a/b", "file"),
        ("s3+x://b", "s3+x"),
    ],
)
def test_schemes(url: str, scheme: str) -> None:
    assert scheme_of(url) == scheme


@pytest.mark.parametrize("url", ["", "a/b", "://x", "ht tp://x", "ü://x"])
def test_no_scheme(url: str) -> None:
    with pytest.raises(MessageError):
        scheme_of(url)


def test_finds_what_makes_a_backend() -> None:
    assert factory_of("file") is make_backend
    for scheme in BACKENDS:
        assert callable(factory_of(scheme))


def test_a_scheme_nobody_knows_is_the_messages_fault() -> None:
    with pytest.raises(MessageError, match="gopher"):
        factory_of("gopher")


@pytest.mark.parametrize("place", ["no.such.module:f", "sarrapipe.transfer.file:nothing"])
def test_a_backend_that_is_not_there_is_the_configurations_fault(place: str) -> None:
    with pytest.raises(ConfigError, match="x"):
        factory_of("x", {"x": place})


def test_settings_need_no_pycurl() -> None:
    code = (
        "import sys, sarrapipe.transfer.settings, sarrapipe.transfer.registry, sarrapipe.transfer.base;"
        "sys.exit('pycurl' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

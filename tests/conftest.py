"""Fixtures for every test; what they give is in `servers.py`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import servers
from servers import DocRoot, PumpGuard, Vhost

from sarrapipe.pump.localpump import PumpInfo


@pytest.fixture(scope="session")
def pump() -> Iterator[PumpInfo]:
    """One private pump for the whole run: started at first use, ended however the run ends."""
    servers.pump_or_skip()
    guard = PumpGuard()
    try:
        yield guard.start()
    finally:
        guard.stop()


@pytest.fixture
def vhost(pump: PumpInfo) -> Iterator[Vhost]:
    """A virtual host of the test's own, with the standard exchanges and every user's permissions."""
    made = servers.make_vhost(pump)
    yield made
    servers.drop_vhost(made)


@pytest.fixture
def docroot(pump: PumpInfo) -> Iterator[DocRoot]:
    """A directory of the test's own under the document root, and its URL."""
    made = servers.make_docroot(pump)
    yield made
    shutil.rmtree(made.path, ignore_errors=True)


@pytest.fixture(scope="session")
def sr3_home() -> Path:
    """The directory with the peer's programs (`sr3`, `sr3_post`)."""
    return servers.sr3_or_skip()

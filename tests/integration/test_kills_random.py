"""Processes killed at random moments, for seconds; `tests/chaos` does the same for minutes."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaosload import Killer, Load
from killkit import Mover, Place
from servers import DocRoot, Vhost

pytestmark = [pytest.mark.chaos, pytest.mark.broker, pytest.mark.nginx]


@pytest.fixture
def place(vhost: Vhost, docroot: DocRoot, tmp_path: Path) -> Place:
    return Place(vhost, docroot, tmp_path)


@pytest.mark.parametrize("staging", ["none", "slots"])
def test_a_mixed_load_ends_in_the_sources_last_state(place: Place, staging: str) -> None:
    """Files, newer versions, removals and renames, while instances, fork server and parent are killed."""
    load = Load(place, 1, large_bytes=(3_000_000, 8_000_000))
    mover = Mover(place, instances=4, segmentSize="1Mi", housekeeping=1, staging=staging, stagingBytes="2Mi")
    killer = Killer(mover, 2)

    def kill_one() -> None:
        killer.pause(0.4)
        killer.kill()

    with mover:
        load.for_seconds(5, 25, kill_one)
        mover.settle_trees(90)
    place.check()
    mover.check_nothing_left()
    assert sum(killer.killed.values()) >= 4

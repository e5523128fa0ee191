"""Five hundred processes killed while they move bytes through one ring: nothing is mixed up, lost or left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ringload import check_files, check_kills, stage
from servers import MS

KILLS = 500
SEED = int(os.environ.get("SARRAPIPE_CHAOS_SEED", "1"))

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300 * MS)]


def test_five_hundred_kills_leave_every_slot_free(tmp_path: Path) -> None:
    assert check_kills(str(tmp_path / "ring"), KILLS, SEED) > KILLS / 4


def test_five_hundred_kills_leave_what_was_settled_in_the_files(tmp_path: Path) -> None:
    path = str(tmp_path / "ring")
    assert check_kills(path, KILLS, SEED, stage) > KILLS / 4
    assert check_files(path) > KILLS

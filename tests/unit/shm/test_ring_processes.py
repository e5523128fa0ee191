"""Several real processes on one ring, killed at random; `tests/chaos` kills hundreds."""

from __future__ import annotations

from pathlib import Path

from ringload import check_files, check_kills, stage


def test_kills_at_random_leave_every_slot_free(tmp_path: Path) -> None:
    assert check_kills(str(tmp_path / "ring"), kills=25, seed=1) > 0


def test_kills_at_random_leave_what_was_settled_in_the_files(tmp_path: Path) -> None:
    path = str(tmp_path / "ring")
    assert check_kills(path, 25, 2, stage) > 0
    assert check_files(path) > 0

"""What the demonstration is made of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perf.background import Background
from perf.demo_source import inventory, make_source
from perf.progress import estimate_s


def test_time_left_follows_the_mean_rate() -> None:
    assert estimate_s(25, 100, 10.0) == pytest.approx(30.0)
    assert estimate_s(0, 100, 10.0) is None
    assert estimate_s(120, 100, 10.0) == 0.0


def test_an_inventory_counts_every_kind_once(tmp_path: Path) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/file").write_bytes(b"12345")
    (tmp_path / "d/e/empty").touch()
    (tmp_path / "to-file").symlink_to("d/file")
    (tmp_path / "to-directory").symlink_to("d")
    counted = inventory(str(tmp_path))
    assert (counted.files, counted.directories, counted.links, counted.size_bytes) == (2, 2, 2, 5)
    assert counted.entries == 6


def test_the_source_is_a_real_tree_with_odd_cases_and_nothing_that_leaves_it(tmp_path: Path) -> None:
    root = tmp_path / "source"
    counted = make_source(str(root), 100_000)
    assert counted.files > 2000
    assert counted.links >= 5
    assert counted == inventory(str(root))
    assert (root / "large.bin").stat().st_size == 100_000
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            if os.path.islink(path):
                assert os.path.realpath(path).startswith(str(root.resolve()) + os.sep)


def test_a_background_call_hands_over_its_result_or_its_error() -> None:
    assert Background(lambda: 7).start().result() == 7
    with pytest.raises(ZeroDivisionError):
        Background(lambda: 1 // 0).start().result()

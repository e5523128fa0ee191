"""The points at which tests kill: they end a process when asked to, and are nothing otherwise."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sarrapipe import crashpoints

PACKAGE = Path(crashpoints.__file__).parent
PASSINGS = re.compile(r'\bpassing\("(\w+)"\)')

PASS_THREE_TIMES = """
from sarrapipe.crashpoints import passing
for n in range(3):
    print(n, flush=True)
    passing("committed")
"""


def pass_three_times(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PASS_THREE_TIMES],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("wanted", "printed"), [("committed", 1), ("placed,committed:2", 2), ("committed:3", 3)]
)
def test_ends_the_process_at_the_nth_passing(wanted: str, printed: int) -> None:
    done = pass_three_times(SARRAPIPE_CRASH_AT=wanted)
    assert done.returncode == -signal.SIGKILL
    assert len(done.stdout.split()) == printed


@pytest.mark.parametrize("wanted", ["", "placed", "committed:4"])
def test_goes_on_otherwise(wanted: str) -> None:
    done = pass_three_times(SARRAPIPE_CRASH_AT=wanted)
    assert (done.returncode, done.stderr) == (0, "")


def test_with_marks_each_point_ends_one_process(tmp_path: Path) -> None:
    wanted = {"SARRAPIPE_CRASH_AT": "committed:2", "SARRAPIPE_CRASH_MARKS": str(tmp_path)}
    codes = [pass_three_times(**wanted).returncode for _ in range(3)]
    assert codes == [-signal.SIGKILL, 0, 0]
    assert [mark.name for mark in tmp_path.iterdir()] == ["committed"]


@pytest.mark.parametrize("wanted", ["comitted", "committed:x", "committed:-1"])
def test_a_point_that_does_not_exist_is_told(wanted: str) -> None:
    done = pass_three_times(SARRAPIPE_CRASH_AT=wanted)
    assert done.returncode == 1
    assert f"no point '{wanted}'" in done.stderr


def test_does_nothing_without_the_variable() -> None:
    assert crashpoints.passing is crashpoints._ignore


def test_every_point_is_passed_somewhere() -> None:
    passed = {name for path in PACKAGE.rglob("*.py") for name in PASSINGS.findall(path.read_text())}
    assert passed == set(crashpoints.POINTS)

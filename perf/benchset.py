"""Sets of benchmarks: that of `make bench`, that of `perf musts`, and a tiny one that shows that all works.

Each scenario runs in a process of its own; what one fails at does not keep the others from running. A budget
is kept: see `perf/budget.py` for what gives way, and `run_set` says what did.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from perf.bench import Say
from perf.budget import Choice, Entry, choose, estimate_s, updated_pace
from perf.scenario import NAMES

__all__ = ["MUSTS_SET", "SET", "SMOKE", "Outcome", "run_set"]

_GRACE_S: Final = 20.0
_TOP: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# In the order in which they run. Seconds are what two quiet cores take.
_WANTED: Final = (
    Entry(name="post-small", runs=2, files=("20k", "10k", "2k"), once_s=4, turn_s=55),
    Entry(name="sarra-small", runs=1, files=("20k", "10k", "2k"), once_s=5, turn_s=260),
    Entry(name="startup", runs=1, files=("10k", "4k"), once_s=4, turn_s=55),
    Entry(name="scale-instances", runs=1, files=("10k", "5k", "1k"), once_s=4, turn_s=60),
    Entry(name="scale-files", runs=1, sizes=("1GiB", "256MiB"), once_s=8, turn_s=30),
    Entry(name="bulk-http-1g", runs=3, sizes=("1GiB", "256MiB"), once_s=6, turn_s=15),
    Entry(name="bulk-http-4g", runs=2, sizes=("4GiB", "2GiB", "512MiB"), once_s=20, turn_s=125),
    Entry(name="bulk-https", runs=1, sizes=("4GiB", "1GiB", "256MiB"), once_s=20, turn_s=90),
    Entry(name="bulk-disk", runs=2, sizes=("4GiB", "2GiB", "512MiB"), once_s=20, turn_s=80),
    Entry(name="bulk-sha512", runs=1, sizes=("4GiB", "2GiB", "512MiB"), once_s=40, turn_s=85),
    Entry(name="announce-blocks", runs=1, sizes=("4GiB", "2GiB", "512MiB"), once_s=25, turn_s=55),
    Entry(name="fetch-blocks", runs=1, sizes=("4GiB", "1GiB", "512MiB"), once_s=40, turn_s=140),
    Entry(name="sftp-get", runs=2, sizes=("1GiB", "256MiB"), once_s=8, turn_s=75),
    Entry(name="sftp-put", runs=2, sizes=("1GiB", "256MiB"), once_s=8, turn_s=65),
    Entry(name="wan", runs=2, sizes=("256MiB", "64MiB"), once_s=8, turn_s=45),
    Entry(name="wan-window", runs=1, sizes=("1GiB", "256MiB"), once_s=8, turn_s=145),
    Entry(name="wan-rtt", runs=1, sizes=("256MiB", "64MiB"), once_s=35, turn_s=65),
    Entry(name="relay", runs=2, sizes=("4GiB", "1GiB", "256MiB"), once_s=25, turn_s=50),
    Entry(name="delta", runs=1, sizes=("1GiB", "256MiB"), once_s=15, turn_s=35),
    Entry(name="latency", runs=1, sizes=("16GiB", "4GiB", "1GiB"), once_s=20, turn_s=150),
    Entry(name="memory", runs=1, sizes=("16GiB", "4GiB", "1GiB"), once_s=60, turn_s=240),
    Entry(name="scale-size", runs=1, sizes=("64GiB", "16GiB", "4GiB"), once_s=0, turn_s=200),
)
SET: Final = tuple(each for each in _WANTED if each.name in NAMES)
"""What `make bench` runs; a scenario whose module is not there is left out."""

_MUSTS: Final = (
    Entry(
        name="announce-blocks",  # sr3's time grows with the square of the size: only the whole tells
        runs=1,
        sizes=("4GiB",),
        once_s=25,
        turn_s=55,
    ),
    Entry(
        name="bulk-http-4g",
        runs=5,
        sizes=("4GiB", "2GiB", "1GiB"),
        only=("sarrapipe", "sr3", "curl", "aria2c"),
        once_s=20,
        turn_s=65,
    ),
    Entry(
        name="bulk-disk",
        runs=5,
        sizes=("4GiB", "2GiB", "1GiB"),
        only=("process", "host", "curl", "curl-sync"),
        once_s=20,
        turn_s=60,
    ),
    Entry(
        name="bulk-sha512",
        runs=3,
        sizes=("4GiB", "2GiB", "1GiB"),
        only=("sarrapipe", "sr3"),
        once_s=30,
        turn_s=50,
    ),
    Entry(name="fetch-blocks", runs=3, sizes=("4GiB", "2GiB", "1GiB"), once_s=40, turn_s=140),
    Entry(
        name="sftp-get",
        runs=5,
        sizes=("1GiB", "512MiB"),
        only=("sarrapipe", "sftp", "paramiko"),
        once_s=8,
        turn_s=30,
    ),
    Entry(
        name="sftp-put",
        runs=5,
        sizes=("1GiB", "512MiB"),
        only=("sarrapipe", "sftp", "paramiko"),
        once_s=8,
        turn_s=30,
    ),
    Entry(
        name="wan",
        runs=5,
        sizes=("256MiB", "128MiB"),
        only=("sarrapipe", "curl", "aria2c", "rclone", "axel", "lftp"),
        once_s=8,
        turn_s=40,
    ),
    Entry(
        name="wan-window",
        runs=1,
        sizes=("1GiB", "512MiB", "256MiB"),
        only=("sarrapipe", "curl"),
        once_s=8,
        turn_s=125,
    ),
    Entry(
        name="relay",
        runs=5,
        sizes=("4GiB", "2GiB", "1GiB"),
        only=("sarrapipe", "curl-pipe"),
        once_s=25,
        turn_s=35,
    ),
    Entry(
        name="latency",
        runs=1,
        sizes=("16GiB", "8GiB", "4GiB"),
        only=("sarrapipe",),
        once_s=20,
        turn_s=60,
    ),
    Entry(name="memory", runs=1, sizes=("16GiB", "8GiB", "4GiB"), once_s=60, turn_s=240),
)
MUSTS_SET: Final = tuple(each for each in _MUSTS if each.name in NAMES)
"""What `perf musts` runs: the sides that a row of its table compares, and no others."""

SMOKE: Final = (
    Entry(name="post-small", runs=1, files=("50",), only=("sarrapipe",)),
    Entry(name="bulk-http-1g", runs=1, sizes=("8MiB",)),
)
"""Seconds."""


@dataclass(slots=True)
class Outcome:
    """What became of a set: names of scenarios that failed, and what was made smaller or left out."""

    failed: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(slots=True)
class _Clock:
    """Seconds that remain, and how things go here."""

    until_s: float
    estimated_s: float = 0.0
    taken_s: float = 0.0

    def left_s(self) -> float:
        return self.until_s - time.monotonic()

    def pace(self) -> float:
        return updated_pace(self.estimated_s, self.taken_s)


def run_set(entries: Sequence[Entry], out: str, *, budget_s: float, say: Say) -> Outcome:
    """Run scenarios one after the other, as much of each as the time allows.

    Args:
        entries: What to run.
        out: Directory for NAME.json and NAME.log; made if missing. Older results of the same name go.
        budget_s: Seconds for all; what still runs then is ended.
        say: Where progress goes.
    """
    os.makedirs(out, exist_ok=True)
    began_s = time.monotonic()
    clock = _Clock(until_s=began_s + budget_s)
    outcome = Outcome()
    for number, entry in enumerate(entries):
        result = os.path.join(out, f"{entry.name}.json")
        if os.path.exists(result):
            os.unlink(result)
        choice = choose(entries[number:], clock.left_s(), clock.pace())
        if choice is None:
            outcome.cut.append(f"{entry.name}: left out, {max(0.0, clock.left_s()):.0f} s were left")
            say(outcome.cut[-1])
            continue
        say(f"{entry.name} {choice.amount}, at most {choice.limit_s:.0f} s ...")
        _run_one(choice, result, clock, outcome)
    outcome.seconds = time.monotonic() - began_s
    return outcome


def _run_one(choice: Choice, result: str, clock: _Clock, outcome: Outcome) -> None:
    """Run one scenario; note what it took, what of it was cut, and whether it failed."""
    name = choice.entry.name
    began_s = time.monotonic()
    arguments = [*choice.arguments(), "--json", os.path.abspath(result)]
    code = _run(arguments, f"{os.path.splitext(result)[0]}.log", choice.end_s)
    if code is None:
        outcome.cut.append(f"{name}: ended unfinished, the time was over")
        return
    if code:
        outcome.failed.append(name)
    turns = _turns(result)
    if not turns:
        return
    clock.taken_s += time.monotonic() - began_s
    clock.estimated_s += estimate_s(choice.entry, choice.amount, turns)
    if not choice.full:
        outcome.cut.append(f"{name}: {choice.amount} in place of {choice.entry.amounts()[0]}")
    if turns < choice.entry.runs:
        outcome.cut.append(f"{name}: {turns} of {choice.entry.runs} turns")


def _turns(path: str) -> int:
    """Return how many turns a result has; none if there is no result."""
    try:
        with open(path, encoding="utf-8") as file:
            return 1 + max((int(run["turn"]) for run in json.load(file)["figures"]), default=-1)
    except FileNotFoundError:
        return 0


def _run(arguments: list[str], log: str, limit_s: float) -> int | None:
    """Run `perf` in a process of its own; it is told to end, and waited for, when this one ends.

    Returns:
        Its exit code; None if its time was over.
    """
    with open(log, "w", encoding="utf-8") as file:
        command = [sys.executable, "-m", "perf", *arguments]
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=_TOP)
        try:
            return process.wait(max(0.0, limit_s))
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(_GRACE_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

"""The set that `make bench` runs in half an hour, and a tiny one that only shows that everything works.

Each scenario runs in a process of its own; what one fails at does not keep the others from running.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from perf.bench import Say
from perf.scenario import NAMES

__all__ = ["SET", "SMOKE", "Entry", "run_set"]

_LIMIT_S: Final = 1800.0
_GRACE_S: Final = 30.0
_TOP: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One scenario of a set, smaller or shorter than it is by itself.

    Args:
        name: The scenario's.
        runs: Turns.
        files: Files, as the command line takes them; the scenario's own if empty.
        size: Size, likewise.
        only: The sides to run; all if empty.
    """

    name: str
    runs: int
    files: str = ""
    size: str = ""
    only: tuple[str, ...] = ()

    def arguments(self, out: str) -> list[str]:
        """Return the arguments of `perf run`."""
        arguments = [
            "run",
            self.name,
            "--runs",
            str(self.runs),
            "--json",
            os.path.join(out, f"{self.name}.json"),
        ]
        arguments += ["--files", self.files] if self.files else []
        arguments += ["--size", self.size] if self.size else []
        return arguments + [word for side in self.only for word in ("--only", side)]


# In the order in which they run, with a guess of the minutes each takes on two cores.
_WANTED: Final = (
    Entry(name="post-small", runs=2, files="10k"),  # 1
    Entry(name="sarra-small", runs=1, files="10k"),  # 3
    Entry(name="startup", runs=1, files="10k"),  # 1
    Entry(name="scale-instances", runs=1, files="5k"),  # 1
    Entry(name="bulk-http-1g", runs=3),  # 1
    Entry(name="bulk-http-4g", runs=1),  # 3
    Entry(name="bulk-disk", runs=1),  # 2
    Entry(name="bulk-sha512", runs=1, size="2GiB"),  # 1
    Entry(name="announce-blocks", runs=1, size="1GiB"),  # 1
    Entry(name="fetch-blocks", runs=1, size="1GiB"),  # 2
    Entry(name="sftp-get", runs=1),  # 1
    Entry(name="sftp-put", runs=1),  # 1
    Entry(name="wan", runs=2),  # 2
    Entry(name="wan-window", runs=1, size="256MiB"),  # 2
    Entry(name="relay", runs=1, size="1GiB"),  # 1
    Entry(name="delta", runs=1, size="1GiB"),  # 1
    Entry(name="latency", runs=1, size="4GiB"),  # 2
    Entry(name="memory", runs=1, size="4GiB"),  # 2
    Entry(name="scale-size", runs=1, size="2GiB"),  # 1
)
SET: Final = tuple(each for each in _WANTED if each.name in NAMES)
"""What `make bench` runs; a scenario whose module is not there is left out."""

SMOKE: Final = (
    Entry(name="post-small", runs=1, files="50", only=("sarrapipe",)),
    Entry(name="bulk-http-1g", runs=1, size="8MiB"),
)
"""Seconds."""


def run_set(entries: Sequence[Entry], out: str, *, say: Say) -> list[str]:
    """Run scenarios one after the other; return the names of those that failed.

    Args:
        entries: What to run.
        out: Directory for NAME.json and NAME.log; made if missing. Older results of the same name go.
        say: Where progress goes.
    """
    os.makedirs(out, exist_ok=True)
    failed = []
    for entry in entries:
        result, log = (os.path.join(out, f"{entry.name}.{kind}") for kind in ("json", "log"))
        if os.path.exists(result):
            os.unlink(result)
        say(f"{entry.name} ...")
        if _run(entry.arguments(os.path.abspath(out)), log):
            failed.append(entry.name)
    return failed


def _run(arguments: list[str], log: str) -> int:
    """Run `perf` in a process of its own; it is told to end, and waited for, when this one ends."""
    with open(log, "w", encoding="utf-8") as file:
        command = [sys.executable, "-m", "perf", *arguments]
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=_TOP)
        try:
            return process.wait(_LIMIT_S)
        except subprocess.TimeoutExpired:
            return 1
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(_GRACE_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

"""A program that fetches one file and ends: how it is called, and what calling it in a cage came to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from perf.cage import Cage, CageError, Completed

__all__ = ["Fetcher", "PeerMissing", "shell"]

_LIMIT_S: Final = 900.0


class PeerMissing(RuntimeError):
    """A program to compare with is not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetcher:
    """One peer with one set of settings.

    Args:
        name: How figures and ratios call it.
        program: What has to be installed.
        arguments: Makes the command from a URL, or whatever names the source, and the path to write.
        environment: Variables beside this process's own.
    """

    name: str
    program: str
    arguments: Callable[[str, str], Sequence[str]]
    environment: dict[str, str] = field(default_factory=dict)

    def installed(self) -> bool:
        """Tell whether it can be run here."""
        return shutil.which(self.program) is not None

    def fetch(self, cage: Cage, url: str, path: str, log: str, *, limit_s: float = _LIMIT_S) -> Completed:
        """Fetch one file.

        Args:
            cage: Where it runs.
            url: What to fetch.
            path: Where to write it; there is no file yet.
            log: File that its output is appended to.
            limit_s: After this it is killed.

        Raises:
            CageError: It failed or took too long.
        """
        environment = {**os.environ, **self.environment}
        command = self.arguments(url, path)
        done = cage.run(command, env=environment, log=log, timeout_s=limit_s)
        if done.code:
            raise CageError(f"{self.name} ended with {done.code}: {_last_line(log)}")
        return done


def shell(script: str) -> Callable[[str, str], Sequence[str]]:
    """Return arguments that run a shell script with the URL as $1 and the path as $2."""
    return lambda url, path: ["sh", "-c", script, "sh", url, path]


def _last_line(log: str) -> str:
    with open(log, encoding="utf-8", errors="replace") as file:
        return (file.read().strip().splitlines() or ["it said nothing"])[-1]

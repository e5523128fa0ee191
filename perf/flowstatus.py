"""What `sarrapipe status --json` says a flow has done so far."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from perf.sarrapipe_side import Sarrapipe, command
from perf.side import Flow

__all__ = ["Counters", "read_counters"]

_LIMIT_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """One flow's work since it was started, all instances together.

    `problems` are the counters of errors and of things refused that are not 0.
    """

    files: int
    directories: int
    links: int
    bytes_received: int
    segments: int
    verified: int
    retried: int
    duplicates: int
    problems: dict[str, int]

    @property
    def entries(self) -> int:
        """Everything that is in place."""
        return self.files + self.directories + self.links


def read_counters(side: Sarrapipe, flows: Sequence[Flow]) -> list[Counters]:
    """Ask `sarrapipe status` for some flows, which answers from shared memory without disturbing them.

    Raises:
        ValueError: It answered something else than the status of those flows.
    """
    names = [f"{flow.component}/{flow.name}" for flow in flows]
    done = subprocess.run(
        [*command(), "status", "--json", *names],
        env=side.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=_LIMIT_S,
    )
    try:
        totals = {status["flow"]: status["totals"] for status in json.loads(done.stdout)}
        return [_counters(totals[name]) for name in names]
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"sarrapipe status ended with {done.returncode}: {done.stdout}{done.stderr}"
        ) from error


def _counters(totals: dict[str, int]) -> Counters:
    refused = ("messages_malformed", "messages_rejected", "messages_expired", "messages_failed")
    return Counters(
        files=totals.get("files_ok", 0),
        directories=totals.get("directories_ok", 0),
        links=totals.get("files_linked", 0),
        bytes_received=totals.get("bytes_received", 0),
        segments=totals.get("segments_ok", 0),
        verified=totals.get("files_verified", 0),
        retried=totals.get("messages_retried", 0) + totals.get("segments_retried", 0),
        duplicates=totals.get("messages_duplicate", 0),
        problems={
            name: count
            for name, count in totals.items()
            if count and (name.startswith("errors_") or name in refused)
        },
    )

"""Instants at which tests end a process with SIGKILL: those between two steps that belong together.

    SARRAPIPE_CRASH_AT=committed:3 SARRAPIPE_CRASH_MARKS=/tmp/x sarrapipe run sarra/ddsr

ends an instance when it passes `committed` for the third time. Several points are separated by commas. With
SARRAPIPE_CRASH_MARKS each point ends one process only, whichever comes first: a file named after the point is
left in that directory, and who finds it there goes on. Without it every process ends at its n-th passing, the
ones started in its place too.

Without the variables `passing` does nothing and takes 30 ns. What has to be true after each point is told in
docs/explanation/ledger.md; the tests are `tests/integration/test_kills_points.py`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from typing import Final

from sarrapipe.errors import ConfigError

__all__ = ["POINTS", "VARIABLE", "passing"]

VARIABLE: Final = "SARRAPIPE_CRASH_AT"
MARKS_VARIABLE: Final = "SARRAPIPE_CRASH_MARKS"

POINTS: Final[Mapping[str, str]] = {
    "admitted": "the ledger has a row, nothing else has happened",
    "inflight_made": "the inflight file is there, its inode is not recorded",
    "slot_filled": "bytes are in a slot of shared memory, not in the file (`staging slots`)",
    "slot_drained": "they are in the file, the slot is not given back",
    "segment_written": "the bytes of a segment are in the file, the segment is not marked",
    "block_equal": "the file in place holds a block, which is not copied into the inflight file",
    "block_kept": "it is copied and verified, the segment is not marked",
    "segment_marked": "the segment is marked",
    "hedge_started": "a straggling segment is being fetched a second time",
    "hedge_won": "its second transfer is whole and the first cancelled, its bytes are not in the file",
    "verified": "the inflight file is whole, verified, and has its times and mode",
    "committed": "the ledger has decided for it, it is not renamed",
    "placed": "it has its final name, nothing is announced",
    "published": "the announcement was handed to the broker, its confirm has not come",
    "confirmed": "the confirm has come, the row is not settled",
    "settled": "the row is settled, the message is not acknowledged",
    "acknowledged": "the acknowledgement was sent",
    "tombstone": "a removal or rename is decided, the file system is not touched",
    "removed": "it is carried out, nothing is announced",
    "kept": "a message is in the kept store, it is not acknowledged",
    "deferred": "a message that failed waits at the broker, it is not acknowledged",
    "leased": "a kept message was leased to be tried again",
}


def _ignore(_point: str) -> None:
    """What `passing` is in production."""


class _Crasher:
    """Counts what is passed and ends the process.

    Args:
        wanted: Passings that are left, by point.
        marks: Directory of the marks; None for none.
    """

    def __init__(self, wanted: dict[str, int], marks: str | None) -> None:
        self._left = wanted
        self._marks = marks

    def passing(self, point: str) -> None:
        left = self._left.get(point, 0)
        if not left:
            return
        self._left[point] = left - 1
        if left == 1 and self._is_first(point):
            os.kill(os.getpid(), signal.SIGKILL)

    def _is_first(self, point: str) -> bool:
        if self._marks is None:
            return True
        try:
            os.close(os.open(os.path.join(self._marks, point), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return False
        return True


def _from_environment(environment: Mapping[str, str]) -> Callable[[str], None]:
    text = environment.get(VARIABLE, "")
    wanted = {}
    for entry in filter(None, text.split(",")):
        point, _, times = entry.partition(":")
        if point not in POINTS or not (times or "1").isdecimal():
            raise ConfigError(f"{VARIABLE}={text}: no point {entry!r}; there are {', '.join(POINTS)}")
        wanted[point] = int(times or "1")
    return _Crasher(wanted, environment.get(MARKS_VARIABLE)).passing if wanted else _ignore


passing: Final = _from_environment(os.environ)
"""Called with the name of the point that is passed."""

"""A last segment that takes several times as long as its siblings is fetched a second time.

Only whoever holds the claim does it, when no segment of the file is left to be claimed: the second transfer
goes into memory (`Scratch`), the first one whole wins. Were the bytes of both written, a slow connection
could still write into a file that was finished by the fast one; so the loser is cancelled, after which
nothing more reaches its sink, *before* the winner's bytes are written.

What a kill leaves, at each instant:

| instant | what is there |
|---|---|
| `hedge_started`, and while both run | a claim of a dead process: free. The memory went with the process |
| `hedge_won`: the loser is cancelled, nothing is written yet | the same; what the loser wrote is not marked |
| `segment_written`: the winner's bytes are written, nothing is marked | the same; fetched once more |

So a kill leaves what it leaves without a second transfer.
"""

from __future__ import annotations

import statistics
from collections import deque
from typing import Final

from sarrapipe.errors import IdentityMismatch
from sarrapipe.segment.sink import Updatable

__all__ = ["MOST_SCRATCH_BYTES", "Pace", "Scratch"]

MOST_SCRATCH_BYTES: Final = 64 << 20
"""Of all second transfers of an instance together; a segment that does not fit has none. Segments are larger
than 32 MiB only in files of more than 64 GiB, and far away."""
_TIMES_LATE: Final = 3.0
"""So many times the median of its siblings, and a segment is late."""
_LEAST_LATE_S: Final = 0.5
"""Below that a second transfer costs more than it can gain."""
_ENOUGH: Final = 3
"""Siblings whose times make a median."""
_RECENT: Final = 32


class Pace:
    """How long the segments of one file took lately."""

    __slots__ = ("_s_per_byte",)

    def __init__(self) -> None:
        self._s_per_byte: deque[float] = deque(maxlen=_RECENT)

    def took(self, length: int, seconds: float) -> None:
        """Note a segment that arrived."""
        if length > 0:
            self._s_per_byte.append(seconds / length)

    def late_after_s(self, length: int) -> float:
        """Return after how many seconds a segment of this length is late; infinite while nobody can tell."""
        if len(self._s_per_byte) < _ENOUGH:
            return float("inf")
        return max(_TIMES_LATE * statistics.median(self._s_per_byte) * length, _LEAST_LATE_S)


class Scratch:
    """A range in memory.

    Args:
        length: Bytes of the range.
        hasher: Gets every byte, in order.
    """

    __slots__ = ("_buffer", "hasher", "written")

    def __init__(self, length: int, hasher: Updatable) -> None:
        self._buffer = memoryview(bytearray(length))
        self.hasher = hasher
        self.written = 0

    @property
    def data(self) -> memoryview:
        """What has come."""
        return self._buffer[: self.written]

    def write(self, data: memoryview | bytes) -> None:
        """Take the next bytes.

        Raises:
            IdentityMismatch: They reach beyond the end of the range.
        """
        end = self.written + len(data)
        if end > len(self._buffer):
            raise IdentityMismatch(f"more than the {len(self._buffer)} bytes of the range came")
        self._buffer[self.written : end] = data
        self.hasher.update(data)
        self.written = end

    def fileno(self) -> int:
        """No descriptor to copy into."""
        return -1

    def position(self) -> int:
        """Offset of the next byte."""
        return self.written

    def advance(self, count: int) -> None:
        """Nobody copies into it without `write`."""
        raise NotImplementedError("there is no descriptor to copy into")

"""Cutting a file into segments: pure arithmetic, the same on every instance and host.

    plan = SegmentPlan(size=20 << 20, segment_bytes=8 << 20)
    [(s.number, s.offset, s.length) for s in plan]       # (0, 0, 8 MiB) (1, 8 MiB, 8 MiB) (2, 16 MiB, 4 MiB)

A segment is what is moved, as against a block, which is what was announced. The plan does not depend on who
fetches, nor on how fast, so that any instance can go on where another ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["MIN_SEGMENT_BYTES", "MOST_SEGMENTS", "Segment", "SegmentPlan", "segment_size"]

MIB = 1 << 20
MIN_SEGMENT_BYTES = 8 * MIB
"""A segment costs two ledger transactions and a request: nothing beside 8 MiB (design of the ledger)."""
MOST_SEGMENTS = 2000
"""More segments than this gain nothing and cost rows in the ledger; syncthing's `protocol.go` aims at the
same."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One range of a file."""

    number: int
    """0 .. count-1."""
    offset: int
    length: int

    @property
    def end(self) -> int:
        """Offset of the first byte after it."""
        return self.offset + self.length


def segment_size(size: int, minimum: int = MIN_SEGMENT_BYTES, *, stream_bytes: int = 0) -> int:
    """Length of all segments of a file but the last.

    Args:
        size: Bytes in the whole file.
        minimum: No segment is shorter than this, rounded up to a MiB, except the last.
        stream_bytes: Bandwidth times round trip of one stream, where known: a segment takes ten round trips
            at least, so that slow start and the request itself do not count.

    Returns:
        A multiple of 1 MiB.

    Raises:
        ValueError: A negative size, or a minimum that is not positive.
    """
    if size < 0 or minimum <= 0 or stream_bytes < 0:
        raise ValueError(f"no segment size for size={size} minimum={minimum} stream_bytes={stream_bytes}")
    wanted = max(minimum, -(-size // MOST_SEGMENTS), 10 * stream_bytes)
    return -(-wanted // MIB) * MIB


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """The segments of one file; they cover every byte of it exactly once.

    Attributes:
        size: Bytes in the whole file, 0 or more. An empty file is one empty segment: it has to be made too.
        segment_bytes: Length of all segments but the last, 1 or more.
    """

    size: int
    segment_bytes: int

    def __post_init__(self) -> None:
        """Refuse what is no plan.

        Raises:
            ValueError: A negative size, or segments without bytes.
        """
        if self.size < 0 or self.segment_bytes <= 0:
            raise ValueError(f"no plan for size={self.size} segment_bytes={self.segment_bytes}")

    def __len__(self) -> int:
        return max(1, -(-self.size // self.segment_bytes))

    def __getitem__(self, number: int) -> Segment:
        if not 0 <= number < len(self):
            raise IndexError(f"segment {number} of {len(self)}")
        offset = number * self.segment_bytes
        return Segment(number, offset, min(self.segment_bytes, self.size - offset))

    def __iter__(self) -> Iterator[Segment]:
        for number in range(len(self)):
            yield self[number]

    def covering(self, offset: int, length: int) -> range:
        """Numbers of the segments that hold any byte of a range, such as an announced block.

        Raises:
            ValueError: The range is not inside the file.
        """
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ValueError(f"range {offset}+{length} is not inside {self.size} bytes")
        if length == 0:
            return range(0)
        return range(offset // self.segment_bytes, (offset + length - 1) // self.segment_bytes + 1)

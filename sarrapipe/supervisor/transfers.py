"""What is told of a flow's large transfers: how far, how fast, how long still. Pure.

Each instance tells of its part in a file (`shm.moving`); here the parts are put together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sarrapipe.log import printable
from sarrapipe.shm.moving import MOST_ROWS, Moving
from sarrapipe.units import format_bytes, format_duration

__all__ = ["TransferStatus", "describe", "lasting", "line"]


@dataclass(frozen=True, slots=True)
class TransferStatus:
    """One large file under way.

    Attributes:
        target: Where it will be, printable.
        source: Scheme and host that it comes from, without credentials.
        size: Bytes; -1 while unknown.
        done: Bytes that have arrived there; those of segments that are not verified yet among them.
        segments: How many there are; 1 for a file that moves in one piece.
        segments_done: How many of them are written and verified.
        streams: Transfers under way for it.
        bytes_per_s: What its transfers move.
        left_s: Seconds until it is there at this rate; None where that is not known.
    """

    target: str
    source: str
    size: int
    done: int
    segments: int
    segments_done: int
    streams: int
    bytes_per_s: int
    left_s: float | None

    @property
    def share(self) -> float:
        """How much of it is there, 0 to 1; by segments while its size is unknown."""
        return self.done / self.size if self.size > 0 else self.segments_done / self.segments


def describe(rows: Iterable[Moving]) -> list[TransferStatus]:
    """Return what is told of files, largest first, from what the instances say of their part in each."""
    parts: dict[str, list[Moving]] = {}
    for row in rows:
        parts.setdefault(row.target, []).append(row)
    found = [_together(each) for each in parts.values()]
    return sorted(found, key=lambda one: one.size, reverse=True)[:MOST_ROWS]


def _together(rows: Sequence[Moving]) -> TransferStatus:
    """Put together what several instances say of one file; who heard of the ledger last knows most."""
    latest = max(rows, key=lambda one: (one.done, one.segments_done))
    size = latest.size
    done = latest.done + sum(one.partial for one in rows)
    done = min(done, size) if size >= 0 else done
    bytes_per_s = sum(one.bytes_per_s for one in rows)
    return TransferStatus(
        target=printable(latest.target),
        source=printable(latest.source),
        size=size,
        done=done,
        segments=latest.segments,
        segments_done=latest.segments_done,
        streams=sum(one.streams for one in rows),
        bytes_per_s=bytes_per_s,
        left_s=round((size - done) / bytes_per_s, 1) if size >= 0 and bytes_per_s >= 1 else None,
    )


def line(one: TransferStatus) -> str:
    """Return one transfer as a line of a log."""
    size = format_bytes(one.size) if one.size >= 0 else "an unknown size"
    left = f", {format_duration(one.left_s)} left" if one.left_s is not None else ""
    return (
        f"{one.target}: {format_bytes(one.done)} of {size} ({one.share:.0%}), "
        f"{format_bytes(one.bytes_per_s)}/s, {one.streams} streams, "
        f"{one.segments_done} of {one.segments} segments{left}"
    )


def lasting(before: Sequence[TransferStatus], now: Sequence[TransferStatus]) -> list[TransferStatus]:
    """Return the transfers of now that were under way before already."""
    known = {one.target for one in before}
    return [one for one in now if one.target in known]

"""What is told of a flow's large transfers: how far, how fast, how long still. Pure.

The ledger knows which segments of a file are written, for all instances together (`ledger.progress`); the
instances' slots know how many bytes a second arrive. A file's rate is its share of the flow's, by streams:
exact where one large file is moved, fair where several are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sarrapipe.log import printable
from sarrapipe.units import format_bytes, format_duration

if TYPE_CHECKING:
    from sarrapipe.ledger.progress import Transfer

__all__ = ["TransferStatus", "describe", "lasting", "line"]


@dataclass(frozen=True, slots=True)
class TransferStatus:
    """One large file under way.

    Attributes:
        target: Where it will be, printable.
        source: Scheme and host that it is announced from, without credentials.
        size: Bytes; -1 while unknown.
        done: Bytes written and verified.
        segments: How many there are.
        segments_done: How many of them are written and verified.
        streams: How many are being fetched.
        bytes_per_s: Its share of what arrives.
        left_s: Seconds until it is there at this rate; None where that is not known.
    """

    target: str
    source: str
    size: int
    done: int
    segments: int
    segments_done: int
    streams: int
    bytes_per_s: float
    left_s: float | None

    @property
    def share(self) -> float:
        """How much of it is there, 0 to 1; by segments while its size is unknown."""
        return self.done / self.size if self.size > 0 else self.segments_done / self.segments


def describe(found: Iterable[Transfer], *, bytes_per_s: float, streams: int) -> list[TransferStatus]:
    """Return what is told of transfers.

    Args:
        found: From the ledger.
        bytes_per_s: What arrives at the flow.
        streams: All its transfers, small files included; may be a second old.
    """
    found = list(found)
    streams = max(streams, sum(one.streams for one in found), 1)
    return [_describe(one, bytes_per_s * one.streams / streams) for one in found]


def _describe(one: Transfer, bytes_per_s: float) -> TransferStatus:
    left = one.size - one.done
    return TransferStatus(
        target=printable(one.target),
        source=_host(one.url),
        size=one.size,
        done=one.done,
        segments=one.segments,
        segments_done=one.segments_done,
        streams=one.streams,
        bytes_per_s=round(bytes_per_s, 1),
        left_s=round(left / bytes_per_s, 1) if one.size >= 0 and bytes_per_s >= 1 else None,
    )


def _host(url: str) -> str:
    """Return scheme and host of a URL; nothing where it has none."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    if not host:
        return printable(f"{parts.scheme}:") if parts.scheme else ""
    host = f"[{host}]" if ":" in host else host
    return printable(f"{parts.scheme}://{host}" + (f":{port}" if port else ""))


def line(one: TransferStatus) -> str:
    """Return one transfer as a line of a log."""
    size = format_bytes(one.size) if one.size >= 0 else "an unknown size"
    left = f", {format_duration(one.left_s)} left" if one.left_s is not None else ""
    return (
        f"{one.target}: {format_bytes(one.done)} of {size} ({one.share:.0%}), "
        f"{format_bytes(int(one.bytes_per_s))}/s, {one.streams} streams, "
        f"{one.segments_done} of {one.segments} segments{left}"
    )


def lasting(before: Sequence[TransferStatus], now: Sequence[TransferStatus]) -> list[TransferStatus]:
    """Return the transfers of now that were under way before already."""
    known = {one.target for one in before}
    return [one for one in now if one.target in known]

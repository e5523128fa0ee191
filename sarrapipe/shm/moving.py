"""What an instance says of the large files it moves: a page of shared memory, written anew each second.

    board.write([Moving(target="/data/x.grib", ...)])
    board.read()        # by anybody; what was being written meanwhile is read as nothing

A page is length, CRC-32 and a msgpack list. Whoever looks needs no lock: a page that was caught half written
does not have its checksum, and the next look sees the next one.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgpack  # type: ignore[import-untyped]  # ships no types

__all__ = ["BOARD_SIZE", "MOST_ROWS", "Board", "Moving", "read_board"]

BOARD_SIZE: Final = 4096
MOST_ROWS: Final = 8
_HEAD: Final = struct.Struct("<II")  # bytes that follow, their CRC-32
_TARGET_BYTES: Final = 360
"""A longer path is shown by its end. With this much of each, `MOST_ROWS` rows fit into a page."""
_SOURCE_BYTES: Final = 64


class Moving(NamedTuple):
    """One large file that an instance has a hand in.

    Attributes:
        target: Path of its final name, here or at a server.
        source: Scheme and host that it comes from.
        size: Bytes; -1 while unknown.
        done: Bytes that are written and verified, whoever moved them, as far as this instance knows.
        partial: Bytes of this instance's transfers that are not among those yet.
        segments: How many there are; 1 for a file that moves in one piece.
        segments_done: How many of them are written and verified.
        streams: Transfers of this instance.
        bytes_per_s: What they move.
    """

    target: str
    source: str
    size: int
    done: int
    partial: int
    segments: int
    segments_done: int
    streams: int
    bytes_per_s: int


class Board:
    """One instance's page.

    Args:
        data: The `BOARD_SIZE` bytes of it.
    """

    def __init__(self, data: memoryview) -> None:
        self._data = data

    def write(self, rows: Sequence[Moving]) -> None:
        """Replace what is said; at most `MOST_ROWS` rows are."""
        body = msgpack.packb([_short(row) for row in rows[:MOST_ROWS]])
        end = _HEAD.size + len(body)
        assert end <= BOARD_SIZE
        self._data[_HEAD.size : end] = body
        self._data[: _HEAD.size] = _HEAD.pack(len(body), zlib.crc32(body))

    def read(self) -> list[Moving]:
        """Return what is said."""
        return read_board(bytes(self._data))


def read_board(data: bytes) -> list[Moving]:
    """Return the rows of a copy of a page; none if it was being written, or never was."""
    if len(data) < _HEAD.size:
        return []
    length, checksum = _HEAD.unpack_from(data)
    body = data[_HEAD.size : _HEAD.size + length]
    if not length or len(body) < length or zlib.crc32(body) != checksum:
        return []
    return [Moving(*row) for row in msgpack.unpackb(body)]


def _short(row: Moving) -> Moving:
    return row._replace(target=_end_of(row.target, _TARGET_BYTES), source=_end_of(row.source, _SOURCE_BYTES))


def _end_of(text: str, most: int) -> str:
    """Return the end of a text that is at most so many bytes of UTF-8."""
    data = text.encode("utf-8", "replace")
    return text if len(data) <= most else "..." + data[3 - most :].decode("utf-8", "ignore")

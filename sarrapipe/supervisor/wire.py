"""msgpack frames on a stream: four bytes of length, big-endian, then one msgpack value.

Used on the control socket and between parent and fork server; both are private to one host and one user.
"""

from __future__ import annotations

import struct
from typing import Final

import msgpack  # type: ignore[import-untyped]  # ships no types

from sarrapipe.errors import SupervisorError

__all__ = ["FRAME_LIMIT", "HEADER", "Reader", "pack"]

HEADER: Final = struct.Struct(">I")
FRAME_LIMIT: Final = 1 << 20
"""Largest frame taken; a status of 512 instances has 60 kB."""


def pack(value: object) -> bytes:
    """Return a value as a frame."""
    body: bytes = msgpack.packb(value)
    return HEADER.pack(len(body)) + body


class Reader:
    """Cuts a stream into values; holds no more than one frame."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> list[object]:
        """Take some bytes, return the values they complete.

        Raises:
            SupervisorError: This is no frame of ours.
        """
        self._data += data
        values: list[object] = []
        while len(self._data) >= HEADER.size:
            (length,) = HEADER.unpack_from(self._data)
            if length > FRAME_LIMIT:
                raise SupervisorError(f"a frame of {length} bytes: not from sarrapipe")
            end = HEADER.size + length
            if len(self._data) < end:
                break
            values.append(_unpack(self._data[HEADER.size : end]))
            self._data = self._data[end:]
        return values


def _unpack(body: bytes) -> object:
    try:
        value: object = msgpack.unpackb(body)
    except ValueError as error:  # msgpack's errors all derive from it
        raise SupervisorError("a frame that is no msgpack: not from sarrapipe") from error
    return value

"""Whether the file under way still holds what was written into it.

Whoever can write into the destination can cut, replace or plant a file there. That of another inode under
its name is noticed before it is put in place (`assembly.publish`), a shorter one by its size. One that was
cut and then written to further along has the right size again and a hole where segments were: those segments
are read back and compared with the digests that the ledger keeps of them. Bytes overwritten by somebody else
in the meantime are found only where a digest over the whole file was announced.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Final

import xxhash

from sarrapipe.errors import InflightDamaged
from sarrapipe.segment.assembly import InflightFile
from sarrapipe.segment.plan import SegmentPlan
from sarrapipe.segment.sink import storage_error

__all__ = ["check_intact", "holes"]

_STEP_BYTES: Final = 1 << 20


def holes(fd: int, size: int) -> list[tuple[int, int]]:
    """Return first byte and end of every part of a file that nothing was written to.

    None where the file system does not tell. Some make holes of zeros that were written: a hole says where to
    look, not that something is wrong.

    Args:
        fd: Descriptor of the file.
        size: Bytes to look at.
    """
    found = []
    at = 0
    try:
        while at < size and (hole := os.lseek(fd, at, os.SEEK_HOLE)) < size:
            at = _next_data(fd, hole, size)
            found.append((hole, at))
    except OSError:
        return found  # it ends before, as the size says; or the file system knows no holes
    return found


def _next_data(fd: int, hole: int, size: int) -> int:
    try:
        return min(os.lseek(fd, hole, os.SEEK_DATA), size)
    except OSError:
        return size  # ENXIO: the hole reaches to the end


def check_intact(file: InflightFile, plan: SegmentPlan, digests: Callable[[], Mapping[int, bytes]]) -> None:
    """Refuse a file of which all segments were written and some are not there any more.

    Args:
        file: Under way, open.
        plan: Its segments.
        digests: Gives the xxh3_128 of each, as written; asked only where there is a hole.

    Raises:
        InflightDamaged: It is shorter than it was, or a segment is not what was written.
        StorageError: It cannot be read.
    """
    if file.size < plan.size:
        raise InflightDamaged(f"{file.target}: {file.size} bytes of {plan.size} are left under way")
    if file.is_dense:
        return
    suspects = {
        number
        for first, end in holes(file.fd, plan.size)
        for number in range(first // plan.segment_bytes, -(-end // plan.segment_bytes))
    }
    if not suspects:
        return
    written = digests()
    for number in sorted(suspects):
        segment = plan[number]
        if _digest(file, segment.offset, segment.length) != written.get(number):
            raise InflightDamaged(f"{file.target}: segment {number} is not what was written there")


def _digest(file: InflightFile, offset: int, length: int) -> bytes:
    hasher = xxhash.xxh3_128()
    end = offset + length
    try:
        while offset < end and (data := os.pread(file.fd, min(_STEP_BYTES, end - offset), offset)):
            hasher.update(data)
            offset += len(data)
    except OSError as error:
        raise storage_error(error, f"read back {file.target}") from error
    return hasher.digest()

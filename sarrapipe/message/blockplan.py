"""How a file is cut into the blocks it is announced in. Pure.

>>> plan = BlockPlan.of(2560, 1000, version_id("a/big.bin", 2560, 0))
>>> plan.count, plan.range_of(2)
(3, (2000, 560))

Source: wire.md 2.1 (numbers), 2.2 (union of both dialects), 2.3 (thresholds); design.md 4 (`blocks.id`).
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import xxhash

from sarrapipe.errors import TooLarge
from sarrapipe.message.blocks import Blocks, ManifestEntry

__all__ = ["AUTO", "MAX_BLOCKS", "MAX_FULL_MANIFEST", "WHOLE", "BlockPlan", "block_size", "version_id"]

AUTO: Final = 0
"""Value of `blockSize`: blocks of a size that follows from the file's."""
WHOLE: Final = 1
"""Value of `blockSize`: every file is announced whole."""

MAX_BLOCKS: Final = 1_000_000
"""Of one file. Each is a message of some 600 bytes; more is a slip in `blockSize` (a file of 10 TB in blocks
of 10 MB has as many)."""
MAX_FULL_MANIFEST: Final = 2000
"""Blocks of a file whose messages all name every digest: n messages of n entries, 500 MB with sha512."""

_MIB: Final = 1 << 20
_SR3_BYTES: Final = 50 * _MIB


def block_size(wanted: int, file_size: int, *, as_sr3: bool = False) -> int | None:
    """Return how many bytes each block has, or None for a file that is announced whole.

    Args:
        wanted: The option `blockSize`: 0 automatic, 1 whole, else bytes.
        file_size: Bytes of the file.
        as_sr3: What is automatic follows sr3 (always 50 MiB), not v2 and C (a third or a tenth of the file).
    """
    if wanted == WHOLE:
        return None
    if wanted == AUTO:
        wanted = _SR3_BYTES if as_sr3 else _automatic(file_size)
    return wanted if wanted < file_size else None


def _automatic(file_size: int) -> int:
    if file_size > 5000 * _MIB:
        return 500 * _MIB
    if file_size > 500 * _MIB:
        return -(-file_size // 10)
    if file_size > 50 * _MIB:
        return -(-file_size // 3)
    return file_size


def version_id(rel_path: str, file_size: int, mtime_ns: int) -> str:
    """Return the `blocks.id` of one version of a file.

    It depends on nothing but what says which version this is, so that hosts which announce the same file, and
    one host which announces it twice, give it the same id. How it is cut and digested is not in it: that
    stands beside it. The modification time is in it even where it is not announced (`timeCopy off`).

    Args:
        rel_path: As announced.
        file_size: Bytes of the whole file.
        mtime_ns: Its modification time.
    """
    text = f"{rel_path}\0{file_size}\0{mtime_ns}"
    return xxhash.xxh3_128_hexdigest(text.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """The blocks of one version of one file.

    Attributes:
        file_size: Bytes of the file.
        size: Bytes of every block but the last.
        count: Number of blocks.
        id: Of this version; see `version_id`.
    """

    file_size: int
    size: int
    count: int
    id: str

    @classmethod
    def of(cls, file_size: int, size: int, version: str) -> Self:
        """Cut a file.

        Raises:
            TooLarge: Into more than `MAX_BLOCKS`.
        """
        count = -(-file_size // size)
        if count > MAX_BLOCKS:
            raise TooLarge(f"{count} blocks of {size} bytes, more than {MAX_BLOCKS}: raise blockSize")
        return cls(file_size, size, count, version)

    def range_of(self, number: int) -> tuple[int, int]:
        """Return offset and length of a block in bytes."""
        offset = number * self.size
        return offset, min(self.size, self.file_size - offset)

    def order(self, generator: random.Random | None = None) -> Sequence[int]:
        """Return the numbers of all blocks in the order to announce them in: random with a generator."""
        if generator is None:
            return range(self.count)
        numbers = array("I", range(self.count))
        generator.shuffle(numbers)
        return numbers

    def wire(self, number: int, manifest: Mapping[int, ManifestEntry]) -> dict[str, object]:
        """Return the field `blocks` of one block's message.

        Args:
            number: Of the block.
            manifest: What the message says of blocks: of this one or of all.
        """
        remainder = self.file_size % self.size
        return Blocks("inplace", self.size, self.count, remainder, number, manifest, self.id).to_wire()

    def entry(self, number: int, identity: str | None) -> ManifestEntry:
        """Return what a manifest says of one block."""
        return ManifestEntry(self.range_of(number)[1], identity)

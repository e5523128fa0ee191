"""Announced blocks of a large file: both upstream dialects read into one value, the union of both written.

sr3 announces `{method, size, number, manifest}` with integers, v2 and C `{method, size, count, remainder,
number}` with strings, and no two of them understand each other (wire.md 2.2). Here the union is kept: whoever
reads a message of ours finds what it knows. A *block* is what a message announces; the *segments* in which
bytes move are planned elsewhere.

>>> c_style = {"method": "inplace", "size": "1000", "count": "3", "remainder": "560", "number": "2"}
>>> blocks = parse_blocks(c_style)
>>> blocks.offset, blocks.length, blocks.file_size
(2000, 560, 2560)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from sarrapipe.errors import MessageError

__all__ = ["BLOCK_METHODS", "Blocks", "ManifestEntry", "parse_blocks", "wire_int"]

BLOCK_METHODS: Final = frozenset({"inplace", "separate", "partitioned"})
"""inplace: a byte range of a file that is whole at the source; the others: a file of its own."""

_MAX_BYTES: Final = 2**63 - 1  # off_t
_JSON_INT: Final = 2**64  # orjson reads no more; what is absurd below that, `safety` says
_MAX_DIGITS: Final = 19  # of 2**63 - 1; what has more is no size, and is refused before int() reads it


class ManifestEntry(NamedTuple):
    """What a manifest says of one block: its bytes, and its identity by the message's own method."""

    size: int
    identity: str | None


@dataclass(frozen=True, slots=True)
class Blocks:
    """The block that a message announces, and its place in the file.

    Attributes:
        method: `inplace`, `separate` or `partitioned`.
        size: Bytes of every block but the last.
        count: Number of blocks, the last included.
        remainder: Bytes of the last block, 0 if it is as long as the others. None where the message does not
            tell: sr3's v02 export of every block but the last (wire.md 2.1).
        number: Of this block, from 0.
        manifest: Number to entry; all blocks, this one only, or None.
        id: Mark of identities that can be trusted (design.md 4), forwarded unchanged.
    """

    method: str
    size: int
    count: int
    remainder: int | None
    number: int
    manifest: Mapping[int, ManifestEntry] | None = None
    id: str | None = None

    @property
    def offset(self) -> int:
        """First byte of this block in the file."""
        return self.number * self.size

    @property
    def length(self) -> int:
        """Bytes of this block."""
        return (self.remainder or self.size) if self.number == self.count - 1 else self.size

    @property
    def file_size(self) -> int | None:
        """Bytes of the whole file, or None where the message does not tell."""
        if self.remainder is None:
            return None
        return (self.count - 1) * self.size + (self.remainder or self.size)

    def to_wire(self) -> dict[str, object]:
        """Return the union of both dialects, numbers as integers (wire.md 2.2)."""
        wire: dict[str, object] = {"method": self.method, "size": self.size, "number": self.number}
        wire["count"] = self.count
        if self.remainder is not None:
            wire["remainder"] = self.remainder
        if self.manifest is not None:
            wire["manifest"] = {
                str(number): {"size": entry.size}
                if entry.identity is None
                else {"size": entry.size, "identity": entry.identity}
                for number, entry in self.manifest.items()
            }
        if self.id is not None:
            wire["id"] = self.id
        return wire


def wire_int(field: str, value: object) -> int:
    """Return an integer that is announced as a number or as a string of digits.

    Raises:
        MessageError: Neither, naming `field`.
    """
    if type(value) is int and -_JSON_INT < value < _JSON_INT:  # bool is a subclass of int and no size
        return value
    if isinstance(value, str) and value.isascii():
        text = value.strip()
        digits = text.removeprefix("-")
        if digits.isdigit() and len(digits) <= _MAX_DIGITS:
            return int(text)
    raise MessageError(f"{field}: {value!r:.60} is not a whole number")


def parse_blocks(wire: Mapping[str, object], length: int | None = None) -> Blocks:
    """Read the field `blocks` of either dialect.

    Args:
        wire: The field as it came, numbers as integers or digits.
        length: Bytes of this block by the message's own `size`, if it says so.

    Raises:
        MessageError: A part is missing, of a wrong type, or contradicts another; the text names it.
    """
    method = wire.get("method")
    if not isinstance(method, str) or method not in BLOCK_METHODS:
        raise MessageError(f"blocks.method: {method!r:.60} is none of inplace, separate, partitioned")
    size = wire_int("blocks.size", wire.get("size"))
    number = wire_int("blocks.number", wire.get("number"))
    manifest = _parse_manifest(wire.get("manifest"))
    count = _count(wire.get("count"), manifest)
    if not (
        0 < size <= _MAX_BYTES and count > 0 and 0 <= number < count and count * size <= _MAX_BYTES + size
    ):
        raise MessageError(f"blocks: block {number} of {count} with {size} bytes each does not exist")
    remainder = _remainder(wire.get("remainder"), size, count, number, manifest, length)
    mark = wire.get("id")
    if mark is not None and not isinstance(mark, str):
        raise MessageError(f"blocks.id: {mark!r:.60} is not a string")
    blocks = Blocks(method, size, count, remainder, number, manifest, mark)
    _check_manifest(blocks)
    return blocks


def _parse_manifest(wire: object) -> dict[int, ManifestEntry] | None:
    if wire is None:
        return None
    if not isinstance(wire, Mapping):
        raise MessageError("blocks.manifest: not an object")
    manifest: dict[int, ManifestEntry] = {}
    for key, entry in wire.items():
        number = wire_int("blocks.manifest", key)
        if not isinstance(entry, dict):
            raise MessageError(f"blocks.manifest.{number}: not an object")
        size, identity = entry.get("size"), entry.get("identity")
        if type(size) is not int:
            size = wire_int(f"blocks.manifest.{number}.size", size)
        if identity is not None:
            if not isinstance(identity, str):
                raise MessageError(f"blocks.manifest.{number}.identity: not a string")
            if not identity.isprintable():  # v2 and sr3 wrap base64 at 76 columns
                identity = "".join(identity.split())
        if number in manifest:
            raise MessageError(f"blocks.manifest.{number}: named twice")
        manifest[number] = ManifestEntry(size, identity or None)
    return manifest or None


def _count(wire: object, manifest: Mapping[int, ManifestEntry] | None) -> int:
    if wire is not None:
        return wire_int("blocks.count", wire)
    if manifest is None:
        raise MessageError("blocks.count: missing, and there is no manifest to count")
    count = len(manifest)
    if min(manifest) != 0 or max(manifest) != count - 1:
        raise MessageError("blocks.manifest: incomplete, and there is no count")
    return count


def _remainder(
    wire: object,
    size: int,
    count: int,
    number: int,
    manifest: Mapping[int, ManifestEntry] | None,
    length: int | None,
) -> int | None:
    last = manifest.get(count - 1) if manifest else None
    if last is not None:
        if wire is not None and (told := wire_int("blocks.remainder", wire)) % size != last.size % size:
            raise MessageError(f"blocks.remainder: {told}, but the manifest's last block has {last.size}")
        return last.size % size
    if wire is not None:
        remainder = wire_int("blocks.remainder", wire)
        if 0 <= remainder < size:
            return remainder
        if remainder != size:
            raise MessageError(f"blocks.remainder: {remainder} is not below the block size {size}")
        # sr3's v02 export writes this block's own size here: of a middle block it says nothing of the last.
        return 0 if number == count - 1 else None
    if number == count - 1 and length is not None:
        return length % size
    return None


def _check_manifest(blocks: Blocks) -> None:
    """Offsets are multiples of the size: every block but the last must have it."""
    size, last = blocks.size, blocks.count - 1
    for number, entry in (blocks.manifest or {}).items():
        if not 0 <= number <= last or not 0 < entry.size <= size:
            raise MessageError(f"blocks.manifest.{number}: no such block")
        if entry.size != size and number != last:
            raise MessageError(f"blocks.manifest.{number}.size: {entry.size} is not the block size {size}")

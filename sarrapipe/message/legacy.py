"""v02's fields brought to v03's names and shapes, wherever they stand: headers, or old JSON bodies.

v2 and C wrote `sum` and `parts` where v03 has `identity`, `fileOp`, `size` and `blocks`; early v03 had
`integrity` and `retPath`. `translate` changes the dictionary in place; what it leaves is for
`fields.normalise` to check.

Source: wire.md 1.2 to 1.5 and 2.1.
"""

from __future__ import annotations

import binascii
from typing import Final

from sarrapipe.errors import MessageError
from sarrapipe.message.blocks import wire_int
from sarrapipe.message.identity import DIGEST_BYTES, LETTERS, parse_text

__all__ = ["LEGACY_FIELDS", "translate"]

LEGACY_FIELDS: Final = frozenset({"integrity", "retPath", "sum", "parts", "oldname"})
"""Names that have another form in v03."""

_WHOLE: Final = "1"
_PART_METHODS: Final = {"i": "inplace", "p": "partitioned"}


def translate(fields: dict[str, object]) -> None:
    """Bring old names and shapes to v03's; where both are there, v03's own stays.

    Raises:
        MessageError: `sum`, `parts` or `oldname` is malformed.
    """
    for old, new in (("integrity", "identity"), ("retPath", "retrievePath")):
        if old in fields:
            fields.setdefault(new, fields.pop(old))
    if "sum" in fields:
        identity = _identity_of_sum(fields.pop("sum"))
        fields.setdefault("identity", identity)
    if "oldname" in fields:
        _move_oldname(fields, fields.pop("oldname"))
    if "parts" in fields:
        _move_parts(fields, fields.pop("parts"))


def _identity_of_sum(text: object) -> dict[str, object]:
    """Read `letter,value`; digests are hexadecimal there."""
    if not isinstance(text, str):
        raise MessageError(f"sum: {text!r:.60} is not a string")
    letter, _, value = text.strip().partition(",")
    method = LETTERS.get(letter)
    if method is None:
        raise MessageError(f"sum: {letter!r:.60} is no method's letter")
    if method not in DIGEST_BYTES:
        if method == "cod":
            value = parse_text(f"z,{value}").value
        return {"method": method, "value": value}
    try:
        digest = bytes.fromhex(value)
    except ValueError as error:
        raise MessageError(f"sum: {value!r:.60} is not hexadecimal") from error
    return {"method": method, "value": binascii.b2a_base64(digest, newline=False).decode("ascii")}


def _move_oldname(fields: dict[str, object], name: object) -> None:
    if not isinstance(name, str) or not name:
        raise MessageError(f"oldname: {name!r:.60} is not a path")
    operation = fields.get("fileOp")
    if operation is None:
        fields["fileOp"] = {"rename": name}
    elif isinstance(operation, dict):
        fields["fileOp"] = {"rename": name, **operation}


def _move_parts(fields: dict[str, object], text: object) -> None:
    """Read `flag,blocksize,count,remainder,number`; one to five parts of it for a whole file."""
    if not isinstance(text, str):
        raise MessageError(f"parts: {text!r:.60} is not a string")
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 5 or (parts[0] not in _PART_METHODS and parts[0] != _WHOLE):
        raise MessageError(f"parts: {text!r:.60} is not flag,blocksize,count,remainder,number")
    if parts[0] == _WHOLE:
        if len(parts) > 1:
            fields.setdefault("size", wire_int("parts", parts[1]))
        return
    if len(parts) != 5:
        raise MessageError(f"parts: {text!r:.60} is a block, and does not say which")
    size, count, remainder, number = (wire_int("parts", part) for part in parts[1:])
    method = _PART_METHODS[parts[0]]
    rel_path = fields.get("relPath")
    if method == "partitioned" and isinstance(rel_path, str) and _is_sr3_block_name(rel_path):
        method = "separate"
    wire = {"method": method, "size": size, "count": count, "remainder": remainder, "number": number}
    fields.setdefault("blocks", wire)


def _is_sr3_block_name(rel_path: str) -> bool:
    """sr3 stores a fetched block as `<file>§block_<number>,<size>_§` (wire.md 2.4)."""
    return rel_path.endswith("_\u00a7") and "\u00a7block_" in rel_path

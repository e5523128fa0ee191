"""v03: one JSON object in the body, no headers.

>>> body = b'{"pubTime":"20231114T221320","baseUrl":"http://h","relPath":"/a/b","size":"3"}'
>>> encode(decode(body))[0]
b'{"pubTime":"20231114T221320","baseUrl":"http://h","relPath":"a/b","size":3}'

Source: wire.md 1.2.
"""

from __future__ import annotations

import json
from typing import Final

import orjson

from sarrapipe.errors import MessageError
from sarrapipe.message.fields import known, normalise
from sarrapipe.message.legacy import LEGACY_FIELDS, translate
from sarrapipe.message.model import Message

__all__ = ["CONTENT_TYPE", "decode", "encode"]

CONTENT_TYPE: Final = "application/json"

_WIS: Final = "wis.wmo.int"
_FIRST_ROUNDED: Final = 2.0**63  # orjson reads integers beyond 64 bits as floats


def decode(body: bytes) -> Message:
    """Read a v03 body.

    Raises:
        MessageError: Not JSON, not an object, or a field is missing or malformed; the text names it.
    """
    try:
        fields = orjson.loads(body)
    except ValueError as error:
        raise MessageError(f"body: not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise MessageError("body: not a JSON object")
    if "conformsTo" in fields or "version" in fields:
        _refuse_wis(fields)
    if not LEGACY_FIELDS.isdisjoint(fields):
        translate(fields)
    if normalise(fields) and any(_may_be_rounded(fields[name]) for name in fields if not known(name)):
        _read_exactly(fields, body)
    return Message(fields)


def _refuse_wis(fields: dict[str, object]) -> None:
    conforms = fields.get("conformsTo")
    first = conforms[0] if isinstance(conforms, list) and conforms else conforms
    if fields.get("version") == "v04" or (isinstance(first, str) and _WIS in first):
        raise MessageError("body: a WIS2 (GeoJSON) message, which is not supported yet")


def _may_be_rounded(value: object) -> bool:
    if isinstance(value, float):
        return abs(value) >= _FIRST_ROUNDED
    if isinstance(value, dict):
        return any(map(_may_be_rounded, value.values()))
    return isinstance(value, list) and any(map(_may_be_rounded, value))


def _read_exactly(fields: dict[str, object], body: bytes) -> None:
    """Take the fields that are only passed on from a reader that keeps every digit of an integer."""
    try:
        exact = json.loads(body)
    except RecursionError as error:  # this reader stops at fewer levels than orjson
        raise MessageError("body: nested too deep") from error
    for name in fields:
        if not known(name) and name in exact:
            fields[name] = exact[name]


def encode(message: Message) -> tuple[bytes, dict[str, object]]:
    """Write a v03 body; the headers are empty.

    Raises:
        MessageError: A mandatory field is missing, or a field is malformed; the text names it.
    """
    fields = message.to_dict()
    normalise(fields)
    try:
        return orjson.dumps(fields), {}
    except TypeError:
        return _write_slowly(fields), {}


def _write_slowly(fields: dict[str, object]) -> bytes:
    """Write integers beyond 64 bits, or name the field that cannot be written."""
    parts: list[str] = []
    for name, value in fields.items():
        try:
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
            parts.append(f"{json.dumps(name, ensure_ascii=False)}:{text}")
            parts[-1].encode("utf-8")
        except (TypeError, ValueError, RecursionError) as error:  # UnicodeEncodeError is a ValueError
            raise MessageError(f"{name!s:.60}: cannot be written as JSON: {error}") from error
    return f"{{{','.join(parts)}}}".encode()

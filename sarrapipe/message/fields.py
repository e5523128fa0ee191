"""The rules of each wire field: tolerant of what v2, C and old sr3 write, one canonical form out.

`normalise` brings the fields of a message to the form that is kept in memory and sent on; it is idempotent,
so it also checks what is about to be sent. Fields it does not know are left as they are (R64); fields that
never belong on the wire are dropped, in both directions: a peer must not set what this process keeps there.

Source: wire.md 1.2 to 1.4 and 2.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import orjson

from sarrapipe.errors import MessageError
from sarrapipe.message.blocks import parse_blocks, wire_int
from sarrapipe.message.identity import DIGEST_BYTES, canonical_identity
from sarrapipe.message.times import canonical_time

__all__ = ["LOCAL_FIELDS", "MAX_DEPTH", "canonical", "check_depth", "is_local", "known", "normalise"]

LOCAL_FIELDS: Final = frozenset(
    {
        *("ack_id", "data_checksum", "exchange", "exchangeSplitOverride", "isRetry", "local_identity"),
        *("local_offset", "noDupe", "nodupe_override", "onfly_checksum", "post_failures", "post_fileOp"),
        *("post_format", "posts", "publisher_index", "reject", "renameUnlink", "subscription_index"),
        *("subtopic", "topic"),
    }
)
"""Names that never go on the wire, beside those with a prefix (wire.md 1.2, sr3-surface.md 2.2)."""

MAX_DEPTH: Final = 100
"""Levels of nesting a field may have; orjson writes 254 at most."""

_MANDATORY: Final = ("pubTime", "baseUrl", "relPath")
_CONTENT_ENCODINGS: Final = frozenset({"utf-8", "base64", "iso-8859-1"})
_GONE: Final = object()  # stands for the value of a field that is to go
_MODE_DIGITS: Final = 7  # 0100644 and the like, as stat prints it


def is_local(name: str) -> bool:
    """Return whether a field belongs to this process alone."""
    return name in LOCAL_FIELDS or name.startswith(("_", "new_", "old_"))


def known(name: str) -> bool:
    """Return whether there is a rule for a field."""
    return name in _RULES


def canonical(name: str, value: object) -> object:
    """Return the canonical form of one field's value, or None if the field is to be absent.

    Raises:
        MessageError: The value cannot be that field's, naming it.
    """
    rule = _RULES.get(name)
    return value if rule is None or value is None else rule(name, value)


def normalise(fields: dict[str, object]) -> bool:
    """Check the fields of a message and bring them to canonical form, in place.

    Returns:
        Whether there are fields without a rule.

    Raises:
        MessageError: A mandatory field is missing, or a field is malformed; the text names it.
    """
    absent: list[str] | None = None
    find = _RULES.get
    unknown = False
    for name, value in fields.items():
        rule = find(name)
        if rule is None:
            unknown = True
            exact = _check_unknown(name, value)
        elif value is None:
            exact = _GONE
        else:
            exact = rule(name, value)
        if exact is value:
            continue
        if exact is None or exact is _GONE:
            absent = [name] if absent is None else [*absent, name]
        else:
            fields[name] = exact  # of an existing key: the dictionary keeps its size under iteration
    for name in absent or ():
        del fields[name]
    _settle(fields)
    return unknown


def _settle(fields: dict[str, object]) -> None:
    """Apply the rules that tie fields together, once each has its form."""
    for name in _MANDATORY:
        if name not in fields:
            raise MessageError(f"{name}: missing")
    identity = fields.get("identity")
    if isinstance(identity, dict) and identity["method"] in _EVENTS:
        _move_event(fields, identity)
    blocks = fields.get("blocks")
    if isinstance(blocks, dict):
        _settle_blocks(fields, blocks)


def _check_unknown(name: str, value: object) -> object:
    """Pass a field on as it is, unless it belongs to some process alone."""
    if is_local(name):
        return _GONE
    if type(value) is not str:
        check_depth(name, value)
    return value


def check_depth(name: str, value: object, depth: int = 1) -> None:
    """Refuse what is nested so deep that writing it again would fail.

    Raises:
        MessageError: More than `MAX_DEPTH` levels, naming the field.
    """
    if depth > MAX_DEPTH:
        raise MessageError(f"{name:.60}: nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, (dict, list)):
                check_depth(name, item, depth + 1)


def _text(name: str, value: object) -> object:
    if isinstance(value, str):
        return value
    raise MessageError(f"{name}: {value!r:.60} is not a string")


def _base_url(name: str, value: object) -> object:
    if isinstance(value, str) and ":" in value:
        return value
    raise MessageError(f"{name}: {value!r:.60} is not a URL")


def _path(name: str, value: object) -> object:
    """v2 writes a leading `/` (wire.md 1.2), and sr3 in `rename`; it never means the root of a host."""
    if not isinstance(value, str):
        raise MessageError(f"{name}: {value!r:.60} is not a string")
    path = value.lstrip("/") if value[:1] == "/" else value
    if not path:
        raise MessageError(f"{name}: empty")
    return path


def _mode(name: str, value: object) -> object:
    if isinstance(value, str) and len(value) <= _MODE_DIGITS and value.isascii() and value.isdigit():
        if "8" in value or "9" in value:
            raise MessageError(f"{name}: {value!r} is not octal")
        return value
    raise MessageError(f"{name}: {value!r:.60} is not octal")


def _object(name: str, value: object) -> dict[str, object]:
    """Return an object, also where v2 sent it as JSON in a string."""
    if isinstance(value, str) and value[:1] == "{":
        try:
            value = orjson.loads(value)
        except ValueError as error:
            raise MessageError(f"{name}: not JSON: {error}") from error
    if isinstance(value, dict):
        return value
    raise MessageError(f"{name}: {value!r:.60} is not an object")


def _report(name: str, value: object) -> object:
    wire = _object(name, value)
    check_depth(name, wire)
    return wire


def _file_op(name: str, value: object) -> object:
    wire = _object(name, value)
    exact: dict[str, object] = {}
    for key, part in wire.items():
        if key in ("remove", "directory"):
            exact[key] = ""  # the value means nothing; v2 writes true (wire.md 1.4)
        elif key in _OLD_OPERATIONS:
            exact.update(dict.fromkeys(_OLD_OPERATIONS[key], ""))
        elif part is None:
            continue
        elif key in ("link", "hlink", "rename") and not (isinstance(part, str) and part):
            raise MessageError(f"{name}.{key}: {part!r:.60} is not a path")
        else:
            check_depth(f"{name}.{key}", part, 1)
            exact[key] = part
    return (wire if exact == wire else exact) if exact else None


def _content(name: str, value: object) -> object:
    wire = _object(name, value)
    encoding = wire.get("encoding")
    if not isinstance(encoding, str) or encoding not in _CONTENT_ENCODINGS:
        raise MessageError(f"{name}.encoding: {encoding!r:.60} is none of utf-8, base64, iso-8859-1")
    if not isinstance(wire.get("value"), str):
        raise MessageError(f"{name}.value: not a string")
    check_depth(name, wire)
    return wire


# Rules are called with the field's name and a value that is not None.
_RULES: Final[Mapping[str, Callable[[str, object], object]]] = {
    "pubTime": canonical_time,
    "baseUrl": _base_url,
    "relPath": _path,
    "retrievePath": _path,
    "identity": canonical_identity,
    "size": wire_int,
    "blocks": _object,  # checked with `size` when all other fields are known
    "mtime": canonical_time,
    "atime": canonical_time,
    "mode": _mode,
    "fileOp": _file_op,
    "rename": _path,
    "content": _content,
    "contentType": _text,
    "source": _text,
    "from_cluster": _text,
    "to_clusters": _text,
    "report": _report,
}

_EVENTS: Final = frozenset({"link", "hlink", "remove", "mkdir", "rmdir", "md5name", "sha512name"})
_BLOCK_KEYS: Final = frozenset({"method", "size", "count", "remainder", "number", "manifest", "id"})
_OLD_OPERATIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "mkdir": ("directory",),
    "rmdir": ("remove", "directory"),
}
"""What sr3 makes of a renamed directory in v02, and passes on in v03."""
_EVENT_OPERATIONS: Final[Mapping[str, tuple[str, ...]]] = {"remove": ("remove",), **_OLD_OPERATIONS}


def _move_event(fields: dict[str, object], identity: Mapping[str, object]) -> None:
    """Turn an identity that tells of an event (v2, C) into `fileOp`; drop one that is of the name only.

    A link whose target is not announced (sr3's v02 export) becomes a message without identity: what its URL
    serves is fetched, as sr3 does, since there is no link to be made.
    """
    del fields["identity"]
    method = str(identity["method"])
    operation = dict(_object("fileOp", fields.get("fileOp") or {}))
    if method in ("link", "hlink"):
        target = fields.pop(method, None) or fields.pop("link", None)
        if target is not None and not isinstance(target, str):
            raise MessageError(f"{method}: {target!r:.60} is not a string")
        if target:
            operation.setdefault(method, target)
    for key in _EVENT_OPERATIONS.get(method, ()):
        operation[key] = ""
    if operation:
        fields["fileOp"] = operation


def _settle_blocks(fields: dict[str, object], wire: dict[str, object]) -> None:
    """Bring `blocks` to the union of the dialects, and `size` to this block's length."""
    if wire.get("number") is None:
        _drop_blocks(fields, trusted=wire.get("id") is not None)
        return
    size = fields.get("size")
    blocks = parse_blocks(wire, size if isinstance(size, int) else None)
    length = blocks.length
    if size != length:
        # C announces no size; v2 a 0 for the last block of a file of whole blocks (wire.md 2.1).
        if size is not None and not (size == 0 and blocks.number == blocks.count - 1):
            raise MessageError(f"size: {size} contradicts blocks: block {blocks.number} has {length} bytes")
        fields["size"] = length
    exact = blocks.to_wire()
    for key, value in wire.items():
        if key not in _BLOCK_KEYS:
            check_depth(f"blocks.{key}", value)
            exact[key] = value
    if exact != wire:
        fields["blocks"] = exact


def _drop_blocks(fields: dict[str, object], *, trusted: bool) -> None:
    """Take a reassembled file's message for what it is: a whole file's.

    sr3 leaves `blocks` without a number in it, and as identity that of the block that came last (wire.md
    2.6, 4): it is computed anew.
    """
    del fields["blocks"]
    identity = fields.get("identity")
    if isinstance(identity, dict) and not trusted and identity["method"] in DIGEST_BYTES:
        fields["identity"] = {"method": "cod", "value": identity["method"]}

"""v02: time, base URL and path as text in the body, everything else in string headers.

What v02 cannot say is refused (xxh3_128, a field over 255 bytes) or left out (inlined content, a manifest):
the receiver then fetches by the URL. Where sr3's export loses something a receiver needs (a link's target,
that a directory was removed), this one does not.

Source: wire.md 1.5 and 2.1.
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final

import orjson

from sarrapipe.errors import MessageError
from sarrapipe.message.blocks import Blocks
from sarrapipe.message.fields import MAX_DEPTH, is_local, normalise
from sarrapipe.message.identity import DIGEST_BYTES, LETTERS
from sarrapipe.message.legacy import translate
from sarrapipe.message.model import FileOp, Message
from sarrapipe.message.times import v02_time
from sarrapipe.units import format_time

__all__ = ["CONTENT_TYPE", "decode", "decode_fields", "encode"]

CONTENT_TYPE: Final = "text/plain"

_MAX_FIELD_BYTES: Final = 255  # what v2 and C take of one header (wire.md 1.5)
_MANDATORY: Final = ("pubTime", "baseUrl", "relPath")
_REPORT_TOPICS: Final = ("v02.report", "v02.log")
_JSON_HEADERS: Final = frozenset({"report", "geometry", "properties", "links", "fileOp"})
_MARKS: Final = {method: letter for letter, method in LETTERS.items() if letter not in "Nnp"}
_FLAGS: Final = {"inplace": "i", "partitioned": "p", "separate": "p"}
# Said otherwise in v02, or not at all: content and manifests do not fit into a header.
_NOT_HEADERS: Final = frozenset({*_MANDATORY, "identity", "fileOp", "size", "blocks", "content"})


def decode(body: bytes, headers: Mapping[str, object], routing_key: str = "") -> Message:
    """Read a v02 body and its headers.

    Args:
        body: `time baseUrl relPath` and perhaps more, which is reserved.
        headers: The AMQP header table as the client library gives it.
        routing_key: Tells reports from posts; a report's further words become the field `report`.

    Raises:
        MessageError: A word is missing, or a field is malformed; the text names it.
    """
    words = body.split(None, 7)  # of bytes: only ASCII blanks, a name may hold others
    if len(words) < len(_MANDATORY):
        raise MessageError(f"body: {len(words)} words are no v02 message: time, baseUrl, relPath")
    try:
        texts = [word.decode("utf-8") for word in words[:7]]
    except UnicodeDecodeError as error:
        raise MessageError(f"body: not UTF-8: {error}") from error
    fields = decode_fields(texts[0], texts[1], texts[2], headers)
    if len(texts) == 7 and routing_key.startswith(_REPORT_TOPICS):
        fields["report"] = _report(texts[3:])
    normalise(fields)
    return Message(fields)


def decode_fields(
    pub_time: object, base_url: object, rel_path: object, headers: Mapping[str, object]
) -> dict[str, object]:
    """Return the v03 fields of a v02 message, not yet checked."""
    fields: dict[str, object] = {"pubTime": pub_time}
    fields["baseUrl"] = _unescape(base_url)
    fields["relPath"] = _unescape(rel_path)
    for name, value in headers.items():
        if name not in _MANDATORY:
            fields[name] = value if type(value) is str and value.isascii() else _plain(name, value, 1)
    for name in _JSON_HEADERS & fields.keys():
        value = fields[name]
        if isinstance(value, str) and value[:1] in ("{", "["):
            fields[name] = _from_json(name, value)
    translate(fields)
    return fields


def _unescape(value: object) -> object:
    """Exactly `%20` and `%23`: v02 escapes nothing else, not even `%` (wire.md 1.5)."""
    if isinstance(value, str) and "%2" in value:
        return value.replace("%20", " ").replace("%23", "#")
    return value


def _from_json(name: str, text: str) -> object:
    try:
        return orjson.loads(text)
    except ValueError as error:
        raise MessageError(f"{name}: not JSON: {error}") from error


def _plain(name: str, value: object, depth: int) -> object:
    """Return a header's value in JSON's types; AMQP tables have more."""
    if depth > MAX_DEPTH:
        raise MessageError(f"{name!s:.60}: nested more than {MAX_DEPTH} levels deep")
    if value is None or isinstance(value, (int, float)):
        return value
    if isinstance(value, str):
        return _utf8(name, value)
    if isinstance(value, Mapping):
        return {_utf8(name, str(key)): _plain(name, item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(name, item, depth + 1) for item in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        try:
            return bytes(value).decode("utf-8")
        except UnicodeDecodeError as error:
            raise MessageError(f"{name!s:.60}: not UTF-8") from error
    if isinstance(value, datetime):
        return format_time(int(value.timestamp()) * 1_000_000_000)  # AMQP's have whole seconds
    if isinstance(value, Decimal):
        return str(value)
    raise MessageError(f"{name!s:.60}: a {type(value).__name__} is no header value")


def _utf8(name: str, text: str) -> str:
    """Refuse what stands for bytes that are no text: it could not be sent on."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise MessageError(f"{name!a:.60}: not UTF-8") from error
    return text


def _report(words: list[str]) -> dict[str, object]:
    """Read `code host user elapsed` (wire.md 3.1) in the shape that v2 gives it in v03."""
    code, host, user, elapsed = words
    try:
        return {"elapsedTime": float(elapsed), "resultCode": int(code), "host": host, "user": user}
    except ValueError as error:
        raise MessageError(f"report: {' '.join(words)!r:.60} is not code, host, user, seconds") from error


def encode(message: Message) -> tuple[bytes, dict[str, object]]:
    """Write a v02 body and its headers, all of them strings.

    Raises:
        MessageError: A mandatory field is missing, or a field is malformed or does not fit into v02. It never
            will: trying again is of no use.
    """
    fields = message.to_dict()
    normalise(fields)
    exact = Message(fields)
    headers: dict[str, object] = {}
    for name, value in fields.items():
        if name not in _NOT_HEADERS and not is_local(name):
            headers[name] = v02_time(str(value)) if name in ("mtime", "atime") else _flat(name, value)
    operation = exact.file_op or FileOp()
    _add_operation(headers, operation, fields.get("fileOp"))
    if not (operation.remove or operation.directory or operation.link):
        parts = _parts(exact.blocks, exact.size)
        if parts:
            headers["parts"] = parts
    headers["sum"] = _sum(exact, operation)
    for name, text in headers.items():
        _check_length(name, str(text))
    body = f"{v02_time(exact.pub_time)} {_escape(exact, 'baseUrl')} {_escape(exact, 'relPath')}"
    try:
        return body.encode("utf-8"), headers
    except UnicodeEncodeError as error:
        raise MessageError(f"relPath: not UTF-8: {error}") from error


def _escape(message: Message, name: str) -> str:
    text = str(message[name]).replace(" ", "%20").replace("#", "%23")
    raw = text.encode("utf-8", "surrogatepass")
    if raw.split() != [raw]:
        raise MessageError(f"{name}: {text!r:.60} holds blanks that v02 cannot escape")
    return text


def _flat(name: str, value: object) -> str:
    """Return a header's text: strings as they are, anything else as JSON (as v2 does)."""
    if isinstance(value, str):
        return value
    try:
        return orjson.dumps(value).decode("utf-8")
    except TypeError as error:
        raise MessageError(f"{name!s:.60}: cannot be written as JSON: {error}") from error


def _check_length(name: str, text: str) -> None:
    for what in (text, name):
        if len(what) > _MAX_FIELD_BYTES or not what.isascii():
            try:
                size = len(what.encode("utf-8"))
            except UnicodeEncodeError as error:
                raise MessageError(f"{name!a:.60}: not UTF-8") from error
            if size > _MAX_FIELD_BYTES:
                raise MessageError(f"{name:.60}: {size} bytes, v02 takes {_MAX_FIELD_BYTES}")


def _add_operation(headers: dict[str, object], operation: FileOp, wire: object) -> None:
    if operation.link is not None:
        headers["link"] = operation.link
    if operation.hlink is not None:
        headers["hlink"] = operation.hlink
    if operation.rename is not None:
        headers["oldname"] = operation.rename
    if isinstance(wire, dict):
        others = {key: value for key, value in wire.items() if key not in FileOp.__slots__}
        if others:
            headers["fileOp"] = _flat("fileOp", others)


def _parts(blocks: Blocks | None, size: int | None) -> str:
    if blocks is None:
        return "" if size is None else f"1,{size},1,0,0"
    # An unknown remainder is passed on as sr3 wrote it (wire.md 2.1): as large as no true one can be.
    remainder = blocks.size if blocks.remainder is None else blocks.remainder
    return f"{_FLAGS[blocks.method]},{blocks.size},{blocks.count},{remainder},{blocks.number}"


def _sum(message: Message, operation: FileOp) -> str:
    name = message.rel_path.rpartition("/")[2]
    if operation.link is not None:
        return f"L,{_sha512(operation.link)}"
    if operation.hlink is not None:
        return f"l,{_sha512(operation.hlink)}"
    if operation.remove:
        return f"{'r' if operation.directory else 'R'},{_sha512(name)}"
    if operation.directory:
        return f"m,{_sha512(name)}"
    identity = message.identity
    if identity is None:
        digest = hashlib.md5(name.encode("utf-8", "surrogatepass"), usedforsecurity=False)
        return f"n,{digest.hexdigest()}"
    letter = _MARKS.get(identity.method)
    if letter is None:
        raise MessageError(f"identity.method: {identity.method} has no letter in v02")
    if identity.method in DIGEST_BYTES:
        return f"{letter},{binascii.a2b_base64(identity.value).hex()}"
    if identity.method == "cod":
        if identity.value not in _MARKS:
            raise MessageError(f"identity.value: {identity.value} has no letter in v02")
        return f"{letter},{_MARKS[identity.value]}"
    return f"{letter},{identity.value}"


def _sha512(text: str) -> str:
    return hashlib.sha512(text.encode("utf-8", "surrogatepass")).hexdigest()

"""Which dialect a message is in, told by its body, and the way from and to each.

Neither the topic nor the content type is reliable: v02 bodies stand under v03 topics on real pumps, and some
publishers set no content type at all (wire.md 1.8).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import orjson

from sarrapipe.errors import MessageError
from sarrapipe.message import codec_v02, codec_v03
from sarrapipe.message.fields import normalise
from sarrapipe.message.model import Message

__all__ = ["CONTENT_TYPES", "FORMATS", "decode", "encode", "encode_v02", "encode_v03", "told_path"]

encode_v02 = codec_v02.encode
encode_v03 = codec_v03.encode

CONTENT_TYPES: Final[Mapping[str, str]] = {"v03": codec_v03.CONTENT_TYPE, "v02": codec_v02.CONTENT_TYPE}
"""The AMQP content type of each dialect (wire.md 1.7)."""

FORMATS: Final[Mapping[str, Callable[[Message], tuple[bytes, dict[str, object]]]]] = {
    "v03": encode_v03,
    "v02": encode_v02,
}
"""Values of the option `post_format`."""

_BLANK: Final = b" \t\r\n"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


def decode(
    body: bytes, headers: Mapping[str, object], content_type: str | None = None, routing_key: str = ""
) -> Message:
    """Read a message in whatever dialect it is.

    Args:
        body: As delivered.
        headers: The AMQP header table; of use in v02 only.
        content_type: The AMQP property; only sharpens the error's text.
        routing_key: The topic; tells v02 reports from v02 posts.

    Raises:
        MessageError: The message is malformed, or of a kind that is not supported; the text names the field.
    """
    if body[:1] == b"{":
        return codec_v03.decode(body)
    stripped = body.removeprefix(_BYTE_ORDER_MARK).lstrip(_BLANK)
    first = stripped[:1]
    if first == b"{":
        return codec_v03.decode(stripped)
    if first == b"[":
        return _decode_transitional(stripped)
    if b"swim" in str(headers.get("conformsTo", "")).lower().encode("utf-8", "replace"):
        raise MessageError("body: a SWIM message, which is not supported")
    if content_type == codec_v03.CONTENT_TYPE and len(stripped.split(None, 3)) < 3:
        raise MessageError("body: announced as JSON, and is no JSON object")
    return codec_v02.decode(stripped, headers, routing_key)


def _decode_transitional(body: bytes) -> Message:
    """Read v2's first form of v03: `[pubTime, baseUrl, relPath, headers]`, the headers being v02's."""
    try:
        parts = orjson.loads(body)
    except ValueError as error:
        raise MessageError(f"body: not JSON: {error}") from error
    if len(parts) != 4 or not isinstance(parts[3], dict):
        raise MessageError("body: a JSON array other than [pubTime, baseUrl, relPath, headers]")
    fields = codec_v02.decode_fields(*parts)
    normalise(fields)
    return Message(fields)


def encode(message: Message, post_format: str) -> tuple[bytes, dict[str, object], str]:
    """Return body, headers and content type of a message in the dialect `post_format` (a key of `FORMATS`).

    Raises:
        MessageError: The message does not fit into that dialect; the text names the field.
    """
    body, headers = FORMATS[post_format](message)
    return body, headers, CONTENT_TYPES[post_format]


def told_path(body: bytes) -> str:
    """Return the relPath that a malformed message tells, for whoever looks for its source; "" if none.

    Args:
        body: As delivered, in any dialect.
    """
    try:
        fields = orjson.loads(body)
    except ValueError:
        words = body.decode("utf-8", "replace").split(maxsplit=3)
        return words[2] if len(words) > 2 and words[0].replace(".", "").isdigit() else ""
    path = fields.get("relPath") if isinstance(fields, dict) else None
    return path if isinstance(path, str) else ""

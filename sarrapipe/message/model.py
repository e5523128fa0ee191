"""The notification message: the wire fields of one announcement, whatever dialect it came in.

A `Message` is v03-shaped and frozen; what a process knows beside it (delivery tag, destination, attempts)
lives in `WorkItem`. Codecs make messages whose fields are checked and in canonical form, so that reading a
property costs little and sending a message on changes nothing.

>>> Message({"pubTime": "20231114T221320", "baseUrl": "http://h/d/", "relPath": "a/b.txt"}).url
'http://h/d/a/b.txt'

Source: wire.md 1.1 and 1.2; design.md 6.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from sarrapipe.errors import MessageError
from sarrapipe.message.blocks import Blocks, ManifestEntry, parse_blocks
from sarrapipe.message.times import time_ns

__all__ = ["Blocks", "FileOp", "Identity", "ManifestEntry", "Message"]

# Who may set a user's or group's identity is decided here, not by a message: those bits are not taken over.
_PERMISSION_BITS: Final = 0o1777


@dataclass(frozen=True, slots=True)
class Identity:
    """What a message says of the data: a method, and a value (base64 of the digest for digests)."""

    method: str
    value: str


@dataclass(frozen=True, slots=True)
class FileOp:
    """A change of metadata rather than of data (wire.md 1.4); the parts may come together.

    Attributes:
        link: Target of a symbolic link, as text.
        hlink: Name of the file a hard link is made to.
        rename: Old name as the source's host saw it: absolute from sr3, relative from v2.
        remove: The name is gone.
        directory: The name is a directory; with `remove`, it was one.
    """

    link: str | None = None
    hlink: str | None = None
    rename: str | None = None
    remove: bool = False
    directory: bool = False


class Message(Mapping[str, object]):
    """The wire fields of one notification message.

    Args:
        fields: The fields in v03's names and shapes. The message owns the dictionary from here on; nothing
            is copied or checked (the codecs do that).
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: dict[str, object]) -> None:
        self._fields = fields

    def __getitem__(self, key: str) -> object:
        return self._fields[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __contains__(self, key: object) -> bool:
        return key in self._fields

    def __eq__(self, other: object) -> bool:
        return self._fields == other._fields if isinstance(other, Message) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # a mapping with mappings inside, as dict

    def __repr__(self) -> str:
        return f"Message({self._fields!r})"

    @property
    def fields(self) -> Mapping[str, object]:
        """The fields themselves, to be read only: quicker than the mapping where speed counts."""
        return self._fields

    @property
    def pub_time(self) -> str:
        """When the origin announced it; the same over all hops."""
        return self._text("pubTime")

    @property
    def pub_time_ns(self) -> int:
        """`pub_time` in nanoseconds since 1970 UTC."""
        return time_ns("pubTime", self._text("pubTime"))

    @property
    def base_url(self) -> str:
        """Where the data can be fetched, with or without a trailing `/`."""
        return self._text("baseUrl")

    @property
    def rel_path(self) -> str:
        """Path below `base_url`, no leading `/`, nothing escaped."""
        return self._text("relPath")

    @property
    def retrieve_path(self) -> str | None:
        """Takes the place of `rel_path` for fetching only."""
        return self._optional_text("retrievePath")

    @property
    def url(self) -> str:
        """What to fetch, unescaped, with exactly one `/` where the parts meet."""
        path = self.retrieve_path or self.rel_path
        return f"{self.base_url.rstrip('/')}/{path.lstrip('/')}"

    @property
    def size(self) -> int | None:
        """Bytes announced: of the file, or of the block where there are blocks."""
        size = self._fields.get("size")
        if size is None or type(size) is int:
            return size
        raise MessageError(f"size: {size!r:.60} is not a whole number")

    @property
    def mtime_ns(self) -> int | None:
        """Modification time of the data in nanoseconds since 1970 UTC."""
        text = self._optional_text("mtime")
        return None if text is None else time_ns("mtime", text)

    @property
    def atime_ns(self) -> int | None:
        """Access time in nanoseconds since 1970 UTC (sr3 writes the change time there)."""
        text = self._optional_text("atime")
        return None if text is None else time_ns("atime", text)

    @property
    def mode(self) -> int | None:
        """Permission bits without the set-user-ID and set-group-ID bits."""
        text = self._optional_text("mode")
        try:
            return None if text is None else int(text, 8) & _PERMISSION_BITS
        except ValueError as error:
            raise MessageError(f"mode: {text!r:.60} is not octal") from error

    @property
    def identity(self) -> Identity | None:
        """What the data must match."""
        wire = self._optional_object("identity")
        if wire is None:
            return None
        method, value = wire.get("method"), wire.get("value")
        if isinstance(method, str) and isinstance(value, str):
            return Identity(method, value)
        raise MessageError("identity: method and value must be strings")

    @property
    def file_op(self) -> FileOp | None:
        """The change of metadata announced, if it is one."""
        wire = self._optional_object("fileOp")
        if wire is None:
            return None
        texts: dict[str, str | None] = {}
        for name in ("link", "hlink", "rename"):
            text = wire.get(name)
            if text is not None and not isinstance(text, str):
                raise MessageError(f"fileOp.{name}: {text!r:.60} is not a string")
            texts[name] = text
        return FileOp(**texts, remove="remove" in wire, directory="directory" in wire)

    @property
    def blocks(self) -> Blocks | None:
        """The block announced, if it is one."""
        wire = self._optional_object("blocks")
        return None if wire is None else parse_blocks(wire, self.size)

    @property
    def source(self) -> str | None:
        """The user who injected the data."""
        return self._optional_text("source")

    def content(self) -> bytes | None:
        """Return the data where the message carries it.

        Raises:
            MessageError: The field cannot be decoded.
        """
        wire = self._optional_object("content")
        if wire is None:
            return None
        encoding, value = wire.get("encoding"), wire.get("value")
        if not isinstance(value, str):
            raise MessageError("content.value: not a string")
        try:
            if encoding == "base64":
                return base64.b64decode("".join(value.split()), validate=True)
            if encoding in ("utf-8", "iso-8859-1"):
                return value.encode(str(encoding))
        except (binascii.Error, UnicodeEncodeError, ValueError) as error:
            raise MessageError(f"content.value: not {encoding}: {error}") from error
        raise MessageError(f"content.encoding: {encoding!r:.60} is none of utf-8, base64, iso-8859-1")

    def replace(self, **changes: object) -> Message:
        """Return a message with other fields; None takes a field away."""
        fields = self._fields | changes
        for name, value in changes.items():
            if value is None:
                fields.pop(name, None)
        return Message(fields)

    def to_dict(self) -> dict[str, object]:
        """Return a copy of the fields (not of what is inside them)."""
        return dict(self._fields)

    def _text(self, name: str) -> str:
        value = self._fields.get(name)
        if isinstance(value, str):
            return value
        raise MessageError(f"{name}: missing" if value is None else f"{name}: {value!r:.60} is not a string")

    def _optional_text(self, name: str) -> str | None:
        value = self._fields.get(name)
        if value is None or isinstance(value, str):
            return value
        raise MessageError(f"{name}: {value!r:.60} is not a string")

    def _optional_object(self, name: str) -> Mapping[str, object] | None:
        value = self._fields.get(name)
        if value is None or isinstance(value, dict):
            return value
        raise MessageError(f"{name}: {value!r:.60} is not an object")

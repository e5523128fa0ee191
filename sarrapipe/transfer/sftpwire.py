"""The SFTP protocol's packets, version 3: written and read, nothing sent. Pure.

Source: draft-ietf-secsh-filexfer-02, and OpenSSH's PROTOCOL for its extensions.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from sarrapipe.errors import AccessDenied, MessageError, SourceGone, TransferError

__all__ = [
    "ATTRS",
    "CLOSE",
    "DATA",
    "EXTENDED",
    "EXTENDED_REPLY",
    "FSTAT",
    "HANDLE",
    "HEADER_BYTES",
    "INIT",
    "LIMITS",
    "LSTAT",
    "MAX_PACKET_BYTES",
    "MKDIR",
    "NAME",
    "NO_SUCH_FILE",
    "OPEN",
    "OPENDIR",
    "OPEN_READ",
    "POSIX_RENAME",
    "READ",
    "READDIR",
    "READLINK",
    "REALPATH",
    "REMOVE",
    "RENAME",
    "RMDIR",
    "SETSTAT",
    "SFTP_VERSION",
    "STAT",
    "STATUS",
    "STATUS_EOF",
    "STATUS_OK",
    "SYMLINK",
    "VERSION",
    "WRITE",
    "Attributes",
    "Limits",
    "attributes",
    "extensions",
    "file_name",
    "limits",
    "names",
    "open_to_write",
    "packet",
    "read_request",
    "set_attributes",
    "status",
    "status_error",
    "string",
    "write_request",
]

SFTP_VERSION: Final = 3
INIT: Final = 1
VERSION: Final = 2
OPEN: Final = 3
CLOSE: Final = 4
READ: Final = 5
WRITE: Final = 6
LSTAT: Final = 7
FSTAT: Final = 8
SETSTAT: Final = 9
OPENDIR: Final = 11
READDIR: Final = 12
REMOVE: Final = 13
MKDIR: Final = 14
RMDIR: Final = 15
REALPATH: Final = 16
STAT: Final = 17
RENAME: Final = 18
READLINK: Final = 19
SYMLINK: Final = 20
STATUS: Final = 101
HANDLE: Final = 102
DATA: Final = 103
NAME: Final = 104
ATTRS: Final = 105
EXTENDED: Final = 200
EXTENDED_REPLY: Final = 201

OPEN_READ: Final = struct.pack(">II", 1, 0)
"""SSH_FXF_READ, and no attributes."""
STATUS_OK: Final = 0
STATUS_EOF: Final = 1
NO_SUCH_FILE: Final = 2
_PERMISSION_DENIED: Final = 3
LIMITS: Final = b"limits@openssh.com"
POSIX_RENAME: Final = b"posix-rename@openssh.com"
"""Renames over what is there, at once; the protocol's own RENAME refuses that."""
_TO_WRITE: Final = 2 | 8
"""SSH_FXF_WRITE and SSH_FXF_CREAT."""
_TO_TRUNCATE: Final = 16

HEADER_BYTES: Final = 5
"""Length and type; a request number follows in all packets but the first two."""
MAX_PACKET_BYTES: Final = 1 << 18
"""What OpenSSH sends and takes at most (SFTP_MAX_MSG_LENGTH)."""

_HAS_SIZE: Final = 1
_HAS_OWNERS: Final = 2
_HAS_MODE: Final = 4
_HAS_TIMES: Final = 8
_HAS_EXTENDED: Final = 1 << 31
_SHORT_STRING: Final = 200

_U32 = struct.Struct(">I")
_HEAD = struct.Struct(">IBI")
_RANGE = struct.Struct(">QI")
_TIMES = struct.Struct(">II")


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a server says of a file; None for what it does not say.

    Attributes:
        size: Bytes.
        mode: Type and permissions as `stat` has them.
        mtime_s: Time of the last change, seconds.
    """

    size: int | None
    mode: int | None
    mtime_s: int | None


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes in one request (extension limits@openssh.com); 0 for what it does not say."""

    read_bytes: int
    write_bytes: int


def string(data: bytes) -> bytes:
    """A string as the protocol writes it."""
    return _U32.pack(len(data)) + data


def packet(kind: int, number: int, body: bytes) -> bytes:
    """A request, ready to be sent."""
    return _HEAD.pack(5 + len(body), kind, number) + body


def read_request(number: int, handle: bytes, offset: int, count: int) -> bytes:
    """A request for `count` bytes; `handle` is a `string`."""
    return _HEAD.pack(17 + len(handle), READ, number) + handle + _RANGE.pack(offset, count)


def write_request(number: int, handle: bytes, offset: int, data: memoryview) -> tuple[bytes, memoryview]:
    """A request to write `data`, as the two parts that follow each other; `handle` is a `string`."""
    count = len(data)
    head = _HEAD.pack(17 + len(handle) + count, WRITE, number) + handle + _RANGE.pack(offset, count)
    return head, data


def open_to_write(name: bytes, mode: int | None, *, truncate: bool) -> bytes:
    """Body of an OPEN that makes the file where it is not there.

    Args:
        name: Of the file.
        mode: Its permission bits if it is made; None leaves them to the server.
        truncate: Drop what is in it.
    """
    flags = _TO_WRITE | (_TO_TRUNCATE if truncate else 0)
    return string(name) + _U32.pack(flags) + set_attributes(mode=mode)


def set_attributes(
    *, size: int | None = None, mode: int | None = None, times_s: tuple[int, int] | None = None
) -> bytes:
    """Attributes to be set: bytes, permission bits, times of last access and last change in seconds."""
    flags, body = 0, b""
    if size is not None:
        flags |= _HAS_SIZE
        body += size.to_bytes(8)
    if mode is not None:
        flags |= _HAS_MODE
        body += _U32.pack(mode)
    if times_s is not None:
        flags |= _HAS_TIMES
        body += _TIMES.pack(*times_s)
    return _U32.pack(flags) + body


def file_name(path: str) -> bytes:
    """The name a path has at the server.

    `/~/a` is below the directory one is logged in to, as curl has it; everything else is absolute.

    Raises:
        MessageError: It holds a NUL.
    """
    if "\0" in path:
        raise MessageError(f"NUL in a path: {path[:_SHORT_STRING]!r}")
    if path.startswith("/~/"):
        path = path[3:] or "."
    return path.encode("utf-8", "surrogateescape")


def attributes(body: memoryview) -> Attributes:
    """Read the body of an ATTRS packet, after the request's number.

    Raises:
        TransferError: It is cut short.
    """
    return _attributes_at(body, 0)[0]


def _attributes_at(body: memoryview, at: int) -> tuple[Attributes, int]:
    """Read attributes, and say where they end."""
    try:
        (flags,) = _U32.unpack_from(body, at)
        at += 4
        size = mode = mtime = None
        if flags & _HAS_SIZE:
            (size,) = struct.unpack_from(">Q", body, at)
            at += 8
        if flags & _HAS_OWNERS:
            at += 8
        if flags & _HAS_MODE:
            (mode,) = _U32.unpack_from(body, at)
            at += 4
        if flags & _HAS_TIMES:
            _, mtime = _TIMES.unpack_from(body, at)
            at += 8
        if flags & _HAS_EXTENDED:
            at = _after_extended(body, at)
    except struct.error as error:
        raise TransferError("SFTP server sent attributes that are cut short") from error
    return Attributes(size, mode, mtime), at


def _after_extended(body: memoryview, at: int) -> int:
    (pairs,) = _U32.unpack_from(body, at)
    at += 4
    for _ in range(2 * pairs):
        (count,) = _U32.unpack_from(body, at)
        at += 4 + count
    return at


def names(body: memoryview) -> list[tuple[bytes, Attributes]]:
    """Read the body of a NAME packet, after the request's number.

    Raises:
        TransferError: It is cut short.
    """
    if len(body) < 4:
        raise TransferError("SFTP server sent names that are cut short")
    (count,) = _U32.unpack_from(body)
    at, found = 4, []
    for _ in range(count):
        name = _string_at(body, at)
        long_name = None if name is None else _string_at(body, at + 4 + len(name))
        if name is None or long_name is None:
            raise TransferError("SFTP server sent names that are cut short")
        entry, at = _attributes_at(body, at + 8 + len(name) + len(long_name))
        found.append((name, entry))
    return found


def extensions(body: memoryview) -> dict[bytes, bytes]:
    """Read what a VERSION packet names after the version; what is cut short is left out."""
    found: dict[bytes, bytes] = {}
    at = 4
    while (name := _string_at(body, at)) is not None:
        at += 4 + len(name)
        value = _string_at(body, at)
        if value is None:
            break
        at += 4 + len(value)
        found[name] = value
    return found


def limits(body: memoryview) -> Limits | None:
    """Read the answer to `LIMITS`; None if it is none."""
    if len(body) < 24:
        return None
    _packet_bytes, read_bytes, write_bytes = struct.unpack_from(">QQQ", body)
    return Limits(read_bytes, write_bytes)


def status(body: memoryview) -> tuple[int, str]:
    """Read code and text of a STATUS packet, after the request's number; code -1 if it is cut short."""
    if len(body) < 4:
        return -1, "cut short"
    text = _string_at(body, 4) or b""
    return _U32.unpack_from(body)[0], text[:_SHORT_STRING].decode("utf-8", "replace")


def status_error(body: memoryview, what: str) -> TransferError:
    """The error that a STATUS packet stands for.

    Args:
        body: Of the packet, after the request's number.
        what: What was asked for, naming the file.
    """
    code, text = status(body)
    if code == NO_SUCH_FILE:
        return SourceGone(f"{what}: {text or 'no such file'}")
    if code == _PERMISSION_DENIED:
        return AccessDenied(f"{what}: {text or 'permission denied'}")
    return TransferError(f"{what}: {text or 'failed'} (SFTP status {code})")


def _string_at(body: memoryview, at: int) -> bytes | None:
    if len(body) < at + 4:
        return None
    (count,) = _U32.unpack_from(body, at)
    if len(body) < at + 4 + count:
        return None
    return bytes(body[at + 4 : at + 4 + count])

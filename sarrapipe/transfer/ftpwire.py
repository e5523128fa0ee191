r"""Replies of an FTP server, and what stands in them: pure functions, no connection in sight.

    reader = ReplyReader()
    reader.feed(b"220-hello\r\n220 ready\r\n")     # [Reply(code=220, lines=(b"220-hello", b"220 ready"))]
    passive_port(reply)                             # the port alone: the address in it is never used

Rules: RFC 959 4.2 (replies), RFC 2428 (EPSV, EPRT), RFC 2389 (FEAT). A server is not trusted: what is too
long, has no end or is no reply raises, and nothing is kept of it.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from sarrapipe.errors import TransferError

__all__ = [
    "MAX_REPLY_BYTES",
    "Reply",
    "ReplyReader",
    "extended_passive_port",
    "extended_port_argument",
    "features",
    "passive_port",
    "port_argument",
    "quoted_path",
]

MAX_REPLY_BYTES: Final = 65_536
"""Of one reply with all of its lines: sixteen times the longest path that Linux knows."""
_SHOWN: Final = 200
_FIRST: Final = re.compile(rb"([1-6]\d\d)(?:([ -]).*)?\Z", re.DOTALL)
_EPSV: Final = re.compile(rb"\(([!-~])\1\1(\d{1,5})\1\)")
_PASV: Final = re.compile(rb"(?<!\d)\d{1,3},\d{1,3},\d{1,3},\d{1,3},(\d{1,3}),(\d{1,3})(?!\d)")
_QUOTED: Final = re.compile(rb'257 "((?:[^"]|"")*)"')


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply, whole."""

    code: int
    lines: tuple[bytes, ...]
    """Without their ends; one, or the first, those between and the last."""

    @property
    def preliminary(self) -> bool:
        """Another reply to the same command follows."""
        return self.code // 100 == 1

    @property
    def ok(self) -> bool:
        """It was done."""
        return self.code // 100 == 2

    @property
    def wants_more(self) -> bool:
        """So far good: the next command of the same sequence is awaited."""
        return self.code // 100 == 3

    @property
    def said(self) -> str:
        """Its last line, for messages."""
        text = self.lines[-1][:_SHOWN].decode("utf-8", "replace") if self.lines else ""
        return "".join(character if character.isprintable() else "?" for character in text)


class ReplyReader:
    """Makes replies of the bytes of a control connection, however they are cut."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._lines: list[bytes] = []
        self._size = 0

    @property
    def empty(self) -> bool:
        """Nothing waits for its other half."""
        return not self._rest and not self._lines

    def feed(self, data: bytes | memoryview) -> list[Reply]:
        """Take what came.

        Returns:
            The replies that are whole now.

        Raises:
            TransferError: It is no reply, or has more than `MAX_REPLY_BYTES`.
        """
        replies = []
        self._rest += data
        while (end := self._rest.find(b"\n")) >= 0:
            line = bytes(self._rest[:end]).removesuffix(b"\r")
            del self._rest[: end + 1]
            reply = self._take(line)
            if reply is not None:
                replies.append(reply)
        if self._size + len(self._rest) > MAX_REPLY_BYTES:
            raise TransferError(f"the FTP server's reply has no end: {_shown(bytes(self._rest))}")
        return replies

    def _take(self, line: bytes) -> Reply | None:
        self._size += len(line) + 1
        if self._size > MAX_REPLY_BYTES:
            raise TransferError(f"the FTP server's reply has no end: {_shown(line)}")
        match = _FIRST.match(line)
        if not self._lines:
            if match is None:
                raise TransferError(f"the server does not speak FTP: {_shown(line)}")
            if match[2] == b"-":
                self._lines.append(line)
                return None
        elif match is None or match[2] == b"-" or match[1] != self._lines[0][:3]:
            self._lines.append(line)
            return None
        reply = Reply(int(line[:3]), (*self._lines, line))
        self._lines.clear()
        self._size = 0
        return reply


def _shown(line: bytes) -> str:
    return repr(line[:_SHOWN])


def extended_passive_port(reply: Reply) -> int:
    """Port that a 229 names (RFC 2428 3).

    Raises:
        TransferError: There is none in it.
    """
    match = _EPSV.search(reply.lines[-1])
    return _checked(int(match[2]) if match else 0, reply)


def passive_port(reply: Reply) -> int:
    """Port that a 227 names (RFC 959 4.1.2); its address may be any, and is not used.

    Raises:
        TransferError: There is none in it.
    """
    match = _PASV.search(reply.lines[-1])
    if match is None or int(match[1]) > 255 or int(match[2]) > 255:
        return _checked(0, reply)
    return _checked(int(match[1]) * 256 + int(match[2]), reply)


def _checked(port: int, reply: Reply) -> int:
    if not 0 < port <= 0xFFFF:
        raise TransferError(f"the FTP server names no port for the data: {reply.said}")
    return port


def extended_port_argument(address: str, port: int) -> bytes:
    """Where this side listens, as EPRT has it (RFC 2428 2)."""
    family = 2 if ipaddress.ip_address(address).version == 6 else 1
    return f"|{family}|{address}|{port}|".encode()


def port_argument(address: str, port: int) -> bytes:
    """Where this side listens, as PORT has it; IPv4 alone."""
    return f"{address.replace('.', ',')},{port // 256},{port % 256}".encode()


def features(reply: Reply) -> frozenset[str]:
    """What FEAT was answered: the words that lines begin with, in upper case; of REST the second as well."""
    found = set()
    for line in reply.lines[1:-1]:
        words = line.decode("latin-1").upper().split()
        if words[:2] == ["REST", "STREAM"]:
            found.add("REST STREAM")
        elif words:
            found.add(words[0])
    return frozenset(found)


def quoted_path(reply: Reply) -> bytes:
    """Path that a 257 holds (RFC 959 appendix II); empty if there is none."""
    match = _QUOTED.match(reply.lines[-1])
    return match[1].replace(b'""', b'"') if match else b""

r"""What FTP is asked and what its answers mean: pure functions, no connection in sight.

    place, path = place_and_path("ftp://host/a dir/f", credentials)  # path == b"/a dir/f"
    Facts(size=1000, mtime_s=1704164645).version                     # '"6593...-3e8"'

Paths are absolute at the server; `/~/a` is below the directory one is logged in to, as with SFTP.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from sarrapipe.errors import (
    AccessDenied,
    MessageError,
    NoSpaceThere,
    SourceChanged,
    SourceGone,
    TransferError,
)
from sarrapipe.transfer.base import RangeRead
from sarrapipe.transfer.credentials import Credentials

__all__ = [
    "NO_SUCH_COMMAND",
    "Facts",
    "FtpPlace",
    "ServerFull",
    "check",
    "command_path",
    "login_refusal",
    "place_and_path",
    "refusal",
    "stamp",
]

_URL: Final = re.compile(
    r"(?P<scheme>ftps?)://(?:[^/@]*@)?(?P<host>\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[^/?#\s@:\[\]]+)(?::(?P<port>\d{1,5}))?"
    r"(?P<path>/.*)\Z",
    re.DOTALL | re.IGNORECASE,
)
_CONTROL: Final = re.compile(r"[\x00\r\n]")
_SECOND_NS: Final = 1_000_000_000
_SHOWN: Final = 200
_PORT: Final = 21
_IMPLICIT_TLS_PORT: Final = 990

NO_SUCH_COMMAND: Final = frozenset({500, 502, 504})
_ABSENT: Final = frozenset({450, 550})
_DENIED: Final = frozenset({430, 530, 532})
_CLOSING: Final = 421
_NO_ROOM: Final = frozenset({452, 552})
"""RFC 959 4.2.2; the second is a quota that is used up."""
# RFC 959 has 421 for a server that is full; ProFTPD's MaxClients says 530, as to a wrong password.
_FULL: Final = re.compile(r"\b(?:maximum|too many|limit|connections|try again|busy)\b", re.IGNORECASE)
_NOBODY: Final = Credentials()
_ANONYMOUS: Final = ("anonymous", "anonymous@")


class ServerFull(TransferError):
    """The server takes nobody more in at the moment."""


@dataclass(frozen=True, slots=True)
class FtpPlace:
    """A server and a way to log in: what two requests must have in common to share a connection."""

    host: str
    """Name or address, without brackets."""
    port: int
    tls: bool
    """Control and data connections are encrypted."""
    implicit_tls: bool
    """From the first byte on."""
    passive: bool
    """This side opens the data connections."""
    user: str
    password: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'ftps' if self.tls else 'ftp'}://{host}:{self.port}/"

    def __repr__(self) -> str:
        """Without the password: what is printed may end in a log."""
        return f"FtpPlace({self})"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says of a file before its bytes; None for what it does not say."""

    size: int | None
    mtime_s: int | None

    @property
    def version(self) -> str | None:
        """What tells one version of a file from another, of the form that HTTP's has."""
        if self.size is None and self.mtime_s is None:
            return None
        return f'"{self.mtime_s or 0:x}-{self.size or 0:x}"'


def place_and_path(
    url: str, credentials: Credentials | None, *, escaped: bool = False
) -> tuple[FtpPlace, bytes]:
    """Take the URL of a request apart.

    Args:
        url: `ftp[s]://HOST[:PORT]/PATH`.
        credentials: Who to be, and how to connect; None for nobody in particular.
        escaped: The path is a URL reference; otherwise it is a file name.

    Returns:
        The server, and the path as it stands in a command.

    Raises:
        MessageError: It is no such URL, or path or login hold what would end a command.
    """
    match = _URL.match(url)
    if match is None or int(match["port"] or 0) > 0xFFFF:
        raise MessageError(f"no ftp or ftps URL: {url[:_SHOWN]!r}")
    who = credentials or _NOBODY
    user, password = (who.user, who.password) if who.user else _ANONYMOUS
    if _CONTROL.search(user + password):
        raise MessageError(f"user or password hold what FTP cannot say: {url[:_SHOWN]!r}")
    path = match["path"]
    if escaped:
        path = unquote(path, errors="surrogateescape")
    place = FtpPlace(
        host=match["host"].strip("[]"),
        port=int(match["port"] or (_IMPLICIT_TLS_PORT if who.implicit_tls else _PORT)),
        tls=who.tls or who.implicit_tls or match["scheme"].lower() == "ftps",
        implicit_tls=who.implicit_tls,
        passive=who.passive,
        user=user,
        password=password,
    )
    return place, command_path(path)


def command_path(path: str) -> bytes:
    """Return a path of a server as it stands in a command.

    Raises:
        MessageError: It holds what would end a command.
    """
    if _CONTROL.search(path):
        raise MessageError(f"no path that FTP can name: {path[:_SHOWN]!r}")
    return path.removeprefix("/~/").encode("utf-8", "surrogateescape")


def check(read: RangeRead, found: Facts) -> None:
    """Compare what the server says of a file with what was announced, before a byte of it is asked for.

    Raises:
        SourceChanged: Another size or version.
    """
    if read.whole_size is not None and found.size is not None and found.size != read.whole_size:
        raise SourceChanged(f"source has {found.size} bytes, announced {read.whole_size}: {read.url}")
    if read.validator is not None and found.version not in (None, read.validator):
        raise SourceChanged(f"source is of version {found.version} now, was {read.validator}: {read.url}")
    end = read.offset + (read.length or 0)
    if found.size is not None and end > found.size:
        raise SourceChanged(f"source has {found.size} bytes, asked up to {end}: {read.url}")


def stamp(time_ns: int) -> str:
    """Return a time as MFMT takes it (draft-somers-ftp-mfxx)."""
    return time.strftime("%Y%m%d%H%M%S", time.gmtime(time_ns // _SECOND_NS))


def refusal(code: int, text: str, said: str = "") -> TransferError:
    """The error that a reply stands for.

    Args:
        code: Of the reply; 0 if there was none.
        text: What was asked for, and what came of it.
        said: The reply itself: one that speaks of a server's limit refuses nobody for good.
    """
    if code in _DENIED:
        return TransferError(text) if _FULL.search(said) else AccessDenied(text)
    if code in _ABSENT:
        return SourceGone(text)
    if code in _NO_ROOM:
        return NoSpaceThere(text)
    return TransferError(text)


def login_refusal(code: int, said: str) -> TransferError:
    """The error that a reply to greeting or login stands for."""
    text = f"not logged in: {said}"
    if code == _CLOSING or _FULL.search(said):
        return ServerFull(text)
    return AccessDenied(text) if code in _DENIED else TransferError(text)

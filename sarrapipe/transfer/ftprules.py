r"""What FTP is asked and how its replies are read: pure functions, no connection in sight.

    wire_url("ftp://host/a dir/f")                                   # b"ftp://host/%2Fa%20dir/f"
    facts([b"213 20240102030405\r\n", b"213 1000\r\n"]).size         # 1000

Rules: RFC 959, RFC 3659 (SIZE, MDTM, MLSD), draft-somers-ftp-mfxx (MFMT). Paths are absolute at the server;
`/~/a` is below the directory one is logged in to, as with SFTP.
"""

from __future__ import annotations

import calendar
import re
import time
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from sarrapipe.errors import AccessDenied, MessageError, SourceGone, TransferError
from sarrapipe.transfer.remotecall import Attributes, RemoteEntry

__all__ = ["Facts", "command_path", "facts", "listing", "refusal", "server_of", "stamp", "wire_url"]

_URL: Final = re.compile(r"(ftps?)://(?:[^/@]*@)?([^/?#\s@]+)(/.*)\Z", re.DOTALL | re.IGNORECASE)
_CONTROL: Final = re.compile(r"[\x00\r\n]")
_NAME_SAFE: Final = "/!$&'()*+,=:@"
_MDTM: Final = re.compile(rb"213 (\d{14})(?:\.\d+)?\s*\Z")
_SIZE: Final = re.compile(rb"213 (\d{1,19})\s*\Z")
_SECOND_NS: Final = 1_000_000_000
_SHOWN: Final = 200

NOT_LOGGED_IN: Final = 530
_ABSENT: Final = frozenset({450, 550})
_DENIED: Final = frozenset({430, NOT_LOGGED_IN, 532})
# RFC 959 has 421 for a server that is full; ProFTPD's MaxClients says 530, as to a wrong password.
_FULL: Final = re.compile(r"\b(?:maximum|too many|limit|connections|try again|busy)\b", re.IGNORECASE)


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


def _parts(url: str) -> tuple[str, str, str]:
    match = _URL.match(url)
    if match is None:
        raise MessageError(f"no ftp or ftps URL: {url[:_SHOWN]!r}")
    return match[1].lower(), match[2], match[3]


def server_of(url: str, *, implicit_tls: bool) -> bytes:
    """URL of a server's login directory, for requests that are commands only.

    Raises:
        MessageError: It is no ftp or ftps URL.
    """
    return f"{'ftps' if implicit_tls else 'ftp'}://{_parts(url)[1]}/".encode()


def wire_url(url: str, *, escaped: bool = False, implicit_tls: bool = False) -> bytes:
    """Return a URL as libcurl takes it, its path absolute.

    Args:
        url: `ftp[s]://HOST[:PORT]/PATH`.
        escaped: The path is a URL reference; otherwise it is a file name.
        implicit_tls: TLS from the first byte on, which libcurl knows by the scheme.

    Raises:
        MessageError: It is no such URL, or the path holds what would end a command.
    """
    path = _server_path(url, escaped=escaped)
    safe = quote(path.encode("utf-8", "surrogateescape"), safe=_NAME_SAFE)
    if safe.startswith("/"):
        safe = "%2F" + safe[1:]
    return server_of(url, implicit_tls=implicit_tls) + safe.encode()


def _server_path(url: str, *, escaped: bool = False) -> str:
    path = _parts(url)[2]
    if escaped:
        path = unquote(path, errors="surrogateescape")
    return _checked(path)


def _checked(path: str) -> str:
    if _CONTROL.search(path):
        raise MessageError(f"no path that FTP can name: {path[:_SHOWN]!r}")
    return path[3:] if path.startswith("/~/") else path


def command_path(url: str = "", path: str = "") -> bytes:
    """Return a path as it stands in a command: that of a URL, or one of the same server.

    Raises:
        MessageError: It holds what would end a command.
    """
    return (_server_path(url) if url else _checked(path)).encode("utf-8", "surrogateescape")


def facts(lines: list[bytes]) -> Facts:
    """Read what MDTM and SIZE were answered, in that order, from a server's replies."""
    size = mtime_s = None
    for line in lines:
        moment = _MDTM.match(line)
        if moment is not None and mtime_s is None:
            mtime_s = _seconds(moment[1].decode())
            continue
        found = _SIZE.match(line)
        if found is not None:
            size = int(found[1])
    return Facts(size, mtime_s)


def _seconds(digits: str) -> int | None:
    try:
        return calendar.timegm(time.strptime(digits, "%Y%m%d%H%M%S"))
    except ValueError:
        return None


def stamp(time_ns: int) -> str:
    """Return a time as MFMT takes it."""
    return time.strftime("%Y%m%d%H%M%S", time.gmtime(time_ns // _SECOND_NS))


def listing(body: bytes) -> list[RemoteEntry]:
    """Read the lines that MLSD is answered (RFC 3659 7.2); what is none of them is left out."""
    found = []
    for line in body.split(b"\n"):  # libcurl ends lines as this system does
        head, blank, name = line.removesuffix(b"\r").partition(b" ")
        if not blank or not name or name in (b".", b".."):
            continue
        pairs = (pair.partition("=") for pair in head.decode("latin-1").split(";") if pair)
        known = {key.lower(): value for key, _, value in pairs}
        kind = known.get("type", "file").lower()
        if kind in ("cdir", "pdir"):
            continue
        found.append(_entry(name, kind, known))
    return found


def _entry(name: bytes, kind: str, known: dict[str, str]) -> RemoteEntry:
    size, mode, moment = known.get("size", ""), known.get("unix.mode", ""), known.get("modify", "")[:14]
    mtime_s = _seconds(moment) if moment.isdigit() else None
    return RemoteEntry(
        name=name.decode("utf-8", "surrogateescape"),
        attributes=Attributes(
            size=int(size) if size.isdigit() else None,
            mode=int(mode, 8) & 0o7777 if re.fullmatch(r"[0-7]{3,6}", mode) else None,
            mtime_ns=None if mtime_s is None else mtime_s * _SECOND_NS,
        ),
        is_directory=kind == "dir",
        is_link=kind.startswith("os.unix=s"),
    )


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
    return TransferError(text)

"""Where an SFTP server is and who to be there: what two reads must have in common to share a connection."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from sarrapipe.errors import MessageError
from sarrapipe.transfer.credentials import Credentials

__all__ = ["Place", "place_and_path"]

_AUTHORITY: Final = re.compile(
    r"(?:(?P<user>[^@:]*)(?::(?P<password>[^@]*))?@)?(?P<host>\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[\w.-]+)(?::(?P<port>\d{1,5}))?"
)
_SHOWN: Final = 200
_NOBODY: Final = Credentials()


@dataclass(frozen=True, slots=True)
class Place:
    """A server and a way to log in.

    Attributes:
        host: Name or address, without brackets.
        port: 0 where the URL names none: 22, or what OpenSSH's configuration says for the host.
        user: "" where neither URL nor credentials name one.
        credentials: Password and key.
    """

    host: str
    port: int
    user: str
    credentials: Credentials

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"sftp://{user}{host}{f':{self.port}' if self.port else ''}/"


def place_and_path(url: str, credentials: Credentials | None, *, escaped: bool = False) -> tuple[Place, str]:
    """Take the URL of a request apart.

    Args:
        url: `sftp://[USER@]HOST[:PORT]/PATH`.
        credentials: Who to be where the URL does not say.
        escaped: The path is a URL reference; otherwise it is a file name.

    Returns:
        The server, and the path with its leading slash, nothing escaped.

    Raises:
        MessageError: It is no SFTP URL.
    """
    authority, slash, path = url.partition("://")[2].partition("/")
    match = _AUTHORITY.fullmatch(authority)
    # A host that begins with a hyphen would be an option to a program.
    if match is None or not slash or match["host"].startswith("-") or int(match["port"] or 0) > 65535:
        raise MessageError(f"no SFTP URL: {_without_password(url)[:_SHOWN]!r}")
    who = credentials or _NOBODY
    if match["password"] and not who.password:
        who = Credentials(user=who.user, password=unquote(match["password"]), key_file=who.key_file)
    user = unquote(match["user"] or "") or who.user
    if "\0" in user or user.startswith("-"):
        raise MessageError(f"no user of an SFTP URL: {user[:_SHOWN]!r}")
    path = "/" + path
    if escaped:
        path = unquote(path.partition("?")[0].partition("#")[0], errors="surrogateescape")
    return Place(match["host"].strip("[]"), int(match["port"] or 0), user, who), path


def _without_password(url: str) -> str:
    return re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1:***@", url)

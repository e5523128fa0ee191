"""Who to be on a data server."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Credentials"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who to be on a data server; never part of a URL, a log line or an error message."""

    user: str = ""
    password: str = ""
    bearer: str = ""
    """Token sent as `Authorization: Bearer` instead of user and password."""
    key_file: str = ""
    """Private key to log in with (SFTP); the password, if there is one, is tried after it."""

    passive: bool = True
    """FTP: the client opens the data connections."""
    tls: bool = False
    """FTP: control and data connections are encrypted after the greeting (RFC 4217); as with `ftps:`."""
    implicit_tls: bool = False
    """FTP: TLS from the first byte."""

    def __repr__(self) -> str:
        """The user alone: what is printed may end in a log."""
        return f"Credentials(user={self.user!r})"

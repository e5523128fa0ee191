"""Broker URLs: parsed once, password kept out of every text.

>>> BrokerUrl.parse("amqps://alice:s%2Fcret@[::1]/vh%2F1")
BrokerUrl('amqps://alice@[::1]/vh%2F1')

Sources: R18, R19, R32; wire.md 4 (ports, vhost); RabbitMQ URI specification (an empty vhost means `/` here,
as sr3 and v2 have it).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import quote, unquote

__all__ = ["BrokerUrl", "UrlParts", "mask_password", "split_url"]

_DEFAULT_PORTS: Final = {"amqp": 5672, "amqps": 5671}
_URL_RE: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?://)?(?P<authority>[^/?#]*)(?P<path>/[^?#]*)?(?P<rest>[?#].*)?",
    re.ASCII | re.DOTALL,
)
_HOST_PORT_RE: Final = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]]*)(?::(\d*))?", re.ASCII)
_LOGIN_METHODS: Final = ("PLAIN", "AMQPLAIN", "EXTERNAL")
_PASSWORD_RE: Final = re.compile(r"(?<=://)([^/@\s:]*):[^/\s]*@")


def mask_password(text: str) -> str:
    """Return `text` with the password of every URL in it replaced by `***`."""
    return _PASSWORD_RE.sub(r"\1:***@", text)


@dataclass(frozen=True, slots=True)
class UrlParts:
    """A URL taken apart; user and password are decoded, the path is not.

    Attributes:
        user: User name, "" if none is given.
        password: None if none is given.
        host: Host name, lower case; an IPv6 literal without its brackets.
        port: None if none is given.
        path: Path with its leading slash, or "".
    """

    scheme: str
    user: str
    password: str | None = field(repr=False)
    host: str
    port: int | None
    path: str


def split_url(text: str) -> UrlParts:
    """Take a URL apart.

    Raises:
        ValueError: Not a URL; the text of the error holds no password.
    """
    match = _URL_RE.fullmatch(text.strip())
    if match is None or any(ord(character) < 33 for character in text.strip()):
        raise ValueError("not a URL: write scheme://user@host:port/path")
    userinfo, at, host_port = match["authority"].rpartition("@")
    user, colon, password = userinfo.partition(":")
    host_match = _HOST_PORT_RE.fullmatch(host_port)
    if host_match is None:
        raise ValueError(f"{host_port!r} is not host:port (write an IPv6 address in brackets)")
    host, port_text = host_match.groups()
    port = int(port_text) if port_text else None
    if port is not None and not 0 < port < 65536:
        raise ValueError(f"port {port} is not between 1 and 65535")
    return UrlParts(
        scheme=match["scheme"].lower(),
        user=unquote(user) if at else "",
        password=unquote(password) if at and colon else None,
        host=host.strip("[]").lower(),
        port=port,
        path=match["path"] or "",
    )


@dataclass(frozen=True, slots=True, repr=False)
class BrokerUrl:
    """Where a broker is and as whom to speak to it.

    Attributes:
        scheme: amqp, or amqps for TLS.
        user: User name; `anonymous` where the URL names nobody (R19).
        password: Never shown: not by str, repr or `key`.
        host: Host name, or an IPv6 address without brackets (R32).
        port: 5672, or 5671 for amqps, unless given.
        vhost: Virtual host, `/` unless given (R18).
        login_method: SASL mechanism from credentials.conf; auto takes what the broker offers.
    """

    scheme: str
    user: str
    password: str | None
    host: str
    port: int
    vhost: str = "/"
    login_method: str = "auto"

    @classmethod
    def parse(cls, text: str) -> BrokerUrl:
        """Read `amqp[s]://[user[:password]@]host[:port][/vhost]`; `%2F` in the vhost is a slash.

        Raises:
            ValueError: Not the URL of an AMQP broker; the text of the error holds no password.
        """
        parts = split_url(text)
        if parts.scheme not in _DEFAULT_PORTS:
            raise ValueError(f"a broker is amqp:// or amqps://, not {parts.scheme}://")
        if not parts.host:
            raise ValueError("the broker's URL names no host")
        password = parts.password
        if password is None and parts.user in ("", "anonymous"):
            password = "anonymous"  # noqa: S105 - the public account of the seeds (R19)
        return cls(
            scheme=parts.scheme,
            user=parts.user or "anonymous",
            password=password,
            host=parts.host,
            port=parts.port or _DEFAULT_PORTS[parts.scheme],
            vhost=unquote(parts.path.strip("/")) or "/",
        )

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme == "amqps"

    @property
    def key(self) -> str:
        """What tells one broker session from another; holds no password."""
        return str(self)

    def with_secret(self, password: str | None, login_method: str = "") -> BrokerUrl:
        """Return the same broker with what credentials.conf says of it.

        Raises:
            ValueError: No such login method.
        """
        method = login_method.upper() or self.login_method
        if method not in (*_LOGIN_METHODS, "auto"):
            raise ValueError(f"login_method {method}: use one of {', '.join(_LOGIN_METHODS)}")
        return replace(self, password=self.password if password is None else password, login_method=method)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        vhost = "" if self.vhost == "/" else quote(self.vhost, safe="")
        return f"{self.scheme}://{quote(self.user, safe='')}@{host}{port}/{vhost}"

    def __repr__(self) -> str:
        return f"BrokerUrl({str(self)!r})"

"""Where a broker is and how to log in; turned into pika's connection parameters.

Nothing here connects. The password never appears in a `repr`, a key or an error.

>>> endpoint = Endpoint(host="::1", user="bob", password="secret", vhost="data")
>>> endpoint.key
'amqp://bob@[::1]:5672/data'
"""

from __future__ import annotations

import os
import ssl
import struct
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

import pika
from pika.credentials import ExternalCredentials, PlainCredentials

from sarrapipe import __version__
from sarrapipe.errors import ConfigError

__all__ = ["Endpoint", "connection_parameters", "tls_context"]

_PORTS: Final = {"amqp": 5672, "amqps": 5671}
_RIGOURS: Final = ("lax", "normal", "strict")
_LOGINS: Final = ("auto", "PLAIN", "AMQPLAIN", "EXTERNAL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One user on one virtual host of one broker.

    Attributes:
        scheme: `amqp` or `amqps`.
        host: Name or address; an IPv6 literal with or without brackets (R32).
        port: 0 for the scheme's own (5672, 5671).
        user: `anonymous` where the URL has none (R19).
        password: Never shown.
        vhost: Virtual host, `/` by default (R18).
        tls_rigour: `lax` encrypts and verifies nothing; `normal` verifies certificate and host name;
            `strict` is normal, refuses TLS below 1.2 and any broker without TLS.
        ca_file: Certificates to trust instead of the system's.
        cert_file: Our certificate (and key, if `key_file` is None), for login EXTERNAL.
        key_file: Key of `cert_file`.
        login: SASL mechanism; `auto` takes PLAIN, else AMQPLAIN, as the broker offers.
        heartbeat_s: Heartbeat timeout asked for, in seconds.
        connect_timeout_s: For TCP, and again for TLS and AMQP together, in seconds: a broker that accepts and
            stays silent is given up.
        name: Connection name shown by the broker, "component/config no".
    """

    scheme: str = "amqp"
    host: str = "localhost"
    port: int = 0
    user: str = "anonymous"
    password: str = field(default="anonymous", repr=False)
    vhost: str = "/"
    tls_rigour: str = "normal"
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    login: str = "auto"
    heartbeat_s: int = 60
    connect_timeout_s: float = 10.0
    name: str = "sarrapipe"

    @property
    def address(self) -> tuple[str, int]:
        """Host without brackets, and port."""
        return self.host.strip("[]"), self.port or _PORTS.get(self.scheme, 5672)

    @property
    def key(self) -> str:
        """URL without password: what identifies the broker in deliveries, states and logs."""
        host, port = self.address
        bracketed = f"[{host}]" if ":" in host else host
        vhost = "/" if self.vhost == "/" else "/" + quote(self.vhost, safe="")
        return f"{self.scheme}://{self.user}@{bracketed}:{port}{vhost}"

    def check(self) -> None:
        """Refuse what cannot work.

        Raises:
            ConfigError: Unknown scheme, rigour or login; `strict` without TLS; no such certificate file.
        """
        if self.scheme not in _PORTS:
            raise ConfigError(f"broker {self.key}: scheme {self.scheme!r} is not amqp or amqps")
        if self.tls_rigour not in _RIGOURS:
            raise ConfigError(f"tlsRigour {self.tls_rigour!r}: use lax, normal or strict")
        if self.login not in _LOGINS:
            raise ConfigError(f"login {self.login!r} for {self.key}: use one of {', '.join(_LOGINS)}")
        if self.tls_rigour == "strict" and self.scheme != "amqps":
            raise ConfigError(f"broker {self.key}: tlsRigour strict asks for amqps")
        for path in (self.ca_file, self.cert_file, self.key_file):
            if path is not None and not os.path.isfile(path):
                raise ConfigError(f"broker {self.key}: certificate file {path} does not exist")


class _Credentials(PlainCredentials):  # type: ignore[misc]  # pika has no type information for mypy
    """PLAIN or AMQPLAIN, whichever is asked for and offered.

    pika knows PLAIN and EXTERNAL; AMQPLAIN is a field table without its length
    (https://www.rabbitmq.com/docs/access-control#mechanisms).
    """

    def __init__(self, user: str, password: str, login: str) -> None:
        super().__init__(user, password)
        self._login = login

    def response_for(self, start: pika.spec.Connection.Start) -> tuple[str | None, bytes | None]:
        offered = start.mechanisms
        mechanisms = (offered.encode() if isinstance(offered, str) else offered).split()
        if self._login in ("auto", "PLAIN") and b"PLAIN" in mechanisms:
            answer = super().response_for(start)
            return answer[0], answer[1]
        if self._login in ("auto", "AMQPLAIN") and b"AMQPLAIN" in mechanisms:
            pieces = []
            for key, value in ((b"LOGIN", self.username), (b"PASSWORD", self.password)):
                raw = (value or "").encode()
                pieces.append(struct.pack(">B", len(key)) + key + struct.pack(">cI", b"S", len(raw)) + raw)
            return "AMQPLAIN", b"".join(pieces)
        return None, None


def tls_context(endpoint: Endpoint) -> ssl.SSLContext:
    """Return what TLS to this broker must satisfy (`tls_rigour`), with our certificate if there is one.

    Raises:
        OSError: A certificate file cannot be read or is none.
    """
    context = ssl.create_default_context(cafile=endpoint.ca_file)
    if endpoint.tls_rigour == "lax":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif endpoint.tls_rigour == "strict":
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    if endpoint.cert_file:
        context.load_cert_chain(endpoint.cert_file, endpoint.key_file)
    return context


def connection_parameters(endpoint: Endpoint, role: str = "") -> pika.ConnectionParameters:
    """Return pika's parameters for one connection.

    Args:
        endpoint: The broker.
        role: Added to the connection's name, such as "consume".

    Raises:
        ConfigError: See `Endpoint.check`; or a certificate cannot be read.
    """
    endpoint.check()
    host, port = endpoint.address
    tls = None
    if endpoint.scheme == "amqps":
        try:
            tls = pika.SSLOptions(tls_context(endpoint), host)
        except OSError as error:
            raise ConfigError(f"broker {endpoint.key}: certificate: {error}") from error
    credentials = (
        ExternalCredentials()
        if endpoint.login == "EXTERNAL"
        else _Credentials(endpoint.user, endpoint.password, endpoint.login)
    )
    return pika.ConnectionParameters(
        host=host,
        port=port,
        virtual_host=endpoint.vhost,
        credentials=credentials,
        heartbeat=endpoint.heartbeat_s,
        ssl_options=tls,
        connection_attempts=1,
        socket_timeout=endpoint.connect_timeout_s,
        stack_timeout=endpoint.connect_timeout_s,
        client_properties={
            "product": "sarrapipe",
            "version": __version__,
            "information": "a data pump: announces files, fetches, verifies and announces them again",
            "connection_name": f"{endpoint.name} {role}".strip(),
        },
    )

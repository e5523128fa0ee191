"""credentials.conf: passwords, keys and how to log in, one URL a line.

    amqps://feeder:s3cret@pump.example.com/
    sftp://alice@data.example.com/  ssh_keyfile=~/.ssh/id_ed25519
    https://data.example.com/private/  bearer_token=abc

Pure: text in, records out; load.py reads the file and sees to its mode (R115). Secrets are in no text that
str or repr give. Sources: sr3-surface.md 4; R22, R116, R133.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import unquote

from sarrapipe.config.urls import BrokerUrl, UrlParts, split_url
from sarrapipe.errors import ConfigError

__all__ = ["Credential", "Credentials", "parse_credentials"]

_AMQP: Final = ("amqp", "amqps")
_DEFAULT_PORTS: Final = {
    "amqp": 5672, "amqps": 5671, "http": 80, "https": 443, "sftp": 22, "ftp": 21, "ftps": 21,
}  # fmt: skip
_FLAG_OPTIONS: Final = ("passive", "binary", "tls", "prot_p", "implicit_ftps", "s3_anonymous")
_TEXT_OPTIONS: Final = {
    "ssh_keyfile": "ssh_keyfile", "bearer_token": "bearer_token", "bt": "bearer_token",
    "login_method": "login_method", "s3_endpoint": "s3_endpoint", "s3_session_token": "s3_session_token",
    "azure_storage_credentials": "azure_storage_credentials",
}  # fmt: skip
_OPPOSITES: Final = {"active": ("passive", False), "ascii": ("binary", False)}
_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})
_SPLIT_RE: Final = re.compile(r"[\s,]+")
_SSL_TRAP: Final = (
    "'ssl' switched TLS off in older programs, contrary to its name: write tls=on for an encrypted "
    "connection, tls=off for a plain one"
)


@dataclass(frozen=True, slots=True)
class Credential:
    """What one line says: whom to log in as, where, and how.

    Attributes:
        scheme: Scheme of the URL.
        host: Host, lower case.
        port: Port; the scheme's own where the line names none.
        user: User, "" where the line names none.
        path: vhost, or the path it holds for, "" or "/" for all.
        password: None where the line names none.
        ssh_keyfile: Private key for SFTP.
        passive: FTP data connections are opened by the client.
        binary: FTP transfers leave bytes alone.
        tls: FTP control connection is encrypted.
        prot_p: FTP data connections are encrypted.
        implicit_ftps: TLS from the first byte.
        bearer_token: For HTTP.
        login_method: SASL mechanism for AMQP.
        extra: s3_* and azure_* settings.
    """

    scheme: str
    host: str
    port: int | None
    user: str
    path: str
    password: str | None = field(default=None, repr=False)
    ssh_keyfile: str | None = None
    passive: bool = True
    binary: bool = True
    tls: bool = False
    prot_p: bool = False
    implicit_ftps: bool = False
    bearer_token: str | None = field(default=None, repr=False)
    login_method: str = ""
    extra: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """Every line of a credentials.conf, in order; empty where there is none."""

    entries: tuple[Credential, ...] = ()

    def lookup(self, url: str) -> Credential | None:
        """Return what is known of a URL: scheme, host and port equal, user equal, longest path that leads it.

        A URL without a user takes an entry of any user; of several that fit equally the first one.

        Raises:
            ValueError: Not a URL.
        """
        parts = split_url(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
        best: Credential | None = None
        for entry in self.entries:
            if (entry.scheme, entry.host, entry.port) != (parts.scheme, parts.host, port):
                continue
            if parts.user and entry.user != parts.user:
                continue
            if not _leads(entry.path, parts.path, exact=parts.scheme in _AMQP):
                continue
            if best is None or len(entry.path.rstrip("/")) > len(best.path.rstrip("/")):
                best = entry
        return best

    def complete(self, broker: BrokerUrl) -> BrokerUrl:
        """Return a broker with its password.

        Raises:
            ValueError: No password is known; the error's text says where to put it.
        """
        entry = self.lookup(str(broker))
        if entry is None or entry.user != broker.user:
            if broker.password is None:
                raise ValueError(f"no password for {broker}: add a line for it to credentials.conf")
            return broker
        completed = broker.with_secret(
            broker.password if entry.password is None else entry.password, entry.login_method
        )
        if completed.password is None and completed.login_method != "EXTERNAL":
            raise ValueError(f"credentials.conf has {broker} without a password")
        return completed

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return f"Credentials({len(self.entries)} entries)"


def _leads(prefix: str, path: str, *, exact: bool) -> bool:
    prefix, path = prefix.strip("/"), path.strip("/")
    if exact:
        return not prefix or unquote(prefix) == unquote(path)
    return not prefix or path == prefix or path.startswith(prefix + "/")


def parse_credentials(
    text: str, file: str, variables: Mapping[str, str], home: str
) -> tuple[Credentials, tuple[ConfigError, ...]]:
    """Read the text of a credentials.conf.

    Args:
        text: Its text.
        file: Its name, for errors.
        variables: The environment, for `$NAME` in key files' names.
        home: What `~` stands for there.

    Returns:
        What could be read, and one error for each line that could not.
    """
    entries, errors = [], []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        url, *options = _SPLIT_RE.split(line)
        try:
            entries.append(_entry(url, [word for word in options if word], variables, home))
        except ValueError as error:
            errors.append(ConfigError(str(error), file, number, len(raw) - len(raw.lstrip()) + 1))
    return Credentials(tuple(entries)), tuple(errors)


def _entry(url: str, options: list[str], variables: Mapping[str, str], home: str) -> Credential:
    parts = split_url(url)
    credential = Credential(
        scheme=parts.scheme,
        host=parts.host,
        port=parts.port or _DEFAULT_PORTS.get(parts.scheme),
        user=parts.user or ("anonymous" if parts.scheme in _AMQP else ""),
        path=parts.path,
        password=_password(parts),
    )
    for word in _join_equals(options):
        credential = _with_option(credential, word, variables, home)
    return credential


def _password(parts: UrlParts) -> str | None:
    if parts.scheme in _AMQP and not parts.user:
        return "anonymous"
    return parts.password


def _join_equals(words: list[str]) -> list[str]:
    """Join `passive = on` to `passive=on`: blanks around the sign are common in old files."""
    text = " ".join(words)
    return re.sub(r"\s*=\s*", "=", text).split()


def _with_option(credential: Credential, word: str, variables: Mapping[str, str], home: str) -> Credential:
    name, equals, value = word.partition("=")
    if name == "ssl":
        raise ValueError(_SSL_TRAP)
    if name in _OPPOSITES and not equals:
        flag, on = _OPPOSITES[name]
        return replace(credential, **{flag: on})  # type: ignore[arg-type]
    if name in _FLAG_OPTIONS:
        on = _truth(name, value) if equals else True
        if name == "s3_anonymous":
            return replace(credential, extra={**credential.extra, name: str(on)})
        return replace(credential, **{name: on})  # type: ignore[arg-type]
    target = _TEXT_OPTIONS.get(name)
    if target is None:
        known = sorted({*_FLAG_OPTIONS, *_OPPOSITES, *_TEXT_OPTIONS})
        raise ValueError(f"no such credential option {name!r}: use one of {', '.join(known)}")
    if not value:
        raise ValueError(f"{name} needs a value: {name}=...")
    if target == "ssh_keyfile":
        value = _key_path(value, variables, home)
    if target.startswith(("s3_", "azure_")):
        return replace(credential, extra={**credential.extra, target: value})
    return replace(credential, **{target: value})  # type: ignore[arg-type]


def _truth(name: str, value: str) -> bool:
    if value.lower() not in _TRUE | _FALSE:
        raise ValueError(f"{name}={value}: on or off")
    return value.lower() in _TRUE


def _key_path(value: str, variables: Mapping[str, str], home: str) -> str:
    if value == "~" or value.startswith("~/"):
        value = home + value[1:]
    value = re.sub(r"\$\{?(\w+)\}?", lambda match: variables.get(match.group(1), match.group(0)), value)
    return os.path.normpath(value)

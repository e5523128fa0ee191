"""What is wrong, or strange, with a configuration whose lines are each right. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sarrapipe.config.components import COMPONENTS
from sarrapipe.config.model import FlowConfig
from sarrapipe.config.parse import COMMAND_LINE
from sarrapipe.config.values import Fetching, InflightMode, Origin, Problem
from sarrapipe.errors import ConfigError

__all__ = ["check"]

_TRANSFER_SCHEMES: Final = ("ftp", "ftps", "http", "https", "sftp", "file")

_SHORT_EXPIRE_S: Final = 86400.0
"""A stop over a night should lose nothing; whoever allows for more has thought of it."""


def check(config: FlowConfig) -> tuple[list[ConfigError], list[Problem]]:
    """Return errors, with which a flow may not run, and warnings."""
    errors = [
        ConfigError(what, origin.file, origin.line, origin.column)
        for rule in (_brokers, _posting, _sending, _identity, _tls, _values)
        for what, origin in rule(config)
    ]
    warnings = [Problem(what, origin) for what, origin in _doubts(config)]
    return errors, warnings


Finding = tuple[str, Origin]


def _nowhere(config: FlowConfig) -> Origin:
    return Origin(config.file or COMMAND_LINE)


def _brokers(config: FlowConfig) -> Iterator[Finding]:
    spec = COMPONENTS.get(config.component)
    if spec is None:
        return
    if spec.reads and config.broker is None:
        yield f"{config.component} reads from a broker: set broker", _nowhere(config)
    if spec.posts and config.post_broker is None:
        yield f"{config.component} announces at a broker: set post_broker", _nowhere(config)
    if spec.posts and not config.post_base_url:
        yield f"{config.component} announces a URL to fetch from: set post_baseUrl", _nowhere(config)


def _posting(config: FlowConfig) -> Iterator[Finding]:
    url = config.post_base_url
    if url and "${" not in url.partition(":")[0] and ":" not in url:
        yield f"post_baseUrl {url!r} is no URL: write scheme://host/path", config.origin("post_baseUrl")
    if config.post_format == "v02":
        for key, value in config.header.items():
            # AMQP short strings; sr3 and C refuse or cut longer ones (wire.md 1.5)
            if len(key.encode()) > 255 or len(value.encode()) > 255:
                yield f"header {key[:30]}: at most 255 bytes in v02", config.origin("header")


def _sending(config: FlowConfig) -> Iterator[Finding]:
    if config.component == "sender" and config.send_to is None:
        yield "sender sends files to a server: set sendTo", _nowhere(config)
    if config.download is Fetching.STREAM:
        if config.send_to is None:
            yield "download stream relays to a server: set sendTo", config.origin("download")
        if config.staging == "none":
            yield "download stream needs memory to stage in: staging is none", config.origin("staging")


def _identity(config: FlowConfig) -> Iterator[Finding]:
    chosen = config.identity
    if config.post_format == "v02" and "xxh3_128" in (chosen.method, chosen.value):
        yield "identity xxh3_128 has no letter in v02: use sha512 or md5", config.origin("identity")


def _tls(config: FlowConfig) -> Iterator[Finding]:
    if config.tls_rigour != "strict":
        return
    brokers = {(s.broker.key, s.origin): s.broker for s in config.subscriptions}
    if config.post_broker is not None:
        brokers[config.post_broker.key, config.origin("post_broker")] = config.post_broker
    for (key, origin), broker in brokers.items():
        if not broker.tls:
            yield f"tlsRigour strict: {key} would send the password in clear, use amqps://", origin


def _values(config: FlowConfig) -> Iterator[Finding]:
    if config.file_age_max and config.file_age_min > config.file_age_max:
        yield "fileAgeMin above fileAgeMax: no file is ever taken", config.origin("fileAgeMax")
    if len(config.flatten) != 1 or config.flatten == "\0":
        yield f"flatten {config.flatten!r}: one character", config.origin("flatten")
    if config.hung_after and config.hung_after < 5:
        yield "runStateThreshold_hung: at least 5 seconds", config.origin("runStateThreshold_hung")
    unknown = [scheme for scheme in config.accept_schemes if scheme not in _TRANSFER_SCHEMES]
    if unknown and not config.imports:  # what is imported may bring its own
        known = ", ".join(_TRANSFER_SCHEMES)
        yield f"acceptSchemes {', '.join(unknown)}: there is {known}", config.origin("acceptSchemes")


def _doubts(config: FlowConfig) -> Iterator[Finding]:
    spec = COMPONENTS.get(config.component)
    if config.nodupe_ttl and config.file_age_max and config.nodupe_ttl < config.file_age_max:
        # sr3-surface.md 5, 14: files come back when the memory of them is shorter than their age may be
        yield "nodupe_ttl below fileAgeMax: a file may be taken again", config.origin("nodupe_ttl")
    if 0 < config.expire < _SHORT_EXPIRE_S and config.durable:
        yield (
            f"expire {config.expire:g}: a stop longer than that loses what was announced meanwhile",
            config.origin("expire"),
        )
    if config.inflight.mode is InflightMode.NONE and config.download and config.send_to is None:
        yield "inflight none: files are seen before they are whole", config.origin("inflight")
    fetches = spec is not None and spec.reads and config.download
    if fetches and config.post_broker is not None and not config.post_base_url:
        yield (
            "post_baseUrl is not set: announcements keep the URL they came with",
            config.origin("post_broker"),
        )
    if config.component == "sarra" and config.post_broker is None:
        yield "post_broker is not set: what is fetched is not announced", _nowhere(config)
    if len(config.subscriptions) > 1 or not config.subscriptions or spec is None:
        return
    if config.broker is not None and config.broker.key != config.subscriptions[0].broker.key:
        yield "no subtopic below this broker: nothing is read from it", config.origin("broker")

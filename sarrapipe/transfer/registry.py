"""Backends by URL scheme, as strings: a module is imported when the first URL needs it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import cast

from sarrapipe.errors import ConfigError, MessageError
from sarrapipe.transfer.base import TransferBackend

__all__ = ["BACKENDS", "factory_of", "scheme_of"]

BACKENDS: Mapping[str, str] = {
    "file": "sarrapipe.transfer.file:make_backend",
    "ftp": "sarrapipe.transfer.ftp:make_backend",
    "ftps": "sarrapipe.transfer.ftp:make_backend",
    "http": "sarrapipe.transfer.http:make_backend",
    "https": "sarrapipe.transfer.http:make_backend",
    "sftp": "sarrapipe.transfer.sftp:make_backend",
}
"""Scheme → `module:function`; the function gets the engine's `Surroundings` and returns a backend."""


def scheme_of(url: str) -> str:
    """Scheme of a URL in lower case; a plain absolute path is a file.

    Raises:
        MessageError: It has none.
    """
    if url.startswith("/"):
        return "file"
    scheme, colon, _ = url.partition(":")
    if not colon or not scheme.isascii() or not scheme.replace("+", "").replace("-", "").isalnum():
        raise MessageError(f"URL without a scheme: {url[:200]!r}")
    return scheme.lower()


def factory_of(scheme: str, backends: Mapping[str, str] = BACKENDS) -> Callable[..., TransferBackend]:
    """Import what makes the backend of a scheme.

    Raises:
        MessageError: No backend knows the scheme; it came in a message.
        ConfigError: The backend that was configured for it cannot be imported.
    """
    place = backends.get(scheme)
    if place is None:
        raise MessageError(
            f"no way to fetch from or send to {scheme}: URLs (known: {', '.join(sorted(backends))})"
        )
    module, _, name = place.partition(":")
    try:
        return cast("Callable[..., TransferBackend]", getattr(importlib.import_module(module), name))
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"transfer backend {place} for {scheme}: cannot be imported: {error}") from error

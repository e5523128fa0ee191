"""A digest of a configuration, to tell on reload whether instances have to be replaced.

Two readings of the same files give the same digest in different processes; secrets go in and do not come out.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from typing import Final

__all__ = ["fingerprint"]

_ADDRESS_RE: Final = re.compile(r" at 0x[0-9a-f]+")


def fingerprint(config: object, without: Collection[str] = ()) -> str:
    """Return the digest of a dataclass and all it holds.

    Args:
        config: A dataclass of plain values, sequences, mappings and other dataclasses.
        without: Names of its fields that do not count.
    """
    import hashlib  # brings OpenSSL along, which the parent does not need

    digest = hashlib.sha256()
    assert is_dataclass(config)
    for item in fields(config):
        if item.name not in without:
            digest.update(f"{item.name}:".encode())
            for part in _parts(getattr(config, item.name)):
                digest.update(part.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _parts(value: object) -> Iterator[str]:
    """Yield texts that determine a value, in an order that does not depend on the process."""
    if value is None or isinstance(value, (str, bytes, int, float, enum.Enum)):
        yield f"{value!r};"
    elif isinstance(value, re.Pattern):
        yield f"re {value.pattern!r} {value.flags};"  # repr cuts long patterns
    elif isinstance(value, Mapping):
        yield "{"
        for key in sorted(value, key=repr):
            yield f"{key!r}="
            yield from _parts(value[key])
        yield "}"
    elif isinstance(value, Set):
        yield f"{sorted(map(repr, value))};"
    elif isinstance(value, Sequence):
        yield "["
        for item in value:
            yield from _parts(item)
        yield "]"
    else:
        yield from _object(value)


def _object(value: object) -> Iterator[str]:
    yield f"{type(value).__qualname__}("
    if is_dataclass(value) and not isinstance(value, type):
        for item in fields(value):
            yield from _parts(getattr(value, item.name))
    else:
        yield _ADDRESS_RE.sub("", repr(value))
    yield ")"

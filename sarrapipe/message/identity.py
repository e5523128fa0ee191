"""Identities: which methods there are, how they are written, computed, and turned into fingerprints.

An identity says what the data must match. `sha512`, `md5` and `xxh3_128` are digests in base64; `cod` names
the digest to compute on download; `random` and `arbitrary` match anything; no identity at all is `none`.

>>> identity = parse_text("z,s")
>>> identity.method, identity.value
('cod', 'sha512')

Sources: wire.md 1.3 (methods and letters), 3.4 (keys of duplicate suppression).
"""

from __future__ import annotations

import binascii
import hashlib
import random
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import orjson
import xxhash

from sarrapipe.errors import MessageError
from sarrapipe.message.model import Identity, Message

__all__ = [
    "DIGEST_BYTES",
    "LETTERS",
    "METHODS",
    "Hasher",
    "canonical_identity",
    "digest_of",
    "fingerprint",
    "hasher",
    "parse_text",
    "random_value",
]

DIGEST_BYTES: Final[Mapping[str, int]] = {"sha512": 64, "md5": 16, "xxh3_128": 16}
"""Methods computed from the data, and the length of their digests."""

METHODS: Final = frozenset({*DIGEST_BYTES, "cod", "arbitrary", "random", "none"})
"""Methods of the option `identity`."""

LETTERS: Final[Mapping[str, str]] = {
    "s": "sha512",
    "d": "md5",
    "0": "random",
    "a": "arbitrary",
    "z": "cod",
    "n": "md5name",
    "p": "sha512name",
    "N": "sha512name",
    "L": "link",
    "l": "hlink",
    "R": "remove",
    "m": "mkdir",
    "r": "rmdir",
}
"""v02's letter to v03's method. xxh3_128 has none. N is v2's older letter for a digest of the name."""

# Beside these v2 and C write what happened, or a digest of the name, where an identity should be.
_ON_THE_WIRE: Final = frozenset(LETTERS.values()) | METHODS
_OF_THE_NAME: Final = frozenset({"md5name", "sha512name"})


class Hasher(Protocol):
    """Computes one digest."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take more data."""

    def value(self) -> str:
        """Return the digest so far as an identity's value: base64."""


class _DigestHasher:
    """A library's hash object with the value in the form of messages; `update` is the library's own."""

    __slots__ = ("_digest", "update")

    def __init__(self, update: Callable[[bytes | memoryview], None], digest: Callable[[], bytes]) -> None:
        self.update = update
        self._digest = digest

    def value(self) -> str:
        return binascii.b2a_base64(self._digest(), newline=False).decode("ascii")


def hasher(method: str) -> Hasher | None:
    """Return what computes `method`, or None where nothing is computed from the data.

    For `cod` call this with the identity's value.

    Raises:
        MessageError: No such method.
    """
    if method == "sha512":
        sha512 = hashlib.sha512()
        return _DigestHasher(sha512.update, sha512.digest)
    if method == "md5":
        md5 = hashlib.md5(usedforsecurity=False)
        return _DigestHasher(md5.update, md5.digest)
    if method == "xxh3_128":
        xxh3 = xxhash.xxh3_128()
        return _DigestHasher(xxh3.update, xxh3.digest)
    if method in METHODS:
        return None
    raise MessageError(f"identity.method: {method!r:.60} is unknown")


def digest_of(read: Callable[[int], bytes], method: str) -> str:
    """Return the value of a digest method over everything that `read` gives.

    Args:
        read: Returns up to so many bytes, none at the end.
        method: One of `DIGEST_BYTES`.
    """
    computing = hasher(method)
    if computing is None:
        raise MessageError(f"identity.method: {method!r:.60} is not computed from data")
    while data := read(1 << 20):
        computing.update(data)
    return computing.value()


def random_value(generator: random.Random) -> str:
    """Return a value for the method `random`: four decimal digits (wire.md 1.3)."""
    return f"{generator.randrange(10_000):04d}"


def parse_text(text: str) -> Identity:
    """Read `method`, `method,value`, `letter` or `letter,value`: the option `identity`, and old messages.

    Raises:
        MessageError: No such method, or `cod` of something that cannot be computed.
    """
    name, _, value = text.strip().partition(",")
    method = LETTERS.get(name, name)
    if method in _OF_THE_NAME:
        method = "none"
    if method not in METHODS:
        raise MessageError(f"identity.method: {name!r:.60} is unknown")
    if method == "cod":
        value = LETTERS.get(value.strip(), value.strip())
        if value not in DIGEST_BYTES:
            raise MessageError(f"identity.value: cod,{value:.60} is not a method that can be computed")
    return Identity(method, value)


def canonical_identity(field: str, wire: object) -> object:
    """Return the field `identity` as an object with exact strings, or None for `none`.

    Accepts an object, its JSON in a string, and `method,value`. Digests lose the whitespace that v2 and sr3
    wrap them with. Methods that are events (`link`, `remove` ...) pass; `fields.normalise` moves them.

    Raises:
        MessageError: Malformed, or the method is unknown (R104).
    """
    if isinstance(wire, str):
        wire = _from_string(field, wire)
    if not isinstance(wire, dict):
        raise MessageError(f"{field}: {wire!r:.60} is not an object")
    method, value = wire.get("method"), wire.get("value")
    if not isinstance(method, str) or method not in _ON_THE_WIRE:
        raise MessageError(f"{field}.method: {method!r:.60} is unknown")
    if method == "none":
        return None
    if type(value) is int and method == "random":
        value = str(value)
    if not isinstance(value, str):
        raise MessageError(f"{field}.value: {value!r:.60} is not a string")
    exact = _exact_value(field, method, value)
    if exact is wire.get("value") and len(wire) == 2:
        return wire
    return {"method": method, "value": exact}


def _from_string(field: str, text: str) -> object:
    if text.lstrip()[:1] != "{":
        identity = parse_text(text)
        return {"method": identity.method, "value": identity.value}
    try:
        return orjson.loads(text)
    except ValueError as error:
        raise MessageError(f"{field}: not JSON: {error}") from error


def _exact_value(field: str, method: str, value: str) -> str:
    size = DIGEST_BYTES.get(method)
    if size is not None:
        if len(value) != (size + 2) // 3 * 4:
            value = "".join(value.split())
        try:
            digest = binascii.a2b_base64(value, strict_mode=True)
        except ValueError as error:  # binascii.Error, or text that is not ASCII
            raise MessageError(f"{field}.value: not base64: {error}") from error
        if len(digest) != size:
            raise MessageError(f"{field}.value: {len(digest)} bytes are no {method} digest")
        return value
    if method == "cod" and value not in DIGEST_BYTES:
        raise MessageError(f"{field}.value: cod of {value!r:.60}, which cannot be computed")
    return value


def fingerprint(message: Message, path: str = "") -> bytes:
    """Return what duplicate suppression knows a message by: 16 bytes.

    Two messages have the same fingerprint if they announce the same data (method, value, size and block
    number), or, where the identity tells nothing, the same name and time. sr3 leaves out the block number and
    so loses the second of two equal blocks (wire.md 2.6); it is in here.

    Args:
        message: A decoded message.
        path: What else must be equal: the path for `nodupe_basis path`, "" for `data`.
    """
    fields = message.fields
    operation = fields.get("fileOp")
    key = _operation_key(fields, operation) if isinstance(operation, dict) else None
    if key is None:
        identity = fields.get("identity")
        blocks = fields.get("blocks")
        number = blocks.get("number") if isinstance(blocks, dict) else ""
        if isinstance(identity, dict) and identity.get("method") != "cod":
            key = f"{identity.get('method')}\0{fields.get('size')}\0{number}\0{identity.get('value')}"
        else:
            key = f"time\0{_time(fields)}\0{fields.get('size')}\0{number}\0{fields.get('relPath')}"
        if isinstance(operation, dict):
            key = f"rename\0{operation.get('rename')}\0{key}"
    return xxhash.xxh3_128_digest(f"{key}\0{path}".encode("utf-8", "surrogatepass"))


def _time(fields: Mapping[str, object]) -> object:
    return fields.get("mtime") or fields.get("pubTime")


def _operation_key(fields: Mapping[str, object], operation: Mapping[str, object]) -> str | None:
    """Events are told apart by name: what they are about is not in any data (wire.md 3.4)."""
    name = f"{fields.get('relPath')}\0{operation.get('rename')}"
    for kind in ("link", "hlink"):
        if kind in operation:
            return f"{kind}\0{operation[kind]}\0{name}"
    if "remove" in operation:
        # The same name may come and go often: only the time of the announcement tells removals apart.
        return f"remove\0{fields.get('pubTime')}\0{'directory' in operation}\0{name}"
    if "directory" in operation:
        return f"directory\0{fields.get('mode')}\0{fields.get('mtime')}\0{name}"
    return None

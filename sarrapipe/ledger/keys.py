"""The 16-byte keys of the ledger: generations, messages and what duplicate suppression compares.

Fields are joined with NUL, which no path, URL or header value may hold (`message` refuses it), so that two
different lists never give the same text.
"""

from __future__ import annotations

import secrets

import xxhash

__all__ = ["Nonces", "generation_of", "message_id_of", "new_incarnation", "seen_key"]


def generation_of(
    target: str,
    source: str,
    size: int | None,
    mtime_ns: int,
    segment_size: int,
    identity: str,
) -> bytes:
    """Return the key of one version of one file (design.md 4).

    Never put in: baseUrl (each mover has its own), a block's own identity, its size or suffix.

    Args:
        target: Absolute local path of the final file.
        source: Name of the source account, or "".
        size: Size of the whole file in bytes, None if unknown.
        mtime_ns: Announced modification time, else the pubTime.
        segment_size: The grid; 0 for a file of one segment.
        identity: Whole-file identity as `method,value`, or "" if it is not announced.
    """
    text = f"{target}\0{source}\0{size}\0{mtime_ns}\0{segment_size}\0{identity}"
    return xxhash.xxh3_128_digest(text.encode("utf-8", "surrogateescape"))


def message_id_of(exchange: str, rel_path: str, pub_time: str, fingerprint: bytes, block: int = -1) -> bytes:
    """Return what tells a message's own redelivery from another message that announces the same.

    Args:
        exchange: As delivered.
        rel_path: As in the message.
        pub_time: As written in the message, so that no precision is lost.
        fingerprint: Of its content (`message.identity.fingerprint`).
        block: Block number, -1 for a whole file.
    """
    text = f"{exchange}\0{rel_path}\0{pub_time}\0{block}\0"
    return xxhash.xxh3_128_digest(text.encode("utf-8", "surrogateescape") + fingerprint)


def seen_key(fingerprint: bytes, path: str) -> bytes:
    """Return the key of duplicate suppression: the content's fingerprint with what `nodupe_basis` adds to it.

    Args:
        fingerprint: Of the content, with size and block number.
        path: The path compared with it: relPath for basis `path`, the base name for `name`, "" for `data`,
            and the target path for the name-only kinds (wire.md 3.4).
    """
    return xxhash.xxh3_128_digest(fingerprint + path.encode("utf-8", "surrogateescape"))


class Nonces:
    """Names for inflight files: 8 bytes each, counted on from a random number (cheaper than new ones).

    Processes begin at random places of a circle of 2^64, and each walks at most some 2^40 steps of it.
    """

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = secrets.randbits(64)

    def new(self) -> bytes:
        """Return the next name."""
        self._next = (self._next + 1) & 0xFFFFFFFFFFFFFFFF
        return self._next.to_bytes(8, "big")


def new_incarnation() -> int:
    """Return a number for one life of one process: random, above 0, below 2^63."""
    return secrets.randbits(62) + 1

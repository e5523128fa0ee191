"""What a file is called and where it lies while it is not whole: pure naming, no file system.

    InflightPlace.parse(None)             # the native form: a hidden directory per file system
    InflightPlace.parse(".tmp")           # beside the target: `name.NONCE.tmp`
    InflightPlace.parse(".")              # `.name.NONCE`
    InflightPlace.parse("partial/")       # `partial/name.NONCE` below the target's directory
    InflightPlace.parse("none")           # under its final name, visible while it grows

The values are sr3's (`inflight`, sr3-surface.md 1 and 3.2). The nonce is in every name, so that two
transfers never share a file and what a dead process left behind is recognised.
"""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass

import xxhash

__all__ = ["HIDDEN_DIRECTORY", "InflightKind", "InflightPlace"]

HIDDEN_DIRECTORY = ".sarrapipe"
"""The directory of the native form, in the root of a destination; each flow has its own below it."""
NAME_BYTES = 255
"""NAME_MAX of every Linux file system that counts."""

_IN_PLACE_WORDS = frozenset({"none", "off", "false"})


class InflightKind(enum.Enum):
    """How a file under way is told from a finished one."""

    HIDDEN = "hidden"
    SUFFIX = "suffix"
    PREFIX = "prefix"
    DIRECTORY = "directory"
    IN_PLACE = "none"


@dataclass(frozen=True, slots=True)
class InflightPlace:
    """How a flow names its files under way.

    Attributes:
        kind: Which of the ways.
        word: The suffix, the prefix, or the directory without its last slash; empty otherwise.
    """

    kind: InflightKind = InflightKind.HIDDEN
    word: str = ""

    @classmethod
    def parse(cls, value: str | None) -> InflightPlace:
        """Read the value of the option `inflight`; None and the empty string are the native form."""
        if not value or value.lower() == "native":
            return cls()
        if value.lower() in _IN_PLACE_WORDS:
            return cls(InflightKind.IN_PLACE)
        if value == ".":
            return cls(InflightKind.PREFIX, value)
        if "/" in value:
            return cls(InflightKind.DIRECTORY, value.rstrip("/") or "/")
        return cls(InflightKind.SUFFIX, value)

    @property
    def absolute(self) -> bool:
        """Files under way lie in one directory named by its absolute path."""
        return self.kind is InflightKind.DIRECTORY and self.word.startswith("/")

    def path(self, target: str, nonce: str) -> str:
        """Where a file under way lies.

        Args:
            target: Path of the finished file, relative to the destination's root.
            nonce: Unique among the files under way of all processes.

        Returns:
            A path relative to the root; for the hidden form, and for an absolute directory, relative to that
            directory. No component of it is longer than 255 bytes because of what was added here.
        """
        parent, slash, name = target.rpartition("/")
        if self.kind is InflightKind.HIDDEN:
            return nonce
        if self.kind is InflightKind.IN_PLACE:
            return target
        if self.kind is InflightKind.DIRECTORY:
            name = _fitting("", name, f".{nonce}")
            return name if self.absolute else f"{parent}{slash}{self.word}/{name}"
        if self.kind is InflightKind.PREFIX:
            return f"{parent}{slash}{_fitting(self.word, name, f'.{nonce}')}"
        return f"{parent}{slash}{_fitting('', name, f'.{nonce}{self.word}')}"


def _fitting(before: str, name: str, after: str) -> str:
    """Put the parts together; a name that would be too long is replaced by its hash."""
    whole = f"{before}{name}{after}"
    if len(os.fsencode(whole)) <= NAME_BYTES:
        return whole
    return f"{before}{xxhash.xxh3_128_hexdigest(os.fsencode(name))}{after}"

"""Source trees for benchmarks and the demonstration: made, announced by hand, compared with what arrived."""

from __future__ import annotations

import base64
import filecmp
import hashlib
import json
import os
import random
import stat
import time
from collections.abc import Iterator
from typing import Final

import xxhash

from sarrapipe.segment.place import HIDDEN_DIRECTORY
from sarrapipe.units import format_time

__all__ = [
    "announcement",
    "announcements",
    "compare_bytes",
    "compare_trees",
    "files_below",
    "make_large",
    "make_small",
    "same_bytes",
    "sha512",
    "xxh3_128",
]

_PER_DIRECTORY: Final = 100
_CHUNK_BYTES: Final = 1 << 20
_MAX_REPORTED: Final = 50


def make_small(root: str, *, files: int, size_bytes: int, seed: int = 1) -> None:
    """Make `files` files of `size_bytes` random bytes below `root`, 100 a directory."""
    source = random.Random(seed)
    for first in range(0, files, _PER_DIRECTORY):
        directory = os.path.join(root, f"d{first // _PER_DIRECTORY:04d}")
        os.makedirs(directory)
        for number in range(first, min(files, first + _PER_DIRECTORY)):
            with open(os.path.join(directory, f"f{number:06d}.bin"), "wb") as file:
                file.write(source.randbytes(size_bytes))


def make_large(path: str, size_bytes: int, *, seed: int = 2) -> None:
    """Make one file whose content repeats nowhere on the scale of a segment: a counter in every 64 bytes."""
    block = bytearray(random.Random(seed).randbytes(_CHUNK_BYTES))
    with open(path, "wb") as file:
        written = 0
        while written < size_bytes:
            for offset in range(0, _CHUNK_BYTES, 4096):
                block[offset : offset + 8] = (written + offset).to_bytes(8, "big")
            written += file.write(memoryview(block)[: size_bytes - written])


def files_below(root: str) -> list[str]:
    """Return the regular files below `root`, relative to it, sorted."""
    found = []
    for directory, _names, files in os.walk(root):
        found += [os.path.relpath(os.path.join(directory, name), root) for name in files]
    return sorted(found)


def xxh3_128(path: str) -> str:
    """Return the xxh3_128 of a file as sarrapipe writes it (base64)."""
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return base64.b64encode(digest.digest()).decode("ascii")


def sha512(path: str) -> str:
    """Return the sha512 of a file as v03 writes it (base64)."""
    with open(path, "rb") as file:
        return base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode("ascii")


def announcements(docroot: str, below: str, base_url: str) -> Iterator[tuple[str, bytes]]:
    """Return (topic, v03 body) for every file of `docroot`/`below`, as a poster with sha512 writes them.

    Args:
        docroot: What `base_url` serves; relPath is relative to it.
        below: Directory inside it.
        base_url: Base URL to announce.
    """
    for name in files_below(os.path.join(docroot, below)):
        rel_path = f"{below}/{name}"
        identity = {"method": "sha512", "value": sha512(os.path.join(docroot, rel_path))}
        yield announcement(docroot, rel_path, base_url, identity)


def announcement(docroot: str, rel_path: str, base_url: str, identity: dict[str, str]) -> tuple[str, bytes]:
    """Return (topic, v03 body) for one file whose identity is known; an empty one is not announced."""
    facts = os.stat(os.path.join(docroot, rel_path))
    body: dict[str, object] = {
        "pubTime": format_time(time.time_ns()),
        "baseUrl": base_url,
        "relPath": rel_path,
        "size": facts.st_size,
        "mtime": format_time(facts.st_mtime_ns),
        "mode": f"{facts.st_mode & 0o7777:o}",
    }
    if identity:
        body["identity"] = identity
    return ".".join(["v03", *rel_path.split("/")[:-1]]), json.dumps(body).encode()


def compare_bytes(source: str, copy: str, *, complete: bool = True) -> list[str]:
    """Return what is wrong with the files of `copy`: extra, with other bytes, or, if `complete`, missing."""
    return _Comparison(source, copy, metadata=False, complete=complete).differences()


def same_bytes(source: str, copy: str) -> bool:
    """Tell whether a copy exists and has the source's bytes."""
    return os.path.exists(copy) and filecmp.cmp(source, copy, shallow=False)


def compare_trees(source: str, copy: str, *, mtime_tolerance_ns: int = 0) -> list[str]:
    """Return every difference: entries, kinds, bytes, link targets, modes and modification times.

    Times of directories are left out, since every file that is put in place changes them, and of links, which
    a notification message does not carry.

    Args:
        source: The tree as it should be.
        copy: The tree to judge.
        mtime_tolerance_ns: How far times may be apart; sr3 keeps them as floating-point seconds, which are
            good to about 240 ns these days.
    """
    comparison = _Comparison(source, copy, metadata=True, complete=True)
    comparison.mtime_tolerance_ns = mtime_tolerance_ns
    return comparison.differences()


class _Comparison:
    """One walk over two trees."""

    def __init__(self, source: str, copy: str, *, metadata: bool, complete: bool) -> None:
        self._source = source
        self._copy = copy
        self._metadata = metadata
        self._complete = complete
        self._found: list[str] = []
        self.mtime_tolerance_ns = 0

    def differences(self) -> list[str]:
        filecmp.clear_cache()
        wanted, there = self._entries(self._source), self._entries(self._copy)
        if self._complete:
            for name in sorted(wanted.keys() - there.keys()):
                self._say(name, "is missing")
        for name in sorted(there.keys() - wanted.keys()):
            self._say(name, "should not be there")
        for name in sorted(wanted.keys() & there.keys()):
            self._compare(name, wanted[name], there[name])
        if len(self._found) > _MAX_REPORTED:
            more = len(self._found) - _MAX_REPORTED
            return [*self._found[:_MAX_REPORTED], f"and {more} more"]
        return self._found

    def _entries(self, root: str) -> dict[str, os.stat_result]:
        entries = {}
        for directory, names, files in os.walk(root):
            kinds = [
                *files,
                *(n for n in names if self._metadata or os.path.islink(os.path.join(directory, n))),
            ]
            for name in kinds:
                path = os.path.join(directory, name)
                facts, relative = os.lstat(path), os.path.relpath(path, root)
                # Where files under assembly are: the directory itself stays, a file in it is a leftover.
                if not (relative.split(os.sep)[0] == HIDDEN_DIRECTORY and stat.S_ISDIR(facts.st_mode)):
                    entries[relative] = facts
        return entries

    def _say(self, name: str, what: str) -> None:
        self._found.append(f"{name!r} {what}")

    def _compare(self, name: str, wanted: os.stat_result, there: os.stat_result) -> None:
        source, copy = os.path.join(self._source, name), os.path.join(self._copy, name)
        if stat.S_IFMT(wanted.st_mode) != stat.S_IFMT(there.st_mode):
            self._say(name, "is of another kind")
        elif stat.S_ISLNK(wanted.st_mode):
            if os.readlink(source) != os.readlink(copy):
                self._say(name, f"points to {os.readlink(copy)!r}, not {os.readlink(source)!r}")
        else:
            self._compare_content(name, wanted, there)

    def _compare_content(self, name: str, wanted: os.stat_result, there: os.stat_result) -> None:
        source, copy = os.path.join(self._source, name), os.path.join(self._copy, name)
        regular = stat.S_ISREG(wanted.st_mode)
        if regular and (wanted.st_size != there.st_size or not filecmp.cmp(source, copy, shallow=False)):
            self._say(name, f"has other bytes ({there.st_size} of {wanted.st_size})")
        if not self._metadata:
            return
        if stat.S_IMODE(wanted.st_mode) != stat.S_IMODE(there.st_mode):
            self._say(name, f"has mode {stat.S_IMODE(there.st_mode):o}, not {stat.S_IMODE(wanted.st_mode):o}")
        if regular and abs(wanted.st_mtime_ns - there.st_mtime_ns) > self.mtime_tolerance_ns:
            self._say(name, f"has mtime {there.st_mtime_ns}, not {wanted.st_mtime_ns} ns")

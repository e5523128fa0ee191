"""The demonstration's source: a real tree of several thousand files, odd cases, a large file."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from perf import trees
from sarrapipe.units import format_bytes

__all__ = ["Inventory", "inventory", "make_source"]

_WANTED_FILES: Final = 3000
_MOST_FILES: Final = 5000
_LEFT_OUT: Final = frozenset({"__pycache__", "site-packages", "dist-packages"})
_ODD_NAMES: Final = (
    "a file with blanks.txt",
    " leading blank",
    "hash#and%20percent",
    "per%cent",
    "quo'te\"s",
    "back\\slash",
    "semi;colon,comma&amp=equals+plus",
    "que?ry",
    "star*",
    "[brackets]{braces}",
    "naïve-ümlaut",
    "日本語の名前",
    "🚀",
    "line\u2028separator",
    "tilde~",
    "-dash-first",
    ".hidden",
    "e.f",
    "n" * 200,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What a tree holds."""

    files: int
    directories: int
    links: int
    size_bytes: int

    @property
    def entries(self) -> int:
        """Everything that is announced."""
        return self.files + self.directories + self.links

    def __str__(self) -> str:
        return (
            f"{self.files:,} files, {self.directories:,} directories, {self.links} links, "
            f"{format_bytes(self.size_bytes)}"
        )


def inventory(root: str) -> Inventory:
    """Count what is below `root`."""
    files = directories = links = size_bytes = 0
    for directory, names, leaves in os.walk(root):
        for name in (*names, *leaves):
            path = os.path.join(directory, name)
            if os.path.islink(path):
                links += 1
            elif name in leaves:
                files += 1
                size_bytes += os.path.getsize(path)
            else:
                directories += 1
    return Inventory(files=files, directories=directories, links=links, size_bytes=size_bytes)


def make_source(root: str, large_bytes: int) -> Inventory:
    """Make the source tree and return what is in it.

    Args:
        root: Directory to make it in; must not exist.
        large_bytes: Size of the large file; 0 for none.
    """
    os.makedirs(root)
    copied = 0
    for origin in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")):
        if copied < _WANTED_FILES:
            target = os.path.join(root, os.path.basename(origin))
            copied += _copy_real(origin, target, _MOST_FILES - copied)
    _make_odd(os.path.join(root, "odd"))
    if large_bytes:
        trees.make_large(os.path.join(root, "large.bin"), large_bytes)
    return inventory(root)


def _walk(origin: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each directory below `origin` with its entries that are files or links; caches are left out."""
    for directory, names, files in os.walk(origin):
        names[:] = sorted(name for name in names if name not in _LEFT_OUT or directory != origin)
        links = [name for name in names if os.path.islink(os.path.join(directory, name))]
        names[:] = [name for name in names if name not in links and name != "__pycache__"]
        yield directory, sorted(files + links)


def _copy_real(origin: str, target: str, most: int) -> int:
    """Copy a real tree with modes, times and links as they are, up to `most` files; return how many."""
    copied = 0
    for directory, entries in _walk(origin):
        to = os.path.normpath(os.path.join(target, os.path.relpath(directory, origin)))
        os.makedirs(to, exist_ok=True)
        for name in entries:
            path = os.path.join(directory, name)
            if _belongs(path, origin):
                shutil.copy2(path, os.path.join(to, name), follow_symlinks=False)
                copied += 1
        if copied >= most:
            break
    return copied


def _belongs(path: str, origin: str) -> bool:
    """Tell whether to copy an entry: files, and links that stay inside, since no pump makes others (R82)."""
    if os.path.islink(path):
        inside = os.path.realpath(path).startswith(os.path.realpath(origin) + os.sep)
        return inside and not os.path.isabs(os.readlink(path))
    return os.path.isfile(path)


def _make_odd(root: str) -> None:
    """Make what real trees have seldom: odd names, modes and times, links of every kind, empty things."""
    os.makedirs(os.path.join(root, "empty directory", "in an empty directory"))
    os.makedirs(os.path.join(root, "h#sh*dir", "deep", "er"))
    for number, name in enumerate(_ODD_NAMES):
        for path in (os.path.join(root, name), os.path.join(root, "h#sh*dir", "deep", name)):
            with open(path, "wb") as file:
                file.write(name.encode() * number)
            os.chmod(path, (0o644, 0o600, 0o755, 0o444)[number % 4])
            os.utime(path, ns=(10**18, 1_500_000_000_000_000_000 + number * 86_400_000_000_001))
    open(os.path.join(root, "empty"), "wb").close()
    os.chmod(os.path.join(root, "empty directory"), 0o700)
    for target, name in (
        ("empty", "link"),
        ("h#sh*dir/deep", "link to a directory"),
        ("../odd/empty", "link over the parent"),
        ("nowhere", "dangling link"),
        ("a file with blanks.txt", "链接"),
    ):
        os.symlink(target, os.path.join(root, name))

"""What a message may claim: checks of its sizes, paths, link targets and URL as text, before any use.

Pure: nothing here looks at a file system. A path that passes cannot name anything outside the directory it
is joined to, as long as no component of that directory is a link; whoever opens it makes sure of that
(`openat2` with `RESOLVE_BENEATH`). Where placement changes a path (`strip`, `flatten`, `rename`, `filename`),
the result is checked again with `check_path` and `check_link`.

Source: requirements R82; issue 2 "Bad input".
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable
from typing import Final
from urllib.parse import unquote

from sarrapipe.errors import MessageError, UnsafePath
from sarrapipe.message.model import Message

__all__ = ["check", "check_link", "check_path", "old_rel_path"]

_MAX_BYTES: Final = 2**63 - 1  # off_t
_MAX_NAME_BYTES: Final = 255  # NAME_MAX of every common Linux file system
_MAX_PATH_BYTES: Final = 4095  # PATH_MAX without its NUL
_UTF8_MAX: Final = 4  # bytes of a character


def check(message: Message, schemes: Collection[str]) -> None:
    """Check all that a decoded message claims.

    Args:
        message: From a codec.
        schemes: URL schemes that may be fetched, in lower case.

    Raises:
        UnsafePath: A path could leave its directory; the text names the field.
        MessageError: A size is absurd, or the URL's scheme is refused.
    """
    check_path("relPath", message.rel_path)
    _check_base_url(message.base_url, schemes)
    size = message.size
    if size is not None and not 0 <= size <= _MAX_BYTES:
        raise MessageError(f"size: {size} bytes cannot be")
    fields = message.fields
    if "retrievePath" in fields:
        _check_retrieve_path(str(fields["retrievePath"]))
    if "rename" in fields:
        check_path("rename", str(fields["rename"]))
    if "source" in fields:
        _check_word("source", str(fields["source"]))
    if "fileOp" in fields:
        _check_operation(message)


def _check_operation(message: Message) -> None:
    operation = message.file_op
    if operation is None:
        return
    if operation.link is not None:
        check_link("fileOp.link", message.rel_path, operation.link)
    if operation.hlink is not None:
        check_path("fileOp.hlink", operation.hlink)
    if operation.rename is not None:
        # sr3 sends the absolute path on its host (wire.md 1.4): `old_rel_path` brings it into the tree.
        check_path("fileOp.rename", operation.rename.removeprefix("/"))


def check_path(field: str, path: str) -> None:
    """Check a path that will be joined to a directory.

    Args:
        field: Name of the field, for the error.
        path: Relative, with `/` between components.

    Raises:
        UnsafePath: Empty, absolute, with an empty component, `.`, `..`, a control character or a byte that is
            no UTF-8, or too long for a file system.
    """
    if not path or path[0] == "/":
        raise UnsafePath(f"{field}: {path!r:.60} is {'absolute' if path else 'empty'}")
    if not path.isprintable():
        _check_characters(field, path)
    if path[0] == "." or path[-1] == "/" or "/." in path or "//" in path:
        _check_components(field, path)
    if "%" in path:
        _check_unescaped(field, path)
    if len(path) > _MAX_NAME_BYTES // _UTF8_MAX:
        _check_lengths(field, path)


def check_link(field: str, path: str, target: str) -> None:
    """Check the target of a symbolic link that will be made at `path`, as text.

    The target may climb no higher than the directory that `path` is relative to, and only at its beginning:
    `dir/..` means somewhere else when `dir` is itself a link.

    Args:
        field: Name of the field, for the error.
        path: Where the link will be, relative to the directory that must not be left.
        target: What the link will hold.

    Raises:
        UnsafePath: The target is absolute or climbs out, or holds what no path may hold.
    """
    _check_characters(field, target)
    if not target or target[0] == "/":
        raise UnsafePath(f"{field}: {target!r:.60} is {'absolute' if target else 'empty'}")
    if len(target.encode("utf-8")) > _MAX_PATH_BYTES:
        raise UnsafePath(f"{field}: longer than {_MAX_PATH_BYTES} bytes")
    components = [part for part in target.split("/") if part not in ("", ".")]
    climbs = 0
    while climbs < len(components) and components[climbs] == "..":
        climbs += 1
    if ".." in components[climbs:] or climbs > path.count("/"):
        raise UnsafePath(f"{field}: {target!r:.60} leads out of the tree")


def old_rel_path(message: Message, prefixes: Iterable[str]) -> str | None:
    """Return the old name of a renamed file relative to the tree.

    Args:
        message: One that `check` has passed.
        prefixes: Directories that stand for the tree on the source's host: `baseDir`, the path of baseUrl.
            An empty one and `/` stand for nothing.

    Returns:
        None if it is no rename, and where an absolute name is in none of those directories: sr3 sends such
        names (wire.md 1.4), and then there is nothing here to rename, only the new name to fetch.

    Raises:
        UnsafePath: What follows the prefix is no path.
    """
    operation = message.file_op
    if operation is None or operation.rename is None:
        return None
    name = operation.rename
    for directory in (prefix.rstrip("/") + "/" for prefix in prefixes):
        if directory != "/" and name.startswith(directory):
            name = name[len(directory) :]
            break
    else:
        if name.startswith("/"):
            return None
    check_path("fileOp.rename", name)
    return name


def _check_characters(field: str, text: str) -> None:
    for character in text:
        category = unicodedata.category(character)
        if category in ("Cc", "Cs"):  # controls; halves of surrogate pairs, which stand for bytes
            raise UnsafePath(f"{field}: {text!a:.60} holds the character {character!a}")


def _check_components(field: str, path: str) -> None:
    for component in path.split("/"):
        if component in ("", ".", ".."):
            raise UnsafePath(f"{field}: {path!r:.60} has a component {component!r}")


def _check_unescaped(field: str, path: str) -> None:
    """A data server, or libcurl for a file URL, takes `%2e%2e%2f` for `../`."""
    unescaped = unquote(path)
    if unescaped != path and (".." in unescaped.split("/") or "\0" in unescaped):
        raise UnsafePath(f"{field}: {path!r:.60} hides a component '..' or a NUL")


def _check_lengths(field: str, path: str) -> None:
    raw = path.encode("utf-8")
    if len(raw) <= _MAX_NAME_BYTES:
        return
    if len(raw) > _MAX_PATH_BYTES:
        raise UnsafePath(f"{field}: {len(raw)} bytes, a path has {_MAX_PATH_BYTES} at most")
    longest = max(map(len, raw.split(b"/")))
    if longest > _MAX_NAME_BYTES:
        raise UnsafePath(f"{field}: a name of {longest} bytes, a file system takes {_MAX_NAME_BYTES}")


def _check_retrieve_path(path: str) -> None:
    """It is joined to a URL, not to a directory: empty components and queries are its own affair."""
    _check_characters("retrievePath", path)
    if ".." in path.partition("?")[0].split("/"):
        raise UnsafePath(f"retrievePath: {path!r:.60} has a component '..'")
    _check_unescaped("retrievePath", path)
    if len(path.encode("utf-8")) > _MAX_PATH_BYTES:
        raise UnsafePath(f"retrievePath: longer than {_MAX_PATH_BYTES} bytes")


def _check_base_url(url: str, schemes: Collection[str]) -> None:
    scheme, _, rest = url.partition(":")
    if scheme.lower() not in schemes:
        raise MessageError(f"baseUrl: the scheme {scheme!r:.30} is not one of {', '.join(sorted(schemes))}")
    if not url.isprintable():
        _check_characters("baseUrl", url)
    if ".." in rest and ".." in rest.split("/"):
        raise UnsafePath(f"baseUrl: {url!r:.60} has a component '..'")
    if "%" in rest:
        _check_unescaped("baseUrl", rest)


def _check_word(field: str, word: str) -> None:
    """A name that `${SOURCE}` puts into directories."""
    if "/" in word or word in ("", ".", ".."):
        raise UnsafePath(f"{field}: {word!r:.60} is no name")
    if not word.isprintable():
        _check_characters(field, word)

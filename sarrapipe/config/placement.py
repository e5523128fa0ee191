"""From a message to the path its file gets, and from a path to what is announced. Pure.

No path leaves the directory that the configuration names, whatever a message says: `..`, control characters,
names that no file system takes, and an empty path raise UnsafePath. Symbolic links on the way are
the business of whoever opens the file. Source: sr3-surface.md 2.4 (placement), 3.3; R82.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import unquote

from sarrapipe.config.masks import MaskMatch, PlacementRule
from sarrapipe.config.model import FlowConfig
from sarrapipe.config.substitute import Template
from sarrapipe.errors import MessageError, UnsafePath

__all__ = ["Announcer", "Placer", "safe_relative_path"]

_UNSAFE_RE: Final = re.compile(r"[\x00-\x1f\x7f]|(?:^|/)\.\.?(?:/|$)|//|/$")
_CONTROL_RE: Final = re.compile(r"[\x00-\x1f\x7f]")
_MAX_NAME_BYTES: Final = 255  # NAME_MAX of Linux file systems
_MAX_PATH_BYTES: Final = 4095  # PATH_MAX less the final zero
_PX_FIELDS: Final = 6  # what Sundew keeps of a bulletin's name ...
_PDS_FIELDS: Final = 5  # ... and what it keeps where the fifth field is no priority digit


def safe_relative_path(path: str) -> str:
    """Return a path from a message as one below some directory: no leading slash, no `.`, nothing doubled.

    A leading slash is what v2 writes before every path (wire.md 1.2), so it is dropped, not refused.

    Raises:
        UnsafePath: It is empty, has a `..`, a control character, or a name too long for any file system.
    """
    if len(path) > _MAX_NAME_BYTES or not path.isascii():
        _check_encoding(path)
    if path[:1] == "/":
        path = path.lstrip("/")
    if path and _UNSAFE_RE.search(path) is None:
        return path
    return _cleaned(path)


def _cleaned(path: str) -> str:
    control = _CONTROL_RE.search(path)
    if control is not None:
        raise UnsafePath(f"{path[:100]!r} holds the control character {control.group()!r}")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UnsafePath(f"{path[:100]!r} holds '..'")
    if not parts:
        raise UnsafePath(f"{path[:100]!r} names no file")
    return "/".join(parts)


def _check_encoding(path: str) -> None:
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError as error:
        raise UnsafePath(f"{path[:100]!r} holds a character that no file name can") from error
    if len(encoded) > _MAX_PATH_BYTES or any(len(part) > _MAX_NAME_BYTES for part in encoded.split(b"/")):
        raise UnsafePath(f"{path[:100]!r}... is too long for a file system")


class Placer:
    """Tells where files go, for the messages of one flow.

    Args:
        config: The flow's configuration.
    """

    __slots__ = ("_base_dir", "_prefix_url")

    def __init__(self, config: FlowConfig) -> None:
        base_dir = (config.base_dir or "").strip("/")
        self._base_dir = base_dir + "/" if base_dir else ""
        self._prefix_url = config.base_url_rel_path

    def target(self, message: Mapping[str, object], match: MaskMatch, now_ns: int) -> str:
        """Return the absolute path of a message's file.

        Args:
            message: Wire fields; `rename` is used in place of `relPath`.
            match: What the masks said.
            now_ns: Nanoseconds since 1970 UTC.

        Raises:
            UnsafePath: The path would leave the directory, or can be no file's.
            MessageError: The message lacks what the configuration's variables ask for.
        """
        renamed = message.get("rename")
        path = str(message["relPath"]) if renamed is None else _renamed(renamed, message)
        return self.place(path, message, match, now_ns)

    def place(self, path: str, message: Mapping[str, object], match: MaskMatch, now_ns: int) -> str:
        """Return the absolute path of `path`, any path that a message speaks of (such as an old name).

        Raises:
            UnsafePath: As `target`.
            MessageError: As `target`.
        """
        rule = match.rule
        path = safe_relative_path(path)
        if self._prefix_url:
            path = safe_relative_path(f"{_url_path(message)}/{path}")
        if self._base_dir and path.startswith(self._base_dir):
            path = path[len(self._base_dir) :]
        if rule.plain_head is not None:
            return rule.plain_head + path
        return _composed(path, message, rule, match.groups, now_ns)


def _composed(
    path: str,
    message: Mapping[str, object],
    rule: PlacementRule,
    groups: Sequence[str],
    now_ns: int,
) -> str:
    parts = _stripped(path, rule)
    if rule.flatten != "/":
        parts[-1] = rule.flatten.join(parts)
    if not rule.mirror:
        del parts[:-1]
    if rule.filename is not None:
        scheme = rule.filename.render(message, groups, now_ns)
        parts[-1] = _file_name(scheme, parts[-1], message, now_ns)
    directory = _directory(rule.directory, message, groups, now_ns)
    # What regular expressions, schemes and flattening made of the path is checked like the path itself.
    return f"{directory}{safe_relative_path('/'.join(parts))}"


def _stripped(path: str, rule: PlacementRule) -> list[str]:
    if rule.strip_regex is not None:
        name = path.rpartition("/")[2]
        rest = rule.strip_regex.sub("", path, count=1).lstrip("/")
        # As sr3 has it: an expression that would eat of the file's name leaves the name alone.
        path = rest if rest and name in rest else name
        return path.split("/")
    parts = path.split("/")
    count = rule.strip.count
    return parts[count:] if count < len(parts) else parts[-1:]


def _renamed(renamed: object, message: Mapping[str, object]) -> str:
    if not isinstance(renamed, str):
        raise MessageError("rename is no text")
    if renamed.endswith("/"):
        return renamed + str(message["relPath"]).rpartition("/")[2]
    return renamed


def _url_path(message: Mapping[str, object]) -> str:
    return unquote(str(message["baseUrl"]).partition("://")[2].partition("/")[2])


def _directory(directory: Template, message: Mapping[str, object], groups: Sequence[str], now_ns: int) -> str:
    if directory.constant is not None:
        return directory.constant.rstrip("/") + "/"
    text = directory.render(message, groups, now_ns)
    if not text.startswith("/"):
        raise UnsafePath(f"directory {text[:100]!r} is not absolute: begin it with one that is")
    return "/" + safe_relative_path(text) + "/"


def _file_name(scheme: str, name: str, message: Mapping[str, object], now_ns: int) -> str:
    """Return a name after Sundew's schemes (sr3-surface.md 3.3), as `NONE:TIME` or `DESTFN=fixed`."""
    extension = message.get("sundew_extension")
    full = f"{name.partition(':')[0]}:{extension}" if isinstance(extension, str) else name
    result, suffix = full, ""
    for word in scheme.split(":"):
        key, _, value = word.partition("=")
        match key:
            case "WHATFN":
                result = full.partition(":")[0]
            case "HEADFN":
                result = "_".join(full.partition(":")[0].split("_")[:2])
            case "SENDER" | "NONESENDER" | "NONE":
                result = _sender_name(key, full)
            case "DESTFN":
                result = value
            case "SATNET":
                suffix += f":{word}"
            case "TIME":
                suffix += _time_suffix(full, message, now_ns)
            case "":
                suffix += ":"
            case _:
                raise MessageError(f"filename {word[:60]!r}: no such scheme")
    if "/" in result or not result:
        raise UnsafePath(f"{result[:100]!r} is no file name")
    return result + suffix


def _sender_name(scheme: str, full: str) -> str:
    head, sender, rest = full.partition("SENDER=")
    if sender and scheme == "SENDER":
        return rest.partition(":")[0]
    if scheme == "SENDER":
        return full
    if sender:
        return (head + (f"SENDER={rest.partition(':')[0]}" if scheme == "NONESENDER" else "")).rstrip(":")
    fields = full.split(":")
    if len(fields) < _PX_FIELDS:
        return full
    kept = _PX_FIELDS if len(fields[4]) == 1 else _PDS_FIELDS
    return ":".join(fields[:kept]).rstrip(":")


def _time_suffix(full: str, message: Mapping[str, object], now_ns: int) -> str:
    last = full.rpartition(":")[2]
    if len(last) == 14 and last.startswith("2"):
        return f":{last}"
    stamp = message.get("pubTime")
    if isinstance(stamp, str):
        return ":" + stamp.partition(".")[0].replace("T", "")
    return ":" + Template("${%Y%m%d%H%M%S}").render(message, (), now_ns)


class Announcer:
    """Tells under which base URL and path a file of this machine is announced.

    Args:
        config: The flow's configuration.
    """

    __slots__ = ("_base_dir", "_base_url", "_rename", "_unfixed_dir")

    def __init__(self, config: FlowConfig) -> None:
        offset_s = config.var_time_offset
        self._base_url = None if config.post_base_url is None else Template(config.post_base_url, offset_s)
        directory = Template(config.post_base_dir or "/", offset_s)
        self._unfixed_dir = directory if directory.constant is None else None
        self._base_dir = "" if directory.constant is None else directory.constant.rstrip("/") + "/"
        self._rename = Template(config.rename, offset_s) if config.rename else None

    def base_url(self, message: Mapping[str, object], groups: Sequence[str], now_ns: int) -> str | None:
        """Return the base URL to announce; None where the message keeps its own."""
        return None if self._base_url is None else self._base_url.render(message, groups, now_ns)

    def rel_path(self, path: str, message: Mapping[str, object], groups: Sequence[str], now_ns: int) -> str:
        """Return the announced path of the file at the absolute `path`: what follows post_baseDir.

        A file that is not below post_baseDir is announced with its whole path, without the leading slash.
        """
        head = self._base_dir
        if self._unfixed_dir is not None:
            head = self._unfixed_dir.render(message, groups, now_ns).rstrip("/") + "/"
        return path[len(head) :] if path.startswith(head) else path.lstrip("/")

    def rename(self, rel_path: str, message: Mapping[str, object], now_ns: int) -> str | None:
        """Return the field `rename` to announce, None where the option is not set."""
        if self._rename is None:
            return None
        text = self._rename.render(message, (), now_ns)
        return text + rel_path.rpartition("/")[2] if text.endswith("/") else text

"""Gather what `path` names: files, links and directories of this machine become announcements.

A tree is walked in the order of its names, a directory before what is in it, in memory bounded by the depth
and the widest directory. Small files are read and hashed where they are met; large ones, and those announced
in blocks, are left to `LargeFiles`, which hashes them on all cores while the walk goes on.

Source: C, Flow Algorithm (gather.file); requirements R9, R35, R43; wire.md 1.2-1.4.
"""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Callable, Iterator
from typing import Final

from sarrapipe.callbacks.base import FlowCallback, Gathered
from sarrapipe.callbacks.largefiles import LargeFiles
from sarrapipe.clock import SYSTEM_CLOCK
from sarrapipe.config.masks import match_text
from sarrapipe.config.model import FlowConfig
from sarrapipe.errors import ConfigError, StorageError
from sarrapipe.log import get_logger
from sarrapipe.message import identity
from sarrapipe.message.model import Message
from sarrapipe.message.worklist import WorkItem
from sarrapipe.segment.place import HIDDEN_DIRECTORY
from sarrapipe.units import format_time

__all__ = ["GatherFile"]

_log = get_logger(__name__)

_INLINE_BYTES: Final = 256 * 1024
"""Larger files are hashed on the pool: below this a thread's hand-over costs more than sha512 itself."""


class GatherFile(FlowCallback):
    """The files that `path` and the command line name.

    Args:
        config: The flow's configuration.
        wake: Called from a thread when there is more to gather.

    Attributes:
        exhausted: Every file was handed out.
        errors: What could not be announced, as sentences that name the path.
    """

    def __init__(self, config: FlowConfig, wake: Callable[[], None] = lambda: None) -> None:
        super().__init__(config)
        self.exhausted = False
        self.errors: list[str] = []
        self._config = config
        self._masks = config.masks
        self._common = _common_fields(config)
        self._base_dir = _base_dir(config)
        self._entries: Iterator[str] | None = None
        self._walked = False
        self._random = random.Random()
        # O_NONBLOCK: opening a pipe without a writer would wait for ever; regular files ignore it.
        self._open_flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        if not config.follow_symlinks:
            self._open_flags |= os.O_NOFOLLOW
        self._computes = config.identity.method in identity.DIGEST_BYTES
        self._large = LargeFiles(config, wake, self._open_flags, self._complain_of)

    def gather(self, message_count_max: int) -> Gathered:
        """Return the next announcements; none while all that is left is being hashed, which `wake` ends.

        Of what fits, large files fill a half at first: many small blocks do not hold up small files, nor the
        other way round.
        """
        if self._entries is None:
            self._entries = self._walk()
        items = self._large.take((message_count_max + 1) // 2)
        for path, version in self._large.changed():
            self._add(items, path, version)
        while not self._walked and len(items) < message_count_max and self._large.room:
            following = next(self._entries, None)
            if following is None:
                self._walked = True
            else:
                self._add(items, following)
        items += self._large.take(message_count_max - len(items))
        self.exhausted = self._walked and not items and self._large.idle
        return True, items

    def on_stop(self) -> None:
        """End the hashing threads."""
        self._large.close()

    def _add(self, items: list[WorkItem], path: str, version: int = 0) -> None:
        item = self._announce(path, version)
        if item is not None:
            items.append(item)

    def _walk(self) -> Iterator[str]:
        for path in self._config.path:
            absolute = os.path.abspath(path)
            if self._config.realpath_post:
                absolute = os.path.realpath(absolute)
            if not os.path.lexists(absolute):
                self._complain(f"{path}: no such file or directory")
                continue
            yield absolute
            if self._is_directory(absolute):
                yield from self._walk_directory(absolute)

    def _walk_directory(self, top: str) -> Iterator[str]:
        stack = [top]
        while stack:
            directory = stack.pop()
            try:
                with os.scandir(directory) as scan:
                    entries = sorted(scan, key=lambda entry: entry.name)
            except OSError as error:
                self._complain(f"{directory}: {error.strerror}")
                continue
            if self._config.randomize:
                self._random.shuffle(entries)
            inner = []
            for entry in entries:
                if entry.name == HIDDEN_DIRECTORY:
                    continue  # where flows that deliver into this tree keep their files under way
                yield entry.path
                if self._config.recursive and self._goes_on(entry):
                    inner.append(entry.path)
            stack.extend(reversed(inner))

    def _goes_on(self, entry: os.DirEntry[str]) -> bool:
        """Return whether to look into an entry: a directory, or a link to one that is not above it."""
        if not entry.is_symlink():
            return entry.is_dir(follow_symlinks=False)
        if not self._config.follow_symlinks or not os.path.isdir(entry.path):
            return False
        there = os.path.realpath(entry.path)
        if f"{os.path.realpath(os.path.dirname(entry.path))}/".startswith(there.rstrip("/") + "/"):
            self._complain(f"{entry.path}: a link to a directory it is in; what is there is announced once")
            return False
        return True

    def _is_directory(self, path: str) -> bool:
        return os.path.isdir(path) and (self._config.follow_symlinks or not os.path.islink(path))

    def _announce(self, path: str, version: int) -> WorkItem | None:
        """Return the announcement of one name, or None if there is none (yet)."""
        try:
            try:
                return self._opened(path, version)
            except OSError as error:
                # What O_NOFOLLOW says of a link: one system call less for each file than to look first.
                if error.errno != errno.ELOOP or not os.path.islink(path):
                    raise
            return self._link(path)
        except (OSError, StorageError) as error:
            self._complain_of(path, getattr(error, "strerror", None) or str(error))
            return None

    def _link(self, path: str) -> WorkItem | None:
        if "link" not in self._config.file_events:
            return None
        fields = self._fields(path)
        target = os.readlink(path)
        _check_text(target, "its target")
        fields["fileOp"] = {"link": target}
        return WorkItem(Message(fields))

    def _opened(self, path: str, version: int) -> WorkItem | None:
        descriptor = os.open(path, self._open_flags)
        try:
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                return self._directory(path, status)
            if not stat.S_ISREG(status.st_mode):
                self._complain(f"{path}: neither file, directory nor link; not announced")
                return None
            if not {"create", "modify"} & self._config.file_events:
                return None
            if status.st_size > _INLINE_BYTES or self._large.block_size(status.st_size):
                return self._large_file(path, status, version)
            if not self._computes:
                return self._regular(path, status, self._dataless_value())
            return self._small_file(path, status, os.read(descriptor, status.st_size + 1))
        finally:
            os.close(descriptor)

    def _large_file(self, path: str, status: os.stat_result, version: int) -> WorkItem | None:
        item = self._regular(path, status, self._dataless_value())
        message = item.message
        in_blocks = self._large.block_size(status.st_size) is not None
        if not (self._computes or in_blocks) or not self._masks.match(match_text(message)).accepted:
            return item  # what the filter will refuse is not worth reading
        announced = message.identity
        value = None if announced is None else announced.value
        self._large.add(path, status, message.to_dict(), value, version)
        return None

    def _directory(self, path: str, status: os.stat_result) -> WorkItem | None:
        if "mkdir" not in self._config.file_events or path == self._base_dir:
            return None
        fields = self._fields(path)
        if self._config.perm_copy:
            fields["mode"] = f"{status.st_mode & 0o7777:o}"
        fields["fileOp"] = {"directory": ""}
        return WorkItem(Message(fields))

    def _small_file(self, path: str, status: os.stat_result, data: bytes) -> WorkItem:
        if len(data) != status.st_size:
            raise StorageError("changed while it was read; announce it again when it is complete")
        hasher = identity.hasher(self._config.identity.method)
        assert hasher is not None  # _computes says that there is one
        hasher.update(data)
        return self._regular(path, status, hasher.value())

    def _dataless_value(self) -> str | None:
        """Return the value of a method that does not look at the data; None for `none`."""
        choice = self._config.identity
        if choice.method == "random":
            return identity.random_value(self._random)
        return choice.value if choice.method in ("cod", "arbitrary") else None

    def _regular(self, path: str, status: os.stat_result, value: str | None) -> WorkItem:
        config = self._config
        fields = self._fields(path)
        fields["size"] = status.st_size
        if config.perm_copy:
            fields["mode"] = f"{status.st_mode & 0o7777:o}"
        if config.time_copy:
            fields["mtime"] = format_time(status.st_mtime_ns)
            fields["atime"] = format_time(status.st_atime_ns)
        if value is not None:
            fields["identity"] = {"method": config.identity.method, "value": value}
        return WorkItem(Message(fields))

    def _fields(self, path: str) -> dict[str, object]:
        """Return the fields every announcement has."""
        prefix = self._base_dir
        if prefix and not path.startswith(prefix + "/"):
            raise StorageError(
                f"not below post_baseDir {prefix}: what it does not hold cannot be fetched from there"
            )
        _check_text(path, "its name")
        fields: dict[str, object] = {
            "pubTime": format_time(SYSTEM_CLOCK.wall_ns()),
            "relPath": path[len(prefix) + 1 :],
        }
        fields.update(self._common)
        return fields

    def _complain_of(self, path: str, why: str) -> None:
        self._complain(f"{path}: {why}")

    def _complain(self, what: str) -> None:
        what = what.encode(
            errors="backslashreplace"
        ).decode()  # names need not be UTF-8, what is printed does
        self.errors.append(what)
        _log.error("not announced: %s", what)


def _check_text(text: str, what: str) -> None:
    """Refuse bytes that are no text: announcements are UTF-8."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise StorageError(f"{what} is not UTF-8, so that no announcement can hold it") from error


def _base_dir(config: FlowConfig) -> str:
    """Return the directory that announced paths are relative to; "" for the root."""
    if config.post_base_dir is None:
        return ""
    absolute = os.path.abspath(config.post_base_dir)
    return (os.path.realpath(absolute) if config.realpath_post else absolute).rstrip("/")


def _common_fields(config: FlowConfig) -> dict[str, object]:
    if config.post_base_url is None:
        raise ConfigError("post_baseUrl is missing: say from where the announced files can be fetched")
    fields: dict[str, object] = {"baseUrl": config.post_base_url}
    source = config.source or (config.post_broker.user if config.post_broker else None)
    if source:
        fields["source"] = source
    if config.cluster:
        fields["from_cluster"] = config.cluster
    if config.to_clusters:
        fields["to_clusters"] = ",".join(config.to_clusters)
    fields.update(config.header)
    return fields

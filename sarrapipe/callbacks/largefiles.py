"""Announcements of large files: whole, or one for each block, as their digests become known.

The first block is announced while the last is still to be read. That a file changes meanwhile is noticed
after every block, by size, modification time and inode: the rest of the version under way is left out, and
the new version is announced from its first block on, with a `blocks.id` and a pubTime of its own, so that
consumers drop what they have of the old one. A file that goes on changing is given up after a few versions.

Source: requirements R9, R15, R17; wire.md 2; design.md 4 (announced blocks).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from os import stat_result
from typing import Final

from sarrapipe.callbacks.hashpool import FileDigests, HashPool
from sarrapipe.clock import SYSTEM_CLOCK
from sarrapipe.config.model import FlowConfig
from sarrapipe.errors import SourceChanged, TooLarge
from sarrapipe.log import get_logger
from sarrapipe.message import identity
from sarrapipe.message.blockplan import MAX_FULL_MANIFEST, BlockPlan, block_size, version_id
from sarrapipe.message.blocks import ManifestEntry
from sarrapipe.message.model import Message
from sarrapipe.message.worklist import WorkItem
from sarrapipe.units import format_time

__all__ = ["LargeFiles"]

_log = get_logger(__name__)

_WAITING_FILES: Final = 10_000
"""Files that wait to be hashed, before no more are looked for: some 2 KB each."""
_VERSIONS: Final = 3
"""Versions of a changing file that are begun with before it is given up."""
_WHOLE: Final = -1
"""Stands for the number of a block where the whole file is one range."""


@dataclass(slots=True, eq=False)
class _Large:
    """One version of one file on its way.

    Attributes:
        path: Of the file.
        fields: What all its messages say.
        plan: Its blocks; None for a file announced whole.
        version: How many versions of this file were begun with before.
        entries: The digests known so far, where every message names all.
    """

    path: str
    fields: dict[str, object]
    plan: BlockPlan | None
    version: int
    entries: dict[int, ManifestEntry] = field(default_factory=dict)


class LargeFiles:
    """Files that are announced when they are hashed, or in more than one message.

    Args:
        config: The flow's configuration.
        wake: Called from a thread when there is something to take.
        open_flags: How files are opened.
        complain: Told what cannot be announced: a path and why.
    """

    def __init__(
        self,
        config: FlowConfig,
        wake: Callable[[], None],
        open_flags: int,
        complain: Callable[[str, str], None],
    ) -> None:
        self._config = config
        self._method = config.identity.method
        self._computes = self._method in identity.DIGEST_BYTES
        self._open_flags = open_flags
        self._complain = complain
        self._random = random.Random() if config.randomize else None
        self._full = config.blocks_manifest == "full"
        self._pool: HashPool[_Large] = HashPool(wake)
        self._expanding: deque[Iterator[WorkItem]] = deque()
        self._changed: list[tuple[str, int]] = []

    @property
    def room(self) -> bool:
        """Whether one more file may be added."""
        return self._pool.files + len(self._expanding) < _WAITING_FILES

    @property
    def idle(self) -> bool:
        """Whether everything was taken."""
        return not (self._pool.files or self._pool.has_ready or self._expanding or self._changed)

    def block_size(self, size: int) -> int | None:
        """Return the bytes of a block of a file of `size` bytes; None if it is announced whole."""
        return block_size(self._config.block_size, size, as_sr3=self._config.defaults == "sr3")

    def add(
        self, path: str, status: stat_result, fields: dict[str, object], value: str | None, version: int
    ) -> None:
        """Announce a file when its digests are known, or block by block.

        Args:
            path: Of the file.
            status: What `stat` says of it.
            fields: Of its announcement, with the size of the whole file.
            value: Of an identity that is not computed from the data, or None.
            version: How many versions of it were begun with before, in `changed`.

        Raises:
            TooLarge: It would have too many blocks.
        """
        size = self.block_size(status.st_size)
        if size is None:
            large = _Large(path, fields, None, version)
            self._hash(large, status, iter([(_WHOLE, 0, status.st_size)]))
            return
        name = version_id(str(fields["relPath"]), status.st_size, status.st_mtime_ns)
        plan = BlockPlan.of(status.st_size, size, name)
        if self._full and plan.count > MAX_FULL_MANIFEST:
            raise TooLarge(
                f"{plan.count} blocks, and with 'blocksManifest full' each message names every one: "
                f"raise blockSize, at most {MAX_FULL_MANIFEST} are announced so"
            )
        large = _Large(path, fields, plan, version)
        order = plan.order(self._random)
        if self._computes:
            self._hash(large, status, ((number, *plan.range_of(number)) for number in order))
        else:
            if self._full:
                large.entries = {number: plan.entry(number, value) for number in range(plan.count)}
            self._expanding.append(self._block(large, number, value) for number in order)

    def _hash(self, large: _Large, status: stat_result, ranges: Iterator[tuple[int, int, int]]) -> None:
        self._pool.submit(FileDigests(large.path, status, self._method, ranges, self._open_flags, large))

    def take(self, limit: int) -> list[WorkItem]:
        """Return announcements that are ready, at most so many."""
        items = self._expand(limit)
        for file, number, value in self._pool.take(limit - len(items)):
            large = file.owner
            if value is None:
                assert file.error is not None  # that is what having no value means
                self._failed(large, file.error)
            elif large.plan is None:
                large.fields["pubTime"] = format_time(SYSTEM_CLOCK.wall_ns())
                items.append(self._item(large.fields, value))
            elif not self._full:
                items.append(self._block(large, number, value))
            else:
                self._fill_in(large, large.plan, number, value)
        return items + self._expand(limit - len(items)) if self._expanding else items

    def changed(self) -> list[tuple[str, int]]:
        """Return paths whose next version is to be announced, and how many were begun with before it."""
        changed, self._changed = self._changed, []
        return changed

    def close(self) -> None:
        """End the threads; what was not taken is dropped."""
        self._pool.close()
        self._expanding.clear()

    def _expand(self, limit: int) -> list[WorkItem]:
        items: list[WorkItem] = []
        while self._expanding and len(items) < limit:
            item = next(self._expanding[0], None)
            if item is None:
                self._expanding.popleft()
            else:
                items.append(item)
        return items

    def _fill_in(self, large: _Large, plan: BlockPlan, number: int, value: str) -> None:
        """Note a digest; announce the blocks when all are known."""
        large.entries[number] = plan.entry(number, value)
        if len(large.entries) == plan.count:
            # In the order in which they were hashed: the one wanted.
            order, large.entries = large.entries, dict(sorted(large.entries.items()))
            self._expanding.append(
                self._block(large, number, entry.identity) for number, entry in order.items()
            )

    def _block(self, large: _Large, number: int, value: str | None) -> WorkItem:
        """Return the announcement of one block."""
        plan = large.plan
        assert plan is not None  # of a whole file there are none
        manifest = large.entries if self._full else {number: plan.entry(number, value)}
        fields = {**large.fields, "size": plan.range_of(number)[1], "blocks": plan.wire(number, manifest)}
        return self._item(fields, value)

    def _item(self, fields: dict[str, object], value: str | None) -> WorkItem:
        if value is not None:
            fields["identity"] = {"method": self._method, "value": value}
        return WorkItem(Message(fields))

    def _failed(self, large: _Large, error: OSError | SourceChanged) -> None:
        if isinstance(error, OSError):
            self._complain(large.path, error.strerror or str(error))
        elif large.version + 1 < _VERSIONS:
            _log.warning("%s %s: its new version is announced", large.path, error)
            self._changed.append((large.path, large.version + 1))
        else:
            self._complain(large.path, f"{error}, {_VERSIONS} times; announce it again when it is complete")

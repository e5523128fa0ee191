"""The task of a block that becomes a file of its own and is announced as a block (`reassemble off`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sarrapipe.errors import IdentityMismatch
from sarrapipe.flow.blocks import block_source, forwarded, is_trusted
from sarrapipe.flow.download import SingleDownload
from sarrapipe.flow.task import Placed
from sarrapipe.ledger.admission import Admission, Announcement
from sarrapipe.log import get_logger, printable
from sarrapipe.message.worklist import WorkItem
from sarrapipe.segment import assembly
from sarrapipe.shm.slots import Counter
from sarrapipe.transfer.base import RangeRead

if TYPE_CHECKING:
    from sarrapipe.flow.download import Downloads

__all__ = ["BlockFile"]

_log = get_logger(__name__)

_AS_ANNOUNCED = "announced"
"""Noted with a file whose announced identity holds, or of which none was computed."""


class BlockFile(SingleDownload):
    """One block as a file. Its item carries what is announced once it is in place, not before."""

    __slots__ = ("_blocks", "_noted")

    def __init__(
        self, item: WorkItem, announcement: Announcement, admission: Admission, downloads: Downloads
    ) -> None:
        super().__init__(item, announcement, admission, downloads)
        blocks = item.message.blocks
        assert blocks is not None
        self._blocks = blocks
        self._noted = ""

    @property
    def size_is_binding(self) -> bool:
        """A range has the length it has, whatever the configuration allows for files."""
        return True

    def read(self) -> RangeRead:
        """Return the read of its bytes: a range of the whole file, or the file that holds the block."""
        assert self.file is not None
        source = block_source(self.item.message)
        return RangeRead(
            url=source.url,
            sink=self.file.sink(0, source.length, self.hasher),
            token=self,
            offset=source.offset,
            length=source.length,
            whole_size=source.whole_size,
            url_is_escaped=source.url_is_escaped,
            credentials=self.downloads.credentials(source.url),
        )

    def check_identity(self, value: str | None) -> None:
        """Compare the digest with the announced one, where that can be relied on.

        Raises:
            IdentityMismatch: They differ.
        """
        slot, message = self.downloads.slot, self.item.message
        announced = message.identity
        self._noted = _AS_ANNOUNCED
        if value is None or announced is None:
            slot.add(Counter.FILES_UNVERIFIED)
            return
        if announced.method != "cod" and value == announced.value:
            slot.add(Counter.FILES_VERIFIED)
            slot.add(Counter.BYTES_VERIFIED, self._blocks.length)
            return
        method = announced.value if announced.method == "cod" else announced.method
        what = f"{message.rel_path}: block {self._blocks.number}: {method} is {value}"
        if announced.method != "cod":
            if (is_trusted(self._blocks) or self._blocks.count == 1) and not self.config.recompute_checksum:
                raise IdentityMismatch(f"{what}, announced was {announced.value}")
            slot.add(Counter.BLOCKS_UNCONFIRMED)
            _log.warning("%s, announced was another; it is announced with this one", printable(what))
        slot.add(Counter.FILES_UNVERIFIED)
        self._noted = f"{method},{value}"

    def finish(self, size: int | None = None, whole: int | None = None) -> None:
        """Give the inflight file its times, mode and marks.

        Raises:
            StorageError: The file system refused.
        """
        super().finish(size, whole)
        assert self.file is not None
        self.file.finish(identity=self._noted)

    def place(self) -> None:
        """Rename the inflight file over the target, and let the item be what is announced."""
        super().place()
        self._announce()

    def placed(self) -> Placed:
        """Look for our file, and for what was computed over it."""
        found = self.find_placed()
        if found is Placed.GONE:
            return found
        self._noted = assembly.noted_identity(self._destination, self.file, self._path)
        if not self._noted:
            return Placed.GONE
        if found is Placed.DONE:
            self._announce()
        return found

    def _announce(self) -> None:
        message, blocks = self.item.message, self._blocks
        method, _, value = self._noted.partition(",")
        computed = {"method": method, "value": value} if value else None
        if blocks.count > 1:
            self.item.message = forwarded(message, blocks, computed)
        elif computed is None:
            self.item.message = message.replace(blocks=None)
        else:
            self.item.message = message.replace(blocks=None, identity=computed)

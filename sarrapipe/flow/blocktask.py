"""The task of a file that is put together from announced blocks: this instance owns it and will finish it.

Its item is the message of one of its blocks; as what it is announced, whole and with a digest computed here,
it appears only when it is in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sarrapipe.errors import IdentityMismatch, InflightDamaged, SarrapipeError
from sarrapipe.flow.blockparts import BlockFetch, Ended
from sarrapipe.flow.blocks import file_identity, is_trusted
from sarrapipe.flow.comparer import Recheck
from sarrapipe.flow.segmented import SegmentedDownload
from sarrapipe.flow.task import Placed
from sarrapipe.ledger.admission import Admission, Announcement
from sarrapipe.message.blocknames import root_name
from sarrapipe.message.identity import DIGEST_BYTES
from sarrapipe.message.worklist import WorkItem
from sarrapipe.segment import assembly, inplace
from sarrapipe.segment.inplace import InPlaceFile
from sarrapipe.segment.plan import SegmentPlan
from sarrapipe.shm.slots import Counter

if TYPE_CHECKING:
    from sarrapipe.flow.download import Downloads

__all__ = ["BlockedFile"]


class BlockedFile(SegmentedDownload):
    """A file announced in blocks.

    Attributes:
        part_end: How the block of its own item ended; None while it is under way.
    """

    __slots__ = (
        "_computed",
        "_fetch",
        "_is_counted",
        "_is_displaced",
        "_ranges",
        "_recheck",
        "_size",
        "part_end",
    )

    def __init__(
        self, item: WorkItem, announcement: Announcement, admission: Admission, downloads: Downloads
    ) -> None:
        super().__init__(item, announcement, admission, downloads)
        self._fetch: BlockFetch | None = None
        self._computed = ""
        self._size = announcement.size
        self._is_counted = False
        self._is_displaced = False
        self._ranges: list[tuple[int, int, bytes]] = []
        self._recheck: Recheck | None = None
        self.part_end: Ended | None = None

    def begin(self) -> None:
        """Make or reopen the inflight file and let its blocks be fetched.

        Raises:
            StorageError: The file cannot be made, or does not fit.
        """
        announcement = self.announcement
        count = announcement.total_segments
        self.part_end = None
        fresh = not self.resumes
        if self.file is None and self._missing < count and not self.reopen_file():
            self.is_lost = True  # what the ledger takes for written is not there
            return
        file = self.open_file()
        known = announcement.size if announcement.size >= 0 else count * announcement.segment_size
        if fresh and announcement.size >= 0 and not isinstance(file, InPlaceFile):
            file.preallocate(known)
        self._fetch = self.downloads.blocks.own(self, SegmentPlan(known, announcement.segment_size))
        self._follow()
        self.downloads.blocks.add(self._fetch, self.item, announcement.message_id)
        for redelivered in self.attached:
            self.downloads.blocks.add(self._fetch, redelivered, announcement.message_id)
        self.attached = []

    def _follow(self) -> None:
        """Begin to compute what will be announced, if the whole size is known and anybody is told."""
        self._forget_verification()
        method = self._method()
        if method and self._size >= 0 and self.file is not None:
            self.verification = self.downloads.segments.verifier.follow(
                self, self.file.fd, self._size, method
            )

    def _method(self) -> str:
        """Return the digest to compute over the whole file; "" for none."""
        announced = file_identity(self.item.message)
        if announced is not None:
            return announced.method if announced.method in DIGEST_BYTES else ""
        if self.config.post_broker is None:
            return ""
        wanted = self.config.identity
        method = wanted.value if wanted.method == "cod" else wanted.method
        return method if method in DIGEST_BYTES else ""

    def all_written(self, size: int) -> None:
        """Every block is written: compute the digest of the whole, then finish.

        Args:
            size: Of the whole file.
        """
        if self._fetch is not None:
            self._ranges = self._fetch.ranges
        self._fetch = None
        if size != self._size:
            self._size = size
            self._follow()
        if self.verification is not None:
            self.downloads.segments.verifier.wrote_all(self.verification)
        else:
            self.hashed(None, None)

    def hashed(self, value: str | None, error: SarrapipeError | None) -> None:
        """Take the digest over the whole; what was visible meanwhile is read once more first."""
        if error is not None or not isinstance(self.file, InPlaceFile):
            super().hashed(value, error)
            return
        self.verification = None
        self._recheck = Recheck(self, self.file.fd, self._ranges, value)
        self.downloads.blocks.recheck(self._recheck)

    def rechecked(self, job: Recheck) -> None:
        """Finish a file that is what was written; what somebody else changed is put together anew."""
        self._recheck = None
        error = None
        if not job.is_right:
            error = InflightDamaged(f"{self.target}: changed by another while it was written in place")
        self.downloads.segments.finish(self, job.value, error)

    def verified(self, value: str | None) -> None:
        """Take the digest over the whole file and finish.

        Raises:
            IdentityMismatch: It is not the one that was announced with the blocks.
            StorageError: The file system refused.
        """
        self.check_intact(self._size)
        announced = file_identity(self.item.message)
        if value is not None and announced is not None:
            if value != announced.value:
                raise IdentityMismatch(
                    f"{self.target}: {announced.method} is {value}, announced was {announced.value}"
                )
            self.downloads.slot.add(Counter.FILES_VERIFIED)
        self._computed = f"{self._method()},{value}" if value is not None else ""
        assert self.file is not None
        message = self.item.message
        copies_times = self.config.time_copy
        self.file.finish(
            mtime_ns=message.mtime_ns if copies_times else None,
            atime_ns=message.atime_ns if copies_times else None,
            mode=self._final_mode(),
            generation=self.claim.generation,
            size=self._size,
            whole=self._size,
            identity=self._computed or "none",
        )

    def place(self) -> None:
        """Rename the inflight file over the target, and let the item be the whole file's.

        What was written in place is there already; only its mark goes.

        Raises:
            InflightDamaged: Another file took its place.
            StorageError: The file system refused.
        """
        if self.file is None:
            self.file = self._reopen_in_place()
        if isinstance(self.file, InPlaceFile):
            inplace.publish(self.file)
            self.file = None
        else:
            super().place()
        self._announce_whole()

    def make_file(self) -> assembly.InflightFile:
        """Claim the file in place where it is to be brought up to date, else make one beside it.

        Raises:
            StorageError: The file system refused.
        """
        blocks = self.item.message.blocks
        config = self.config
        if config.inplace and not config.discard and not self._is_in_place and blocks and is_trusted(blocks):
            file = inplace.begin(self._destination, self._path, self.nonce)
            if file is not None:
                return file
        return super().make_file()

    def _open_again(self) -> assembly.InflightFile | None:
        return self._reopen_in_place() or super()._open_again()

    def _reopen_in_place(self) -> InPlaceFile | None:
        return inplace.reopen(self._destination, self._path, self.nonce, self.inode or None)

    def displaced(self) -> None:
        """Another file took the place of the one that was to be written in place: begin with a new one."""
        if not self._is_displaced:
            self._is_displaced = True
            self.downloads.broke(self, InflightDamaged(f"{self.target}: another file took its place"))

    def placed(self) -> Placed:
        """Look for our file, and for what was computed over it."""
        self.file = self._reopen_in_place()
        found = Placed.INFLIGHT if self.file is not None else self.find_placed()
        if found is Placed.GONE:
            return found
        noted = assembly.noted_identity(self._destination, self.file, self._path)
        if not noted:
            return Placed.GONE
        self._computed = noted
        if found is Placed.DONE:
            self._size = self._destination_size()
            self._announce_whole()
        elif self.file is not None:
            if self._size < 0:
                self._size = self.file.size
            self.check_intact(self._size)
        return found

    def _destination_size(self) -> int:
        there = self._destination.stat(self._path)
        return self._size if there is None else there.st_size

    def _announce_whole(self) -> None:
        """Let the item carry the announcement of the whole file."""
        message = self.item.message
        method, _, value = self._computed.partition(",")
        identity = {"method": method, "value": value} if value else None
        changes: dict[str, object] = {"blocks": None, "size": self._size, "identity": identity}
        path = root_name(message.rel_path)
        if path != message.rel_path:
            changes["relPath"] = path
        self.item.message = message.replace(**changes)
        if not self._is_counted:
            self._is_counted = True
            self.downloads.slot.add(Counter.FILES_ASSEMBLED)

    def release(self) -> None:
        """Close the inflight file and stop its transfers; what is written stays."""
        fetch, self._fetch = self._fetch, None
        if fetch is not None:
            self.given_back = self.downloads.blocks.remove(fetch)
        if self._recheck is not None:
            self.downloads.blocks.forget_recheck(self._recheck)
            self._recheck = None
        self._forget_verification()
        super().release()

    def tokens(self) -> tuple[object, ...]:
        """Return none: `release` ends its transfers."""
        return ()

    def wants(self, token: object) -> bool:
        """Return False: its reads are not its own."""
        del token
        return False

    @property
    def wants_one_piece(self) -> bool:
        """Blocks cannot be had otherwise."""
        return False

"""Blocks that the file in place has already: they are copied here and not fetched.

A block is compared where there is a file in place and a digest that can be relied on (`blocks.id`). That of
sr3's blocks covers too many bytes (wire.md 2.6): comparing it would only cost time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sarrapipe.crashpoints import passing
from sarrapipe.errors import SarrapipeError
from sarrapipe.flow.blocks import is_trusted
from sarrapipe.flow.comparer import Comparer, Comparison, Recheck
from sarrapipe.log import get_logger, printable
from sarrapipe.message.identity import DIGEST_BYTES
from sarrapipe.message.model import Identity
from sarrapipe.message.worklist import WorkItem
from sarrapipe.segment.keep import StandingFile, open_standing
from sarrapipe.shm.slots import Counter, Slot

if TYPE_CHECKING:
    from sarrapipe.flow.blockparts import BlockFetch, Part

__all__ = ["BlockKeep", "Compared", "Standing", "compared_digest"]

_log = get_logger(__name__)


def compared_digest(item: WorkItem | None) -> Identity | None:
    """Return the digest by which a block is known to be in place already; None if there is none to trust."""
    if item is None or (blocks := item.message.blocks) is None or not is_trusted(blocks):
        return None
    announced = item.message.identity
    if announced is None or announced.method not in DIGEST_BYTES:
        return None
    return announced


class Compared(NamedTuple):
    """The end of a comparison."""

    fetch: BlockFetch
    part: Part
    digest: bytes | None
    """xxh3_128 of the block, which is in the inflight file; None: it is to be fetched."""


class _Owner(NamedTuple):
    fetch: BlockFetch
    part: Part


class Standing:
    """The file in place of one that is put together: opened when it is first asked for."""

    __slots__ = ("_file", "_looked")

    def __init__(self) -> None:
        self._file: StandingFile | None = None
        self._looked = False

    def of(self, fetch: BlockFetch) -> StandingFile | None:
        """Return it, open; None if there is none that can be compared with."""
        if not self._looked:
            self._looked = True
            try:
                self._file = open_standing(fetch.file.destination, fetch.file.path)
            except SarrapipeError as error:
                _log.warning(
                    "all blocks of %s are fetched, as what is in place cannot be read: %s",
                    printable(fetch.file.target),
                    error,
                )
        return self._file

    def close(self) -> None:
        """Free it; there is none from now on."""
        self._looked = True
        if self._file is not None:
            self._file.close()
            self._file = None


class BlockKeep:
    """Decides for each claimed block whether it is compared before it is fetched.

    Args:
        comparer: Compares and copies.
        slot: Counters.
    """

    def __init__(self, comparer: Comparer, slot: Slot) -> None:
        self._comparer = comparer
        self._slot = slot

    def begin(self, fetch: BlockFetch, part: Part) -> bool:
        """Compare a claimed block with what stands in place.

        Returns:
            False if there is nothing to compare: it is to be fetched.
        """
        announced = compared_digest(part.item)
        standing = None if announced is None else fetch.standing.of(fetch)
        if announced is None or standing is None:
            return False
        same = (standing.inode, standing.device) == (fetch.file.inode, fetch.file.device)
        part.comparison = Comparison(
            _Owner(fetch, part),
            standing.fd,
            None if same else fetch.file.fd,
            part.number * fetch.plan.segment_bytes,
            part.source.length,
            announced,
        )
        self._comparer.begin(part.comparison)
        return True

    def cancel(self, part: Part) -> bool:
        """Stop comparing a block; False if it is not being compared."""
        comparison, part.comparison = part.comparison, None
        if comparison is None:
            return False
        self._comparer.cancel(comparison)
        return True

    def recheck(self, job: Recheck) -> None:
        """Have a file that was written in place read once more."""
        self._comparer.begin(job)

    def forget(self, job: Recheck) -> None:
        """Nobody wants that any more."""
        self._comparer.cancel(job)

    @property
    def has_completed(self) -> bool:
        """Whether `completed` would return something."""
        return self._comparer.has_completed

    def completed(self) -> list[Compared]:
        """Return the blocks that were compared since the last call; tell those who had a file rechecked."""
        found = []
        for comparison in self._comparer.completed():
            if isinstance(comparison, Recheck):
                comparison.owner.rechecked(comparison)
                continue
            assert isinstance(comparison, Comparison)
            owner = comparison.owner
            assert isinstance(owner, _Owner), "as given in `begin`"
            fetch, part = owner
            part.comparison = None
            if comparison.digest is not None:
                passing("block_kept")
                self._slot.add(Counter.BLOCKS_KEPT)
                self._slot.add(Counter.BYTES_KEPT, part.source.length)
                self._slot.add(Counter.BYTES_VERIFIED, part.source.length)
            found.append(Compared(fetch, part, comparison.digest))
        return found

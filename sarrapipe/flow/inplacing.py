"""What writing in place (`inplace on`) needs of the ledger: leave to begin, and what was written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sarrapipe.errors import SarrapipeError
from sarrapipe.ledger.inplace import InPlace, MayWrite
from sarrapipe.log import get_logger, printable
from sarrapipe.segment.inplace import InPlaceFile, unmark
from sarrapipe.segment.plan import SegmentPlan

if TYPE_CHECKING:
    from sarrapipe.flow.blockparts import BlockFetch
    from sarrapipe.ledger.ledger import Decisions

__all__ = ["is_displaced", "may_write", "written_ranges"]

_log = get_logger(__name__)


def may_write(decide: Decisions, fetch: BlockFetch) -> InPlace:
    """Ask, before this process claims the first block of a file, whether it may be written where it is."""
    if not fetch.may_write and isinstance(fetch.file, InPlaceFile):
        found = decide.may_write(fetch.claim, is_there=not is_displaced(fetch))
        fetch.may_write = found.answer is MayWrite.YES
        if found.answer is MayWrite.OVERTAKEN:
            _take_mark_away(fetch.file)
        return found
    return InPlace(MayWrite.YES)


def is_displaced(fetch: BlockFetch) -> bool:
    """Return whether another file took the place of one that is written in place, or it is out of reach."""
    try:
        return isinstance(fetch.file, InPlaceFile) and not fetch.file.is_there()
    except SarrapipeError as error:
        _log.warning("%s is begun anew: %s", printable(fetch.file.target), error)
        return True


def _take_mark_away(file: InPlaceFile) -> None:
    try:
        unmark(file)
    except SarrapipeError as error:
        _log.warning("the next version of %s will not be written in place: %s", printable(file.target), error)


def written_ranges(decide: Decisions, fetch: BlockFetch) -> list[tuple[int, int, bytes]]:
    """Return offset, length and digest of every block, to be read once more where the file was visible."""
    if not isinstance(fetch.file, InPlaceFile):
        return []
    plan = SegmentPlan(fetch.size, fetch.plan.segment_bytes)
    found = decide.tables.segments(fetch.claim.generation)
    return [(plan[number].offset, plan[number].length, segment.digest) for number, segment in found]

"""Files announced in blocks whose last blocks do not come.

A row of such a file stands while its blocks arrive, whoever brings them, and nobody can tell whether more
will come. After `blockTimeout` without a new one the missing blocks are fetched from the sources that hold
the whole file (`open_rest`); where there are none, or that did not help, the row is given up (`give_up`).
"""

from __future__ import annotations

from sarrapipe.ledger.records import (
    ASSEMBLING,
    DISCARDED,
    MISSING,
    NOBODY,
    Claim,
    FileRow,
    SegmentRow,
    Tables,
)
from sarrapipe.ledger.recovery import Abandoned
from sarrapipe.ledger.segments import Work

__all__ = [
    "give_up",
    "incomplete",
    "is_fetched_by_somebody",
    "is_hopeless",
    "is_untouched",
    "is_written",
    "open_rest",
    "ranged_sources",
]


def is_written(tables: Tables, generation: bytes, first: int, count: int) -> bool:
    """Return whether every segment of a block is in the inflight file and verified."""
    for number in range(first, first + count):
        segment = tables.get_segment(generation, number)
        if segment is None or segment.state == MISSING:
            return False
    return True


def incomplete(tables: Tables, before_ns: int, me: int) -> list[Work]:
    """Return files announced in blocks of which no new block came since, and that no sibling owns.

    Args:
        tables: An open transaction.
        before_ns: Wall time.
        me: The caller's incarnation: blocks that rest are asked about so often that a file of many hardly
            ever is nobody's.
    """
    found = []
    for generation, row in tables.files():
        waits = row.blocks and row.phase == ASSEMBLING and row.missing and row.announced_ns < before_ns
        if waits and (row.owner == me or not tables.is_alive(row.owner)):
            found.append(Work(Claim(generation, row.nonce), row))
    return found


def ranged_sources(tables: Tables, generation: bytes) -> list[str]:
    """Return URLs of the whole file, from the blocks that were announced as ranges of it."""
    return list(dict.fromkeys(m.url for _, m in tables.messages(generation) if m.ranged and m.url))


def open_rest(tables: Tables, held: Claim, now_ns: int) -> bool:
    """Let the blocks that nobody announced be claimed like the others.

    Returns:
        False if that would not help: no source holds the whole file, or it was done before, or every block
        was announced and is being tried again by whoever has its message.
    """
    row = tables.get_file(held.generation)
    if row is None or row.nonce != held.nonce or row.opened or row.size < 0:
        return False
    if not ranged_sources(tables, held.generation):
        return False
    for number in range(row.segment_count):
        if tables.get_segment(held.generation, number) is None:
            tables.put_segment(held.generation, number, SegmentRow(MISSING, NOBODY, b""))
    tables.put_file(held.generation, row._replace(opened=True, announced_ns=now_ns))
    return True


def is_fetched_by_somebody(tables: Tables, generation: bytes) -> bool:
    """Return whether a living process has claimed a segment."""
    return any(tables.is_alive(segment.claim) for _, segment in tables.segments(generation))


def is_untouched(tables: Tables, generation: bytes) -> bool:
    """Return whether nothing of a file is written and nobody fetches any of it: its row is worth nothing."""
    row = tables.get_file(generation)
    if row is None or row.phase != ASSEMBLING or row.missing < row.segment_count:
        return False
    return not is_fetched_by_somebody(tables, generation)


def is_hopeless(tables: Tables, work: Work) -> bool:
    """Return whether nothing more can be done for a file: its sources were asked, or there are none.

    Blocks that were announced and are not written are in the hands of those who have their messages.
    """
    generation, row = work.claim.generation, work.row
    if row.opened:
        return True
    numbers = range(row.segment_count)
    return any(tables.get_segment(generation, number) is None for number in numbers)


def give_up(tables: Tables, held: Claim, me: int, now_ns: int) -> tuple[Abandoned, tuple[bytes, ...]] | None:
    """Take over a row that will not be completed, only to drop it.

    Returns:
        What to unlink before `completion.drop`, and the ids of the messages that are answered by this. None
        if it is another's, or somebody is still fetching.
    """
    row: FileRow | None = tables.get_file(held.generation)
    if row is None or row.nonce != held.nonce or row.phase != ASSEMBLING:
        return None
    if (row.owner != me and tables.is_alive(row.owner)) or is_fetched_by_somebody(tables, held.generation):
        return None
    row = row._replace(owner=me, phase=DISCARDED, touched_ns=now_ns)
    tables.put_file(held.generation, row)
    ids = tuple(message_id for message_id, _ in tables.messages(held.generation))
    return Abandoned(held, row), ids

"""Recovery: what dead processes leave, and what time lets go.

Responsibility rests with the message: it is unacknowledged at the broker or in the kept store until its
outcome is durable. A row is therefore never the only trace of a file: taking it over saves work, dropping it
loses nothing. A dead owner's row is taken over by the admission of one of its messages (`admission.admit`);
here are the cases without a message at hand: a dead row that stands in somebody's way, and rows whose
messages went to another host.
"""

from __future__ import annotations

from typing import NamedTuple

from sarrapipe.ledger.completion import not_applied
from sarrapipe.ledger.records import (
    ASSEMBLING,
    CLAIMED,
    COMMITTED,
    DISCARDED,
    DURABLE,
    MISSING,
    NOBODY,
    Claim,
    FileRow,
    PathRecord,
    SeenEntry,
    SegmentRow,
    Tables,
)
from sarrapipe.ledger.segments import Work

__all__ = [
    "Abandoned",
    "Swept",
    "abandon",
    "distrust_unsynced",
    "may_forget_path",
    "may_forget_seen",
    "orphans",
]


class Swept(NamedTuple):
    """What housekeeping did and found."""

    forgotten: int
    dead_removals: tuple[str, ...]
    """Paths whose removal died with its process and whose message did not come back: `removal.adopt`."""


class Abandoned(NamedTuple):
    """A dead row that is the caller's now, DISCARDED: unlink its inflight file, then `completion.drop`."""

    claim: Claim
    row: FileRow


def abandon(tables: Tables, generation: bytes, me: int, now_ns: int) -> Abandoned | None:
    """Take over a dead row only to drop it, so that it stands in nobody's way.

    Whether it was renamed already does not matter: its message comes again and finds out.

    Returns:
        None if the row is gone or alive.
    """
    row = tables.get_file(generation)
    if row is None or row.owner == me or tables.is_alive(row.owner):
        return None
    if row.phase == COMMITTED:
        not_applied(tables, generation, row)
    row = row._replace(owner=me, phase=DISCARDED, touched_ns=now_ns)
    tables.put_file(generation, row)
    return Abandoned(Claim(generation, row.nonce), row)


def orphans(tables: Tables, before_ns: int) -> list[Work]:
    """Return rows without a live owner that nobody has touched since: to be abandoned."""
    return [
        Work(Claim(generation, row.nonce), row)
        for generation, row in tables.files()
        if row.touched_ns < before_ns and not tables.is_alive(row.owner)
    ]


def distrust_unsynced(tables: Tables) -> int:
    """After a loss of power, take back every segment that was written but not synced (`durability host`).

    Returns:
        How many segments are to be fetched again.
    """
    taken_back = 0
    for generation, row in list(tables.files()):
        if row.phase != ASSEMBLING or row.segment_count == 1:
            continue
        missing = row.segment_count
        for number, segment in list(tables.segments(generation)):
            if segment.state == DURABLE:
                missing -= 1
            elif segment.state != MISSING:
                taken_back += 1
                tables.put_segment(generation, number, SegmentRow(MISSING, NOBODY, b""))
        tables.put_file(generation, row._replace(missing=missing))
    return taken_back


def may_forget_path(record: PathRecord, files_before_ns: int, removals_before_ns: int) -> bool:
    """Return whether housekeeping may delete a path's record.

    Args:
        record: The record.
        files_before_ns: Of a file in place: last changed before that. The file's own time and generation
            still keep older versions out.
        removals_before_ns: Of a tombstone: last changed before that. Nothing else remembers a removal, so
            this should be longer than any message can be on its way.
    """
    if record.pending:
        return False
    return record.touched_ns < (files_before_ns if record.present else removals_before_ns)


def may_forget_seen(entry: SeenEntry, now_ns: int) -> bool:
    """Return whether housekeeping may delete an entry of `seen`."""
    return entry.state != CLAIMED and entry.forget_after_ns <= now_ns

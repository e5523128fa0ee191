"""Segments: claimed by whoever has a free stream, marked when written and verified.

A claim lives as long as its process: claims of dead incarnations are free, whoever owns the file. The count
`missing` falls only when a segment goes from MISSING to WRITTEN, so it is exact however often a step repeats.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from sarrapipe.ledger.records import (
    ASSEMBLING,
    DURABLE,
    MISSING,
    NOBODY,
    WRITTEN,
    Claim,
    FileRow,
    SegmentRow,
    Tables,
)

__all__ = [
    "Marked",
    "Segments",
    "Work",
    "claim",
    "make_durable",
    "mark",
    "open_work",
    "pin",
    "pinned",
    "sources",
    "unclaim",
    "written",
]

DIGEST_SIZE: Final = 16


class Segments(NamedTuple):
    """Segments the caller may fetch now, with what it needs to know of the file."""

    numbers: list[int]
    row: FileRow


class Marked(NamedTuple):
    """Answer to `mark`."""

    accepted: bool
    """False: the row or the claim is not the caller's any more; drop what was fetched."""
    complete: bool
    """No segment is missing: the owner finishes the file."""
    owner: int
    """To be woken when `complete` and not the caller itself."""
    missing: int = 0
    """Segments that are missing still."""


class Work(NamedTuple):
    """A file whose segments an idle instance could fetch."""

    claim: Claim
    row: FileRow


def _assembling(tables: Tables, held: Claim) -> FileRow | None:
    row = tables.get_file(held.generation)
    if row is None or row.nonce != held.nonce or row.phase != ASSEMBLING:
        return None
    return row


def claim(
    tables: Tables, held: Claim, limit: int, me: int, first: int = 0, count: int = 0, inode: int = 0
) -> Segments | None:
    """Claim up to `limit` missing segments for the caller.

    A file of one segment has no rows: it is its owner's to fetch, and no number is returned.

    Args:
        tables: The open write transaction.
        held: The row.
        limit: At most so many.
        me: The caller's incarnation.
        first: Only segments from here on.
        count: Only so many from `first`; 0: to the end.
        inode: Of the inflight file, if the caller made it; recorded once.

    Returns:
        The segments; None if the file is not being assembled under this claim any more.
    """
    row = _assembling(tables, held)
    if row is None:
        return None
    updated = row if row.inode or not inode else row._replace(inode=inode)
    if row.segment_count == 1:
        if updated is not row:
            tables.put_file(held.generation, updated)
        return Segments([], updated)
    end = min(first + count, row.segment_count) if count else row.segment_count
    start = max(first, row.fresh)
    numbers = _claim_from(tables, held.generation, row, range(start, end), limit, me)
    if start == row.fresh and not row.blocks:
        updated = updated._replace(fresh=max(row.fresh, numbers[-1] + 1 if len(numbers) == limit else end))
    if len(numbers) < limit and first < row.fresh:
        below = range(first, min(row.fresh, end))
        numbers += _claim_from(tables, held.generation, row, below, limit - len(numbers), me)
    if updated is not row:
        tables.put_file(held.generation, updated)
    return Segments(numbers, updated)


def _claim_from(
    tables: Tables, generation: bytes, row: FileRow, numbers: Iterable[int], limit: int, me: int
) -> list[int]:
    taken: list[int] = []
    for number in numbers:
        if len(taken) >= limit:
            break
        segment = tables.get_segment(generation, number)
        if segment is None:
            if row.blocks:
                continue  # nobody announced it yet
        elif segment.state != MISSING or segment.claim == me or tables.is_alive(segment.claim):
            continue
        tables.put_segment(generation, number, SegmentRow(MISSING, me, b""))
        taken.append(number)
    return taken


def pin(tables: Tables, held: Claim, etag: str, url: str | None = None) -> bool:
    """Pin the version of a source that its first response named.

    Args:
        tables: The open write transaction.
        held: The row.
        etag: What the response said.
        url: Of the source, as recorded; None is the row's own. One that is not recorded pins nothing.

    Returns:
        False if another version is pinned already, or the file is not being assembled any more.
    """
    row = _assembling(tables, held)
    if row is None:
        return False
    if url is not None and url != row.url:
        return _pin_further(tables, held, etag, url)
    if row.etag and row.etag != etag:
        return False
    if not row.etag:
        tables.put_file(held.generation, row._replace(etag=etag))
    return True


def _pin_further(tables: Tables, held: Claim, etag: str, url: str) -> bool:
    recorded = [(i, message) for i, message in tables.messages(held.generation) if message.url == url]
    found = {message.etag for _, message in recorded if message.etag}
    if found - {etag}:
        return False
    for message_id, message in recorded:
        if found and message.segment_count:
            break  # one of the many blocks that name this source is enough: all of them are looked at
        tables.put_message(held.generation, message_id, message._replace(etag=etag))
        found.add(etag)
    return True


def pinned(tables: Tables, held: Claim, url: str) -> str:
    """Return the version of a source that is pinned, "" if none is.

    Args:
        tables: An open transaction.
        held: The row.
        url: Of the source, as recorded.
    """
    row = _assembling(tables, held)
    if row is None:
        return ""
    if url == row.url:
        return row.etag
    messages = tables.messages(held.generation)
    return next((message.etag for _, message in messages if message.url == url and message.etag), "")


def sources(tables: Tables, held: Claim) -> list[tuple[str, str]]:
    """Return URL and pinned version of every source of the whole file, the first message's first.

    Those without a URL that others can use are left out (`Announcement.url`).
    """
    row = _assembling(tables, held)
    if row is None:
        return []
    found = {row.url: row.etag}
    for _, message in tables.messages(held.generation) if row.further else ():
        if not message.segment_count:
            found.setdefault(message.url, message.etag)
    return [(url, etag) for url, etag in found.items() if url]


def mark(tables: Tables, held: Claim, done: Iterable[tuple[int, bytes]], me: int) -> Marked:
    """Record segments that are in the inflight file and verified.

    Args:
        tables: The open write transaction.
        held: The row.
        done: Segment numbers, each with its xxh3_128 digest.
        me: The caller's incarnation, which must hold their claims.
    """
    row = _assembling(tables, held)
    if row is None:
        return Marked(accepted=False, complete=False, owner=NOBODY)
    written = 0
    accepted = True
    for number, digest in done:
        segment = tables.get_segment(held.generation, number)
        if segment is None or segment.claim != me:
            accepted = False
            continue
        tables.put_segment(held.generation, number, SegmentRow(WRITTEN, NOBODY, digest))
        written += segment.state == MISSING
    missing = row.missing - written
    if written:
        tables.put_file(held.generation, row._replace(missing=missing))
    return Marked(accepted, missing == 0, row.owner, missing)


def written(tables: Tables, held: Claim) -> list[int] | None:
    """Return the segments that are not missing any more; None if the file is not under way under this claim.

    Args:
        tables: An open transaction.
        held: The row.
    """
    if _assembling(tables, held) is None:
        return None
    return [number for number, segment in tables.segments(held.generation) if segment.state != MISSING]


def unclaim(tables: Tables, held: Claim, numbers: Iterable[int], me: int) -> None:
    """Give segments back after a transfer error."""
    if _assembling(tables, held) is None:
        return
    for number in numbers:
        segment = tables.get_segment(held.generation, number)
        if segment is not None and segment.claim == me:
            tables.put_segment(held.generation, number, segment._replace(claim=NOBODY))


def make_durable(tables: Tables, held: Claim, numbers: Iterable[int]) -> None:
    """Record that WRITTEN segments survive power loss now (`durability host`, after fdatasync)."""
    if _assembling(tables, held) is None:
        return
    for number in numbers:
        segment = tables.get_segment(held.generation, number)
        if segment is not None and segment.state == WRITTEN:
            tables.put_segment(held.generation, number, segment._replace(state=DURABLE))


def open_work(tables: Tables, me: int, limit: int) -> list[Work]:
    """Return files of several segments with something left to fetch, most missing first.

    Whether a segment can be had at once is told by `claim`; this only reads.
    """
    found = [
        Work(Claim(generation, row.nonce), row)
        for generation, row in tables.files()
        if row.phase == ASSEMBLING and row.segment_count > 1 and row.missing > 0 and row.owner != me
    ]
    found.sort(key=lambda work: -work.row.missing)
    return found[:limit]

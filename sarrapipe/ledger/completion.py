"""Completion: a verified inflight file becomes the file in place, its announcement leaves, its row goes.

`commit` decides, then the rename follows, then the announcement and its confirm, then `settle`. From the
commit to the settling the path's *pending* holds every other commit and removal back, so what one process
decided cannot be undone by a rename that another decided earlier and does later.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from sarrapipe.ledger.order import file_is_older, note_overtaken
from sarrapipe.ledger.records import (
    ASSEMBLING,
    CLAIMED,
    COMMITTED,
    DISCARDED,
    DONE,
    MISSING,
    NOBODY,
    Claim,
    FileRow,
    PathRecord,
    Pending,
    SeenEntry,
    SegmentRow,
    Tables,
)

__all__ = [
    "ANSWER_TTL_NS",
    "Blocker",
    "Closed",
    "Commit",
    "Committed",
    "Misplaced",
    "Standing",
    "blocker_of",
    "close_row",
    "commit",
    "drop",
    "misplaced",
    "not_applied",
    "park",
    "settle",
]

ANSWER_TTL_NS = 600 * 10**9
"""A settled message's own redelivery is answered at once for so long, whatever `nodupe_ttl` says: it covers a
restart of the instance or the broker. Later it is fetched and announced again, never lost."""


class Commit(enum.Enum):
    """Answer to `commit`."""

    COMMITTED = "committed"
    """Rename the inflight file over the target, then publish, then `settle`."""
    WAIT = "wait"
    """Another decision on the path is not settled: see `Committed.blocker`."""
    DISCARDED = "discarded"
    """406: something newer is recorded for the path. Unlink the inflight file, then `drop`."""
    STANDING_NEWER = "standing newer"
    """What stands in place is foreign and newer. Nothing was written: look again and call with `sure`."""
    LOST = "lost"
    """The row is not the caller's any more: forget the file without touching anything."""


class Blocker(NamedTuple):
    """What is decided for a path and not settled."""

    kind: Pending
    holder: bytes
    """Generation, or message id of a removal."""
    dead: bool
    """True: nobody will settle this commit: `recovery.abandon` it first."""
    path: str


class Committed(NamedTuple):
    """Answer to `commit` with the blocker, if there is one."""

    outcome: Commit
    blocker: Blocker | None = None
    pub_ns: int = 0
    """Largest pubTime of the messages this file answers for: its announcement must carry it. With the first
    message's own, a removal announced in between would be the newer event for the next hop."""


class Standing(NamedTuple):
    """The file now at the target path, as the caller finds it on the file system."""

    mtime_ns: int
    generation: bytes
    """From its xattr `user.sarrapipe.generation`, if this flow put it there; b"" for files of people and of
    other flows, whose mark is another."""


class Closed(NamedTuple):
    """Answer to `settle` and `drop`."""

    closed: bool
    """False: the row was not the caller's any more."""
    wake: tuple[int, ...] = ()
    """Incarnations whose deliveries waited for this row: they ask again."""
    answered: tuple[bytes, ...] = ()
    """Message ids of the blocks of a settled file: whoever keeps one of them may forget it."""


class Misplaced(enum.Enum):
    """Answer to `misplaced`."""

    RESTART = "restart"
    """Fetch the whole file again into a new inflight file, under `Claim(generation, the new nonce)`."""
    SUPERSEDED = "superseded"
    """Something newer is recorded: `drop` it, unannounced."""
    LOST = "lost"


def owned(tables: Tables, held: Claim, me: int) -> FileRow | None:
    """Return the row if the caller still owns it."""
    row = tables.get_file(held.generation)
    if row is None or row.nonce != held.nonce or row.owner != me:
        return None
    return row


def blocker_of(tables: Tables, path: str, record: PathRecord, generation: bytes = b"") -> Blocker | None:
    """Return what is decided for the path and not settled, unless it is by `generation` itself.

    The removal of a dead process holds nothing: it can unlink nothing any more, and its message comes again.
    """
    if record.pending == Pending.REMOVAL and tables.is_alive(record.incarnation):
        return Blocker(Pending.REMOVAL, record.holder, dead=False, path=path)
    if record.generation and record.generation != generation:
        row = tables.get_file(record.generation)
        if row is not None and row.phase == COMMITTED and row.target == path:
            return Blocker(Pending.COMMIT, record.generation, not tables.is_alive(row.owner), path)
    return None


def commit(
    tables: Tables,
    held: Claim,
    inode: int,
    standing: Standing | None,
    me: int,
    now_ns: int,
    *,
    sure: bool = False,
) -> Committed:
    """Decide whether a verified inflight file may take its place.

    Args:
        tables: The open write transaction.
        held: The row; no segment may be missing.
        inode: Of the inflight file, by which a recoverer knows it after the rename.
        standing: What is at the target path now, None if nothing.
        me: The caller's incarnation.
        now_ns: Wall time.
        sure: `standing` was looked up inside this transaction.
    """
    row = owned(tables, held, me)
    if row is None:
        return Committed(Commit.LOST)
    if row.phase != ASSEMBLING:
        outcome = Commit.COMMITTED if row.phase == COMMITTED else Commit.DISCARDED
        return Committed(outcome, None, row.pub_ns)
    if row.segment_count > 1 and row.missing:
        raise ValueError(f"{row.target}: commit with {row.missing} segments missing")
    record = tables.get_path(row.target)
    if record is not None and file_is_older(row.mtime_ns, row.pub_ns, record):
        tables.put_file(held.generation, row._replace(phase=DISCARDED))
        note_overtaken(tables, row.target, record, row.pub_ns)
        return Committed(Commit.DISCARDED)
    if record is not None:
        blocker = blocker_of(tables, row.target, record, held.generation)
        if blocker is not None:
            return Committed(Commit.WAIT, blocker)
    if standing is not None and _foreign_and_newer(row, record, standing):
        if not sure:
            return Committed(Commit.STANDING_NEWER)
        tables.put_file(held.generation, row._replace(phase=DISCARDED))
        return Committed(Commit.DISCARDED)
    tables.put_file(held.generation, row._replace(phase=COMMITTED, inode=inode))
    known_ns, removed_ns = row.pub_ns, 0
    if record is not None:
        known_ns, removed_ns = max(known_ns, record.known_ns), record.removed_ns
    # _make: a third of the time of keywords, on the small-file path; the order is the record's.
    tables.put_path(
        row.target,
        PathRecord._make(
            (
                row.mtime_ns, row.pub_ns, known_ns, held.generation, removed_ns, True,
                0, b"", NOBODY, "", now_ns,
            )
        ),
    )  # fmt: skip
    return Committed(Commit.COMMITTED, None, row.pub_ns)


def _foreign_and_newer(row: FileRow, record: PathRecord | None, standing: Standing) -> bool:
    """Whether another flow or a person put something newer there; what the record knows, it has judged."""
    ours_ns = row.mtime_ns or row.pub_ns  # what is announced without a time is of the time it was announced
    return standing.mtime_ns > ours_ns and not (standing.generation and record is not None)


def settle(tables: Tables, held: Claim, me: int, now_ns: int, nodupe_ns: int) -> Closed:
    """Close a COMMITTED row after its announcement was confirmed; its messages are answered.

    Args:
        tables: The open write transaction.
        held: The row.
        me: The caller's incarnation.
        now_ns: Wall time.
        nodupe_ns: `nodupe_ttl`: other messages with these fingerprints are duplicates for so long. 0: never.
    """
    row = owned(tables, held, me)
    if row is None or row.phase != COMMITTED:
        return Closed(closed=False)
    forget_ns = now_ns + max(nodupe_ns, ANSWER_TTL_NS)
    done = SeenEntry(
        DONE, held.generation, row.target, row.pub_ns, now_ns + nodupe_ns, forget_ns, (row.message_id,)
    )
    if not row.further:
        tables.put_seen(row.fingerprint, done)
        return close_row(tables, held.generation, row)
    answered: dict[bytes, list[bytes]] = {row.fingerprint: [row.message_id]}
    for message_id, message in tables.messages(held.generation):
        ids = answered.setdefault(message.fingerprint, [])
        if message_id not in ids:
            ids.append(message_id)
    for fingerprint, ids in answered.items():
        tables.put_seen(fingerprint, done._replace(messages=tuple(ids)))
    closed = close_row(tables, held.generation, row)
    if not row.blocks:
        return closed
    return closed._replace(answered=tuple(one for ids in answered.values() for one in ids))


def drop(tables: Tables, held: Claim, me: int) -> Closed:
    """Close a row without an announcement: discarded, rejected, superseded, or to be fetched anew later.

    The caller has unlinked the inflight file *before*, so that no file is ever without a row. Messages are
    not answered: whoever holds one asks `admit` again, or rejects it. If it was committed, the path's record
    does not name it any more: its blocks, announced again, are not those of what is in place.
    """
    row = owned(tables, held, me)
    if row is None:
        return Closed(closed=False)
    if row.phase == COMMITTED:
        not_applied(tables, held.generation, row)
    fingerprints = {row.fingerprint}
    if row.further:
        fingerprints.update(message.fingerprint for _, message in tables.messages(held.generation))
    for fingerprint in fingerprints:
        entry = tables.get_seen(fingerprint)
        if entry is not None and entry.state == CLAIMED and entry.generation == held.generation:
            tables.delete_seen(fingerprint)
    return close_row(tables, held.generation, row)


def not_applied(tables: Tables, generation: bytes, row: FileRow) -> None:
    """A COMMITTED row ends without having been announced, and perhaps without having been put in place.

    Its path's record says so: by the record alone, blocks of this generation would be duplicates of what is
    in place.
    """
    record = tables.get_path(row.target)
    if record is not None and record.generation == generation:
        tables.put_path(row.target, record._replace(generation=b""))


def close_row(tables: Tables, generation: bytes, row: FileRow) -> Closed:
    """Delete the rows of a generation, which also frees its path."""
    wake: tuple[int, ...] = ()
    if row.further:
        wake = tuple(sorted({message.holder for _, message in tables.messages(generation)}))
        tables.delete_messages(generation)
    if row.segment_count > 1:
        tables.delete_segments(generation)
    tables.delete_file(generation)
    return Closed(closed=True, wake=wake)


def park(tables: Tables, held: Claim, me: int, now_ns: int) -> Closed:
    """Give up for now but keep what is written: the next admission of a message of this file goes on.

    For a transient error of a large file, and for a graceful stop. The message must be in the kept store or
    go back to its queue. Transfers of its segments that the caller cancelled are given back with `unclaim`;
    those that still run keep their claims.
    """
    row = owned(tables, held, me)
    if row is None or row.phase != ASSEMBLING:
        return Closed(closed=False)
    tables.put_file(held.generation, row._replace(owner=NOBODY, touched_ns=now_ns))
    wake: tuple[int, ...] = ()
    if row.further:
        wake = tuple(sorted({message.holder for _, message in tables.messages(held.generation)}))
    return Closed(closed=True, wake=wake)


def misplaced(tables: Tables, held: Claim, nonce: bytes, me: int, now_ns: int) -> Misplaced:
    """A COMMITTED file is neither inflight nor in place: another flow or a person took or replaced it.

    Args:
        tables: The open write transaction.
        held: The row.
        nonce: For the new inflight file, if it is to be fetched again.
        me: The caller's incarnation.
        now_ns: Wall time.
    """
    row = owned(tables, held, me)
    if row is None:
        return Misplaced.LOST
    record = tables.get_path(row.target)
    if record is not None and file_is_older(row.mtime_ns, row.pub_ns, record):
        return Misplaced.SUPERSEDED
    not_applied(tables, held.generation, row)
    _forget_segments(tables, held.generation, row)
    tables.put_file(
        held.generation,
        row._replace(
            phase=ASSEMBLING,
            nonce=nonce,
            inode=0,
            missing=row.segment_count,
            fresh=0,
            etag="",
            touched_ns=now_ns,
        ),
    )
    return Misplaced.RESTART


def _forget_segments(tables: Tables, generation: bytes, row: FileRow) -> None:
    if row.segment_count == 1:
        return
    numbers = [number for number, _ in tables.segments(generation)]
    for number in numbers:
        tables.put_segment(generation, number, SegmentRow(MISSING, NOBODY, b""))

"""Admission: whether a notification message starts work, joins work under way, waits, or is answered.

One call is one write transaction. The row in `files` is written before the inflight file is made, so that no
file is ever in the inflight directory without the ledger knowing its nonce.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from sarrapipe.ledger.order import file_is_older, note_overtaken
from sarrapipe.ledger.records import (
    ASSEMBLING,
    CLAIMED,
    COMMITTED,
    DISCARDED,
    MISSING,
    NOBODY,
    Claim,
    FileRow,
    MessageRow,
    PathRecord,
    SeenEntry,
    SegmentRow,
    Tables,
)

__all__ = ["MAX_FURTHER", "Admission", "Admit", "Announcement", "admit", "answers_for"]

MAX_FURTHER: Final = 8
"""Further sources recorded for one whole file; more wait without being recorded."""


class Admit(enum.Enum):
    """What becomes of a message that announces a file."""

    ADMITTED = "admitted"
    """The caller owns a new row: make the inflight file and fetch."""
    JOINED = "joined"
    """A block of a file under way: the caller may claim its segments; then wait for the answer."""
    TAKEN_OVER = "taken over"
    """The caller now owns a row whose owner died or parked it: go on at its phase."""
    RUNNING = "running"
    """This very message is being worked on: by the caller (attach the new tag) or a live sibling (wait)."""
    FURTHER = "further source"
    """Another message for the same content; recorded as a further source: wait for the answer."""
    WAIT = "wait"
    """Another message for the same content, which cannot be recorded now: wait and ask again."""
    ANSWERED = "answered"
    """This very message was settled before: acknowledge."""
    DUPLICATE = "duplicate"
    """304: the same content was settled within `nodupe_ttl`: acknowledge."""
    CONTRADICTS = "contradicts"
    """417: a block whose message says something else of its file than another of the same version."""
    OVERTAKEN = "overtaken"
    """406: a newer version or a later removal was applied: acknowledge."""


class Announcement(NamedTuple):
    """What the ledger needs to know of a message that announces a file or a block of one."""

    target: str
    """Absolute local path of the final file."""
    generation: bytes
    """`keys.generation_of`."""
    fingerprint: bytes
    """`keys.seen_key`: what duplicate suppression compares, with size and block number."""
    message_id: bytes
    """`keys.message_id_of`."""
    pub_ns: int
    mtime_ns: int
    """Announced modification time; 0 if there is none (links, directories, sources that do not tell)."""
    size: int
    """Whole file, in bytes; -1 if unknown."""
    segment_size: int = 0
    """Bytes in a segment; 0: the file moves as one segment."""
    url: str = ""
    source: str = ""
    first_segment: int = 0
    segment_count: int = 0
    """A block announces so many from `first_segment`; 0: the message announces the whole file."""
    total_segments: int = 0
    """Of the file a block belongs to, whose size it may not tell."""
    ranged: bool = False
    """The source of a block holds the whole file, and serves any range of it."""
    alone: bool = False
    """No further source is to be recorded: with one the bytes were not what was announced."""
    version: bytes = b""
    """What all blocks of one version of a file share, however it is cut."""


class Admission(NamedTuple):
    """Answer to `admit`. The claim's generation counts from here on, not the announcement's."""

    outcome: Admit
    claim: Claim | None = None
    phase: int = 0
    owner: int = NOBODY
    missing: int = 0
    inode: int = 0
    target: str = ""
    """The row's, where it may differ from the announcement's (`TAKEN_OVER`)."""
    pub_ns: int = 0
    """Of a row COMMITTED already: its announcement carries this pubTime (see `completion.Committed`)."""
    segment_size: int = 0
    """Of the row taken over: it was cut by what its first owner knew of the source."""
    contradiction: str = ""
    """Which field says something else (`CONTRADICTS`)."""


_ANSWERED: Final = Admission(Admit.ANSWERED)
_DUPLICATE: Final = Admission(Admit.DUPLICATE)
_OVERTAKEN: Final = Admission(Admit.OVERTAKEN)


def admit(tables: Tables, a: Announcement, nonce: bytes, me: int, now_ns: int) -> Admission:
    """Decide what becomes of a message.

    Args:
        tables: The open write transaction.
        a: The announcement.
        nonce: Names the inflight file if a row is made.
        me: The caller's incarnation.
        now_ns: Wall time.
    """
    if a.segment_count and (contradicted := _contradicted(tables, a)) is not None:
        return contradicted
    record = tables.get_path(a.target)
    entry = tables.get_seen(a.fingerprint)
    if entry is not None:
        if entry.state == CLAIMED:
            row = tables.get_file(entry.generation)
            if row is not None:
                return _meet(tables, a, entry.generation, row, record, me, now_ns)
            # A claim without a row cannot be, but must not block the file for ever: it is overwritten below.
        elif a.message_id in entry.messages:
            return _ANSWERED
        elif now_ns < entry.suppress_until_ns and _still_applied(tables, entry, a.target, record):
            _raise_version(tables, a, entry, record, now_ns)
            return _DUPLICATE
    row = tables.get_file(a.generation)
    if row is not None:
        return _join(tables, a, row, record, me, now_ns)
    if a.segment_count and record is not None and record.present and record.generation == a.generation:
        # A block, announced once more, of what is in place: alone it would wait for the others for ever.
        _raise_record(tables, a, record, now_ns)
        return _DUPLICATE
    if record is not None and file_is_older(a.mtime_ns, a.pub_ns, record):
        return _overtaken(tables, a, record)
    return _start(tables, a, nonce, me, now_ns)


def _contradicted(tables: Tables, a: Announcement) -> Admission | None:
    """Answer a block's message that says something else of its file than another of the same version.

    What was said of a block that is written holds: its source has confirmed it. While nothing is written the
    message waits: the one that came first may be the wrong one, as its transfer will tell. A file that is
    announced once more, later and cut otherwise, begins anew: the first that is whole is put in place.
    """
    row = tables.get_file(a.generation)
    if row is not None:
        return _judged(row, _other_size(a, row))
    for _, other in tables.files() if a.version else ():
        if other.version == a.version and other.target == a.target:
            answer = _judged(other, _other_size(a, other) or _other_cut(a, other))
            if answer is not None:
                return answer
    return None


def _judged(row: FileRow, contradiction: str) -> Admission | None:
    if not contradiction:
        return None
    if row.missing == row.segment_count or row.phase == DISCARDED:
        return Admission(Admit.WAIT, None, row.phase, row.owner)
    return Admission(Admit.CONTRADICTS, contradiction=contradiction)


def _other_cut(a: Announcement, row: FileRow) -> str:
    if a.pub_ns > row.pub_ns:
        return ""
    if a.segment_size != row.segment_size:
        return f"blocks.size: {a.segment_size} bytes, another block said {row.segment_size}"
    if a.total_segments != row.segment_count:
        return f"blocks.count: {a.total_segments}, another block said {row.segment_count}"
    return ""


def _other_size(a: Announcement, row: FileRow) -> str:
    if a.size < 0 or row.size < 0 or a.size == row.size:
        return ""
    return f"blocks: a file of {a.size} bytes, another block said {row.size}"


def _start(tables: Tables, a: Announcement, nonce: bytes, me: int, now_ns: int) -> Admission:
    count = -(-a.size // a.segment_size) if a.segment_size and a.size > a.segment_size else 1
    blocks = a.segment_count > 0
    count = a.total_segments or count
    _claim_fingerprint(tables, a, a.generation)
    row = FileRow(
        a.target, ASSEMBLING, me, nonce, 0, a.size, a.segment_size, count, count, 0, blocks,
        a.mtime_ns, a.pub_ns, a.fingerprint, a.message_id, a.url, a.source, "", 0, now_ns, alone=a.alone,
        version=a.version,
    )  # fmt: skip
    if blocks:
        row = _add_message(tables, a, a.generation, row, me, now_ns)
    tables.put_file(a.generation, row)
    return Admission(Admit.ADMITTED, Claim(a.generation, nonce), ASSEMBLING, me, count, 0)


def _overtaken(tables: Tables, a: Announcement, record: PathRecord) -> Admission:
    note_overtaken(tables, a.target, record, a.pub_ns)
    return _OVERTAKEN


def _claim_fingerprint(tables: Tables, a: Announcement, generation: bytes) -> None:
    tables.put_seen(a.fingerprint, SeenEntry(CLAIMED, generation, a.target, a.pub_ns, 0, 0, ()))


def _still_applied(tables: Tables, entry: SeenEntry, target: str, record: PathRecord | None) -> bool:
    """Whether what was settled is still what its path holds: not removed, not replaced by another version."""
    if entry.target != target:
        record = tables.get_path(entry.target)
    return record is None or (record.present and record.generation == entry.generation)


def _raise_version(
    tables: Tables, a: Announcement, entry: SeenEntry, record: PathRecord | None, now_ns: int
) -> None:
    """A duplicate shows that its source still had this version then: a removal before that is overtaken."""
    if record is not None and entry.target == a.target:
        _raise_record(tables, a, record, now_ns)


def _raise_record(tables: Tables, a: Announcement, record: PathRecord, now_ns: int) -> None:
    known_ns = max(record.known_ns, a.pub_ns)
    if (a.mtime_ns, a.pub_ns) > (record.mtime_ns, record.pub_ns):
        pub_ns = max(a.pub_ns, record.pub_ns)
        record = record._replace(mtime_ns=a.mtime_ns, pub_ns=pub_ns, known_ns=known_ns, touched_ns=now_ns)
        tables.put_path(a.target, record)
    elif known_ns > record.known_ns:
        tables.put_path(a.target, record._replace(known_ns=known_ns, touched_ns=now_ns))


def answers_for(tables: Tables, generation: bytes, row: FileRow, message_id: bytes) -> bool:
    """Return whether a row answers for this message."""
    if row.message_id == message_id:
        return True
    return row.further > 0 and tables.get_message(generation, message_id) is not None


def _meet(
    tables: Tables,
    a: Announcement,
    generation: bytes,
    row: FileRow,
    record: PathRecord | None,
    me: int,
    now_ns: int,
) -> Admission:
    """The content is already under way."""
    own = answers_for(tables, generation, row, a.message_id)
    if row.owner != me and not tables.is_alive(row.owner):
        if not own and record is not None and file_is_older(a.mtime_ns, a.pub_ns, record):
            return _overtaken(tables, a, record)
        if not own and row.target != a.target:  # suppression across paths: its own message will come
            return Admission(Admit.WAIT, None, row.phase, row.owner)
        return _take_over(tables, a, generation, row, record, me, now_ns)
    if own:
        claim = Claim(generation, row.nonce)
        # A block's segments may be free again because its former holder died: claims tell.
        block = a.segment_count > 0 and row.phase == ASSEMBLING
        outcome = Admit.JOINED if block else Admit.RUNNING
        return Admission(outcome, claim, row.phase, row.owner, row.missing, row.inode)
    if record is not None and file_is_older(a.mtime_ns, a.pub_ns, record):
        return _overtaken(tables, a, record)
    room = (row.further < MAX_FURTHER and not row.alone) or row.blocks
    if row.phase != ASSEMBLING or row.target != a.target or not room:
        return Admission(Admit.WAIT, None, row.phase, row.owner)
    row = _raise_row(_add_message(tables, a, generation, row, me, now_ns), a)
    tables.put_file(generation, row)
    return Admission(Admit.FURTHER, Claim(generation, row.nonce), row.phase, row.owner, row.missing)


def _join(
    tables: Tables, a: Announcement, row: FileRow, record: PathRecord | None, me: int, now_ns: int
) -> Admission:
    """The same generation is under way for another fingerprint: a further block of the file."""
    if row.owner != me and not tables.is_alive(row.owner):
        admission = _take_over(tables, a, a.generation, row, record, me, now_ns)
        _claim_fingerprint(tables, a, a.generation)
        return admission
    if record is not None and file_is_older(a.mtime_ns, a.pub_ns, record):
        return _overtaken(tables, a, record)
    if row.phase != ASSEMBLING:
        return Admission(Admit.WAIT, None, row.phase, row.owner)
    _claim_fingerprint(tables, a, a.generation)
    row = _raise_row(_add_message(tables, a, a.generation, row, me, now_ns), a)
    if row.blocks and not a.segment_count:
        row = row._replace(blocks=False, fresh=0)  # the whole file is announced too: all may be claimed
    tables.put_file(a.generation, row)
    outcome = Admit.JOINED if a.segment_count else Admit.FURTHER
    return Admission(outcome, Claim(a.generation, row.nonce), ASSEMBLING, row.owner, row.missing, row.inode)


def _take_over(
    tables: Tables,
    a: Announcement,
    generation: bytes,
    row: FileRow,
    record: PathRecord | None,
    me: int,
    now_ns: int,
) -> Admission:
    """The owner is dead, or parked the row: the caller goes on where it stopped."""
    if not answers_for(tables, generation, row, a.message_id):
        row = _raise_row(_add_message(tables, a, generation, row, me, now_ns), a)
        if row.phase == COMMITTED and record is not None and record.generation == generation:
            known_ns = max(record.known_ns, row.pub_ns)
            record = record._replace(mtime_ns=row.mtime_ns, pub_ns=row.pub_ns, known_ns=known_ns)
            tables.put_path(a.target, record)
    phase = row.phase
    moved = row.target != a.target  # another configuration maps it elsewhere now
    if moved or (record is not None and file_is_older(row.mtime_ns, row.pub_ns, record)):
        phase = DISCARDED  # unlink the inflight file, then drop the row
    row = row._replace(owner=me, phase=phase, touched_ns=now_ns)
    tables.put_file(generation, row)
    claim = Claim(generation, row.nonce)
    return Admission(
        Admit.TAKEN_OVER, claim, phase, me, row.missing, row.inode, row.target, row.pub_ns, row.segment_size
    )


def _add_message(
    tables: Tables, a: Announcement, generation: bytes, row: FileRow, me: int, now_ns: int
) -> FileRow:
    """Record a message with the row; a block makes its segments claimable."""
    if tables.get_message(generation, a.message_id) is None:
        row = row._replace(further=row.further + 1, announced_ns=now_ns)
    message = MessageRow(a.fingerprint, a.url, a.first_segment, a.segment_count, me, a.ranged)
    tables.put_message(generation, a.message_id, message)
    for number in range(a.first_segment, a.first_segment + a.segment_count):
        if tables.get_segment(generation, number) is None:
            tables.put_segment(generation, number, SegmentRow(MISSING, NOBODY, b""))
    if row.size < 0 <= a.size:
        row = row._replace(size=a.size)  # some messages do not tell it (wire.md 2.1), others of the file do
    return row


def _raise_row(row: FileRow, a: Announcement) -> FileRow:
    """The row stands for the newest announcement of this content, so that an older event cannot overtake."""
    if (a.mtime_ns, a.pub_ns) <= (row.mtime_ns, row.pub_ns):
        return row
    return row._replace(mtime_ns=a.mtime_ns, pub_ns=max(a.pub_ns, row.pub_ns))

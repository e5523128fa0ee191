"""Removals and renames: a tombstone and *pending* first, then the file system, then the announcement.

A removal holds its path's *pending* from its first transaction until its announcement is confirmed, exactly
like a commit, so the announcements of one path leave in the order in which they were decided.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from sarrapipe.ledger.completion import ANSWER_TTL_NS, Blocker, blocker_of
from sarrapipe.ledger.order import event_is_older
from sarrapipe.ledger.records import DONE, NOBODY, PathRecord, Pending, SeenEntry, Tables

__all__ = [
    "Adopted",
    "Removal",
    "RemovalBegun",
    "Remove",
    "Rename",
    "adopt",
    "begin_removal",
    "begin_rename",
    "end_adopted",
    "not_moved",
    "settle_removal",
]


class Remove(enum.Enum):
    """What becomes of a removal or rename."""

    REMOVE = "remove"
    """Unlink the (old) name, publish, wait for the confirm, `settle_removal`."""
    MOVE = "move"
    """Rename old to new if old is what the message means (or new already is), publish, `settle_removal`;
    otherwise unlink old, `not_moved`, and go on as with FETCH."""
    FETCH = "fetch"
    """Only the new name is concerned: admit the message as a file for the new name. If it is overtaken or a
    duplicate there, announce it all the same and `settle_removal`: it tells that the old name is gone."""
    WAIT = "wait"
    """Another decision on a name is not settled: see `RemovalBegun.blocker`."""
    RUNNING = "running"
    """This very message is being worked on by a live sibling, or by the caller."""
    ANSWERED = "answered"
    """This very message was settled before: acknowledge."""
    OVERTAKEN = "overtaken"
    """Something later is recorded: acknowledge and count."""


class Removal(NamedTuple):
    """A message that removes a file, link or directory."""

    message_id: bytes
    path: str
    pub_ns: int


class Rename(NamedTuple):
    """A message that says what was at `old` is at `new` now."""

    message_id: bytes
    old: str
    new: str
    pub_ns: int
    mtime_ns: int
    generation: bytes
    """`keys.generation_of` for the new name, by which the moved file is known."""
    fingerprint: bytes
    """`keys.seen_key` for the new name, under which the message is answered if it was fetched."""


class RemovalBegun(NamedTuple):
    """Answer to `begin_removal` and `begin_rename`."""

    outcome: Remove
    blocker: Blocker | None = None


class Adopted(NamedTuple):
    """What is left of a dead process's removal."""

    unlink: tuple[str, ...]
    """Names to unlink; then `end_adopted`."""
    message_id: bytes


def begin_removal(tables: Tables, r: Removal, me: int, now_ns: int) -> RemovalBegun:
    """Decide a removal; on REMOVE its tombstone is written and nothing else may touch the path."""
    if _answered(tables, r.message_id):
        return RemovalBegun(Remove.ANSWERED)
    record = tables.get_path(r.path)
    if record is not None:
        obstacle = _obstacle(tables, r.path, record, r.message_id, me)
        if obstacle is not None and obstacle.outcome is Remove.RUNNING:
            return obstacle
        if event_is_older(r.pub_ns, record):
            return RemovalBegun(Remove.OVERTAKEN)
        if obstacle is not None:
            return obstacle
    tables.put_path(r.path, _tombstone(record, r.pub_ns, r.message_id, me, now_ns))
    return RemovalBegun(Remove.REMOVE)


def _answered(tables: Tables, message_id: bytes) -> bool:
    entry = tables.get_seen(message_id)
    return entry is not None and entry.state == DONE


def _obstacle(
    tables: Tables, path: str, record: PathRecord, message_id: bytes, me: int
) -> RemovalBegun | None:
    """Return why a removal cannot begin on this name now, None if it can."""
    if record.pending == Pending.REMOVAL and record.holder == message_id:
        alive = record.incarnation == me or tables.is_alive(record.incarnation)
        return RemovalBegun(Remove.RUNNING) if alive else None  # a dead one's is repeated by its redelivery
    blocker = blocker_of(tables, path, record)
    return RemovalBegun(Remove.WAIT, blocker) if blocker is not None else None


def _tombstone(
    record: PathRecord | None, pub_ns: int, message_id: bytes, me: int, now_ns: int, twin: str = ""
) -> PathRecord:
    generation = record.generation if record is not None else b""
    return PathRecord(
        0, pub_ns, 0, generation, pub_ns, present=False,
        pending=Pending.REMOVAL, holder=message_id, incarnation=me, twin=twin, touched_ns=now_ns,
    )  # fmt: skip


def begin_rename(tables: Tables, r: Rename, me: int, now_ns: int) -> RemovalBegun:
    """Decide a rename over both of its names at once.

    A name on which something later is recorded is left alone: with the old name overtaken the new one is
    fetched, with the new name overtaken the old one is only removed.
    """
    fetched = tables.get_seen(r.fingerprint)
    if _answered(tables, r.message_id) or (fetched is not None and r.message_id in fetched.messages):
        return RemovalBegun(Remove.ANSWERED)
    if tables.get_file(r.generation) is not None:
        return RemovalBegun(Remove.FETCH)  # it went that way before
    old, new = tables.get_path(r.old), tables.get_path(r.new)
    for name, record in ((r.old, old), (r.new, new)):
        obstacle = _obstacle(tables, name, record, r.message_id, me) if record is not None else None
        if obstacle is not None:
            return obstacle
    old_is_later = old is not None and event_is_older(r.pub_ns, old)
    new_is_later = new is not None and event_is_older(r.pub_ns, new)
    if old_is_later and new_is_later:
        return RemovalBegun(Remove.OVERTAKEN)
    if new_is_later:
        tables.put_path(r.old, _tombstone(old, r.pub_ns, r.message_id, me, now_ns))
        return RemovalBegun(Remove.REMOVE)
    if old_is_later:
        # What was announced for the new name before is overtaken by what is fetched for it now.
        _clear(tables, r.new, _tombstone(new, r.pub_ns, r.message_id, me, now_ns), now_ns)
        return RemovalBegun(Remove.FETCH)
    tables.put_path(r.old, _tombstone(old, r.pub_ns, r.message_id, me, now_ns, r.new))
    tables.put_path(
        r.new,
        PathRecord(
            r.mtime_ns, r.pub_ns, r.pub_ns, r.generation, r.pub_ns, present=True,
            pending=Pending.REMOVAL, holder=r.message_id, incarnation=me, twin=r.old, touched_ns=now_ns,
        ),
    )  # fmt: skip
    return RemovalBegun(Remove.MOVE)


def _held(tables: Tables, path: str, message_id: bytes, me: int) -> PathRecord | None:
    record = tables.get_path(path)
    if record is None or record.pending != Pending.REMOVAL:
        return None
    return record if record.holder == message_id and record.incarnation == me else None


def _clear(tables: Tables, path: str, record: PathRecord, now_ns: int) -> None:
    tables.put_path(
        path,
        record._replace(pending=Pending.NONE, holder=b"", incarnation=NOBODY, twin="", touched_ns=now_ns),
    )


def not_moved(tables: Tables, r: Rename, me: int, now_ns: int) -> bool:
    """The old name did not hold what the rename means: release both names; the new one is to be fetched.

    Returns:
        False if the names are not the caller's any more.
    """
    old, new = _held(tables, r.old, r.message_id, me), _held(tables, r.new, r.message_id, me)
    if old is None or new is None:
        return False
    _clear(tables, r.old, old, now_ns)
    _clear(tables, r.new, new._replace(mtime_ns=0, present=False), now_ns)
    return True


def settle_removal(tables: Tables, r: Removal | Rename, me: int, now_ns: int) -> bool:
    """Close a removal or rename after its announcement was confirmed; its message is answered.

    Also for a rename that was to be fetched and found its new name overtaken, or the same content settled: it
    is announced all the same, for only it tells the next hop that the old name is gone.

    Returns:
        Whether any of its names was still the caller's.
    """
    held = False
    for path in (r.path,) if isinstance(r, Removal) else (r.old, r.new):
        record = _held(tables, path, r.message_id, me)
        if record is not None:
            held = True
            _clear(tables, path, record, now_ns)
    forget_ns = now_ns + ANSWER_TTL_NS
    tables.put_seen(r.message_id, SeenEntry(DONE, b"", "", r.pub_ns, now_ns, forget_ns, (r.message_id,)))
    return held


def adopt(tables: Tables, path: str, me: int, now_ns: int) -> Adopted | None:
    """Take over a dead process's *pending* removal that stands in the caller's way.

    Its message is still unacknowledged or kept and will repeat it; here only its effect on the file system is
    made certain, so that a later version is not unlinked afterwards.

    Returns:
        What to unlink; None if there is nothing (any more) to adopt.
    """
    record = tables.get_path(path)
    if record is None or record.pending != Pending.REMOVAL or tables.is_alive(record.incarnation):
        return None
    unlink = []
    for name in (path, record.twin) if record.twin else (path,):
        other = tables.get_path(name)
        if other is not None and other.pending == Pending.REMOVAL and other.holder == record.holder:
            tables.put_path(name, other._replace(incarnation=me, touched_ns=now_ns))
            if not other.present:
                unlink.append(name)
    return Adopted(tuple(unlink), record.holder)


def end_adopted(tables: Tables, path: str, message_id: bytes, me: int, now_ns: int) -> None:
    """Release the names of a removal without answering its message; the tombstones stay.

    Of an adopted one, after its names were unlinked; or of the caller's own, when it could not be carried out
    and will be tried again.
    """
    record = _held(tables, path, message_id, me)
    if record is None:
        return
    for name in (path, record.twin) if record.twin else (path,):
        held = _held(tables, name, message_id, me)
        if held is not None:
            _clear(tables, name, held, now_ns)

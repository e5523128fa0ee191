"""Which of two events on a path is the later one.

File against file is decided by modification time, then pubTime; anything against a removal, or against what
has no modification time, by pubTime alone (design.md 4). An event *older* than what is recorded is overtaken.
Equal is not older: a message is never overtaken by itself.
"""

from __future__ import annotations

from sarrapipe.ledger.records import PathRecord, Tables

__all__ = ["event_is_older", "file_is_older", "note_overtaken"]


def file_is_older(mtime_ns: int, pub_ns: int, record: PathRecord) -> bool:
    """Return whether a version of a file is overtaken by what the path's record says.

    The removal's time outlives the next version: a late copy of what was removed must not come back over a
    re-created file that happens to carry an older modification time.

    Links, directories and files announced without a modification time have none to be compared (0): against
    them, pubTime alone decides. A link made today would otherwise keep out the file of last year that takes
    its place tomorrow.
    """
    if pub_ns < record.removed_ns:
        return True
    if not record.present:
        return False
    if mtime_ns == 0 or record.mtime_ns == 0:
        return pub_ns < record.pub_ns
    if mtime_ns > record.mtime_ns:
        return False
    return mtime_ns < record.mtime_ns or pub_ns < record.pub_ns


def event_is_older(pub_ns: int, record: PathRecord) -> bool:
    """Return whether a removal or rename is overtaken by what the path's record says."""
    return pub_ns < record.removed_ns or (record.present and pub_ns < record.known_ns)


def note_overtaken(tables: Tables, target: str, record: PathRecord, pub_ns: int) -> None:
    """Remember that a file was announced then, although what is in place has a later modification time.

    Modification times and pubTimes can contradict each other (a file is removed, then one with an older
    modification time takes its place): no order of the three events agrees with both. Whatever order they
    arrive in, the removal that was announced before must then not take away the only file that is left.
    """
    if record.present and pub_ns > record.known_ns:
        tables.put_path(target, record._replace(known_ns=pub_ns))

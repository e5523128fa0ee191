"""Writing into the file in place (`inplace on`): when the first byte of a version may go there.

Which version may is decided by a mark on the file itself (`segment.inplace`), set before this is asked. Here
it is only asked whether what stands there is still needed as it is: a version that was committed and is not
announced yet, or a rename that moves it, would otherwise be announced with other bytes. Asked before the
first claim of a segment by each process that will write, in the transaction of that claim; from then on every
rename sees the mark, and every commit brings a file of its own.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from sarrapipe.ledger.completion import Blocker, blocker_of
from sarrapipe.ledger.order import file_is_older
from sarrapipe.ledger.records import ASSEMBLING, Claim, Tables

__all__ = ["InPlace", "MayWrite", "may_write"]


class MayWrite(enum.Enum):
    """Answer to `may_write`."""

    YES = "yes"
    WAIT = "wait"
    """Something about the path is decided and not settled: ask again."""
    OVERTAKEN = "overtaken"
    """What stands there is newer, and has been since before it was marked: take the mark away."""
    LOST = "lost"
    """Another file took the place of the one that was marked, or the row is gone: nothing may be written."""


class InPlace(NamedTuple):
    """Answer to `may_write` with what is waited for."""

    answer: MayWrite
    blocker: Blocker | None = None


def may_write(tables: Tables, held: Claim, *, is_there: bool) -> InPlace:
    """Decide whether a version may be written into the file in place.

    Args:
        tables: The open write transaction.
        held: The row.
        is_there: The final name is that of the file that was marked; looked up inside this transaction.
    """
    row = tables.get_file(held.generation)
    if row is None or row.nonce != held.nonce or row.phase != ASSEMBLING:
        return InPlace(MayWrite.LOST)
    record = tables.get_path(row.target)
    blocker = None if record is None else blocker_of(tables, row.target, record, held.generation)
    if blocker is not None:
        return InPlace(MayWrite.WAIT, blocker)
    if not is_there:
        return InPlace(MayWrite.LOST)
    if record is not None and file_is_older(row.mtime_ns, row.pub_ns, record):
        return InPlace(MayWrite.OVERTAKEN)
    return InPlace(MayWrite.YES)

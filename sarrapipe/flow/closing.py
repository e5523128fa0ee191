"""How tasks end, and what becomes of their messages. Pure.

    error          attempts left            no attempts left
    -----          -------------            ----------------
    RETRY          again, after a pause     kept for later, what is written with it where that is worth it
    PAUSE          kept for later; the flow takes no new work
    REJECT         rejected
    404, 410, wrong identity                rejected: no later attempt would find anything else
    cannot be had in segments               anew, in one piece

Source: design of the flow, errors; the tree in `sarrapipe.errors`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from sarrapipe.errors import Disposition, IdentityMismatch, MessageError, SarrapipeError, SourceGone
from sarrapipe.ledger.admission import Admission, Admit
from sarrapipe.ledger.records import Claim
from sarrapipe.message.worklist import Report, WorkItem, Worklist

__all__ = ["OVERTAKEN", "Closing", "End", "Turn", "next_step", "pause_s", "refusal"]

_DUPLICATE: Final = 304
OVERTAKEN: Final = 406

_FIRST_PAUSE_S: Final = 0.2
"""Between the first attempt and the second; each further pause is twice as long. A server that restarts, or a
file that is being replaced, gets a moment, and nothing turns in a tight loop."""
_LAST_PAUSE_S: Final = 5.0


@dataclass(slots=True)
class Turn:
    """What one turn of the work brought to an end.

    Attributes:
        worklist: `ok`: in place, to be announced. `rejected` and `failed`: with their reports.
        answered: Settled: their messages can be acknowledged.
        parts: Blocks that were written here since the last turn.
        rested: Blocks that are written, and wait for others: to be kept, and acknowledged.
        forgotten: Message ids of blocks whose file is settled: nobody need keep them.
        unfinished: Not begun because the work was stopped: their messages go back to where they came from.
    """

    worklist: Worklist = field(default_factory=Worklist)
    answered: list[WorkItem] = field(default_factory=list)
    unfinished: list[WorkItem] = field(default_factory=list)
    parts: list[WorkItem] = field(default_factory=list)
    rested: list[WorkItem] = field(default_factory=list)
    forgotten: list[bytes] = field(default_factory=list)


class End(enum.Enum):
    """What becomes of a task that met an error."""

    AGAIN = "again"
    """The same task begins again, after a pause."""
    ANEW = "anew"
    """Nothing of it is kept; its messages are admitted again, after a pause."""
    PARK = "park"
    """What is written stays, and its messages are kept for later."""
    KEEP = "keep"
    """Its messages are kept for later."""
    REJECT = "reject"
    """Its messages are rejected."""


@dataclass(slots=True, kw_only=True)
class Closing:
    """A row of the ledger that is to be closed or parked; what is inflight is gone already, unless parked.

    Attributes:
        claim: The row.
        items: The messages it answers for in this process.
        end: What becomes of them.
        report: Why.
        segments: Segments this process had claimed and gives back.
    """

    claim: Claim
    items: list[WorkItem]
    end: End
    report: Report | None = None
    segments: list[int] = field(default_factory=list)


def next_step(
    error: SarrapipeError,
    attempts: int,
    limit: int,
    *,
    in_segments: bool = False,
    one_piece: bool = False,
    keeps: bool = False,
) -> End:
    """Return what becomes of a task.

    Args:
        error: What it met.
        attempts: Attempts that failed, this one included.
        limit: Option `attempts`.
        in_segments: The file moves in several segments.
        one_piece: It can be had in one piece only.
        keeps: What is written is worth keeping.
    """
    if one_piece:
        return End.ANEW
    if error.disposition not in (Disposition.RETRY, Disposition.PAUSE):
        return End.REJECT
    if error.disposition is Disposition.RETRY and attempts < limit:
        # Which of the segments is wrong nobody knows: all of them are fetched again.
        return End.ANEW if in_segments and isinstance(error, IdentityMismatch) else End.AGAIN
    if isinstance(error, SourceGone | IdentityMismatch):
        return End.REJECT
    return End.PARK if keeps else End.KEEP


def pause_s(attempts: int) -> float:
    """Return how long to wait after so many failed attempts."""
    return min(_FIRST_PAUSE_S * 2.0 ** min(attempts - 1, 10), _LAST_PAUSE_S)


def refusal(item: WorkItem, admission: Admission) -> Report | None:
    """Return the report of a message that the ledger does not admit; None if it does, or let it wait.

    Args:
        item: The message's.
        admission: What the ledger answered.
    """
    if admission.outcome is Admit.DUPLICATE:
        return Report(_DUPLICATE, "the same content was announced before")
    if admission.outcome is Admit.OVERTAKEN:
        return Report(OVERTAKEN, "a newer version, or a later removal, was applied")
    if admission.outcome is Admit.CONTRADICTS:
        return Report(MessageError.code, f"{item.message.rel_path}: {admission.contradiction}")
    return None

"""The ledger: the one truth about files under way on this host (design in docs/explanation/ledger.md).

Decisions are pure functions over a `Tables` protocol (`admission`, `segments`, `completion`, `removal`,
`recovery`); `Ledger` binds them to LMDB, `KeptStore` keeps messages that were acknowledged early.
"""

from sarrapipe.ledger.admission import Admission, Admit, Announcement
from sarrapipe.ledger.completion import (
    Blocker,
    Closed,
    Commit,
    Committed,
    Misplaced,
    Standing,
)
from sarrapipe.ledger.kept import KeptMessage, KeptStore
from sarrapipe.ledger.keys import generation_of, message_id_of, new_incarnation, seen_key
from sarrapipe.ledger.ledger import Decisions, Ledger, View
from sarrapipe.ledger.records import ASSEMBLING, COMMITTED, DISCARDED, Claim, FileRow, Pending
from sarrapipe.ledger.recovery import Abandoned
from sarrapipe.ledger.removal import Adopted, Removal, RemovalBegun, Remove, Rename
from sarrapipe.ledger.segments import Marked, Segments, Work

__all__ = [
    "ASSEMBLING",
    "COMMITTED",
    "DISCARDED",
    "Abandoned",
    "Admission",
    "Admit",
    "Adopted",
    "Announcement",
    "Blocker",
    "Claim",
    "Closed",
    "Commit",
    "Committed",
    "Decisions",
    "FileRow",
    "KeptMessage",
    "KeptStore",
    "Ledger",
    "Marked",
    "Misplaced",
    "Pending",
    "Removal",
    "RemovalBegun",
    "Remove",
    "Rename",
    "Segments",
    "Standing",
    "View",
    "Work",
    "generation_of",
    "message_id_of",
    "new_incarnation",
    "seen_key",
]

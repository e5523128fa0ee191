"""What of a large file is at the server already, as the ledger counts it: sending goes on where it stopped.

    what is written? ─► [look at the file there] ─► claim some ─► written and answered ─► marked ─► commit
                                                        └───────── until none is missing ◄──┘

No instance but the owner has a hand in a file that is sent. A segment is marked when the server has answered
all of its writes. Killed before that, it is sent again; the server may still take what was on the way then,
which are the same bytes for the same place: the version of the source is pinned in the row, and another one
begins anew under another name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from sarrapipe.crashpoints import passing
from sarrapipe.ledger.ledger import Decisions
from sarrapipe.ledger.records import Claim
from sarrapipe.segment.plan import SegmentPlan

__all__ = ["PartOwner", "Parts", "SentParts"]


class PartOwner(Protocol):
    """The task of a file that is sent in segments. Told outside of the transaction."""

    def known(self, end: int) -> None:
        """What is at the server reaches up to this byte. `SentParts.start` lets the others be sent."""

    def send(self, numbers: Sequence[int]) -> None:
        """These segments are to be sent."""

    def all_marked(self) -> None:
        """Nothing is missing at the server."""

    def of_other_version(self) -> None:
        """What is at the server came of another version of the source."""

    def lost_row(self) -> None:
        """The row is somebody else's."""


class SentParts:
    """The segments of one file that is sent.

    Args:
        owner: Its task.
        claim: Its row.
        plan: How it is cut.
        version: Of its source; empty where that is not known yet.
        given_back: Segments that an earlier attempt of this process had claimed.
    """

    def __init__(
        self, owner: PartOwner, claim: Claim, plan: SegmentPlan, version: str, given_back: Iterable[int] = ()
    ) -> None:
        self.plan = plan
        self._owner = owner
        self._claim = claim
        self._version = version
        self._unpinned = bool(version)
        self._given_back = list(given_back)
        self._asks = True
        self._left: deque[int] = deque()
        self._room = 0
        self._unwritten = len(plan)
        self._held: set[int] = set()
        self._done: list[tuple[int, bytes]] = []
        # From `decide` to `act`:
        self._written: list[int] | None = None
        self._claimed: list[int] = []
        self._marked = self._complete = self._is_other = self._is_lost = False

    @property
    def undecided(self) -> bool:
        """Whether the ledger has to be asked or told something."""
        return bool(self._asks or self._unpinned or self._done or (self._room and self._left))

    @property
    def held(self) -> list[int]:
        """What is claimed here and not marked."""
        return sorted(self._held)

    @property
    def missing(self) -> list[int]:
        """What nobody has begun to send."""
        return list(self._left)

    @property
    def unwritten(self) -> int:
        """How many segments the server has not answered, as the ledger said last."""
        return self._unwritten

    def start(self, most: int) -> None:
        """Let segments be sent, so many at a time."""
        self._room = most

    def of_version(self, version: str) -> None:
        """Pin the version of the source, which its first answer told."""
        if not self._version:
            self._version, self._unpinned = version, True

    def wrote(self, number: int, digest: bytes = b"") -> None:
        """The server has answered all of a segment.

        Args:
            number: Its number.
            digest: Its xxh3_128; nobody asks for it where the whole can be hashed here.
        """
        passing("segment_written")
        self._done.append((number, digest))
        self._room += 1

    def decide(self, decide: Decisions) -> None:
        """Ask and tell the ledger, inside the turn's transaction."""
        decide.unclaim(self._claim, self._given_back)
        self._given_back = []
        if self._unpinned:
            self._unpinned = False
            if not decide.pin(self._claim, self._version):
                self._is_lost = decide.row(self._claim) is None
                self._is_other = not self._is_lost
                self._asks, self._done, self._room = False, [], 0
                return
        if self._asks:
            self._ask(decide)
        if self._done:
            self._mark(decide)
        while self._room and self._left and not self._is_lost:
            self._claim_next(decide)

    def _ask(self, decide: Decisions) -> None:
        self._asks = False
        self._written = decide.written(self._claim)
        if self._written is None:
            self._is_lost = True
            return
        written = frozenset(self._written)
        self._left = deque(number for number in range(len(self.plan)) if number not in written)
        self._unwritten = len(self._left)

    def _mark(self, decide: Decisions) -> None:
        marked = decide.mark(self._claim, self._done)
        self._marked = True
        self._unwritten = marked.missing
        self._complete = marked.complete
        self._is_lost = not marked.accepted
        self._held.difference_update(number for number, _ in self._done)
        self._done = []

    def _claim_next(self, decide: Decisions) -> None:
        number = self._left.popleft()
        found = decide.claim(self._claim, 1, first=number, count=1)
        if found is None or not found.numbers:
            self._is_lost = True
            return
        self._room -= 1
        self._held.add(number)
        self._claimed.append(number)

    def act(self) -> None:
        """Let the task go on with what the ledger answered."""
        written, self._written = self._written, None
        claimed, self._claimed = self._claimed, []
        if self._marked:
            self._marked = False
            passing("segment_marked")
        if self._is_lost:
            self._owner.lost_row()
        elif self._is_other:
            self._owner.of_other_version()
        elif written is not None:
            self._owner.known(max((self.plan[number].end for number in written), default=0))
        elif self._complete:
            self._owner.all_marked()
        elif claimed:
            self._owner.send(claimed)


class Parts:
    """All files that this instance sends in segments."""

    def __init__(self) -> None:
        self._all: list[SentParts] = []
        self._decided: list[SentParts] = []

    @property
    def undecided(self) -> bool:
        """Whether a transaction would bring something on."""
        return any(parts.undecided for parts in self._all)

    def add(self, parts: SentParts) -> None:
        """Take up a file."""
        self._all.append(parts)

    def remove(self, parts: SentParts) -> None:
        """Let go of a file; its task is told nothing more."""
        self._all = [one for one in self._all if one is not parts]

    def decide(self, decide: Decisions) -> None:
        """Ask and tell the ledger, inside the turn's transaction."""
        self._decided = [parts for parts in self._all if parts.undecided]
        for parts in self._decided:
            parts.decide(decide)

    def act(self) -> None:
        """Let the tasks go on."""
        decided, self._decided = self._decided, []
        for parts in decided:
            if any(parts is one for one in self._all):
                parts.act()

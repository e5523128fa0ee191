"""What dead processes left in the way: their commits are abandoned, their removals brought to an end.

The message of what they did is still unacknowledged or kept, and will do it again; here a path is only made
free (docs/explanation/ledger.md). Also removes rows whose messages went to another host.
"""

from __future__ import annotations

from sarrapipe.errors import SarrapipeError
from sarrapipe.flow.names import Names
from sarrapipe.ledger.completion import Blocker
from sarrapipe.ledger.ledger import Decisions
from sarrapipe.ledger.records import Claim, Pending
from sarrapipe.ledger.recovery import Abandoned
from sarrapipe.ledger.removal import Adopted
from sarrapipe.log import get_logger

__all__ = ["Heirs"]

_log = get_logger(__name__)


class Heirs:
    """Frees paths and rows of the dead, over two turns: take over and clean up, then release.

    Args:
        names: Removes what the dead left.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._blockers: list[Blocker] = []
        self._dead_removals: list[str] = []
        self._orphaned: list[bytes] = []
        self._abandoned: list[Abandoned] = []
        self._adopted: list[tuple[Adopted, str]] = []
        self._drop: list[Claim] = []
        self._release: list[tuple[Adopted, str]] = []

    @property
    def undecided(self) -> bool:
        """Whether a transaction would bring something on."""
        decided = self._blockers or self._dead_removals or self._orphaned or self._abandoned
        return bool(decided or self._drop or self._release)

    def inherit(self, blocker: Blocker) -> None:
        """Free a path from a dead process's decision."""
        self._blockers.append(blocker)

    def inherit_removal(self, path: str) -> None:
        """Bring a dead process's removal to an end whose message has not come back."""
        self._dead_removals.append(path)

    def inherit_abandoned(self, abandoned: Abandoned) -> None:
        """Clear away what was taken over to be dropped."""
        self._abandoned.append(abandoned)

    def inherit_orphan(self, generation: bytes) -> None:
        """Drop a row that nobody will go on with."""
        self._orphaned.append(generation)

    def decide(self, decide: Decisions) -> None:
        """Take over and release, inside the turn's transaction."""
        for claim in self._drop:
            decide.drop(claim)
        for adopted, path in self._release:
            decide.end_adopted(path, adopted.message_id)
        self._drop.clear()
        self._release.clear()
        for blocker in self._blockers:
            if blocker.kind is Pending.REMOVAL:
                self._dead_removals.append(blocker.path)
            else:
                self._orphaned.append(blocker.holder)
        for path in self._dead_removals:
            adopted_now = decide.adopt(path)
            if adopted_now is not None:
                self._adopted.append((adopted_now, path))
        for generation in self._orphaned:
            self._abandon(decide, generation)
        self._blockers.clear()
        self._dead_removals.clear()
        self._orphaned.clear()

    def _abandon(self, decide: Decisions, generation: bytes) -> None:
        abandoned = decide.abandon(generation)
        if abandoned is not None:
            self._abandoned.append(abandoned)

    def act(self) -> None:
        """Unlink what was taken over; the next turn releases it."""
        for abandoned in self._abandoned:
            self.discard(abandoned.row.target, abandoned.claim)
            self._drop.append(abandoned.claim)
        self._abandoned.clear()
        for adopted, target in self._adopted:
            for name in adopted.unlink:
                try:
                    self._names.unlink(name)
                except SarrapipeError as error:
                    _log.warning("%s stays until its removal is announced again: %s", name, error)
            self._release.append((adopted, target))
        self._adopted.clear()

    def discard(self, target: str, claim: Claim) -> None:
        """Unlink what a dead process had under way for a target."""
        try:
            self._names.discard(target, claim.nonce.hex())
        except SarrapipeError as error:
            _log.warning("what was under way for %s stays behind: %s", target, error)

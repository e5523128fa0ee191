"""What a flow does once a second, and every `housekeeping` seconds, beside its work.

Each second: messages held for long are kept and acknowledged, dead siblings' leases are freed, a pause is
looked at again. Every `housekeeping` seconds: what is too old is given up, the ledger is swept, callbacks are
asked.
"""

from __future__ import annotations

import os
import resource
from typing import Final

from sarrapipe.callbacks.chain import CallbackChain
from sarrapipe.clock import Clock
from sarrapipe.config.model import FlowConfig
from sarrapipe.errors import NoSpace, SarrapipeError
from sarrapipe.flow.brokerretry import waits_at_broker
from sarrapipe.flow.brokerwatch import BrokerWatch
from sarrapipe.flow.intake import Intake, Reason
from sarrapipe.flow.settle import Settlement
from sarrapipe.flow.tally import Tally
from sarrapipe.flow.work import Work
from sarrapipe.ledger.kept import KeptMessage, KeptStore
from sarrapipe.ledger.ledger import Ledger
from sarrapipe.log import get_logger, printable
from sarrapipe.message.worklist import Delivery, WorkItem
from sarrapipe.shm.ring import Ring
from sarrapipe.shm.slots import Counter, Phase
from sarrapipe.shm.slotstates import owner_of

__all__ = ["KEEP_EARLY_AFTER_S", "Housekeeping"]

_log = get_logger(__name__)

_TICK_S: Final = 1.0
KEEP_EARLY_AFTER_S: Final = 30.0
"""RabbitMQ's `consumer_timeout` is 30 minutes by default and may be set to as little as a minute; a message
held for half of that is kept here and acknowledged."""

_FILES_REMEMBERED_S: Final = 86400.0
_REMOVALS_REMEMBERED_S: Final = 7 * 86400.0
_ORPHANED_AFTER_S: Final = 3600.0
_LITTER_AFTER_S: Final = 86400.0
_EXPIRED_AT_ONCE: Final = 1000
_MIN_FREE_BYTES: Final = 64 << 20
_MIN_FREE_SHARE: Final = 10
"""Work goes on when a tenth of a file system is free, or 64 MiB where that is less."""


class Housekeeping:
    """Timed duties of one instance.

    Args:
        config: The flow's configuration.
        ledger: The flow's ledger; None for a flow that receives nothing.
        kept: The flow's kept store; None likewise.
        settlement: Acknowledges and keeps.
        chain: The callbacks.
        tally: Counters.
        intake: Whether messages are taken.
        brokers: How the brokers stand.
        clock: Source of time.
        keep_early_after_s: How long a message may be in hand before it is kept and acknowledged.
        ring: The flow's slots of shared memory; None where it has none.
    """

    def __init__(
        self,
        config: FlowConfig,
        ledger: Ledger | None,
        kept: KeptStore | None,
        settlement: Settlement,
        chain: CallbackChain,
        tally: Tally,
        intake: Intake,
        brokers: BrokerWatch,
        clock: Clock,
        keep_early_after_s: float = KEEP_EARLY_AFTER_S,
        ring: Ring | None = None,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._kept = kept
        self._settlement = settlement
        self._chain = chain
        self._tally = tally
        self._intake = intake
        self._brokers = brokers
        self._clock = clock
        self._keep_early_after_s = keep_early_after_s
        self._ring = ring
        self._next_tick_s = 0.0
        self._next_round_s = clock.monotonic_s() + config.housekeeping
        self._deaths = True
        self._look_for_due = True
        self._full_at: set[str] = set()

    @property
    def paused(self) -> bool:
        """Whether there is no space, so that no new work is taken."""
        return self._intake.stopped_for(Reason.NO_SPACE)

    def deaths_reported(self) -> None:
        """A sibling died: free what it held, at the next tick."""
        self._deaths = True
        self._next_tick_s = 0.0

    def take_due(self, limit: int) -> list[tuple[Delivery, KeptMessage]]:
        """Return kept messages that are due, looked for once a second."""
        if not self._look_for_due:
            return []
        due = self._settlement.take_due(limit)
        self._look_for_due = len(due) == limit
        if due:
            self._tally.retried(len(due))
        return due

    def pause(self, error: SarrapipeError, path: str = "") -> None:
        """Take no more work until there is room again.

        Args:
            error: Why.
            path: What did not fit; the flow's state if it is empty.
        """
        self._full_at.add(_existing(path or self._config.state_dir))
        if not self.paused:
            self._intake.stop(Reason.NO_SPACE)
            self._tally.slot.set_phase(Phase.PAUSED, str(error))
            _log.warning("paused: %s; work goes on when there is room", error)

    def tick(self, work: Work | None) -> None:
        """Do what is due.

        Raises:
            TopologyError: A queue or exchange exists with other properties: a person has to act.
        """
        now = self._clock.monotonic_s()
        if now < self._next_tick_s:
            return
        self._next_tick_s = now + _TICK_S
        self._look_for_due = True
        self._brokers.look(self._tally.slot)
        if self._deaths:
            self._free_what_the_dead_held()
        if work is not None:
            self._look_after_work(work, now)
        if now >= self._next_round_s:
            self._next_round_s = now + self._config.housekeeping
            self._round(work)

    def _look_after_work(self, work: Work, now: float) -> None:
        if work.paused_by is not None:
            self.pause(work.paused_by, work.paused_at)
            work.paused_by = None
        elif self.paused and self._has_room():
            self._intake.go_on(Reason.NO_SPACE)
            self._tally.slot.set_phase(Phase.RUNNING)
            _log.warning("there is room again: work goes on")
        old = work.held_since(now - self._keep_early_after_s)
        early = [
            item
            for item in old
            if item.kept is None and item.delivery is not None and not waits_at_broker(item, self._config)
        ]
        if early:
            self._keep_early(early)
        self._tally.slot.set(Counter.GAUGE_INFLIGHT_MESSAGES, work.held)
        self._tally.slot.set(Counter.GAUGE_INFLIGHT_BYTES, work.inflight_bytes)
        self._tally.slot.set(Counter.GAUGE_STREAMS, work.streams)
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self._tally.slot.raise_to(Counter.MAX_RSS_BYTES, peak_kib * 1024)

    def _keep_early(self, items: list[WorkItem]) -> None:
        try:
            self._settlement.keep_early(items)
        except NoSpace as error:
            self.pause(error)  # they stay unacknowledged; tried again at the next tick

    def _has_room(self) -> bool:
        """Whether the file systems that were full have something to spare."""
        for path in self._full_at:
            try:
                there = os.statvfs(path)
            except OSError:
                continue  # gone with what was full
            wanted = min(_MIN_FREE_BYTES, there.f_blocks * there.f_frsize // _MIN_FREE_SHARE)
            if there.f_bavail * there.f_frsize < wanted:
                return False
        self._full_at.clear()
        return True

    def _free_what_the_dead_held(self) -> None:
        self._deaths = False
        if self._ledger is None or self._kept is None:
            return
        buried = self._ledger.bury_dead()
        # In this order: who leases has been alive before. Those who ended in good order, or were buried by
        # their successor, are among them.
        holders = self._kept.holders()
        owners = self._ring.owners() if self._ring is not None else set()
        with self._ledger.view() as view:
            alive = set(view.tables.alive())
        dead = holders.difference(alive)
        freed = self._kept.reclaim(dead) if dead else 0
        slots = 0
        if self._ring is not None:
            slots = self._ring.reclaim(owners.difference(map(owner_of, alive)))
        if buried or freed or slots:
            _log.info("deaths=%d leases_freed=%d slots_freed=%d", len(buried), freed, slots)

    def _round(self, work: Work | None) -> None:
        self._chain.call("on_housekeeping")
        for figures in self._chain.call("metricsReport"):
            if isinstance(figures, dict):
                _log.info("%s", " ".join(f"{name}={value}" for name, value in figures.items()))
        if self._kept is not None:
            self._give_up_expired(self._kept)
            self._tally.slot.set(Counter.GAUGE_RETRY_WAITING, self._kept.count())
        if self._ring is not None:
            self._ring.trim()
        if self._ledger is not None:
            self._deaths = True
            self._sweep(self._ledger, work)

    def _give_up_expired(self, kept: KeptStore) -> None:
        ttl_s = self._config.retry_ttl
        if not ttl_s:
            return
        expired = kept.expired(ttl_s, _EXPIRED_AT_ONCE)
        for message in expired:
            _log.warning(
                "given up after retry_ttl %g s: %s %s",
                ttl_s,
                printable(message.routing_key),
                printable(message.reason),
            )
        kept.delete_many([message.key for message in expired])
        self._tally.expired(len(expired))

    def _sweep(self, ledger: Ledger, work: Work | None) -> None:
        """Forget what is old, and clear away what nobody will go on with."""
        wall_ns = self._clock.wall_ns()
        with ledger.transaction() as decide:
            swept = decide.sweep(
                wall_ns - int(_FILES_REMEMBERED_S * 1e9), wall_ns - int(_REMOVALS_REMEMBERED_S * 1e9)
            )
            orphans = decide.orphans(wall_ns - int(_ORPHANED_AFTER_S * 1e9))
        if work is None:
            return
        self._tally.expired(work.look_for_incomplete())
        for orphan in orphans:
            work.inherit_orphan(orphan.claim.generation)
        for path in swept.dead_removals:
            work.inherit_removal(path)
        litter = work.remove_litter(wall_ns - int(_LITTER_AFTER_S * 1e9))
        if litter:
            _log.warning("%d files under way that nobody knows any more were removed", litter)


def _existing(path: str) -> str:
    """Return the nearest directory above a path, or itself, that is there."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path

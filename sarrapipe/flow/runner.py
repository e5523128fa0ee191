"""The flow's loop in one instance: gather, filter, work, post, settle, and again.

One turn hands on whatever is ready, in batches, and never waits for one item. Where user callbacks look at a
worklist, it leaves the loop here and comes back in a later turn (`CallbackChain.pass_on`).

    Consumer -> gather -> filter -> after_accept -> work -> after_work -> post -> after_post -> settle
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from sarrapipe.callbacks.chain import CallbackChain
from sarrapipe.callbacks.gather_message import GatherMessage
from sarrapipe.clock import Clock
from sarrapipe.config.model import FlowConfig
from sarrapipe.crashpoints import passing
from sarrapipe.errors import NoSpace, SarrapipeError
from sarrapipe.flow.brokerretry import BrokerRetry
from sarrapipe.flow.closing import Turn
from sarrapipe.flow.filter import Filter
from sarrapipe.flow.housekeeping import Housekeeping
from sarrapipe.flow.intake import Intake, Reason
from sarrapipe.flow.localfiles import is_local, remove_local_source
from sarrapipe.flow.post import Outlet
from sarrapipe.flow.retarget import retarget
from sarrapipe.flow.settle import Settlement, as_delivered
from sarrapipe.flow.tally import Tally
from sarrapipe.flow.work import Work
from sarrapipe.ledger.kept import KeptMessage, KeptStore
from sarrapipe.log import get_logger, printable
from sarrapipe.message.codec import told_path
from sarrapipe.message.worklist import Delivery, Report, WorkItem, Worklist

__all__ = ["Flow", "Parts", "Source"]

_log = get_logger(__name__)

_REFUSALS_KEPT: Final = 1000
_PART: Final = 206
"""Code of a block that is written while others of its file are awaited (wire.md 3.1)."""
_NO_TROUBLE: Final = frozenset({202, 204, 304, 404, 406})
"""Codes of rejections in the normal course of things: unwanted, in place, duplicate, no mask, overtaken."""
_STOPPING_TICK_S: Final = 0.05
"""The same while a stop is under way, whose limits are short."""
_TICK_S: Final = 1.0
"""Longest wait: retries, waiting items and housekeeping are looked at this often."""


class Source(Protocol):
    """Where the items of a flow come from."""

    exhausted: bool

    def gather(self, message_count_max: int) -> tuple[bool, list[WorkItem]]:
        """Return new items, at most so many."""


@dataclass(slots=True, kw_only=True)
class Parts:
    """What a flow is made of; `components` puts it together.

    Attributes:
        config: The flow's configuration.
        source: Where items come from.
        filter: Which are taken, and where they go.
        chain: The callbacks.
        work: What is done with them; None where nothing is (post).
        outlet: Where they are announced; None where they are not (subscribe).
        settlement: Acknowledges and keeps.
        kept: Messages to be tried again; None for a flow that receives nothing.
        retries: Lets messages wait at the broker; None where none do.
        housekeeping: What is done now and then.
        intake: Whether messages are taken.
        tally: Counters.
        clock: Time.
        wait: Waits for the given seconds, or until something happened.
        heartbeat: Tells the parent that the loop turns.
    """

    config: FlowConfig
    source: Source
    filter: Filter
    chain: CallbackChain
    work: Work | None
    outlet: Outlet | None
    settlement: Settlement
    kept: KeptStore | None
    retries: BrokerRetry | None
    housekeeping: Housekeeping
    intake: Intake
    tally: Tally
    clock: Clock
    wait: Callable[[float], None]
    heartbeat: Callable[[], None]


class Flow:
    """One instance's loop.

    Args:
        parts: What it is made of.

    Attributes:
        stopping: No new items are taken; set by `stop`.
        refusals: The last announcements that cannot be made in this dialect, as sentences.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._config = parts.config
        self._confirmed: list[WorkItem] = []
        self._progress = False
        self._taken = 0
        self._gathering = False
        self._gather_again_s = 0.0
        self.stopping = False
        self.refusals: list[str] = []

    @property
    def finished(self) -> bool:
        """Whether nothing is in hand, and nothing more is to be taken."""
        return (self.stopping or self._parts.source.exhausted) and not self.in_hand

    @property
    def in_hand(self) -> bool:
        """Whether anything is under way: being worked on, announced, or with callbacks."""
        parts = self._parts
        working = self._confirmed or (parts.work is not None and parts.work.held)
        announcing = parts.outlet is not None and (parts.outlet.outstanding or parts.outlet.backlog)
        deferring = parts.retries is not None and parts.retries.held
        return bool(working or announcing or deferring or parts.chain.busy)

    def stop(self) -> None:
        """Take no new items; go on with those in hand."""
        self.stopping = True
        self._parts.intake.stop(Reason.STOP)

    def give_back(self) -> None:
        """Give up what is under way: segments are kept, messages go back to where they came from."""
        if self._parts.work is not None:
            self._give_back(self._parts.work.stop())

    def turn(self) -> None:
        """Hand on everything that is ready; wait if there is nothing."""
        parts = self._parts
        parts.heartbeat()
        self._collect_outcomes()
        incoming = self._take_in()
        worklists = parts.chain.completed("after_accept")
        if incoming:
            worklists += parts.chain.pass_on("after_accept", parts.filter.apply(incoming))
        accepted: list[WorkItem] = []
        for worklist in worklists:
            self._retarget(worklist)
            self._dispose(worklist)
            accepted += worklist.incoming
            if worklist.ok or worklist.directories_ok:  # a callback has done all that is to be done
                self._announce(Worklist(ok=worklist.ok + worklist.directories_ok))
        parts.tally.accepted(len(accepted))
        accepted = self._offer_download(accepted)
        self._work(accepted)
        self._tick()

    # ---- phases

    def _take_in(self) -> list[WorkItem]:
        """Gather: from the source, and from what is due to be tried again."""
        parts = self._parts
        if self.stopping or parts.housekeeping.paused:
            return []
        room = self._room()
        if room <= 0:
            return []
        due = parts.housekeeping.take_due(room)
        items = self._taken_again(due) if due else []
        items += self._gathered_by_callbacks(room - len(items))
        _, gathered = parts.source.gather(max(room - len(items), 0))
        parts.tally.gathered(gathered)
        items += gathered
        now_s = parts.clock.monotonic_s()
        for item in items:
            item.since_s = now_s
        if isinstance(parts.source, GatherMessage):
            refused = parts.source.take_refused()
            if refused:
                self._refuse(refused)
                self._progress = True
        self._progress |= bool(items)  # there may be more: look again before waiting
        self._taken += len(gathered)
        if self._config.message_count_max and self._taken >= self._config.message_count_max:
            self.stop()
        return items

    def _gathered_by_callbacks(self, room: int) -> list[WorkItem]:
        """Return what callbacks gathered, and ask them for more."""
        chain = self._parts.chain
        if not chain.has("gather"):
            return []
        worklists = chain.completed("gather")
        if worklists:
            self._gathering = False
        now_s = self._parts.clock.monotonic_s()
        if not self._gathering and now_s >= self._gather_again_s and room > 0:
            self._gathering = True
            self._gather_again_s = now_s + _TICK_S
            worklists += chain.pass_on("gather", Worklist(), room)
        items = [item for worklist in worklists for item in worklist.incoming]
        if items:
            self._gather_again_s = now_s
        self._parts.tally.gathered(items)
        for item in items:
            item.delivery = item.delivery or as_delivered(item.message)
        return items

    def _taken_again(self, due: list[tuple[Delivery, KeptMessage]]) -> list[WorkItem]:
        """Return the items of messages that were kept."""
        assert isinstance(self._parts.source, GatherMessage)
        items = self._parts.source.again([delivery for delivery, _ in due])
        for item, (_, message) in zip(items, due, strict=True):
            item.kept = message.key
        return items

    def _refuse(self, items: list[WorkItem]) -> None:
        """Dispose of messages that cannot be read."""
        for item in items:
            delivery = item.delivery
            assert delivery is not None
            _log.warning(
                "malformed message from exchange %s, topic %s, relPath %s: %s; it is dropped",
                delivery.exchange,
                printable(delivery.routing_key),
                printable(told_path(delivery.body)),
                item.report.message if item.report is not None else "",
            )
        self._parts.tally.malformed(items)
        self._parts.settlement.answer(items)

    def _room(self) -> int:
        """Return how many items may be taken now: a batch, while bounds on items and bytes are kept."""
        parts = self._parts
        room = self._config.batch
        if parts.outlet is not None:
            room = min(room, self._config.publish_window - parts.outlet.backlog)
        if parts.work is not None:
            if not self._bytes_allow(parts.work.inflight_bytes):
                return 0
            room = min(room, max(self._config.prefetch, self._config.batch) - parts.work.held)
        return room if parts.retries is None else room - parts.retries.held

    def _bytes_allow(self, inflight_bytes: int) -> bool:
        """Follow the bytes under way: from half of what is allowed on, other instances get the messages."""
        limit = self._config.max_inflight_bytes
        if inflight_bytes * 2 >= limit:
            self._parts.intake.stop(Reason.ENOUGH_BYTES)
        elif inflight_bytes * 4 < limit:
            self._parts.intake.go_on(Reason.ENOUGH_BYTES)
        return inflight_bytes < limit

    def _retarget(self, worklist: Worklist) -> None:
        """Let callbacks have said where files go."""
        if not any(item.local for item in worklist.incoming):
            return
        incoming, worklist.incoming = worklist.incoming, []
        for item in incoming:
            try:
                retarget(item)
            except SarrapipeError as error:
                self._parts.tally.error(error)
                worklist.reject(item, error.code, str(error))
            else:
                worklist.incoming.append(item)

    def _dispose(self, worklist: Worklist) -> None:
        """Dispose of what goes no further."""
        parts = self._parts
        if worklist.rejected:
            for item in worklist.rejected:
                self._tell(item)
            parts.tally.rejected(worklist.rejected)
            parts.settlement.answer(worklist.rejected)
        if worklist.failed:
            self._keep(worklist.failed)

    def _tell(self, item: WorkItem) -> None:
        """Log a rejection: always what somebody has to look into, the rest where it was asked for."""
        code = item.report.code if item.report is not None else 0
        if self._config.log_reject or code not in _NO_TROUBLE:
            why = item.report.message if item.report is not None else "by a callback"
            _log.warning("rejected %s code=%d: %s", printable(item.message.get("relPath")), code, why)

    def _offer_download(self, accepted: list[WorkItem]) -> list[WorkItem]:
        """Let callbacks fetch items in the flow's stead."""
        parts = self._parts
        if not parts.chain.has("download"):
            return accepted
        worklists = parts.chain.completed("download")
        if accepted:
            worklists += parts.chain.pass_on("download", Worklist(incoming=accepted))
        left = []
        for worklist in worklists:
            left += worklist.incoming
            worklist.incoming = []
            self._announce(worklist)
        return left

    def _work(self, accepted: list[WorkItem]) -> None:
        parts = self._parts
        confirmed, self._confirmed = self._confirmed, []
        more = self._progress or self.finished or parts.chain.has_completed
        timeout_s = 0.0 if more else _STOPPING_TICK_S if self.stopping else _TICK_S
        if parts.work is None:
            turn = Turn(Worklist(ok=accepted), confirmed)
            if not accepted and not confirmed:
                parts.wait(timeout_s)
        else:
            turn = parts.work.turn(accepted, confirmed, timeout_s)
        self._progress = bool(accepted)
        if turn.forgotten:
            parts.settlement.forget(turn.forgotten)
        if turn.answered:
            if self._config.delete:
                self._remove_sources(turn.answered)
            parts.chain.call("ack", turn.answered)
            parts.tally.answered(turn.answered)
            parts.settlement.answer(turn.answered)
        self._tell_of_parts(turn.parts)
        if turn.rested:
            self._rest(turn.rested)
            self._progress = True  # there is room for others now
        if turn.unfinished:
            self._give_back(turn.unfinished)
        if len(turn.worklist):
            self._announce(turn.worklist)
        for worklist in parts.chain.completed("after_work"):
            self._post(worklist)

    def _tell_of_parts(self, items: list[WorkItem]) -> None:
        """Tell callbacks of blocks that were written while others are awaited."""
        if not items or not self._parts.chain.has("on_part"):
            return
        for item in items:
            blocks = item.message.blocks
            assert blocks is not None
            item.report = Report(_PART, f"block {blocks.number} of {blocks.count} is written")
        self._parts.chain.call("on_part", items)
        for item in items:
            item.report = None  # it has not come to its end

    def _remove_sources(self, items: list[WorkItem]) -> None:
        for item in items:
            if is_local(item.message) and "fileOp" not in item.message:
                remove_local_source(item.message, self._config)

    def _announce(self, worklist: Worklist) -> None:
        for seen in self._parts.chain.pass_on("after_work", worklist):
            self._post(seen)

    def _post(self, worklist: Worklist) -> None:
        """Post what was done; dispose of the rest."""
        parts = self._parts
        worklist.failed += worklist.incoming  # moved there by a callback: there is nowhere to go from here
        if parts.work is not None:
            worklist.rejected = parts.work.withdraw(worklist.rejected)
            worklist.failed = parts.work.withdraw(worklist.failed)
        self._dispose(worklist)
        done = worklist.ok + worklist.directories_ok
        if not done:
            return
        parts.tally.done(done)
        if parts.chain.has("post"):
            parts.chain.call("post", worklist)
        if parts.outlet is None:
            self._after_post(done)
        else:
            parts.outlet.publish(done)

    def _collect_outcomes(self) -> None:
        parts = self._parts
        if parts.retries is not None:
            parts.settlement.acknowledged += parts.retries.collect(parts.tally.error)
        for worklist in parts.chain.completed("after_post"):
            self._confirmed += worklist
        if parts.outlet is None:
            return
        posted = parts.outlet.outcomes()
        if posted.unconfirmed:
            parts.tally.unconfirmed(posted.unconfirmed)
        if posted.confirmed:
            passing("confirmed")
            parts.tally.published(posted.confirmed)
            self._after_post(posted.confirmed)
        if posted.refused:
            # It is in place, and can never be announced in this dialect: settled, counted, reported.
            parts.tally.rejected(posted.refused)
            for item in posted.refused:
                why = item.report.message if item.report is not None else "refused"
                self._refuse_to_announce(item, why)
            self._confirmed += posted.refused

    def _after_post(self, items: list[WorkItem]) -> None:
        # It is announced: whatever a callback says now, the message is answered.
        for worklist in self._parts.chain.pass_on("after_post", Worklist(ok=items)):
            self._confirmed += worklist
        self._progress = True

    def _refuse_to_announce(self, item: WorkItem, why: str) -> None:
        what = printable(item.message.get("relPath"))
        _log.error("cannot be announced: %s: %s", what, why)
        self.refusals = [*self.refusals[1 - _REFUSALS_KEPT :], f"{what}: {why}"]

    def _keep(self, items: list[WorkItem]) -> None:
        """Let items be tried again later."""
        parts = self._parts
        if parts.retries is not None:
            items = self._defer(parts.retries, items)
        parts.tally.failed(items)
        for item in items:
            why = item.report.message if item.report is not None else "by a callback"
            if parts.kept is None:
                self._refuse_to_announce(item, why)
            else:
                name = printable(item.message.get("relPath"))
                _log.warning("failed %s: %s; it is tried again later", name, why)
        if parts.kept is None:
            return
        try:
            parts.settlement.retry_later(items)
        except NoSpace as error:
            parts.housekeeping.pause(error)
            self._give_back(items)

    def _defer(self, retries: BrokerRetry, items: list[WorkItem]) -> list[WorkItem]:
        """Let items wait at the broker that do, and return the others."""
        parts = self._parts
        deferred = retries.defer(items)
        parts.tally.deferred(deferred.waiting)
        for item in items:
            if item not in deferred.kept:
                why = item.report.message if item.report is not None else "by a callback"
                end = "given up after retry_ttl" if item in deferred.expired else "it waits at the broker"
                _log.warning("failed %s: %s; %s", printable(item.message.get("relPath")), why, end)
        parts.tally.expired(len(deferred.expired))
        parts.settlement.answer(deferred.expired)
        return deferred.kept

    def _rest(self, items: list[WorkItem]) -> None:
        """Keep blocks that wait for others."""
        try:
            self._parts.settlement.rest(items)
        except NoSpace as error:
            self._parts.housekeeping.pause(error)
            self._give_back(items)

    def _give_back(self, items: list[WorkItem]) -> None:
        """Let the broker, or the kept store, have messages back that were not brought to an end."""
        parts = self._parts
        parts.tally.requeued(sum(item.kept is None for item in items))
        try:
            parts.settlement.give_back(items)
        except NoSpace as error:
            # Their leases stay until this instance ends; then they are free for the others.
            _log.warning("kept messages stay with this instance until it ends: %s", error)

    def _tick(self) -> None:
        self._parts.housekeeping.tick(self._parts.work)

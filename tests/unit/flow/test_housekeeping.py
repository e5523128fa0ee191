"""Timed duties, with a real ledger and kept store and a clock that the test sets."""

from __future__ import annotations

import json
import os

import pytest

from sarrapipe.callbacks.base import FlowCallback
from sarrapipe.callbacks.chain import CallbackChain
from sarrapipe.errors import NoSpace
from sarrapipe.flow.brokerwatch import BrokerWatch
from sarrapipe.flow.housekeeping import Housekeeping
from sarrapipe.flow.intake import Intake
from sarrapipe.flow.settle import Settlement
from sarrapipe.flow.tally import Tally
from sarrapipe.ledger.kept import KeptMessage, KeptStore
from sarrapipe.ledger.ledger import Ledger
from sarrapipe.message.model import Message
from sarrapipe.message.worklist import Delivery, WorkItem
from sarrapipe.shm.ring import SLAB_BYTES, Ring
from sarrapipe.shm.slots import SLOT_SIZE, Counter, Phase, Slot

FIELDS = {"pubTime": "20240101T000000", "baseUrl": "http://h/", "relPath": "f"}


class SetClock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ns(self) -> int:
        return int((1_700_000_000 + self.now_s) * 1e9)

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class RecordingBroker:
    def __init__(self) -> None:
        self.acked: list[int] = []

    def ack(self, deliveries):
        self.acked += [delivery.tag for delivery in deliveries]

    def requeue(self, deliveries):
        raise AssertionError("nothing is given back here")


class HeldWork:
    """The items a test says are in hand."""

    def __init__(self) -> None:
        self.paused_by = None
        self.paused_at = ""
        self.held = 0
        self.inflight_bytes = 0
        self.streams = 0
        self.items: list[WorkItem] = []
        self.inherited: list[object] = []

    def held_since(self, before_s):
        return [item for item in self.items if item.since_s < before_s]

    def look_for_incomplete(self):
        return 0

    def inherit_orphan(self, generation):
        self.inherited.append(generation)

    def inherit_removal(self, path):
        self.inherited.append(path)

    def remove_litter(self, before_ns):
        return 0


class Figures(FlowCallback):
    calls = 0

    def on_housekeeping(self):
        type(self).calls += 1

    def metricsReport(self):
        return {"speed": 3}


class Stand:
    def __init__(self, config, directory) -> None:
        self.clock = SetClock()
        self.broker = RecordingBroker()
        self.slot = Slot(0, memoryview(bytearray(SLOT_SIZE)))
        self.slot.set_phase(Phase.RUNNING)
        self.ledger = Ledger.open(
            str(directory / "ledger"), incarnation=7, instance=1, clock=self.clock, boot="b"
        )
        self.kept = KeptStore.open(str(directory / "kept"), incarnation=7, clock=self.clock, rand=lambda: 0.0)
        self.ring = Ring.open(str(directory / "ring"), 4 * SLAB_BYTES, 7)
        self.work = HeldWork()
        self.intake = Intake([])
        settlement = Settlement(self.broker, self.kept, self.clock)
        self.housekeeping = Housekeeping(
            config,
            self.ledger,
            self.kept,
            settlement,
            CallbackChain([Figures(config)], 1.0, lambda: None, self.clock),
            Tally(self.slot, self.clock),
            self.intake,
            BrokerWatch(list),
            self.clock,
            keep_early_after_s=30,
            ring=self.ring,
        )

    def tick(self, seconds: float = 1.0) -> None:
        self.clock.now_s += seconds
        self.housekeeping.tick(self.work)

    def item(self, tag: int) -> WorkItem:
        fields = {**FIELDS, "relPath": f"f{tag}"}
        delivery = Delivery(json.dumps(fields).encode(), {}, None, "x", "v03", False, tag, "b", 1)
        item = WorkItem(Message(fields), delivery)
        item.since_s = self.clock.now_s
        return item

    def keep(self, key: bytes) -> None:
        message = KeptMessage(key, b"{}", {}, None, "x", "v03", attempts=1)
        self.kept.put_many([message], lease=False)


@pytest.fixture
def stand(flow_config, tmp_path):
    Figures.calls = 0
    made = Stand(flow_config("sarra", "housekeeping 300\nretry_ttl 1h"), tmp_path)
    yield made
    made.kept.close()
    made.ledger.close()
    made.ring.close()


def test_what_is_due_is_looked_for_once_a_second(stand):
    assert stand.housekeeping.take_due(10) == []
    stand.keep(b"1" * 16)
    assert stand.housekeeping.take_due(10) == [], "not before the next tick"
    stand.tick()
    assert [message.key for _, message in stand.housekeeping.take_due(10)] == [b"1" * 16]
    assert stand.slot.get(Counter.MESSAGES_RETRIED) == 1


def test_a_full_batch_means_that_there_may_be_more(stand):
    for number in range(5):
        stand.keep(bytes([number]) * 16)
    stand.tick()
    taken = [len(stand.housekeeping.take_due(2)) for _ in range(4)]
    assert taken == [2, 2, 1, 0]


def test_messages_in_hand_for_long_are_kept_and_acknowledged_once(stand):
    young, old = stand.item(1), stand.item(2)
    old.since_s -= 31
    gathered = WorkItem(Message(FIELDS))  # nothing brought it
    stand.work.items = [young, old, gathered]
    stand.tick()
    assert stand.broker.acked == [2]
    assert (old.kept is not None, young.kept) == (True, None)
    stand.tick()
    assert stand.broker.acked == [2]
    stand.tick(31)
    assert stand.broker.acked == [2, 1]
    assert stand.kept.count() == 2


def test_a_pause_ends_when_there_is_room(stand, tmp_path):
    stand.work.paused_by = NoSpace("disk full")
    stand.work.paused_at = str(tmp_path / "not/there/yet")
    stand.tick()
    assert stand.housekeeping.paused
    assert (stand.slot.phase, stand.slot.note) == (Phase.PAUSED, "disk full")
    assert stand.work.paused_by is None
    stand.tick()
    assert not stand.housekeeping.paused
    assert stand.slot.phase is Phase.RUNNING


def test_leases_of_those_who_are_gone_are_freed(stand, tmp_path):
    stand.keep(b"1" * 16)
    stand.tick()
    ((_, message),) = stand.housekeeping.take_due(1)
    assert message.lease == 7
    stand.housekeeping.deaths_reported()
    stand.tick()
    assert stand.kept.messages()[0].lease == 7, "this instance lives"
    stand.kept.close()
    # Another instance, which has never been known to the ledger as the first.
    stand.kept = KeptStore.open(str(tmp_path / "kept"), incarnation=8, clock=stand.clock)
    stand.kept.put_many([message._replace(key=b"2" * 16)], lease=True)
    stand.kept.close()
    stand.kept = stand.housekeeping._kept = KeptStore.open(
        str(tmp_path / "kept"), incarnation=7, clock=stand.clock
    )
    stand.housekeeping.deaths_reported()
    stand.tick()
    assert sorted((kept.key[:1], kept.lease) for kept in stand.kept.messages()) == [(b"1", 7), (b"2", 0)]


def test_slots_of_the_dead_are_taken_from_them_and_ones_own_are_not(stand, tmp_path):
    mine = stand.ring.take()
    with Ring.open(str(tmp_path / "ring"), 4 * SLAB_BYTES, 5) as dead:
        dead.take()
    assert stand.ring.owners() == {5, 7}
    stand.housekeeping.deaths_reported()
    stand.tick()
    assert stand.ring.owners() == {7}
    mine.give_back()
    assert stand.ring.in_use == 0


def test_a_round_gives_the_memory_of_idle_slots_back(stand, tmp_path):
    slab = stand.ring.take()
    slab.view[:] = b"x" * SLAB_BYTES
    slab.give_back()
    del slab
    held = os.stat(tmp_path / "ring").st_blocks * 512
    stand.tick(1)
    assert os.stat(tmp_path / "ring").st_blocks * 512 == held
    stand.tick(300)
    assert os.stat(tmp_path / "ring").st_blocks * 512 <= held - SLAB_BYTES


def test_a_round_asks_callbacks_and_gives_up_what_is_too_old(stand, caplog):
    caplog.set_level("INFO")
    stand.keep(b"1" * 16)
    stand.tick(10)
    assert Figures.calls == 0
    stand.tick(300)
    assert Figures.calls == 1
    assert "speed=3" in caplog.text
    assert stand.kept.count() == 1
    stand.tick(3600)
    assert stand.kept.count() == 0
    assert stand.slot.get(Counter.MESSAGES_EXPIRED) == 1
    assert "given up after retry_ttl 3600 s" in caplog.text

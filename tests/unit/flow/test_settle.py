"""Acknowledging and keeping, with a real kept store; what is sent to the broker is recorded."""

from __future__ import annotations

import json

import pytest

from sarrapipe.clock import SYSTEM_CLOCK
from sarrapipe.flow.settle import Settlement, as_delivered
from sarrapipe.ledger.kept import KeptStore
from sarrapipe.message.codec_v03 import decode
from sarrapipe.message.model import Message
from sarrapipe.message.worklist import Delivery, Report, WorkItem


class RecordingBroker:
    """Remembers the tags it was given."""

    def __init__(self) -> None:
        self.acked: list[int] = []
        self.requeued: list[int] = []

    def ack(self, deliveries):
        self.acked += [delivery.tag for delivery in deliveries]

    def requeue(self, deliveries):
        self.requeued += [delivery.tag for delivery in deliveries]


def make_item(tag: int) -> WorkItem:
    fields = {"pubTime": "20240101T000000", "baseUrl": "http://h/", "relPath": f"f{tag}"}
    body = json.dumps(fields).encode()
    delivery = Delivery(body, {"x": "é"}, "application/json", "xs_a", "v03.t", False, tag, "broker", 3)
    item = WorkItem(Message(fields), delivery)
    item.report = Report(499, f"reason {tag}")
    return item


@pytest.fixture
def broker():
    return RecordingBroker()


@pytest.fixture
def kept(tmp_path):
    with KeptStore.open(str(tmp_path / "kept"), incarnation=7, rand=lambda: 0.0) as store:
        yield store


@pytest.fixture
def settlement(broker, kept):
    return Settlement(broker, kept, SYSTEM_CLOCK)


def test_answered_items_are_acknowledged(settlement, broker, kept):
    settlement.answer([make_item(1), make_item(2)])
    assert broker.acked == [1, 2]
    assert (settlement.answered, settlement.acknowledged) == (2, 2)
    assert kept.count() == 0


def test_what_failed_is_kept_before_it_is_acknowledged(settlement, broker, kept):
    settlement.retry_later([make_item(1)])
    assert broker.acked == [1]
    (message,) = kept.messages()
    assert (message.exchange, message.routing_key) == ("xs_a", "v03.t")
    assert (message.headers, message.content_type) == ({"x": "é"}, "application/json")
    assert (message.attempts, message.lease, message.reason) == (1, 0, "reason 1")
    assert 0 < message.due_ns - SYSTEM_CLOCK.wall_ns() <= 10**9
    assert (settlement.answered, settlement.acknowledged) == (0, 1)


def test_a_kept_message_comes_back_like_a_delivery_and_is_forgotten_when_answered(settlement, broker, kept):
    settlement.retry_later([make_item(1)])
    (message,) = kept.messages()
    kept.put_many([message._replace(due_ns=0)], lease=False)
    ((delivery, due),) = settlement.take_due(10)
    assert settlement.take_due(10) == [], "leased"
    assert (delivery.body, delivery.exchange, delivery.redelivered) == (message.body, "xs_a", True)
    again = WorkItem(decode(delivery.body), delivery)
    again.kept = due.key
    settlement.retry_later([again])
    assert kept.messages()[0].attempts == 2
    assert broker.acked == [1], "there is nothing to be acknowledged the second time"
    settlement.answer([again])
    assert kept.count() == 0
    assert settlement.answered == 1


def test_what_is_kept_early_stays_in_hand(settlement, broker, kept):
    item = make_item(1)
    settlement.keep_early([item])
    assert broker.acked == [1]
    assert item.kept == kept.messages()[0].key
    assert kept.messages()[0].lease == 7
    assert settlement.take_due(10) == []
    settlement.answer([item])
    assert (kept.count(), broker.acked) == (0, [1])


def test_the_same_message_kept_twice_is_one(settlement, kept):
    settlement.retry_later([make_item(1)])
    settlement.retry_later([make_item(1)])
    assert kept.count() == 1


def test_what_is_given_back_goes_where_it_came_from(settlement, broker, kept):
    fresh, early = make_item(1), make_item(2)
    settlement.keep_early([early])
    settlement.give_back([fresh, early])
    assert (broker.acked, broker.requeued) == ([2], [1])
    (message,) = kept.messages()
    assert (message.lease, message.attempts) == (0, 0), "due at once, and no try is counted"
    assert [due.key for _, due in settlement.take_due(10)] == [early.kept]


def test_a_flow_that_receives_nothing_settles_without_a_store(broker):
    settlement = Settlement(broker, None, SYSTEM_CLOCK)
    settlement.answer([WorkItem(Message({}))])
    settlement.give_back([WorkItem(Message({}))])
    assert settlement.take_due(10) == []
    assert (broker.acked, broker.requeued) == ([], [])


def test_what_callbacks_gathered_can_be_kept(settlement, kept):
    fields = {"pubTime": "20240101T000000", "baseUrl": "http://h/", "relPath": "f", "x": [1]}
    item = WorkItem(Message(fields))
    item.delivery = as_delivered(item.message)
    settlement.retry_later([item])
    assert dict(decode(kept.messages()[0].body)) == fields

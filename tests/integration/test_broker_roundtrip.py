"""Publishing and consuming on a real RabbitMQ: what goes in comes out, once, and is acknowledged."""

from __future__ import annotations

import os
import threading
import time

import pytest
from broker_driver import Driver, empty, endpoint_of, numbered, outgoing, plain_get
from servers import MS, wait_until

from sarrapipe.broker.consumer import Consumer
from sarrapipe.broker.declare import declare_topology
from sarrapipe.broker.topology import Binding, ExchangeSpec, QueueSpec
from sarrapipe.errors import MessageError

pytestmark = pytest.mark.broker

QUEUE = QueueSpec(name="q_feeder.t", bindings=(Binding("xpublic", "v03.#"),))


@pytest.fixture
def driver():
    with Driver() as made:
        yield made


def declared(vhost, *queues):
    declare_topology(endpoint_of(vhost), queues or [QUEUE])


def test_everything_arrives_once_in_order_and_is_acknowledged(vhost, driver):
    endpoint = endpoint_of(vhost)
    consumer = driver.thread.consumer(endpoint, QUEUE, 100)
    driver.connected(consumer)
    publisher = driver.thread.publisher(endpoint, 100)
    bodies = [f"message {number}".encode() for number in range(1000)]
    outcomes = driver.publish(publisher, outgoing("xpublic", "v03.a.b", bodies))
    assert sorted(outcome.token for outcome in outcomes) == list(range(1000))
    assert all(outcome.confirmed and outcome.error is None for outcome in outcomes)
    deliveries = driver.take(consumer, 1000)
    assert [delivery.body for delivery in deliveries] == bodies
    first = deliveries[0]
    assert (first.exchange, first.routing_key) == ("xpublic", "v03.a.b")
    assert first.content_type == "application/json"
    assert (dict(first.headers), first.redelivered, first.broker) == ({}, False, endpoint.key)
    driver.until(lambda: consumer.acknowledged == 1000, "acknowledged")
    driver.thread.close(5.0)
    assert vhost.depth(QUEUE.name) == 0  # nothing came back when the channel went


def test_messages_not_acknowledged_come_back(vhost, driver):
    declared(vhost)
    driver.feed(vhost, [b"1", b"2", b"3"])
    consumer = driver.thread.consumer(endpoint_of(vhost), QUEUE, 10)
    taken = driver.take(consumer, 3, ack=False)
    consumer.ack(taken[1:2])
    driver.until(lambda: consumer.acknowledged == 1, "acknowledged")
    driver.thread.close(5.0)
    assert vhost.depth(QUEUE.name) == 2
    with Driver() as again:
        redelivered = again.take(again.thread.consumer(endpoint_of(vhost), QUEUE, 10), 2)
    assert [(each.body, each.redelivered) for each in redelivered] == [(b"1", True), (b"3", True)]


def test_properties_as_another_client_sees_them(vhost, driver):
    declared(vhost)
    publisher = driver.thread.publisher(endpoint_of(vhost), 10)
    v02 = {"headers": {"sum": "d,é", "parts": "1,2,1,0,0"}, "persistent": False, "expiration_ms": 60000}
    messages = numbered(
        outgoing("xpublic", "v03.a", [b"1"]), outgoing("xpublic", "v02.post.a", [b"2"], **v02)
    )
    messages[1].content_type = "text/plain"
    declared(vhost, QueueSpec(name=QUEUE.name, bindings=(Binding("xpublic", "v02.post.#"),)))
    driver.publish(publisher, messages)
    properties, body = plain_get(vhost, QUEUE.name)
    assert (body, properties.content_type, properties.delivery_mode) == (b"1", "application/json", 2)
    assert (properties.headers, properties.expiration) == ({}, None)
    properties, body = plain_get(vhost, QUEUE.name)
    assert (body, properties.content_type, properties.delivery_mode) == (b"2", "text/plain", 1)
    assert (properties.headers, properties.expiration) == ({"sum": "d,é", "parts": "1,2,1,0,0"}, "60000")


def test_two_consumers_share_a_queue_each_message_once(vhost, driver):
    # R48, R53
    declared(vhost)
    with Driver() as other:
        mine = driver.thread.consumer(endpoint_of(vhost), QUEUE, 10)
        theirs = other.thread.consumer(endpoint_of(vhost), QUEUE, 10)
        driver.connected(mine)
        other.connected(theirs)
        bodies = {f"{number}".encode() for number in range(400)}
        publisher = driver.thread.publisher(endpoint_of(vhost), 100)
        driver.publish(publisher, outgoing("xpublic", "v03.a", sorted(bodies)))
        seen = {id(mine): [], id(theirs): []}

        def step():
            for consumer in (mine, theirs):
                some = consumer.take(5)
                consumer.ack(some)
                seen[id(consumer)] += [delivery.body for delivery in some]
            return sum(map(len, seen.values())) == 400

        driver.until(step, "400 messages")
        assert sorted(seen[id(mine)] + seen[id(theirs)]) == sorted(bodies)
        assert all(seen.values())


def test_a_durable_queue_collects_while_nobody_consumes(vhost, driver):
    # R49
    with Driver() as first:
        first.connected(first.thread.consumer(endpoint_of(vhost), QUEUE, 10))
    outcomes = driver.feed(vhost, [b"meanwhile"])
    assert outcomes[0].confirmed
    taken = driver.take(driver.thread.consumer(endpoint_of(vhost), QUEUE, 10), 1)
    assert taken[0].body == b"meanwhile"


def test_bodies_of_several_frames(vhost, driver):
    consumer = driver.thread.consumer(endpoint_of(vhost), QUEUE, 10)
    driver.connected(consumer)
    bodies = [os.urandom(300_000), b"", os.urandom(131_064), os.urandom(131_065)]
    driver.feed(vhost, bodies)
    assert [delivery.body for delivery in driver.take(consumer, 4)] == bodies


def test_only_the_topic_bound_is_received(vhost, driver):
    # R13: the subtree, with `#` and `*` of directory names escaped as on the wire
    queue = QueueSpec(name="q_feeder.sub", bindings=(Binding("xpublic", "v03.a.*.c.#"),))
    consumer = driver.thread.consumer(endpoint_of(vhost), queue, 10)
    driver.connected(consumer)
    publisher = driver.thread.publisher(endpoint_of(vhost), 10)
    topics = ["v03.a.b.c", "v03.a.b.d", "v03.b.b.c", "v03.a.x%23y.c.d", "v02.a.b.c"]
    messages = [outgoing("xpublic", topic, [topic.encode()])[0] for topic in topics]
    driver.publish(publisher, messages)
    assert [delivery.body for delivery in driver.take(consumer, 2)] == [b"v03.a.b.c", b"v03.a.x%23y.c.d"]


def test_never_more_unacknowledged_than_prefetch(vhost, driver):
    declared(vhost)
    driver.feed(vhost, [b"x"] * 50)
    consumer = driver.thread.consumer(endpoint_of(vhost), QUEUE, 7)
    taken = driver.take(consumer, 7, ack=False)
    driver.turn(0.3)
    assert consumer.take(10) == []
    assert vhost.depth(QUEUE.name) == 43
    consumer.ack(taken[:3])
    driver.take(consumer, 3, ack=False)
    driver.turn(0.3)
    assert consumer.take(10) == []


def test_a_smaller_prefetch_gives_the_excess_to_others_and_a_larger_one_fetches_more(vhost, driver):
    declared(vhost)
    driver.feed(vhost, [b"x"] * 60)
    hoarder = driver.thread.consumer(endpoint_of(vhost), QUEUE, 60)
    driver.until(lambda: hoarder.waiting == 60, "60 arrived")
    started = hoarder.take(4)
    hoarder.set_prefetch(6)
    driver.until(lambda: vhost.depth(QUEUE.name) == 54, "54 given back")
    assert hoarder.waiting == 2
    with Driver() as other:
        sibling = other.thread.consumer(endpoint_of(vhost), QUEUE, 100)
        other.until(lambda: sibling.waiting == 54, "the sibling has them")
        hoarder.ack(started)
        driver.turn(0.2)
        other.thread.close(5.0)  # its 54 go back to the queue
    hoarder.set_prefetch(30)
    driver.until(lambda: hoarder.waiting == 30, "more is fetched")
    driver.turn(0.2)
    assert hoarder.waiting == 30


@pytest.mark.parametrize("told", [True, False], ids=["type in the configuration", "type unknown to us"])
def test_quorum_queues(vhost, driver, told):
    name = "q_feeder.quorum"
    bindings = (Binding("xpublic", "v03.#"),)
    declared(vhost, QueueSpec(name=name, queue_type="quorum", bindings=bindings))
    queue = (
        QueueSpec(name=name, queue_type="quorum", bindings=bindings)
        if told
        else QueueSpec(name=name, declare=False, passive=True)
    )
    consumer = driver.thread.consumer(endpoint_of(vhost), queue, 5)
    driver.connected(consumer)
    publisher = driver.thread.publisher(endpoint_of(vhost), 50)
    driver.publish(publisher, outgoing("xpublic", "v03.a", [b"x"] * 40))
    taken = driver.take(consumer, 5, ack=False)
    driver.turn(0.3)
    assert consumer.waiting == 0
    consumer.ack(taken)
    driver.until(lambda: consumer.waiting == 5, "the next five")
    consumer.set_prefetch(20)
    driver.until(lambda: consumer.waiting == 20, "twenty")
    consumer.set_prefetch(2)
    driver.until(lambda: consumer.waiting == 2, "two")
    driver.turn(0.3)
    assert consumer.waiting == 2
    driver.take(consumer, 35)
    driver.until(lambda: consumer.acknowledged == 40, "acknowledged")
    driver.thread.close(5.0)
    wait_until(lambda: vhost.depth(name) == 0, 10.0, "empty")


def test_pause_gives_back_what_was_not_started_and_resume_goes_on(vhost, driver):
    declared(vhost)
    publisher = driver.thread.publisher(endpoint_of(vhost), 100)
    driver.publish(publisher, outgoing("xpublic", "v03.a", [b"%d" % n for n in range(20)]))
    consumer = driver.thread.consumer(endpoint_of(vhost), QUEUE, 10)
    started = driver.take(consumer, 3, ack=False)
    consumer.pause()
    driver.until(lambda: vhost.depth(QUEUE.name) == 17, "given back")
    driver.publish(publisher, outgoing("xpublic", "v03.a", [b"20"]))
    assert consumer.take(10) == []
    consumer.ack(started)  # what runs is finished while paused
    driver.until(lambda: consumer.acknowledged == 3, "acknowledged while paused")
    consumer.resume()
    rest = driver.take(consumer, 18)
    assert sorted(int(each.body) for each in rest) == list(range(3, 21))


def test_pausing_again_and_again_hoards_nothing(vhost, driver):
    # What was taken before a pause counts against the prefetch after it.
    declared(vhost)
    driver.feed(vhost, [b"x"] * 40)
    consumer = driver.thread.consumer(endpoint_of(vhost), QUEUE, 5)
    driver.take(consumer, 3, ack=False)
    for _ in range(3):
        consumer.pause()
        driver.until(lambda: vhost.depth(QUEUE.name) == 37, "two given back")
        consumer.resume()
        driver.until(lambda: consumer.waiting == 2, "the rest of five")
        driver.turn(0.1)
        assert consumer.waiting == 2
    assert vhost.depth(QUEUE.name) == 35


def test_requeue_and_reject(vhost, driver):
    dead = QueueSpec(name="q_feeder.dead", bindings=(Binding("xdead", "#"),))
    queue = QueueSpec(
        name="q_feeder.live",
        bindings=(Binding("xpublic", "v03.#"),),
        arguments={"x-dead-letter-exchange": "xdead"},
    )
    declare_topology(endpoint_of(vhost), [dead, queue], [ExchangeSpec(name="xdead")])
    driver.feed(vhost, [b"1", b"2", b"3"])
    consumer = driver.thread.consumer(endpoint_of(vhost), queue, 10)
    one, two, three = driver.take(consumer, 3, ack=False)
    consumer.reject([two])
    consumer.requeue([one])
    again = driver.take(consumer, 1)[0]
    assert (again.body, again.redelivered) == (b"1", True)
    consumer.ack([three])
    driver.until(lambda: consumer.acknowledged == 2, "acknowledged")
    wait_until(lambda: vhost.depth(dead.name) == 1, 5.0, "dead letter")
    assert plain_get(vhost, dead.name)[1] == b"2"
    driver.thread.close(5.0)
    empty(vhost, queue.name)


def test_what_no_queue_takes_is_unconfirmed_when_mandatory(vhost, driver):
    declared(vhost)
    publisher = driver.thread.publisher(endpoint_of(vhost), 10, mandatory=True)
    messages = numbered(
        outgoing("xpublic", "v03.a", [b"0"]),
        outgoing("xpublic", "nobody.a", [b"same", b"same"]),
        outgoing("xpublic", "v03.a", [b"same"]),
    )
    outcomes = {outcome.token: outcome for outcome in driver.publish(publisher, messages)}
    assert [outcomes[number].confirmed for number in range(4)] == [True, False, False, True]
    unroutable = [outcome for outcome in outcomes.values() if not outcome.confirmed]
    assert all("no queue takes nobody.a" in str(outcome.error) for outcome in unroutable)
    assert vhost.depth(QUEUE.name) == 2


def test_what_amqp_cannot_carry_is_refused_and_the_rest_goes_out(vhost, driver):
    declared(vhost)
    publisher = driver.thread.publisher(endpoint_of(vhost), 10)
    messages = numbered(
        outgoing("xpublic", "v03.a", [b"good"]),
        outgoing("xpublic", "v03." + "é" * 126, [b"topic too long"]),
        outgoing("xpublic", "v03.a", [b"bad header"], headers={"x": object()}),
        outgoing("xpublic", "v03.a", [b"good too"]),
    )
    outcomes = {outcome.token: outcome for outcome in driver.publish(publisher, messages)}
    assert [outcomes[number].confirmed for number in range(4)] == [True, False, False, True]
    assert isinstance(outcomes[1].error, MessageError)
    assert isinstance(outcomes[2].error, MessageError)


def test_room_is_the_window_less_what_is_on_its_way(vhost, driver):
    publisher = driver.thread.publisher(endpoint_of(vhost), 8)
    assert publisher.room == 8  # before the first connection too: nothing is known against it
    publisher.publish(outgoing("xpublic", "v03.a", [b"x"] * 5))
    assert (publisher.room, publisher.in_flight) == (3, 5)
    seen = []
    driver.until(lambda: seen.extend(publisher.outcomes()) or len(seen) == 5, "confirmed")
    assert (publisher.room, publisher.in_flight) == (8, 0)


def test_two_brokers_in_one_thread(vhost, driver):
    # Two users stand for two brokers: connections, epochs and tags are apart.
    feeder, admin = endpoint_of(vhost), endpoint_of(vhost, "admin")
    queues = [QUEUE, QueueSpec(name="q_admin.t", bindings=(Binding("xpublic", "v03.#"),))]
    declared(vhost, *queues)
    driver.publish(driver.thread.publisher(feeder, 10), outgoing("xpublic", "v03.a", [b"1", b"2"]))
    consumers: list[Consumer] = [
        driver.thread.consumer(feeder, queues[0], 5),
        driver.thread.consumer(admin, queues[1], 5),
    ]
    deliveries = [each for consumer in consumers for each in driver.take(consumer, 2, ack=False)]
    assert {(each.broker, each.tag) for each in deliveries} == {
        (endpoint.key, tag) for endpoint in (feeder, admin) for tag in (1, 2)
    }
    driver.thread.ack(deliveries)
    driver.until(lambda: [each.acknowledged for each in consumers] == [2, 2], "each where it came from")
    driver.feed(vhost, [b"3"])
    third = [driver.take(consumer, 1, ack=False)[0] for consumer in consumers]
    driver.thread.requeue(third)
    again = [driver.take(consumer, 1)[0] for consumer in consumers]
    assert [(each.broker, each.redelivered) for each in again] == [(each.broker, True) for each in third]
    assert driver.thread.state(feeder).connected
    assert driver.thread.state(admin).connected


def test_the_main_loop_sleeps_until_something_happens(vhost, driver):
    consumer = driver.thread.consumer(endpoint_of(vhost), QUEUE, 5)
    driver.connected(consumer)

    def slept():
        started = time.monotonic()
        driver.turn(0.5)
        return time.monotonic() - started >= 0.45

    # Nothing happens: nothing wakes it, once the last of what belongs to connecting is over.
    wait_until(slept, 10, "a turn lasts as long as it may")
    publisher = driver.thread.publisher(endpoint_of(vhost), 5)
    publisher.publish(outgoing("xpublic", "v03.a", [b"x"]))
    started = time.monotonic()
    while not consumer.waiting:
        driver.turn(5.0)
    assert time.monotonic() - started < 4.0 * MS  # a turn that is not woken takes 5 s


def test_works_where_there_is_no_eventfd(vhost, monkeypatch):
    # R30
    monkeypatch.delattr(os, "eventfd")
    with Driver() as driver:
        consumer = driver.thread.consumer(endpoint_of(vhost), QUEUE, 5)
        driver.connected(consumer)
        driver.feed(vhost, [b"x"] * 20)
        assert len(driver.take(consumer, 20)) == 20


def test_close_waits_for_confirms_and_leaves_nothing(vhost):
    declared(vhost)
    threads = threading.active_count()
    descriptors = len(os.listdir("/proc/self/fd"))
    driver = Driver()
    driver.connected(driver.thread.consumer(endpoint_of(vhost), QueueSpec(name="q_feeder.other"), 5))
    publisher = driver.thread.publisher(endpoint_of(vhost), 500)
    publisher.publish(outgoing("xpublic", "v03.a", [b"x"] * 500))
    started = time.monotonic()
    driver.thread.close(5.0)
    assert time.monotonic() - started < 4.5 * MS  # of 5 s allowed
    outcomes = publisher.outcomes()
    assert len(outcomes) == 500
    assert all(outcome.confirmed for outcome in outcomes)
    assert vhost.depth(QUEUE.name) == 500
    assert threading.active_count() == threads
    driver.thread.close(5.0)  # twice does no harm
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_heartbeats_go_on_while_the_main_thread_is_busy(vhost, driver):
    endpoint = endpoint_of(vhost, heartbeat_s=2)
    consumer = driver.thread.consumer(endpoint, QUEUE, 5)
    publisher = driver.thread.publisher(endpoint, 5)
    driver.connected(consumer)
    driver.publish(publisher, outgoing("xpublic", "v03.a", [b"before"]))
    taken = driver.take(consumer, 1, ack=False)
    epochs = consumer.state.epoch, publisher.state.epoch
    deadline = time.monotonic() + 6.5  # the broker gives up after two heartbeats missed, 4 s
    while time.monotonic() < deadline:
        sum(range(10000))  # holds the interpreter's lock but for its switch interval
    consumer.ack(taken)
    driver.publish(publisher, outgoing("xpublic", "v03.a", [b"after"]))
    assert driver.take(consumer, 1)[0].body == b"after"
    assert (consumer.state.epoch, publisher.state.epoch) == epochs
    driver.until(lambda: consumer.acknowledged == 2, "acknowledged")
    assert consumer.stale == 0

"""A broker that refuses, closes and forgets: what is told, what is tried again, and that nothing is lost."""

from __future__ import annotations

import logging
import random
import socket
import time
from collections import Counter

import pytest
from broker_driver import CuttingProxy, Driver, empty, endpoint_of, numbered, outgoing
from servers import MS, wait_until

from sarrapipe.broker.declare import declare_topology
from sarrapipe.broker.topology import Binding, ExchangeSpec, QueueSpec
from sarrapipe.errors import BrokerError, TopologyError
from sarrapipe.pump.managementapi import segment
from sarrapipe.pump.ports import free_ports

pytestmark = pytest.mark.broker

QUEUE = QueueSpec(name="q_feeder.f", bindings=(Binding("xpublic", "v03.#"),))


@pytest.fixture
def driver():
    with Driver() as made:
        yield made


def kill_connections(vhost, role="", limit=100):
    """Have the broker close connections of this virtual host whose client's name ends in `role`."""
    killed = 0
    for row in vhost.api.get("/api/connections"):
        name = row.get("client_properties", {}).get("connection_name", "")
        if row.get("vhost") == vhost.name and name.endswith(role) and killed < limit:
            try:
                vhost.api.delete(f"/api/connections/{segment(row['name'])}")
                killed += 1
            except BrokerError:
                pass  # it went by itself
    return killed


def killed(vhost, role):
    wait_until(lambda: kill_connections(vhost, role), 10.0, f"a {role} connection to kill")


def permit(vhost, user, *, configure="", write="", read=""):
    vhost.api.put(
        f"/api/permissions/{vhost.quoted}/{user}", {"configure": configure, "write": write, "read": read}
    )


def test_a_killed_consumer_comes_back_with_a_new_epoch_and_stale_tags_are_dropped(vhost, driver):
    consumer = driver.thread.consumer(endpoint_of(vhost), QUEUE, 10)
    driver.connected(consumer)
    driver.feed(vhost, [b"1", b"2", b"3"])
    old = driver.take(consumer, 3, ack=False)
    epoch = consumer.state.epoch
    killed(vhost, "consume")
    driver.until(lambda: consumer.state.connected and consumer.state.epoch != epoch, "connected anew")
    new = driver.take(consumer, 3, ack=False)
    assert [(each.body, each.redelivered) for each in new] == [(b"1", True), (b"2", True), (b"3", True)]
    consumer.ack(old)  # tags 1 to 3 of a channel that is gone: they must not touch the new ones
    driver.turn(0.2)
    assert (consumer.stale, consumer.acknowledged) == (3, 0)
    consumer.ack(new[:2])
    driver.until(lambda: consumer.acknowledged == 2, "acknowledged")
    driver.thread.close(5.0)
    assert vhost.depth(QUEUE.name) == 1


def test_a_killed_publisher_reports_everything_unconfirmed_once(vhost, driver):
    declare_topology(endpoint_of(vhost), [QUEUE])
    publisher = driver.thread.publisher(endpoint_of(vhost), 100)
    driver.publish(publisher, outgoing("xpublic", "v03.a", [b"first"]))
    killed(vhost, "publish")
    driver.until(lambda: not publisher.state.connected, "noticed")
    assert publisher.room == 0  # stop admitting
    publisher.publish(outgoing("xpublic", "v03.a", [b"while away"] * 5))
    seen = []
    driver.until(lambda: seen.extend(publisher.outcomes()) or len(seen) == 5, "outcomes")
    assert not any(outcome.confirmed for outcome in seen)
    assert all(isinstance(outcome.error, BrokerError) for outcome in seen)
    driver.until(lambda: publisher.room == 100, "connected again")
    assert driver.publish(publisher, outgoing("xpublic", "v03.a", [b"after"]))[0].confirmed


def test_a_deleted_queue_is_declared_and_bound_again(vhost, driver):
    consumer = driver.thread.consumer(endpoint_of(vhost), QUEUE, 10)
    driver.connected(consumer)
    epoch = consumer.state.epoch
    vhost.api.delete(f"/api/queues/{vhost.quoted}/{QUEUE.name}")
    driver.until(lambda: consumer.state.connected and consumer.state.epoch != epoch, "consumed again")
    assert vhost.bindings(QUEUE.name) == {("xpublic", "v03.#")}
    driver.feed(vhost, [b"after"])
    assert driver.take(consumer, 1)[0].body == b"after"


def test_a_deleted_queue_that_is_not_ours_is_waited_for(vhost, driver):
    declare_topology(endpoint_of(vhost), [QUEUE])
    theirs = QueueSpec(name=QUEUE.name, declare=False, bind=False, passive=True)
    consumer = driver.thread.consumer(endpoint_of(vhost), theirs, 10)
    driver.connected(consumer)
    vhost.api.delete(f"/api/queues/{vhost.quoted}/{QUEUE.name}")
    driver.until(lambda: "404" in str(consumer.state.last_error), "told that it is missing")
    assert QUEUE.name in str(consumer.state.last_error)
    declare_topology(endpoint_of(vhost), [QUEUE])
    driver.connected(consumer)


def test_permissions_withdrawn_and_restored(vhost, driver):
    # design.md 3: a closed channel means unconfirmed, back off, permissions come back.
    declare_topology(endpoint_of(vhost), [QUEUE])
    user, everything = "tsource", {"configure": ".*", "write": ".*", "read": ".*"}
    permit(vhost, user, **everything)
    endpoint = endpoint_of(vhost, user)
    consumer = driver.thread.consumer(endpoint, QueueSpec(name=QUEUE.name, declare=False, bind=False), 5)
    publisher = driver.thread.publisher(endpoint, 10)
    assert driver.publish(publisher, outgoing("xpublic", "v03.a", [b"1"]))[0].confirmed
    driver.take(consumer, 1)
    epoch = publisher.state.epoch
    permit(vhost, user)  # nothing any more; open channels remember what they were allowed
    killed(vhost, "consume")
    killed(vhost, "publish")
    driver.until(lambda: publisher.state.epoch != epoch and publisher.room, "connected: needs no permission")
    outcome = driver.publish(publisher, outgoing("xpublic", "v03.a", [b"2"]))[0]
    assert not outcome.confirmed
    assert "403 ACCESS_REFUSED" in str(outcome.error)
    assert "xpublic" in str(outcome.error)
    driver.until(lambda: "403 ACCESS_REFUSED" in str(consumer.state.last_error), "refused")
    state = driver.thread.state(endpoint)
    assert not state.connected
    assert "403" in str(state.last_error)
    permit(vhost, user, **everything)
    confirmed = []

    def retry():
        if publisher.room and not publisher.in_flight:
            publisher.publish(outgoing("xpublic", "v03.a", [b"2"]))
        confirmed.extend(outcome for outcome in publisher.outcomes() if outcome.confirmed)
        return confirmed

    driver.until(retry, "confirmed after all")
    assert driver.take(consumer, 1)[0].body == b"2"


def test_an_exchange_that_is_missing_then_there(vhost, driver):
    publisher = driver.thread.publisher(endpoint_of(vhost), 10)
    outcome = driver.publish(publisher, outgoing("xlater", "v03.a", [b"1"]))[0]
    assert not outcome.confirmed
    assert "404 NOT_FOUND" in str(outcome.error)
    assert "xlater" in str(outcome.error)
    declare_topology(endpoint_of(vhost), exchanges=[ExchangeSpec(name="xlater")])
    driver.until(lambda: publisher.room, "channel opened again")
    assert driver.publish(publisher, outgoing("xlater", "v03.a", [b"1"]))[0].confirmed


def test_a_publisher_declares_its_exchange(vhost, driver):
    # wire.md 4: exchanges are declared by publishers
    publisher = driver.thread.publisher(
        endpoint_of(vhost), 10, exchanges=[ExchangeSpec(name="xs_feeder_new")]
    )
    assert driver.publish(publisher, outgoing("xs_feeder_new", "v03.a", [b"1"]))[0].confirmed


def test_a_full_queue_says_no(vhost, driver):
    queue = QueueSpec(
        name="q_feeder.full",
        bindings=(Binding("xpublic", "v03.#"),),
        arguments={"x-max-length": 3, "x-overflow": "reject-publish"},
    )
    declare_topology(endpoint_of(vhost), [queue])
    publisher = driver.thread.publisher(endpoint_of(vhost), 20)
    outcomes = driver.publish(publisher, outgoing("xpublic", "v03.a", [b"x"] * 10))
    refused = [outcome for outcome in outcomes if not outcome.confirmed]
    assert len(refused) == 7
    assert all("did not take" in str(outcome.error) for outcome in refused)
    assert vhost.depth(queue.name) == 3
    assert publisher.state.connected


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"durable": False}, "durable"),
        ({"expires_ms": 5000}, "set expire "),
        ({"arguments": {"x-max-length": 5}}, "x-max-length"),
    ],
)
def test_a_queue_with_other_properties_needs_a_person(vhost, driver, changes, told):
    declare_topology(endpoint_of(vhost), [QUEUE])
    other = QueueSpec(name=QUEUE.name, bindings=QUEUE.bindings, **changes)
    consumer = driver.thread.consumer(endpoint_of(vhost), other, 5)
    driver.until(lambda: consumer.state.last_error, "told")
    error = consumer.state.last_error
    assert isinstance(error, TopologyError)
    assert told in str(error)
    assert QUEUE.name in str(error)
    with pytest.raises(TopologyError, match=QUEUE.name):
        declare_topology(endpoint_of(vhost), [other])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"password": "wrong-pw-31337"}, "refuses this user or password"),
        ({"user": "noone", "password": "wrong-pw-31337"}, "refuses this user or password"),
        ({"vhost": "no such vhost"}, "vhost"),
        ({"login": "EXTERNAL"}, "login"),
        ({"port": 0}, "Connection refused"),
        ({"host": "no-such-host.invalid"}, "n"),
        ({"scheme": "amqps", "tls_rigour": "lax"}, "amqps"),
    ],
    ids=["password", "user", "vhost", "login", "port", "host", "tls on a plain port"],
)
def test_who_may_not_or_cannot_connect_is_told_why(vhost, driver, caplog, changes, told):
    if changes.get("port") == 0:
        changes = {"port": free_ports(1)[0]}
    endpoint = endpoint_of(vhost, **changes)
    with caplog.at_level(logging.DEBUG):
        consumer = driver.thread.consumer(endpoint, QUEUE, 5)
        publisher = driver.thread.publisher(endpoint, 5)
        outcomes = driver.publish(publisher, outgoing("xpublic", "v03.a", [b"x"]))
        driver.until(lambda: consumer.state.last_error, "told")
    assert not outcomes[0].confirmed
    for error in (consumer.state.last_error, outcomes[0].error):
        assert isinstance(error, BrokerError)
        assert endpoint.key in str(error)
        assert told in str(error)
    assert "next attempt in" in caplog.text  # every warning says what happens next
    assert endpoint.password not in caplog.text + str(consumer.state) + repr(outcomes)


def test_a_server_that_accepts_and_says_nothing_is_given_up(driver, vhost):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = endpoint_of(vhost, port=silent.getsockname()[1], connect_timeout_s=1.0)
        consumer = driver.thread.consumer(endpoint, QUEUE, 5)
        driver.until(lambda: consumer.state.last_error, "given up", timeout_s=15.0)
        assert "no answer in time" in str(consumer.state.last_error)


def test_closing_does_not_hang_on_a_silent_server(vhost):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        driver = Driver()
        driver.thread.consumer(endpoint_of(vhost, port=silent.getsockname()[1]), QUEUE, 5)
        driver.turn(0.3)
        started = time.monotonic()
        driver.thread.close(2.0)
        assert time.monotonic() - started < 2 + 3 * MS


def test_nothing_is_lost_or_acknowledged_twice_while_connections_die(vhost):
    # design.md 2, guarantee 1, as far as the broker package reaches: at least once, and stale tags unused.
    count, seed = 4000, random.randrange(2**32)
    rng = random.Random(seed)
    declare_topology(endpoint_of(vhost), [QUEUE])
    with CuttingProxy(vhost.pump.amqp_port) as proxy:
        _soak(vhost, proxy, count, rng, seed)
        assert proxy.cuts >= 5
    empty(vhost, QUEUE.name)


def _soak(vhost, proxy, count, rng, seed):
    with Driver() as driver:
        endpoint = endpoint_of(vhost, port=proxy.port)
        publisher = driver.thread.publisher(endpoint, 50)
        consumer = driver.thread.consumer(endpoint, QUEUE, 40)
        to_publish = numbered(outgoing("xpublic", "v03.a", [b"%d" % number for number in range(count)]))
        by_token = {message.token: message for message in to_publish}
        confirmed, received, acknowledged, held = set(), set(), Counter(), []
        errors = set()
        next_cut = 200

        def step():
            nonlocal next_cut
            # Between attempts there is nothing to cut; cutting each new one would only test the back-off.
            up = publisher.state.connected and consumer.state.connected
            if up and len(received) >= next_cut:
                next_cut = len(received) + rng.randrange(300, 600)
                proxy.cut(rng.randrange)
            ahead = len(confirmed) - len(received)  # so that both are at work whenever one is cut
            batch = to_publish[: min(publisher.room, 10)] if ahead < 100 else []
            if batch:
                del to_publish[: len(batch)]
                publisher.publish(batch)
            for outcome in publisher.outcomes():
                if outcome.confirmed:
                    confirmed.add(outcome.token)
                else:
                    to_publish.append(by_token[outcome.token])
            held.extend(consumer.take(20))
            rng.shuffle(held)
            done = [held.pop() for _ in range(rng.randint(0, len(held)))]
            consumer.ack(done)
            acknowledged.update((each.epoch, each.tag) for each in done)
            received.update(int(each.body) for each in done)
            errors.add(str(consumer.state.last_error))
            time.sleep(0.002)  # the work
            return len(confirmed) == count and len(received) == count and not held

        driver.until(step, f"{count} messages (seed {seed})", timeout_s=60.0)
        assert max(acknowledged.values()) == 1
        assert not any("unknown delivery tag" in error for error in errors), errors

        def drained():  # of what was published twice because its confirm was lost
            some = consumer.take(50)
            consumer.ack(some)
            return not some and not vhost.depth(QUEUE.name)

        driver.until(drained, "no leftovers")

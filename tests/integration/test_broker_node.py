"""What a whole node does: vanish, run out of memory, end slow consumers, speak TLS. On a node of our own."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
import servers
from broker_driver import CuttingProxy, Driver, empty, endpoint_of, numbered, outgoing
from servers import MS, PumpGuard, wait_until

from sarrapipe.broker.deadletter import retry_queues
from sarrapipe.broker.declare import declare_topology
from sarrapipe.broker.topology import Binding, QueueSpec
from sarrapipe.errors import BrokerError
from sarrapipe.pump.localpump import LocalPump, PumpOptions

pytestmark = pytest.mark.broker

QUEUE = QueueSpec(name="q_feeder.n", bindings=(Binding("xpublic", "v03.#"),))
CONSUMER_TIMEOUT_S = 4.0


@pytest.fixture(scope="module")
def node():
    """A pump of this module's own: it will be killed, starved and hurried."""
    servers.pump_or_skip()
    guard = PumpGuard(PumpOptions(tls=True, consumer_timeout_s=CONSUMER_TIMEOUT_S))
    try:
        yield guard.start()
    finally:
        guard.stop()


@pytest.fixture
def vhost(node):
    made = servers.make_vhost(node)
    yield made
    servers.drop_vhost(made)


@pytest.fixture
def driver():
    with Driver() as made:
        yield made


def node_pid(node):
    pid = LocalPump(node.directory).status().running["rabbitmq"]
    assert pid is not None
    return pid


def rabbitmqctl(node, *arguments):
    """RabbitMQ's own tool, in the environment of the node it is to command."""
    environment = dict(
        pair.split("=", 1)
        for pair in Path(f"/proc/{node_pid(node)}/environ").read_text().split("\0")
        if "=" in pair and pair.split("=", 1)[0].startswith(("RABBITMQ_", "ERL_EPMD", "HOME", "PATH", "LANG"))
    )
    program = Path("/usr/lib/rabbitmq/bin/rabbitmqctl")
    subprocess.run([program, *arguments], env=environment, check=True, capture_output=True, timeout=60 * MS)


def test_publishing_waits_while_the_broker_is_out_of_memory(node, vhost, driver, caplog):
    declare_topology(endpoint_of(vhost), [QUEUE])
    # Longer than rabbitmqctl takes on a busy machine, as "held 3" is to outlive one call of it.
    publisher = driver.thread.publisher(endpoint_of(vhost), 20, blocked_timeout_s=4)
    consumer = driver.thread.consumer(endpoint_of(vhost), QUEUE, 5)
    driver.publish(publisher, outgoing("xpublic", "v03.a", [b"before"]))
    driver.take(consumer, 1)
    rabbitmqctl(node, "set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        # RabbitMQ says so to a connection when it publishes.
        publisher.publish(outgoing("xpublic", "v03.a", [b"in the broker's socket"]))
        driver.until(lambda: publisher.state.blocked, "blocked")
        assert publisher.room == 0
        assert driver.thread.state(endpoint_of(vhost)).blocked
        held = numbered(outgoing("xpublic", "v03.a", [b"held 1", b"held 2"]))
        publisher.publish(held)
        seen = []
        driver.until(lambda: seen.extend(publisher.outcomes()) or len(seen) == 2, "given up after 4 s")
        assert [(outcome.token, outcome.confirmed) for outcome in seen] == [(0, False), (1, False)]
        assert "blocked for" in str(seen[0].error)
        assert publisher.in_flight == 1  # what the broker has in its socket is not given up
        publisher.publish(numbered(outgoing("xpublic", "v03.a", [b"held 3"])))
    finally:
        rabbitmqctl(node, "set_vm_memory_high_watermark", "0.4")
    driver.until(lambda: not publisher.state.blocked, "unblocked")
    driver.until(lambda: seen.extend(publisher.outcomes()) or len(seen) == 4, "the rest is confirmed")
    assert [outcome.confirmed for outcome in seen[2:]] == [True, True]
    bodies = {delivery.body for delivery in driver.take(consumer, 2)}
    assert bodies == {b"in the broker's socket", b"held 3"}  # each once, what was given up not at all
    assert "publishing waits" in caplog.text


def test_a_message_held_longer_than_consumer_timeout(vhost, driver):
    # Issue 2, point 4: the broker closes the channel; a new epoch gets the message again.
    declare_topology(endpoint_of(vhost), [QUEUE])
    driver.feed(vhost, [b"slow", b"next"])
    consumer = driver.thread.consumer(endpoint_of(vhost), QUEUE, 1)
    slow = driver.take(consumer, 1, ack=False)[0]
    epoch = consumer.state.epoch
    driver.until(lambda: consumer.state.last_error, "timed out", timeout_s=4 * CONSUMER_TIMEOUT_S)
    assert "timed out" in str(consumer.state.last_error)
    again = driver.take(consumer, 1)[0]
    assert (again.body, again.redelivered) == (b"slow", True)
    assert again.epoch > epoch
    consumer.ack([slow])
    assert consumer.stale == 1
    assert driver.take(consumer, 1)[0].body == b"next"
    driver.thread.close(5.0)
    empty(vhost, QUEUE.name)


def test_nothing_confirmed_is_lost_when_the_broker_is_killed(node, vhost):
    # design.md 2, guarantee 1: kill -9 of the broker
    declare_topology(endpoint_of(vhost), [QUEUE])
    count = 600
    with Driver() as driver:
        publisher = driver.thread.publisher(endpoint_of(vhost), 50)
        consumer = driver.thread.consumer(endpoint_of(vhost), QUEUE, 20)
        todo = numbered(outgoing("xpublic", "v03.a", [b"%d" % number for number in range(count)]))
        by_token = {message.token: message for message in todo}
        confirmed, received = set(), set()
        reviver = None
        restarted = threading.Event()

        def revive():
            os.kill(node_pid(node), signal.SIGKILL)
            wait_until(lambda: LocalPump(node.directory).status().running["rabbitmq"] is None, 10, "dead")
            LocalPump(node.directory).up()
            restarted.set()

        def step():
            nonlocal reviver
            batch = todo[: min(publisher.room, 5)]
            del todo[: len(batch)]
            publisher.publish(batch)
            for outcome in publisher.outcomes():
                if outcome.confirmed:
                    confirmed.add(outcome.token)
                else:
                    todo.append(by_token[outcome.token])
            deliveries = consumer.take(3)
            consumer.ack(deliveries)
            received.update(int(delivery.body) for delivery in deliveries)
            if reviver is None and len(received) > count // 3:
                reviver = threading.Thread(target=revive)
                reviver.start()
            return len(confirmed) == count and len(received) == count and restarted.is_set()

        driver.until(step, f"all {count} messages across a restart", timeout_s=90.0)
        reviver.join()

        def drained():  # of what was published again because the kill took its confirm
            some = consumer.take(50)
            consumer.ack(some)
            return not some and not vhost.depth(QUEUE.name)

        driver.until(drained, "no leftovers")
    empty(vhost, QUEUE.name)


@pytest.mark.slow
def test_what_waits_at_the_broker_outlives_it(node, vhost):
    """`retry_driver broker`: killed while messages are dead-lettered back to the queue they came from."""
    queues = retry_queues(QUEUE.name, 2.0)
    declare_topology(endpoint_of(vhost), [QUEUE])
    count = 2000
    with Driver() as driver:
        publisher = driver.thread.publisher(endpoint_of(vhost), count, queues=queues, mandatory=True)
        bodies = [b"%d" % number for number in range(count)]
        outcomes = driver.publish(publisher, outgoing("", queues[0].name, bodies))
        assert all(outcome.confirmed for outcome in outcomes)
        wait_until(lambda: vhost.depth(QUEUE.name), 30, "the first come back")
        os.kill(node_pid(node), signal.SIGKILL)
        wait_until(lambda: LocalPump(node.directory).status().running["rabbitmq"] is None, 10, "dead")
        LocalPump(node.directory).up()
        consumer = driver.thread.consumer(endpoint_of(vhost), QUEUE, 100)
        received = set()

        def drained():
            deliveries = consumer.take(100)
            consumer.ack(deliveries)
            received.update(delivery.body for delivery in deliveries)
            return len(received) == count and not vhost.depth(queues[0].name)

        driver.until(drained, "all have come back", timeout_s=60.0)
    assert received == set(bodies)


def tls(node, vhost, **changes):
    settings = {"scheme": "amqps", "port": node.amqps_port, "ca_file": node.authority} | changes
    return endpoint_of(vhost, **settings)


@pytest.mark.parametrize(
    "changes",
    [{}, {"tls_rigour": "strict"}, {"tls_rigour": "lax", "ca_file": None}, {"host": "localhost"}],
    ids=["normal", "strict", "lax without the authority", "by name"],
)
def test_tls(node, vhost, driver, changes):
    endpoint = tls(node, vhost, **changes)
    consumer = driver.thread.consumer(endpoint, QUEUE, 50)
    driver.connected(consumer)
    publisher = driver.thread.publisher(endpoint, 50)
    bodies = [b"small", os.urandom(200_000)] * 20
    outcomes = driver.publish(publisher, outgoing("xpublic", "v03.a", bodies))
    assert all(outcome.confirmed for outcome in outcomes)
    assert [delivery.body for delivery in driver.take(consumer, 40)] == bodies
    declare_topology(endpoint, [QUEUE])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ca_file": None}, "certificate is not accepted"),
        ({"host": "127.0.0.2"}, "certificate is not accepted"),
        ({"ca_file": None, "tls_rigour": "strict"}, "certificate is not accepted"),
    ],
    ids=["unknown authority", "another host", "strict"],
)
def test_tls_that_cannot_be_trusted(node, vhost, driver, caplog, changes, told):
    if changes.get("host"):
        with CuttingProxy(node.amqps_port, host="127.0.0.2") as proxy:
            _refused(driver, tls(node, vhost, port=proxy.port, **changes), told, caplog)
    else:
        _refused(driver, tls(node, vhost, **changes), told, caplog)


def _refused(driver, endpoint, told, caplog):
    with caplog.at_level(logging.DEBUG):
        consumer = driver.thread.consumer(endpoint, QUEUE, 5)
        driver.until(lambda: consumer.state.last_error, "refused")
    assert told in str(consumer.state.last_error)
    assert endpoint.password not in caplog.text
    with pytest.raises(BrokerError, match=told):
        declare_topology(endpoint, [QUEUE])


def test_an_ipv6_address(node, vhost, driver):
    # R32
    try:
        proxy = CuttingProxy(node.amqps_port, host="::1")
    except OSError:
        servers.missing("IPv6 on loopback")
    with proxy:
        endpoint = tls(node, vhost, host="[::1]", port=proxy.port)
        assert "[::1]" in endpoint.key
        consumer = driver.thread.consumer(endpoint, QUEUE, 5)
        driver.connected(consumer)
        driver.feed(vhost, [b"over IPv6"])
        assert driver.take(consumer, 1)[0].body == b"over IPv6"


def test_amqplain(vhost, driver):
    consumer = driver.thread.consumer(endpoint_of(vhost, login="AMQPLAIN"), QUEUE, 5)
    driver.connected(consumer)


def test_a_stopping_broker_is_waited_for(node, vhost, driver, caplog):
    # An orderly stop: 320 CONNECTION_FORCED; the flow is told, and is back when the broker is.
    consumer = driver.thread.consumer(endpoint_of(vhost), QUEUE, 5)
    driver.connected(consumer)
    rabbitmqctl(node, "stop_app")
    rabbitmqctl(node, "start_app")
    assert "320 CONNECTION_FORCED" in caplog.text
    started = time.monotonic()
    driver.connected(consumer)
    assert time.monotonic() - started < 20 * MS

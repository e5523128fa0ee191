"""Brokers that refuse, vanish and come back; queues that are not what they should be."""

from __future__ import annotations

import json
import operator
import threading
import time
from functools import partial

import pika
import pytest
from broker_driver import CuttingProxy
from flowkit import SOURCE_EXCHANGE, Site
from standins import SlowServer, StandIn

from sarrapipe.config.problems import ConfigErrors
from sarrapipe.errors import TopologyError
from sarrapipe.pump.managementapi import segment
from sarrapipe.shm.slots import Counter, Phase

pytestmark = pytest.mark.broker


class GatedServer(StandIn):
    """Answers when it is told to."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self.gate = threading.Event()

    def answer(self, handler, headers):
        self.gate.wait(20)
        super().answer(handler, headers)


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


def announce_many(site, count, start=0):
    names = [f"d{number % 5}/f{number}" for number in range(start, start + count)]
    for name in names:
        site.announce(name, name.encode())
    return sorted(names)


def through(site, proxy):
    """Let the flows of a site reach the broker through a proxy only."""
    pump = site.vhost.pump
    text = (site.directory / "config/credentials.conf").read_text()
    site.credentials(text + text.replace(f":{pump.amqp_port}/", f":{proxy.port}/"))
    url = site.vhost.url("feeder", password=False).replace(f":{pump.amqp_port}/", f":{proxy.port}/")
    return f"broker {url}\nexchange {SOURCE_EXCHANGE}\nsubtopic #\npost_broker {url}"


def test_a_wrong_password_is_told_and_tried_again(site):
    pump = site.vhost.pump
    good = site.directory / "config/credentials.conf"
    text = good.read_text()
    site.credentials(text.replace(pump.users["feeder"].password, "wrong"))
    flow = site.run(wait=False)
    flow.until(lambda: flow.slot.phase is Phase.CONNECTING, "it says that it is not connected")
    assert "the broker refuses this user or password" in flow.slot.note
    assert "wrong" not in flow.slot.note
    assert flow.count(Counter.ERRORS_BROKER) >= 1
    assert flow.count(Counter.GAUGE_BROKERS_WANTED) == 1
    assert flow.count(Counter.GAUGE_BROKERS_CONNECTED) == 0


def test_a_queue_with_other_properties_ends_the_flow(site):
    config = site.config("sarra")
    with site.vhost.connect("admin") as connection:
        connection.channel().queue_declare(
            config.subscriptions[0].queue_name, durable=False, auto_delete=True
        )
        flow = site.start(config, wait=False)
        with pytest.raises(TopologyError, match=r"q_feeder\.sarra\.t.*durable"):
            flow.until(lambda: False, "it ends", 10)
        assert flow.count(Counter.ERRORS_TOPOLOGY) == 1
        flow.close(stop=False)


def test_two_brokers_of_which_one_is_cut_off(site):
    """The other goes on, and each delivery is acknowledged where it came from."""
    names = [f"f{number}" for number in range(30)]
    with CuttingProxy(site.vhost.pump.amqp_port) as proxy:
        other = through(site, proxy).replace(f"exchange {SOURCE_EXCHANGE}", "exchange xs_tother")
        own = site.vhost.url("feeder", password=False)
        with site.vhost.connect("admin") as connection:
            connection.channel().exchange_declare("xs_tother", "topic", durable=True)
        lines = other.partition("\npost_broker")[0] + f"\nqueueName q_feeder.other\npost_broker {own}"
        flow = site.run(lines=lines)
        assert len(flow.assembled.consumers) == 2
        for name in names:
            site.put(name, name.encode())
        site.publish_all(site.fields(name, name.encode()) for name in names[:10])
        flow.until_settled(10)
        cuts = proxy.cuts
        proxy.cut(lambda _: 0)
        flow.until(lambda: proxy.cuts > cuts, "one is cut off")
        site.publish_all(site.fields(name, name.encode()) for name in names[10:20])
        for name in names[20:]:
            site.publish(site.fields(name, name.encode()), exchange="xs_tother")
        flow.until(lambda: len(site.files()) == 30, "all files came", 30)
        flow.until_settled(30)
        site.assert_clean(flow)


def test_an_exchange_with_other_properties_ends_the_flow(site):
    with site.vhost.connect("admin") as connection:
        connection.channel().exchange_declare("xother", "fanout", durable=True)
    flow = site.run(lines="post_exchange xother")
    site.announce("f", b"data")
    with pytest.raises(TopologyError, match="xother"):
        flow.until(lambda: False, "it ends", 10)
    flow.close(stop=False)


def test_no_permission_to_publish_is_waited_for(site):
    """Permissions come back: what was fetched stays, and is announced then."""
    api, vhost = site.vhost.api, site.vhost.quoted
    tap = site.tap()
    flow = site.run()
    api.put(f"/api/permissions/{vhost}/feeder", {"configure": ".*", "write": "^q_", "read": ".*"})
    site.announce("f", b"data")
    flow.until_counted(Counter.MESSAGES_UNCONFIRMED)
    assert flow.assembled.settlement.acknowledged == 0
    flow.until(lambda: flow.slot.phase is Phase.CONNECTING, "it says what it waits for")
    assert "xpublic" in flow.slot.note
    api.put(f"/api/permissions/{vhost}/feeder", {"configure": ".*", "write": ".*", "read": ".*"})
    flow.until_settled(1)
    assert tap.paths() == ["f"]
    flow.until(lambda: flow.slot.phase is Phase.RUNNING, "it says that it runs")
    site.assert_clean(flow)


def test_connections_cut_again_and_again(site):
    with CuttingProxy(site.vhost.pump.amqp_port) as proxy:
        tap = site.tap()
        flow = site.run(lines=through(site, proxy) + "\nnodupe_ttl 300\nprefetch 10")
        names = announce_many(site, 100)
        for number in range(4):
            flow.until_counted(Counter.FILES_OK, 20 * (number + 1), 30)
            proxy.cut(partial(operator.mod, number))
        flow.until(lambda: len(site.files()) >= 105, "all files are there", 30)
        queue = flow.config.subscriptions[0].queue_name
        flow.until(lambda: not flow.flow.in_hand and site.depth(queue) == 0, "all are answered", 30)
        assert proxy.cuts == 4
        flow.close()
    announced = tap.paths()
    assert sorted(set(announced)) == names, "each is announced, a few perhaps twice"
    assert flow.count(Counter.MESSAGES_DUPLICATE) == 0, "a redelivery is not its own duplicate"
    assert flow.count(Counter.BROKER_CONNECTS) >= 1


def test_what_is_in_place_and_not_announced_is_announced_by_the_next_start(site):
    """The broker to announce at is away: what was fetched is not fetched again when it is back."""
    tap = site.tap()
    port = site.vhost.pump.amqp_port
    with CuttingProxy(port) as proxy:
        away = proxy.port
    text = (site.directory / "config/credentials.conf").read_text()
    site.credentials(text + text.replace(f":{port}/", f":{away}/"))
    url = site.vhost.url("feeder", password=False).replace(f":{port}/", f":{away}/")
    flow = site.run(lines=f"post_broker {url}")
    names = announce_many(site, 10)
    flow.until_counted(Counter.FILES_OK, 10)
    site.event("d0/f0", remove="")
    flow.until_counted(Counter.MESSAGES_RECEIVED, 11)
    flow.until(lambda: flow.slot.phase is Phase.CONNECTING, "it says what it waits for")
    flow.close(limit_s=1.0)
    queue = flow.config.subscriptions[0].queue_name
    assert site.depth(queue) == 11, "nothing was acknowledged"
    again = site.run()
    again.until_settled(11)
    assert tap.paths() == sorted([*names, "d0/f0"])
    assert again.count(Counter.BYTES_RECEIVED) == 0
    assert again.count(Counter.FILES_REMOVED) == 1
    site.assert_clean(again)


def test_a_connection_closed_by_an_administrator(site):
    tap = site.tap()
    flow = site.run(lines="nodupe_ttl 300")
    names = announce_many(site, 50)
    flow.until(lambda: flow.count(Counter.FILES_OK) >= 10, "some are fetched")
    api = site.vhost.api

    def connections():
        rows = api.get("/api/connections?columns=name,vhost,user")
        of_the_flow = (site.vhost.name, "feeder")
        return [row["name"] for row in rows if (row.get("vhost"), row.get("user")) == of_the_flow]

    deadline = time.monotonic() + 20
    while len(connections()) < 2 and time.monotonic() < deadline:
        flow.flow.turn()
    for name in connections():
        api.delete(f"/api/connections/{segment(name)}")
    names += announce_many(site, 50, start=50)
    flow.until(lambda: flow.count(Counter.FILES_OK) >= 100, "all are fetched", 30)
    queue = flow.config.subscriptions[0].queue_name
    flow.until(lambda: not flow.flow.in_hand and site.depth(queue) == 0, "all are answered", 30)
    assert len(site.files()) == 105
    del tap
    site.assert_clean(flow)


def test_a_deleted_queue_is_made_again(site):
    tap = site.tap()
    flow = site.run()
    queue = flow.config.subscriptions[0].queue_name
    site.vhost.api.delete(f"/api/queues/{site.vhost.quoted}/{queue}")
    epoch = flow.assembled.consumers[0].state.epoch
    flow.until(lambda: flow.assembled.consumers[0].state.epoch > epoch, "consuming anew")
    flow.until(lambda: flow.assembled.consumers[0].state.connected, "consuming anew")
    site.announce("f", b"data")
    flow.until_settled(1)
    assert tap.paths() == ["f"]
    site.assert_clean(flow)


def test_two_subscriptions_of_one_flow(site):
    tap = site.tap()
    broker = site.vhost.url("feeder", password=False)
    with site.vhost.connect("admin") as connection:
        connection.channel().exchange_declare("xs_feeder", "topic", durable=True)
    flow = site.run(
        lines=f"broker {broker}\nqueueName q_feeder.second\nexchange xs_feeder\nsubtopic second.#"
    )
    site.announce("first/f", b"data")
    fields = site.fields("second/g", b"data")
    site.put("second/g", b"data")
    site.publish(fields, exchange="xs_feeder", key="v03.second")
    flow.until_settled(2)
    assert tap.paths() == ["first/f", "second/g"]
    site.assert_clean(flow)


def test_credentials_that_others_can_read_are_repaired(site, caplog):
    path = site.directory / "config/credentials.conf"
    path.chmod(0o644)
    site.config("sarra")
    assert path.stat().st_mode & 0o777 == 0o600
    assert "others could read it: changed to 600" in caplog.text


def test_unknown_options_are_named_with_their_line(site):
    with pytest.raises(ConfigErrors) as caught:
        site.config("sarra", "acept .*\nbatchh 3")
    text = str(caught.value)
    assert "t.conf:8" in text and "acept" in text and "accept" in text
    assert "t.conf:9" in text and "batchh" in text
    assert caught.value.code == 78


def test_prefetch_follows_the_bytes_under_way(site):
    """A large file under way: nothing more is taken, so that other instances find the messages."""
    tap = site.tap()
    flow = site.run(lines="maxInflightBytes 4MiB\nsegmentSize 1MiB\nbatch 5")
    queue = flow.config.subscriptions[0].queue_name
    big = bytes(3 << 20)
    with GatedServer(big) as server:
        site.announce("big", big, put=False, baseUrl=server.url)
        flow.until(lambda: server.requests, "under way")
        names = announce_many(site, 20)
        flow.until(lambda: site.depth(queue) == 20, "they are left to others", 5)
        assert flow.count(Counter.MESSAGES_ACCEPTED) == 1
        server.gate.set()
        flow.until_settled(21)
    assert tap.paths() == sorted(["big", *names])
    site.assert_clean(flow)


def test_what_came_with_its_message_does_not_count_as_under_way_for_ever(site):
    """Each of these is a hundredth of what may be under way."""
    flow = site.run(lines="maxInflightBytes 1000\nbatch 5")
    for number in range(150):
        text = f"{number:010d}"
        site.announce(f"f{number}", text.encode(), content={"encoding": "utf-8", "value": text})
    flow.until_settled(150)
    assert flow.count(Counter.FILES_OK) == 150
    flow.advance(2)
    assert flow.count(Counter.GAUGE_INFLIGHT_BYTES) == 0
    site.assert_clean(flow)


def test_messages_held_for_long_are_kept_and_acknowledged(site):
    """RabbitMQ ends a consumer that holds a message for `consumer_timeout` (a minute at the least)."""
    data = bytes(range(200)) * 10
    tap = site.tap()
    flow = site.run(lines="timeout 1h", keep_early_after_s=10)
    with SlowServer(data, piece=200, pause_s=0.05) as slow:
        site.announce("slow", data, put=False, baseUrl=slow.url)
        flow.until(lambda: flow.flow.in_hand, "under way")
        flow.advance(11)
        flow.until(flow.kept, "kept")
        assert flow.assembled.settlement.acknowledged == 1
        assert flow.assembled.settlement.answered == 0
        assert flow.kept()[0].lease == flow.place.incarnation, "it is still being worked on"
        flow.until_settled(1)
    assert tap.paths() == ["slow"]
    assert flow.kept() == []
    site.assert_clean(flow)


def test_accounts_cannot_do_what_is_not_theirs(site):
    """A source's flow that posts where only the pump may: it says so, and keeps what it has."""
    with pytest.raises(pika.exceptions.ChannelClosedByBroker), site.vhost.connect("tsource") as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish("xpublic", "v03", json.dumps(site.fields("f")).encode())

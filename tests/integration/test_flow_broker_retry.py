"""`retry_driver broker`: blocks that one host cannot fetch wait at the broker for another (R143, R158)."""

from __future__ import annotations

import os

import pytest
from blockkit import Posted
from flowkit import Site, leftovers
from standins import StandIn

from sarrapipe.flow.topology import cleanup_flow, declare_flow
from sarrapipe.message.blocknames import block_name
from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

DATA = os.urandom(2560)
QUEUE = "q_feeder.movers"
MOVER = f"queueName {QUEUE}\nattempts 1\nretryDelay 0.2\nreassemble off"


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


class Unwilling(StandIn):
    """Answers 503 until it is willing."""

    willing = False

    def answer(self, handler, headers):
        if self.willing:
            super().answer(handler, headers)
        else:
            self.head(handler, 503, 0)


def mover(site, name, lines="", **place):
    """A host of its own: its state and its tree, at the shared queue."""
    tree = site.directory / name
    mine = f"directory {tree}\npost_baseDir {tree}\n"
    return site.start(site.config("sarra", f"{MOVER}\n{mine}{lines}", name), **place)


def deferred(flow, count):
    """Wait until so many messages wait at the broker and none is held here."""
    flow.until_counted(Counter.MESSAGES_REQUEUED, count)
    flow.until(lambda: not flow.flow.in_hand, "the broker has them")


def assert_nothing_left(site, *flows):
    for flow in flows:
        assert flow.kept() == []
        flow.close()
        assert leftovers(flow.config) == {}
    for queue in site.vhost.queues():
        if queue.startswith(QUEUE):
            assert site.depth(queue) == 0, queue


def test_what_one_host_cannot_fetch_another_does(site):
    """Two hosts at one queue; the tree of the first cannot be written to."""
    (site.directory / "one").write_bytes(b"no directory")
    tap = site.tap()
    one = mover(site, "one")
    posted = Posted(site, "d/big", DATA, 1000)
    site.publish_all(posted.messages())
    deferred(one, 3)
    assert one.kept() == []
    assert one.count(Counter.MESSAGES_KEPT) == 0
    one.flow.stop()
    two = mover(site, "two")
    two.until_counted(Counter.MESSAGES_PUBLISHED, 3)
    two.until(lambda: not two.flow.in_hand, "all is settled")
    assert sorted(m.blocks.number for m in tap.take()) == [0, 1, 2]
    for number in range(3):
        name = block_name("d/big", number, 1000)
        assert (site.directory / "two" / name).read_bytes() == posted.bytes_of(number)
    assert_nothing_left(site, one, two)


def test_it_comes_back_again_and_again_as_it_was(site):
    """Each time later; source and digest are those that were announced; then it is done, once."""
    tap, flow = site.tap(), mover(site, "one", "sourceFromExchange on")
    posted = Posted(site, "d/big", DATA, 1000, put=False)
    with Unwilling(DATA) as server:
        site.publish(posted.message(1, baseUrl=server.url, source="nobody"))
        flow.until_counted(Counter.MESSAGES_REQUEUED, 2)
        server.willing = True
        flow.until_counted(Counter.MESSAGES_PUBLISHED)
        flow.until(lambda: not flow.flow.in_hand, "it is settled")
    message = tap.one()
    assert message.source == "tsource"
    assert message["identity"] == posted.message(1)["identity"]
    assert flow.count(Counter.MESSAGES_RECEIVED) == 3
    assert_nothing_left(site, flow)


def test_v02_headers_come_back_without_those_of_the_broker(site):
    tap, flow = site.tap(), mover(site, "one")
    posted = Posted(site, "d/big", DATA, 1000)
    path = site.docroot.path / "d/big"
    path.rename(path.with_name("away"))
    posted.publish_v02("i", 1)
    flow.until_counted(Counter.MESSAGES_REJECTED)  # gone: no other host would find it
    path.with_name("away").rename(path)
    (site.directory / "one/d").rmdir()
    (site.directory / "one/d").write_bytes(b"no directory")
    posted.publish_v02("i", 2)
    deferred(flow, 1)
    (site.directory / "one/d").unlink()
    flow.until_counted(Counter.MESSAGES_PUBLISHED)
    message = tap.one()
    assert message.blocks.number == 2
    assert not [name for name in message.fields if name.startswith("x-")]
    flow.until(lambda: not flow.flow.in_hand, "it is settled")
    assert_nothing_left(site, flow)


def test_after_retry_ttl_it_is_given_up(site, caplog):
    tap, flow = site.tap(), mover(site, "one", "retry_ttl 1h")
    posted = Posted(site, "d/big", DATA, 1000, put=False)
    with Unwilling(DATA) as server:
        site.publish(posted.message(1, baseUrl=server.url))
        flow.until_counted(Counter.MESSAGES_REQUEUED)
        site.clock.advance(3700)
        flow.until_counted(Counter.MESSAGES_EXPIRED)
    assert "given up after retry_ttl" in caplog.text
    flow.until(lambda: not flow.flow.in_hand, "it is settled")
    assert tap.take() == []
    assert_nothing_left(site, flow)


def test_blocks_are_never_acknowledged_early(site):
    flow = mover(site, "one", keep_early_after_s=1.0)
    posted = Posted(site, "d/big", DATA, 1000, put=False)

    class Slow(StandIn):
        go = False

        def answer(self, handler, headers):
            while not self.go and not self.ending.wait(0.01):
                pass
            super().answer(handler, headers)

    with Slow(DATA) as server:
        site.publish(posted.message(1, baseUrl=server.url))
        flow.until(lambda: server.requests, "it is being fetched")
        flow.advance(60, turns=4)
        assert flow.kept() == []
        assert flow.assembled.settlement.acknowledged == 0
        server.go = True
        flow.until_settled(1)
    assert_nothing_left(site, flow)


def test_small_files_of_the_same_flow_are_kept_here(site):
    """`auto` is about blocks; `broker` about everything."""
    flow = mover(site, "one")
    with Unwilling(b"x") as server:
        site.announce("small", b"x", put=False, baseUrl=server.url)
        flow.until(flow.kept, "it is kept")
        flow.close()
        other = mover(site, "two", "retry_driver broker")
        site.announce("other", b"x", put=False, baseUrl=server.url)
        deferred(other, 1)
        assert other.kept() == []
        server.willing = True
        other.until_counted(Counter.MESSAGES_PUBLISHED)


@pytest.mark.parametrize("lines", ["reassemble on", "retry_driver local"])
def test_otherwise_blocks_are_kept_here(site, lines):
    flow = mover(site, "one", lines)
    posted = Posted(site, "d/big", DATA, 1000, put=False)
    with Unwilling(DATA) as server:
        site.publish(posted.message(1, baseUrl=server.url))
        flow.until(flow.kept, "it is kept")
    assert [queue for queue in site.vhost.queues() if ".retry." in queue] == []


@pytest.mark.slow
def test_a_queue_that_somebody_deletes_is_made_again(site):
    flow = mover(site, "one")
    posted = Posted(site, "d/big", DATA, 1000, put=False)
    with Unwilling(DATA) as server:
        site.publish(posted.message(0, baseUrl=server.url))
        flow.until_counted(Counter.MESSAGES_REQUEUED)
        flow.until_counted(Counter.MESSAGES_REQUEUED, 2)
        with site.vhost.connect("admin") as connection:
            for number in (0.2, 1.6, 12.8):
                connection.channel().queue_delete(f"{QUEUE}.retry.{number:g}s")
        site.publish(posted.message(1, baseUrl=server.url))
        server.willing = False
        flow.until_counted(Counter.ERRORS_BROKER)
        flow.until(lambda: f"{QUEUE}.retry.0.2s" in site.vhost.queues(), "it is there again")
        server.willing = True
        flow.until_counted(Counter.MESSAGES_PUBLISHED)


def test_declare_and_cleanup(site):
    config = site.config("sarra", MOVER, "one")
    names = {QUEUE, *(f"{QUEUE}.retry.{seconds}s" for seconds in ("0.2", "1.6", "12.8"))}
    assert {declared.queue for declared in declare_flow(config)} == names
    assert set(site.vhost.queues()) == names
    (done,) = cleanup_flow(config)
    assert set(done.removed.queues) == names
    assert site.vhost.queues() == []


@pytest.mark.slow
def test_without_permission_messages_stay_with_the_broker(site):
    """Unacknowledged, until the default exchange may be written to."""
    permissions = f"/api/permissions/{site.vhost.quoted}/feeder"
    every = {"configure": ".*", "write": ".*", "read": ".*"}
    flow = mover(site, "one")
    posted = Posted(site, "d/big", DATA, 1000, put=False)
    with Unwilling(DATA) as server:
        site.vhost.api.put(permissions, every | {"write": "^(q_|x)"})
        site.publish(posted.message(0, baseUrl=server.url))
        flow.until_counted(Counter.ERRORS_BROKER)
        assert flow.assembled.settlement.acknowledged == 0
        assert flow.flow.in_hand
        assert flow.kept() == []
        site.vhost.api.put(permissions, every)
        server.willing = True
        flow.until_counted(Counter.MESSAGES_PUBLISHED)
        flow.until(lambda: not flow.flow.in_hand, "it is settled")
    assert_nothing_left(site, flow)

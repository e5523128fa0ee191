"""Messages that wait at the broker: which queues, which headers, and what is believed of them."""

from __future__ import annotations

import pytest

from sarrapipe.broker.deadletter import restored, retry_queues, waiting
from sarrapipe.message.worklist import Delivery, Waited

NOW_NS = 1_700_000_000_123_456_789
QUEUES = retry_queues("q_f.m", 10.0)


def delivery(**changes: object) -> Delivery:
    """A delivery of a v02 message, whose headers are its fields."""
    usual: dict[str, object] = {
        "body": b"20231114 http://h a",
        "headers": {"sum": "d,0", "parts": "1,2,1,0,0"},
        "content_type": "text/plain",
        "exchange": "xinput",
        "routing_key": "v02.post.a",
        "redelivered": False,
        "tag": 7,
        "broker": "b",
        "epoch": 3,
    }
    return Delivery(**(usual | changes))  # type: ignore[arg-type]


def test_queues_come_back_to_their_own_and_forget_nothing() -> None:
    assert [queue.name for queue in QUEUES] == ["q_f.m.retry.10s", "q_f.m.retry.80s", "q_f.m.retry.640s"]
    first = QUEUES[0]
    assert first.durable
    assert not first.bind
    assert first.declare_arguments() == {
        "x-message-ttl": 10_000,
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "q_f.m",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def test_a_shorter_wait_has_another_name() -> None:
    assert retry_queues("q", 0.2)[0].name == "q.retry.0.2s"
    assert retry_queues("q", 0.0)[0].message_ttl_ms == 1


@pytest.mark.parametrize(("attempts", "queue"), [(0, 0), (1, 1), (2, 2), (9, 2)])
def test_each_wait_is_longer(attempts: int, queue: int) -> None:
    waited = Waited(attempts, NOW_NS) if attempts else None
    sent = waiting(delivery(waited=waited), QUEUES, NOW_NS, "token")
    assert (sent.exchange, sent.routing_key) == ("", QUEUES[queue].name)
    assert sent.headers["x-sarrapipe-attempts"] == attempts + 1
    assert sent.persistent
    assert sent.token == "token"


def test_it_comes_back_as_it_was() -> None:
    """The broker adds headers of its own, which are no fields of the message."""
    first = delivery()
    sent = waiting(first, QUEUES, NOW_NS, None)
    death = {"x-death": [{"count": 1}], "x-first-death-queue": "q_f.m.retry.10s"}
    again = delivery(exchange="", routing_key="q_f.m", headers={**sent.headers, **death}, tag=8, epoch=4)
    back = restored(again)
    assert back == delivery(tag=8, epoch=4, waited=Waited(1, NOW_NS // 10**6 * 10**6))
    third = waiting(back, QUEUES, NOW_NS + 10**12, None)
    assert third.headers["x-sarrapipe-attempts"] == 2
    assert third.headers["x-sarrapipe-since-ms"] == NOW_NS // 10**6, "the first failure counts"


def test_only_what_the_default_exchange_delivers_is_believed() -> None:
    """Whoever may publish to an exchange of his own could claim another's otherwise."""
    forged = delivery(headers={"x-sarrapipe-exchange": "xs_alice", "x-sarrapipe-topic": "v03.a"})
    assert restored(forged) is forged
    other = delivery(exchange="")
    assert restored(other) is other


def test_figures_that_are_none_count_from_the_beginning() -> None:
    odd = delivery(exchange="", headers={"x-sarrapipe-exchange": "x", "x-sarrapipe-attempts": "many"})
    assert restored(odd).waited == Waited(0, 0)

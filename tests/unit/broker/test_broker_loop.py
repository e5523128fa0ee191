"""The loop's thread and the two ways across."""

from __future__ import annotations

import os
import select
import threading

import pytest

from sarrapipe.broker.endpoint import Endpoint
from sarrapipe.broker.loop import Loop, Wakeup
from sarrapipe.broker.session import BrokerThread
from sarrapipe.broker.topology import QueueSpec
from sarrapipe.errors import BrokerError, ConfigError


def readable(fd):
    return bool(select.select([fd], [], [], 0)[0])


@pytest.fixture(params=["eventfd", "pipe"])
def wakeup(request, monkeypatch):
    if request.param == "pipe":
        monkeypatch.delattr(os, "eventfd")  # R30
    made = Wakeup()
    made.open()
    yield made
    made.close()


def test_readable_from_set_to_clear(wakeup):
    assert not readable(wakeup.fileno())
    wakeup.set()
    wakeup.set()
    assert readable(wakeup.fileno())
    wakeup.clear()
    assert not readable(wakeup.fileno())
    wakeup.clear()
    wakeup.set()
    assert readable(wakeup.fileno())


def test_children_do_not_inherit_it(wakeup):
    assert not os.get_inheritable(wakeup.fileno())


def test_closing_gives_the_descriptors_back(monkeypatch):
    before = os.listdir("/proc/self/fd")
    for _ in range(2):
        made = Wakeup()
        made.open()
        made.close()
        made.set()  # nobody waits any more: no error
        monkeypatch.delattr(os, "eventfd", raising=False)
    assert os.listdir("/proc/self/fd") == before


@pytest.fixture
def loop():
    made = Loop()
    made.start()
    yield made
    made.post(made.stop)
    assert made.join(5.0)


def test_posted_work_runs_in_order_on_the_loops_thread(loop):
    done, finished = [], threading.Event()
    for number in range(1000):
        loop.post(lambda number=number: done.append((number, threading.current_thread().name)))
    loop.post(finished.set)
    assert finished.wait(5.0)
    assert done == [(number, "broker") for number in range(1000)]


def test_no_work_is_lost_however_the_threads_interleave(loop):
    count, finished, seen = 20000, threading.Event(), []

    def work():
        seen.append(None)
        if len(seen) == count:
            finished.set()

    for _ in range(count):
        loop.post(work)
    assert finished.wait(10.0)


def test_timers_can_be_taken_back(loop):
    rang, finished = [], threading.Event()

    def arrange():
        loop.cancel(loop.call_later(0.01, lambda: rang.append("cancelled")))
        loop.call_later(0.02, finished.set)

    loop.post(arrange)
    assert finished.wait(5.0)
    assert rang == []


def test_a_thread_that_dies_is_told_to_whoever_uses_it():
    thread = BrokerThread()
    thread.start()
    endpoint = Endpoint(host="127.0.0.1", port=1)
    consumer = thread.consumer(endpoint, QueueSpec(name="q"), 5)
    publisher = thread.publisher(endpoint, 5)

    def fail():
        raise ZeroDivisionError("on purpose")

    thread._loop.post(fail)
    assert select.select([thread.wakeup_fd], [], [], 5.0)[0]
    thread._loop._thread.join(5.0)
    for call in (lambda: consumer.take(1), lambda: publisher.publish([object()]), publisher.outcomes):
        with pytest.raises(BrokerError, match="on purpose"):
            call()
    thread.close(1.0)


def test_an_endpoint_that_cannot_work_is_refused_at_once():
    thread = BrokerThread()
    thread.start()
    with pytest.raises(ConfigError, match="scheme"):
        thread.consumer(Endpoint(scheme="http"), QueueSpec(name="q"), 5)
    with pytest.raises(ConfigError, match="strict"):
        thread.publisher(Endpoint(tls_rigour="strict"), 5)
    thread.close(1.0)


def test_closing_a_thread_that_did_nothing_is_quick_and_leaves_nothing():
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    thread = BrokerThread()
    thread.start()
    publisher = thread.publisher(Endpoint(host="127.0.0.1", port=1), 5)
    assert (publisher.room, publisher.outcomes()) == (5, [])
    assert not thread.state(Endpoint(host="127.0.0.1", port=1)).connected
    thread.close(5.0)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert threading.active_count() == threads

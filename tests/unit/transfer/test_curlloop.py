from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pycurl
import pytest
from handclock import HandClock

from sarrapipe.transfer.curllane import CurlLane
from sarrapipe.transfer.curlloop import CurlLoop, Ended


@pytest.fixture
def loop() -> Iterator[CurlLoop]:
    opened = CurlLoop(streams=2).open()
    yield opened
    opened.close()
    opened.close()


def test_a_wakeup_ends_the_wait(loop: CurlLoop) -> None:
    fd = os.eventfd(0)
    loop.add_wakeup(fd)
    os.eventfd_write(fd, 1)
    begin = time.monotonic()
    loop.run_once(10)
    assert time.monotonic() - begin < 5
    assert loop.woken == [fd]
    os.eventfd_read(fd)
    loop.run_once(0)
    assert loop.woken == []
    os.eventfd_write(fd, 1)
    loop.remove_wakeup(fd)
    loop.run_once(0)
    assert loop.woken == []
    os.close(fd)


def test_a_wakeup_from_before_it_was_opened() -> None:
    fd = os.eventfd(1)
    loop = CurlLoop()
    loop.add_wakeup(fd)
    loop.open()
    loop.run_once(10)
    assert loop.woken == [fd]
    loop.close()
    os.close(fd)


def test_calls_later_in_their_order(loop: CurlLoop) -> None:
    called: list[str] = []
    loop.call_later(0.02, lambda: called.append("second"))
    loop.call_later(0.0, lambda: called.append("first"))
    begin = time.monotonic()
    while len(called) < 2 and time.monotonic() - begin < 5:
        loop.run_once(5)
    assert called == ["first", "second"]
    assert time.monotonic() - begin >= 0.02


def test_waits_no_longer_than_told(loop: CurlLoop) -> None:
    begin = time.monotonic()
    loop.run_once(0.03)
    assert 0.02 < time.monotonic() - begin < 5
    loop.run_once(-1)


def test_a_handle_that_failed_outside_of_a_turn_ends_once(loop: CurlLoop) -> None:
    curl = pycurl.Curl()
    curl.setopt(pycurl.URL, "http://192.0.2.1/")
    loop.add(curl)
    loop.end(curl, 23, "refused")
    loop.end(curl, 23, "refused")
    loop.run_once(0)
    assert loop.ended([curl]) == [Ended(curl, 23, "refused")]
    loop.remove(curl)
    assert loop.ended([curl]) == []


class Slow:
    """In the place of libcurl: takes 10 ms for each socket, of which it reads nothing."""

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.served: list[int] = []

    def socket_action(self, fd: int, _mask: int) -> None:
        self.clock.sleep(0.01)
        if fd != pycurl.SOCKET_TIMEOUT:
            self.served.append(fd)

    def close(self) -> None:
        """Nothing is open."""


def test_large_transfers_take_turns_and_small_ones_go_first() -> None:
    """However many large ones always have data, and however many new ones come with data of their own."""
    clock = HandClock()
    with_data: list[tuple[socket.socket, socket.socket]] = []
    loop = CurlLoop(streams=2, clock=clock).open()
    light, bulk = loop._lanes
    light._multi, bulk._multi = small, large = Slow(clock), Slow(clock)

    def ready(lane: CurlLane) -> int:
        pair = socket.socketpair()
        pair[1].send(b"x")
        with_data.append(pair)
        lane._on_socket(pycurl.POLL_IN, pair[0].fileno(), None, None)
        return pair[0].fileno()

    try:
        first = [ready(bulk) for _ in range(5)]
        for _ in range(10):
            before = len(large.served)
            loop.run_once(0.0)
            assert len(large.served) == before + 1, "no more than one of these fits into a slice"
        assert large.served == [*large.served[:5], *large.served[:5]]
        assert sorted(large.served[:5]) == first
        for _ in range(5):  # one that is new each time
            new = ready(bulk)
            loop.run_once(0.0)
            bulk._on_socket(pycurl.POLL_REMOVE, new, None, None)
        assert set(large.served[10:]) == set(first), "those that waited came first"
        light_ones = [ready(light) for _ in range(3)]
        loop.run_once(0.0)
        assert sorted(small.served) == sorted(light_ones), "all of them, beside one that is large"
        assert len(large.served) == 16
    finally:
        loop.close()
        for pair in with_data:
            pair[0].close()
            pair[1].close()

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pycurl
import pytest

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

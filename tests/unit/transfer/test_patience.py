"""How long is waited: by a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from handclock import HandClock

from sarrapipe.transfer.curlloop import CurlLoop
from sarrapipe.transfer.patience import FlowWatch, Patience


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def loop(clock: HandClock) -> Iterator[CurlLoop]:
    opened = CurlLoop(clock=clock).open()
    yield opened
    opened.close()


def test_patience_comes_to_its_end_once(loop: CurlLoop, clock: HandClock) -> None:
    ends: list[float] = []
    patience = Patience(loop, clock, lambda: ends.append(clock.now_s))
    patience.begin(10)
    for _ in range(30):
        clock.sleep(1)
        loop.run_once(0)
    assert ends == [110.0]


def test_a_new_term_takes_the_place_of_the_one_before(loop: CurlLoop, clock: HandClock) -> None:
    ends: list[float] = []
    patience = Patience(loop, clock, lambda: ends.append(clock.now_s))
    patience.begin(10)
    clock.sleep(5)
    patience.begin(10)  # longer: until 115
    clock.sleep(5)
    loop.run_once(0)
    assert ends == []
    patience.begin(2)  # shorter: until 112
    clock.sleep(2)
    loop.run_once(0)
    assert ends == [112.0]
    clock.sleep(100)
    loop.run_once(0)
    assert ends == [112.0]


def test_patience_that_ended_calls_nobody(loop: CurlLoop, clock: HandClock) -> None:
    ends: list[float] = []
    patience = Patience(loop, clock, lambda: ends.append(clock.now_s))
    patience.begin(10)
    patience.end()
    clock.sleep(20)
    loop.run_once(0)
    assert ends == []
    patience.begin(1)
    clock.sleep(1)
    loop.run_once(0)
    assert ends == [121.0]


def test_a_thousand_terms_need_one_timer(loop: CurlLoop, clock: HandClock) -> None:
    patience = Patience(loop, clock, lambda: None)
    for _ in range(1000):
        patience.begin(10)
        patience.end()
    assert len(loop._later) == 1


def watch(loop: CurlLoop, clock: HandClock, stalls: list[float]) -> FlowWatch:
    return FlowWatch(loop, clock, least_bytes_s=1000, stall_s=8, stalled=lambda: stalls.append(clock.now_s))


def test_what_flows_is_no_stall(loop: CurlLoop, clock: HandClock) -> None:
    stalls: list[float] = []
    flow = watch(loop, clock, stalls)
    flow.begin()
    for _ in range(100):
        flow.moved += 1000
        clock.sleep(1)
        loop.run_once(0)
    assert stalls == []
    for _ in range(100):
        flow.moved += 900
        clock.sleep(1)
        loop.run_once(0)
    assert len(stalls) == 1
    assert 207.0 <= stalls[0] <= 211.0


def test_what_this_side_holds_up_is_no_stall(loop: CurlLoop, clock: HandClock) -> None:
    stalls: list[float] = []
    flow = watch(loop, clock, stalls)
    flow.begin()
    flow.held = True
    for _ in range(100):
        clock.sleep(1)
        loop.run_once(0)
    assert stalls == []
    flow.held = False
    for _ in range(11):
        clock.sleep(1)
        loop.run_once(0)
    assert len(stalls) == 1


def test_what_ended_does_not_stall(loop: CurlLoop, clock: HandClock) -> None:
    stalls: list[float] = []
    flow = watch(loop, clock, stalls)
    flow.begin()
    flow.end()
    for _ in range(100):
        clock.sleep(1)
        loop.run_once(0)
    assert stalls == []

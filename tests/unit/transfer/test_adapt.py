from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarrapipe.transfer.adapt import StreamControl

MIB = 1 << 20
TICK_S = 0.05

Line = Callable[[int], float]
"""Bytes per second of all streams together, by their number."""


class Transfer:
    """A line, and a control that is looked at every 50 ms."""

    def __init__(self, control: StreamControl, line: Line, delay_s: float = 0.0) -> None:
        self.control = control
        self.line = line
        self.delay_s = delay_s
        self.now_s = 1000.0
        self.received = 0.0
        self.opened: list[float] = []
        self.limits: list[int] = []

    def run(self, seconds: float, *, wanted: bool = True) -> None:
        for _ in range(round(seconds / TICK_S)):
            del self.opened[self.control.limit :]
            self.opened += [self.now_s] * (self.control.limit - len(self.opened))
            self.now_s += TICK_S
            flowing = sum(self.now_s - at >= self.delay_s for at in self.opened)
            self.received += self.line(flowing) * TICK_S if flowing else 0
            self.control.update(self.now_s, int(self.received), flowing, wanted=wanted)
            self.limits.append(self.control.limit)


def per_stream(rate: float, capacity: float = float("inf")) -> Line:
    return lambda streams: min(rate * streams, capacity)


@given(
    start=st.integers(1, 64),
    most=st.integers(1, 64),
    ticks=st.lists(
        st.tuples(st.floats(0, 30), st.integers(0, 1 << 34), st.integers(0, 64), st.booleans()), max_size=200
    ),
)
def test_it_stays_within_its_bounds_whatever_comes(start, most, ticks):
    control = StreamControl(start, most)
    now_s = received = 0
    for step_s, count, flowing, wanted in ticks:
        now_s += step_s
        received += count
        control.update(now_s, received, flowing, wanted=wanted)
        assert min(start, most) <= control.limit <= most


@given(rate=st.floats(5e5, 1e9), delay_s=st.floats(0, 0.4), most=st.integers(1, 64))
def test_where_every_stream_adds_its_rate_all_are_used(rate, delay_s, most):
    transfer = Transfer(StreamControl(4, most), per_stream(rate), delay_s)
    transfer.run(15)
    assert transfer.control.limit == most


@given(capacity=st.floats(1e7, 1e10))
def test_what_gains_nothing_is_taken_back(capacity):
    """One stream fills the line: four are begun with, eight are tried once, four it is."""
    transfer = Transfer(StreamControl(4, 16), per_stream(1e12, capacity))
    transfer.run(15)
    assert transfer.control.limit == 4
    assert max(transfer.limits) == 8


def test_growth_ends_where_the_line_is_full():
    """Eight streams fill it."""
    transfer = Transfer(StreamControl(4, 64), per_stream(10e6, 80e6))
    transfer.run(15)
    assert transfer.control.limit == 8


def test_far_away_all_streams_are_opened_before_anything_has_come():
    transfer = Transfer(StreamControl(4, 16), per_stream(1e6), delay_s=0.3)
    transfer.run(0.3)
    assert transfer.control.limit == 16


@pytest.mark.parametrize("now_full", [True, False])
def test_it_looks_again_after_a_while(now_full):
    """A line that sixteen streams were needed for is filled by four later; or the other way round."""
    many, few = per_stream(5e6), per_stream(1e12, 80e6)
    transfer = Transfer(StreamControl(4, 16), many if now_full else few)
    transfer.run(10)
    assert transfer.control.limit == (16 if now_full else 4)
    transfer.line = few if now_full else many
    transfer.run(200)
    assert transfer.control.limit == (4 if now_full else 16)


def test_trials_become_rare():
    """What is known to be right is disturbed for less than a twentieth of the time."""
    transfer = Transfer(StreamControl(4, 16), per_stream(5e6))
    transfer.run(600)
    assert sum(limit < 16 for limit in transfer.limits) < len(transfer.limits) / 20


def test_nothing_is_learnt_while_there_is_nothing_more_to_fetch():
    transfer = Transfer(StreamControl(4, 16), per_stream(5e6))
    transfer.run(30, wanted=False)
    assert transfer.control.limit == 4


def test_a_fixed_number_stays():
    transfer = Transfer(StreamControl(16, 16), per_stream(5e6))
    transfer.run(100)
    assert set(transfer.limits) == {16}
    assert transfer.control.next_due_s == float("inf"), "and needs no looking at"

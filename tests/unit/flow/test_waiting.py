"""Things to be looked at again."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe.flow.waiting import Waitlist


def test_an_empty_one():
    waiting: Waitlist[str] = Waitlist()
    assert len(waiting) == 0
    assert waiting.next_due_s == math.inf
    assert waiting.take_due(1e9) == []
    assert waiting.take_all() == []


def test_things_without_an_order_of_their_own():
    waiting: Waitlist[object] = Waitlist()
    first, second = object(), object()
    waiting.add(first, 1.0)
    waiting.add(second, 1.0)
    assert set(waiting) == {first, second}
    assert waiting.take_due(1.0) == [first, second]


@settings(max_examples=100)
@given(st.lists(st.floats(0, 100)), st.floats(0, 100))
def test_what_is_due_comes_out_once_and_in_order(times, now):
    waiting: Waitlist[int] = Waitlist()
    for number, time in enumerate(times):
        waiting.add(number, time)
    due = waiting.take_due(now)
    assert sorted(due) == [number for number, time in enumerate(times) if time <= now]
    assert [times[number] for number in due] == sorted(times[number] for number in due)
    assert waiting.next_due_s == min((time for time in times if time > now), default=math.inf)
    assert len(waiting) == len(times) - len(due)
    assert sorted(due + waiting.take_all()) == list(range(len(times)))

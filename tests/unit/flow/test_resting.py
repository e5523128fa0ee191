"""Blocks that wait for the rest of their file."""

import math

from sarrapipe.flow.resting import KEEP_AFTER_S, Resting
from sarrapipe.message.model import Message
from sarrapipe.message.worklist import WorkItem


def items(count):
    return [WorkItem(Message({"relPath": str(n)})) for n in range(count)]


def test_it_is_asked_about_each_second():
    resting, (item,) = Resting(5), items(1)
    assert resting.next_due_s == math.inf
    resting.add(item, 10.0)
    assert resting.take_due(10.9) == []
    assert resting.take_due(11.0) == [item]
    assert len(resting) == 0


def test_what_rests_for_long_is_kept_however_often_it_was_asked_about():
    resting, (item,) = Resting(5), items(1)
    now_s = 10.0
    resting.add(item, now_s)
    while not (kept := resting.take_long(now_s)):
        now_s += 1.0
        for due in resting.take_due(now_s):
            resting.add(due, now_s)
    assert kept == [item]
    assert now_s == 10.0 + KEEP_AFTER_S


def test_beyond_the_bound_the_first_are_kept():
    resting, (one, two, three) = Resting(2), items(3)
    for item in (one, two):
        resting.add(item, 1.0)
    assert not resting.overflows
    resting.add(three, 1.0)
    assert resting.overflows
    assert resting.take_long(1.0) == [one]
    assert list(resting) == [two, three]
    assert resting.take_all() == [two, three]

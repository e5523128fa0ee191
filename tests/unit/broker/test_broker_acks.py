"""Acknowledgement frames: never one tag too many, never a tag twice, all of them in the end."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe.broker.acks import AckTracker


class NaiveBroker:
    """What a broker does with basic.ack: tag by tag, and it closes the channel for an unknown tag."""

    def __init__(self):
        self.unacknowledged = set()

    def ack(self, tag, multiple):
        assert tag in self.unacknowledged, f"406 PRECONDITION_FAILED: unknown delivery tag {tag}"
        taken = {each for each in self.unacknowledged if each == tag or (multiple and each < tag)}
        self.unacknowledged -= taken
        return taken


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.integers(1, 8)),
        st.tuples(st.just("settle"), st.lists(st.integers(0, 60), max_size=20)),
    ),
    max_size=40,
)


@settings(max_examples=300)
@given(STEPS)
def test_acknowledges_exactly_what_was_asked_for(steps):
    tracker, broker = AckTracker(), NaiveBroker()
    last = 0
    asked = set()
    for kind, value in steps:
        if kind == "deliver":
            for _ in range(value):
                last += 1
                tracker.delivered(last)
                broker.unacknowledged.add(last)
        else:
            fresh = {tag for tag in value if 0 < tag <= last} - asked
            asked |= fresh
            taken = set()
            for tag, multiple in tracker.settle(value):
                taken |= broker.ack(tag, multiple)
            assert taken == fresh
        assert tracker.outstanding == len(broker.unacknowledged)


@settings(max_examples=100)
@given(st.permutations(range(1, 30)), st.integers(1, 10))
def test_everything_settled_leaves_nothing(order, batch):
    tracker, broker = AckTracker(), NaiveBroker()
    for tag in range(1, 30):
        tracker.delivered(tag)
        broker.unacknowledged.add(tag)
    for start in range(0, len(order), batch):
        for tag, multiple in tracker.settle(order[start : start + batch]):
            broker.ack(tag, multiple)
    assert not broker.unacknowledged
    assert tracker.outstanding == 0


def test_a_contiguous_batch_is_one_frame():
    tracker = AckTracker()
    for tag in range(1, 1001):
        tracker.delivered(tag)
    assert tracker.settle(range(1, 1001)) == [(1000, True)]


def test_a_hole_below_forbids_multiple():
    tracker = AckTracker()
    for tag in range(1, 6):
        tracker.delivered(tag)
    assert tracker.settle([2, 3, 5]) == [(2, False), (3, False), (5, False)]
    assert tracker.settle([1]) == [(1, False)]
    assert tracker.settle([4]) == [(4, False)]


def test_what_was_never_delivered_or_is_settled_is_left_out():
    tracker = AckTracker()
    tracker.delivered(1)
    assert tracker.settle([0, 1, 1, 2, 99]) == [(1, False)]
    assert tracker.settle([1]) == []

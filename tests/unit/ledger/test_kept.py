"""The kept store: leases, back-off, expiry, and that nothing acknowledged is lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe.ledger import KeptMessage, KeptStore
from sarrapipe.ledger.kept import BACKOFF_LAST_S, backoff_s


class FakeClock:
    """A clock that goes when it is told to."""

    def __init__(self):
        self.now_ns = 10**18

    def wall_ns(self):
        return self.now_ns

    def monotonic_s(self):
        return self.now_ns / 1e9

    def sleep(self, seconds):
        self.now_ns += int(seconds * 1e9)


@pytest.fixture
def clock():
    return FakeClock()


def opened(tmp_path, clock, incarnation=1):
    return KeptStore.open(str(tmp_path / "kept"), incarnation=incarnation, clock=clock, rand=lambda: 0.0)


def message(n, **changes):
    key = n.to_bytes(16, "big")
    return KeptMessage(
        key, b'{"n": %d}' % n, {"x": n, "odd\udcff": None}, "application/json", "xs", "v03.a", **changes
    )


def test_what_is_kept_comes_back_as_it_was(tmp_path, clock):
    with opened(tmp_path, clock) as kept:
        kept.put_many([message(1)], lease=False)
    with opened(tmp_path, clock) as kept:
        (back,) = kept.lease_due(10)
        assert back == message(1, lease=1, first_ns=clock.now_ns)
        assert kept.lease_due(10) == []  # leased
        kept.delete_many([back.key, b"unknown key here"])
        assert (kept.count(), kept.next_due_ns()) == (0, None)


def test_a_lease_of_the_dead_is_given_out_again(tmp_path, clock):
    with opened(tmp_path, clock) as kept:
        kept.put_many([message(1), message(2)])
    with opened(tmp_path, clock, incarnation=2) as kept:
        assert kept.lease_due(10) == []
        assert kept.reclaim([1]) == 2
        assert [m.key[-1] for m in kept.lease_due(10)] == [1, 2]
        assert kept.reclaim([1]) == 0


def test_all_leases_but_those_of_the_living_are_free_after_a_start(tmp_path, clock):
    for incarnation in (1, 2, 3):
        with opened(tmp_path, clock, incarnation) as kept:
            kept.put_many([message(incarnation)])
    with opened(tmp_path, clock, incarnation=4) as kept:
        assert kept.holders() == {1, 2, 3}
        assert kept.reclaim(kept.holders() - {2}) == 2
        assert sorted(m.key[-1] for m in kept.lease_due(10)) == [1, 3]


def test_failures_back_off_and_are_counted(tmp_path, clock):
    with opened(tmp_path, clock) as kept:
        kept.put_many([message(1)])
        for attempt, wait_s in enumerate([1, 2, 4, 8], start=1):
            kept.release_many([(message(1).key, "timed out")])
            assert kept.lease_due(10) == []
            clock.sleep(wait_s)
            (again,) = kept.lease_due(10)
            assert (again.attempts, again.reason) == (attempt, "timed out")
        kept.release_many([(again.key, "stopped")], tried=False)
        (again,) = kept.lease_due(10)
        assert again.attempts == 4


def test_the_longest_due_comes_first_and_no_more_than_asked_for(tmp_path, clock):
    with opened(tmp_path, clock) as kept:
        kept.put_many([message(n, due_ns=clock.now_ns - n) for n in range(1, 6)], lease=False)
        assert [m.key[-1] for m in kept.lease_due(2)] == [5, 4]
        assert [m.key[-1] for m in kept.lease_due(9)] == [3, 2, 1]


def test_a_redelivered_copy_does_not_take_the_lease_of_a_worker(tmp_path, clock):
    with opened(tmp_path, clock) as kept:
        kept.put_many([message(1)])
    with opened(tmp_path, clock, incarnation=2) as kept:
        kept.put_many([message(1, attempts=9)], lease=False)
        assert [(m.attempts, m.lease) for m in kept.messages()] == [(0, 1)]
        kept.release_many([(message(1).key, "not mine")])
        assert [(m.attempts, m.lease) for m in kept.messages()] == [(0, 1)]


def test_a_clock_that_is_set_back_keeps_nothing_waiting(tmp_path, clock):
    """By a day: what was kept before is due at once; what is kept now waits for its own back-off."""
    day_s = 86_400
    with opened(tmp_path, clock) as store:
        store.put_many([message(1), message(2)], lease=True)
        store.release_many([(message(n).key, "no answer") for n in (1, 2)])
        assert store.lease_due(9) == []
        clock.sleep(-day_s)
        assert [m.key for m in store.lease_due(1)] != []
        assert [m.key for m in store.lease_due(9)] != []
        assert store.lease_due(9) == []
        store.release_many([(message(1).key, "no answer")])
        assert store.lease_due(9) == []
        clock.sleep(4)
        assert [m.key for m in store.lease_due(9)] == [message(1).key]


def test_what_is_too_old_is_handed_over_to_be_rejected(tmp_path, clock):
    with opened(tmp_path, clock) as kept:
        kept.put_many([message(1), message(2, first_ns=clock.now_ns - 10**10)], lease=False)
        kept.put_many([message(3, first_ns=clock.now_ns - 10**10)])  # under a live lease
        assert [m.key[-1] for m in kept.expired(5, 10)] == [2]
        clock.sleep(6)
        assert [m.key[-1] for m in kept.expired(5, 10)] == [1]


@given(st.integers(0, 10**6), st.floats(0, 1, exclude_max=True))
def test_the_back_off_is_bounded_and_jittered(attempts, random):
    wait_s = backoff_s(attempts, lambda: random)
    full = backoff_s(attempts, lambda: 0.0)
    assert full / 2 <= wait_s <= full <= BACKOFF_LAST_S
    assert (full == 0) == (attempts == 0)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("plrdxk"), st.integers(0, 3)), max_size=30))
def test_the_indices_agree_with_the_entries(tmp_path_factory, steps):
    clock = FakeClock()
    directory = str(tmp_path_factory.mktemp("kept"))
    incarnation = 1
    kept = KeptStore.open(directory, incarnation=incarnation, clock=clock, rand=lambda: 0.0)
    model: dict[bytes, int] = {}
    for step, n in steps:
        key = message(n).key
        if step in "pl":
            kept.put_many([message(n)], lease=step == "l")
            model[key] = incarnation if step == "l" else 0
        elif step == "r":
            kept.release_many([(key, "why")])
            model.update({k: 0 for k in model if k == key})
        elif step == "d":
            kept.delete_many([key])
            model.pop(key, None)
        elif step == "x":
            clock.sleep(1000)
            model.update({m.key: incarnation for m in kept.lease_due(2)})
        else:
            kept.close()
            incarnation += 1
            kept = KeptStore.open(directory, incarnation=incarnation, clock=clock, rand=lambda: 0.0)
            kept.reclaim([incarnation - 1])
            model = dict.fromkeys(model, 0)
        assert {m.key: m.lease for m in kept.messages()} == model
        assert (kept.next_due_ns() is None) == (0 not in model.values())
    kept.close()

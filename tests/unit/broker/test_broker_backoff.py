"""Delays between attempts."""

from __future__ import annotations

import random

from sarrapipe.broker.backoff import FIRST_DELAY_S, LAST_DELAY_S, Backoff


def test_doubles_up_to_a_minute_and_begins_anew_after_a_success():
    backoff = Backoff(spread=0.0)
    assert [backoff.next_delay_s() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    backoff.reset()
    assert backoff.next_delay_s() == 1


def test_sixteen_instances_do_not_come_back_together():
    delays = []
    for seed in range(16):
        backoff = Backoff(rng=random.Random(seed))
        delays.append([backoff.next_delay_s() for _ in range(5)][-1])
    assert len({round(delay, 3) for delay in delays}) == 16
    assert all(16 * 0.75 <= delay <= 16 * 1.25 for delay in delays)


def test_stays_within_its_bounds_for_ever():
    backoff = Backoff(rng=random.Random(1))
    assert all(FIRST_DELAY_S <= backoff.next_delay_s() <= LAST_DELAY_S for _ in range(2000))

"""A set fits into its time: sizes give way first come, first served by share; what cannot fit is left out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf.benchset import MUSTS_SET, SET, SMOKE
from perf.budget import Entry, choose, estimate_s, updated_pace
from perf.scenario import NAMES

_ENTRY = Entry(name="one", runs=2, sizes=("4GiB", "1GiB", "256MiB"), once_s=20.0, turn_s=60.0)


def test_an_estimate_grows_with_the_amount_and_the_turns() -> None:
    assert estimate_s(_ENTRY, "4GiB", 2) == 8.0 + 140.0
    assert estimate_s(_ENTRY, "1GiB", 1) == 8.0 + 20.0
    assert estimate_s(Entry(name="x", runs=1, files=("10k", "5k"), turn_s=10.0), "5k", 1) == 8.0 + 5.0
    assert estimate_s(Entry(name="x", runs=1, turn_s=10.0), "", 1) == 18.0


@pytest.mark.parametrize(
    ("left_s", "pace", "amount"),
    [
        (1000.0, 1.0, "4GiB"),
        (88.0, 1.0, "4GiB"),
        (87.0, 1.0, "1GiB"),
        (88.0, 2.0, "1GiB"),
        (13.0, 1.0, "256MiB"),
    ],
)
def test_the_largest_amount_of_which_a_turn_fits_is_taken(left_s: float, pace: float, amount: str) -> None:
    choice = choose([_ENTRY], left_s, pace)
    assert choice is not None
    assert (choice.amount, choice.full) == (amount, amount == "4GiB")


def test_each_has_its_share_of_the_time() -> None:
    twice = [_ENTRY, replace(_ENTRY, name="two")]
    choice = choose(twice, 300.0, 1.0)
    assert choice is not None
    assert (choice.amount, choice.limit_s) == ("4GiB", 150.0)
    # It is ended before the other no longer fits at its smallest.
    assert choice.end_s == 300.0 - estimate_s(_ENTRY, "256MiB", 1)
    choice = choose(twice, 120.0, 1.0)
    assert choice is not None
    assert (choice.amount, choice.limit_s) == ("1GiB", 60.0)


def test_the_smallest_may_take_more_than_its_share_and_what_does_not_fit_is_left_out() -> None:
    long = Entry(name="long", runs=1, turn_s=10_000.0)
    choice = choose([_ENTRY, long], 100.0, 1.0)
    assert choice is not None
    assert choice.amount == "256MiB"
    assert choose([_ENTRY], 12.0, 1.0) is None
    assert choose([_ENTRY], -1.0, 1.0) is None


def test_a_slow_machine_is_believed_within_limits() -> None:
    assert updated_pace(0.0, 0.0) == 1.0
    assert updated_pace(10.0, 25.0) == 2.5
    assert updated_pace(10.0, 1e6) == 8.0
    assert updated_pace(10.0, 0.1) == 0.5


def test_the_command_says_what_was_chosen() -> None:
    choice = choose([replace(_ENTRY, only=("a",))], 88.0, 1.0)
    assert choice is not None
    assert choice.arguments() == [
        "run", "one", "--runs", "2", "--seconds", "88", "--size", "4GiB", "--only", "a",
    ]  # fmt: skip


def test_amounts_go_down_and_name_scenarios_that_there_are() -> None:
    for entry in (*SET, *MUSTS_SET, *SMOKE):
        shares = [entry.share_of(amount) for amount in entry.amounts()]
        assert shares[0] == 1.0
        assert shares == sorted(shares, reverse=True)
        assert entry.name in NAMES
        assert not (entry.sizes and entry.files)


@pytest.mark.parametrize(("entries", "budget_s"), [(SET, 1680.0), (MUSTS_SET, 1200.0)])
@given(data=st.data())
def test_a_set_ends_in_time_if_estimates_hold(
    entries: tuple[Entry, ...], budget_s: float, data: st.DataObject
) -> None:
    """Every entry runs, and all end within the budget, on a machine up to twice as slow as estimated."""
    pace = data.draw(st.floats(0.5, 2.0))
    left_s, estimated_s, taken_s = budget_s, 0.0, 0.0
    for number, entry in enumerate(entries):
        choice = choose(entries[number:], left_s, updated_pace(estimated_s, taken_s))
        assert choice is not None, entry.name
        turns = 1
        while turns < entry.runs and pace * estimate_s(entry, choice.amount, turns + 1) <= choice.limit_s:
            turns += 1
        took_s = pace * estimate_s(entry, choice.amount, turns)
        left_s -= took_s
        taken_s += took_s
        estimated_s += estimate_s(entry, choice.amount, turns)
    assert left_s >= 0

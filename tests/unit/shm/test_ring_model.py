"""The protocol of the slots, searched exhaustively; and the search, tried on rules that are broken.

What holds in every state: a slot has one owner, nobody reads bytes that he did not write under the same
lease, and from there every process comes to its end with every slot free again, whoever is killed at
whatever step.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ring_world import Scenario, Violation, World, search

from sarrapipe.shm import slotstates
from sarrapipe.shm.slotstates import NOBODY, SlotState

SCENARIOS = [
    Scenario("two share one slot", slots=1, processes=2, rounds=2, kills=0, trims=True, states=300),
    Scenario("two share one slot, one kill", slots=1, processes=2, rounds=2, kills=1, states=1_000),
    Scenario("one dies and comes again", slots=2, processes=1, rounds=2, kills=2, trims=True, states=300),
    Scenario("two and two slots", slots=2, processes=2, rounds=1, kills=1, states=5_000),
    Scenario("the memory is given back", slots=1, processes=2, rounds=1, kills=1, trims=True, states=2_000),
]
WIDE = [
    Scenario("two and two slots, two kills", slots=2, processes=2, rounds=1, kills=2, states=50_000),
    Scenario(
        "memory given back, two kills", slots=1, processes=2, rounds=1, kills=2, trims=True, states=9_000
    ),
    Scenario("three share one slot", slots=1, processes=3, rounds=1, kills=1, states=50_000),
    Scenario(
        "two and two slots, trimmed", slots=2, processes=2, rounds=1, kills=1, trims=True, states=20_000
    ),
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_no_interleaving_breaks_the_protocol(scenario: Scenario) -> None:
    assert search(World(scenario)) >= scenario.states


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", WIDE, ids=lambda scenario: scenario.name)
def test_no_longer_interleaving_breaks_the_protocol(scenario: Scenario) -> None:
    assert search(World(scenario)) >= scenario.states


def reclaims_the_living(word, dead, owner):
    _state, sequence, holder = slotstates.unpack(word)
    if holder in (NOBODY, owner):
        return None
    return slotstates.pack(SlotState.TRIMMING, sequence + 1, owner)


def takes_what_is_taken(word, owner):
    _state, sequence, _owner = slotstates.unpack(word)
    return slotstates.pack(SlotState.FILLING, sequence + 1, owner)


def reclaims_nothing(word, dead, owner):
    return None


def forgets_the_half_trimmed(word, dead, owner):
    trimming = slotstates.unpack(word).state is SlotState.TRIMMING
    return None if trimming else slotstates.reclaim(word, dead, owner)


def frees_at_once(word, dead, owner):
    """Free before the memory is given back: the hole appears under the next owner's bytes."""
    taken = slotstates.reclaim(word, dead, owner)
    return None if taken is None else slotstates.pack(SlotState.FREE, 0, NOBODY)


def trims_without_taking(word, owner):
    state, sequence, _ = slotstates.unpack(word)
    return slotstates.pack(SlotState.FREE, sequence, NOBODY) if state is SlotState.FREE else None


def nobody_waits(waiter, owner):
    return waiter


def the_last_waits_alone(waiter, owner):
    return owner


@pytest.mark.parametrize(
    ("scenario", "broken"),
    [
        (SCENARIOS[1], {"reclaim": reclaims_the_living}),
        (SCENARIOS[1], {"reclaim": reclaims_nothing}),
        (SCENARIOS[4], {"reclaim": forgets_the_half_trimmed}),
        (SCENARIOS[1], {"reclaim": frees_at_once}),
        (SCENARIOS[0], {"trim": trims_without_taking}),
        (SCENARIOS[0], {"waiters_with": nobody_waits}),
        (Scenario("three", slots=1, processes=3, rounds=1, kills=0), {"waiters_with": the_last_waits_alone}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value.name,
)
def test_the_search_finds_broken_rules(scenario: Scenario, broken: dict[str, object]) -> None:
    names = {name: getattr(slotstates, name) for name in slotstates.__all__}
    rules = type(
        "Broken", (), {name: staticmethod(f) for name, f in {**names, **broken}.items() if callable(f)}
    )
    with pytest.raises(Violation):
        search(World(scenario, rules))


def test_the_search_finds_a_wrong_order_of_questions() -> None:
    """Who is alive is asked after who owns: one that is born in between would be taken for dead."""
    with pytest.raises(Violation):
        search(World(SCENARIOS[3], alive_first=True))


@given(st.sampled_from(SlotState), st.integers(0, 2**13 - 1), st.integers(0, 2**48 - 1))
def test_a_word_is_its_parts(state: SlotState, sequence: int, owner: int) -> None:
    word = slotstates.pack(state, sequence, owner)
    assert 0 <= word < 2**64
    assert slotstates.unpack(word) == (state, sequence, owner)


@given(st.integers(1, 2**62))
def test_an_owner_fits_and_is_somebody(incarnation: int) -> None:
    owner = slotstates.owner_of(incarnation)
    assert 0 < owner < 2**48
    if incarnation < 2**48 - 1:
        assert owner == incarnation


def test_sequence_numbers_begin_again() -> None:
    word = slotstates.pack(SlotState.FREE, 2**13 - 1, NOBODY)
    taken = slotstates.take(word, 7)
    assert taken is not None
    assert slotstates.unpack(taken) == (SlotState.FILLING, 0, 7)


def test_a_lease_ends_once() -> None:
    taken = slotstates.take(0, 7)
    assert taken is not None
    free = slotstates.give_back(taken)
    assert free is not None
    assert slotstates.give_back(free) is None
    assert slotstates.fill(free) is None
    assert slotstates.drain(taken) is None
    again = slotstates.take(free, 7)
    assert again not in (None, taken)

"""Writing in place, searched exhaustively; and the search tried on broken rules that it must catch."""

from __future__ import annotations

import pytest
from ledger_inplace import InPlaceSteps
from ledger_scenarios import BLOCK_0, BLOCK_1, NEW_BLOCKS, V1, Case
from ledger_search import search
from ledger_steps import Rules, Steps, Violation
from ledger_world import Move, Put, Remove, Scenario

from sarrapipe.ledger import inplace
from sarrapipe.ledger.inplace import InPlace, MayWrite

BLOCKS = (BLOCK_0, BLOCK_1)
V2 = Put("a", "v2", pub=2, mtime=2)
MOVED = Move("a", "b", "v0", pub=1, mtime=0)


def _case(name: str, messages: tuple[object, ...], final: dict[str, str | None], states: int, **more: object):
    versions = {path: (version,) for path, version in final.items()}
    return Case(Scenario(name, messages, versions, before="v0", **more), states)


QUICK = [
    _case("in place k1", BLOCKS, {"a": "v1"}, 3900, heard=("v1",), kills=1),
    _case("in place k2", BLOCKS, {"a": "v1"}, 10_000, heard=("v1",), kills=2),
    _case("in place over what is not announced", (V1, *NEW_BLOCKS), {"a": "v2"}, 8200, heard=("v2",)),
    _case("in place, moved", (*NEW_BLOCKS, MOVED), {"a": "v2", "b": "v0"}, 19_000, heard=("v2", "v0")),
]

SLOW = [
    _case("in place, rests k1", BLOCKS, {"a": "v1"}, 26_000, heard=("v1",), kills=1, rests=1),
    _case("in place, removed", (*BLOCKS, Remove("a", 2)), {"a": None}, 75_000, heard=("",)),
    _case("in place, then a newer file", (*BLOCKS, V2), {"a": "v2"}, 110_000, heard=("v2",)),
]


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.scenario.name)
def test_no_interleaving_breaks_a_guarantee(case: Case):
    found = search(case.scenario, InPlaceSteps())
    assert found.states >= case.states
    assert found.ends > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", SLOW, ids=lambda case: case.scenario.name)
def test_no_longer_interleaving_breaks_a_guarantee(case: Case):
    found = search(case.scenario, InPlaceSteps(), limit=3_000_000)
    assert found.states >= case.states
    assert found.ends > 0


def whatever_is_pending(w, held, *, is_there):
    """Writes over what was committed and is not announced."""
    return InPlace(MayWrite.YES if is_there else MayWrite.LOST)


def wherever_it_is(w, held, *, is_there):
    """Writes into a file that was renamed between its marking and the decision."""
    del is_there
    return inplace.may_write(w, held, is_there=True)


def _rules(may_write: object) -> InPlaceSteps:
    return InPlaceSteps(type("Broken", (Rules,), {"may_write": staticmethod(may_write)}))


class MarkedFilesMove(InPlaceSteps):
    """A rename takes what is being written for what it means."""

    def _holds(self, w, path, version):
        return Steps._holds(self, w, path, version)


BROKEN = [
    ("in place over what is not announced", _rules(whatever_is_pending)),
    ("in place, moved", _rules(wherever_it_is)),
    ("in place, moved", MarkedFilesMove()),
]


@pytest.mark.parametrize(
    ("name", "steps"), BROKEN, ids=["whatever is pending", "wherever it is", "marked files move"]
)
def test_the_search_catches_broken_rules(name: str, steps: InPlaceSteps):
    scenario = next(case.scenario for case in QUICK if case.scenario.name == name)
    with pytest.raises(Violation):
        search(scenario, steps)

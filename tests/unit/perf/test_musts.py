"""What must be reached is judged from results: the median counts, less than the promised size is said."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from perf.benchset import MUSTS_SET
from perf.musts import HEAD, MUSTS, Kind, Must, Verdict, judge, row
from perf.musttable import print_musts
from perf.page import page
from perf.scenario import NAMES, load

_RATIO = Must(what="a thing", scenario="one", key="peer", must=1.0, aim=1.5, size_bytes=1000)
_LIMIT = Must(
    what="a wait", scenario="one", key="ours p99_ms", must=500.0, aim=200.0, kind=Kind.AT_MOST, unit="ms"
)


def _document(*ratios: float, ok: bool = True, size_bytes: int = 1000, **figures: float) -> dict[str, Any]:
    ordered = sorted(ratios)
    found = {"low": ordered[0], "median": ordered[len(ordered) // 2], "high": ordered[-1]} if ratios else {}
    return {
        "name": "one",
        "ok": ok,
        "asked": {"size_bytes": size_bytes},
        "compared": [{"key": "peer", "ours": "ours", "peer": "peer", "figure": "seconds"}],
        "ratio_spread": {"peer": found} if found else {},
        "ratios": {},
        "machine": {
            "time": "t", "commit": "c", "cpus": 2, "cpu": "x", "kernel": "6", "python": "3", "place": "/x",
        },
        "against": "all",
        "figures": [
            {"side": "ours", "turn": turn, "ok": ok, "wrong": [], "figures": figures, "settings": {}}
            for turn in range(len(ratios) or 1)
        ],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ((1.5,), Verdict.AIM),
        ((0.9, 1.6, 1.7), Verdict.AIM),
        ((0.9, 1.0, 2.0), Verdict.MET),
        ((0.9, 0.99, 2.0), Verdict.MISSED),
        ((), Verdict.UNSEEN),
    ],
)
def test_the_median_of_the_turns_decides(ratios: tuple[float, ...], verdict: Verdict) -> None:
    (seen,) = judge([_document(*ratios)], [_RATIO])
    assert seen.verdict is verdict
    assert seen.kept is (verdict in (Verdict.AIM, Verdict.MET))


def test_what_was_not_run_is_not_measured_and_not_kept() -> None:
    (seen,) = judge([], [_RATIO])
    assert (seen.verdict, seen.kept) == (Verdict.UNSEEN, False)
    assert row(seen) == ("a thing", "1.00", "1.50", "", "", "", "not measured")


def test_wrong_output_keeps_no_promise_however_fast() -> None:
    (seen,) = judge([_document(9.0, ok=False)], [_RATIO])
    assert (seen.verdict, seen.kept) == (Verdict.WRONG, False)


@pytest.mark.parametrize(
    ("p99", "verdict"), [(150.0, Verdict.AIM), (500.0, Verdict.MET), (501.0, Verdict.MISSED)]
)
def test_a_figure_of_ours_has_a_limit_of_its_own(p99: float, verdict: Verdict) -> None:
    (seen,) = judge([_document(p99_ms=p99)], [_LIMIT])
    assert seen.verdict is verdict
    assert row(seen)[1] == "at most 500 ms"


@pytest.mark.parametrize(("ratio", "kept"), [(0.89, False), (0.91, True), (1.09, True), (1.2, False)])
def test_equal_is_within_a_tenth_both_ways(ratio: float, kept: bool) -> None:
    must = Must(what="memory", scenario="one", key="peer", must=1.0, kind=Kind.EQUAL)
    (seen,) = judge([_document(ratio)], [must])
    assert seen.kept is kept
    assert row(seen)[1] == "0.9 - 1.1"


def test_an_aim_alone_breaks_no_promise() -> None:
    must = Must(what="x", scenario="one", key="peer", must=None, aim=0.9)
    (seen,) = judge([_document(0.5)], [must])
    assert (seen.verdict, seen.kept) == (Verdict.SHORT, True)


def test_a_result_of_less_than_the_promised_size_says_so() -> None:
    (seen,) = judge(
        [_document(1.2, size_bytes=512 << 20)],
        [Must(what="x", scenario="one", key="peer", must=1.0, size_bytes=1 << 30)],
    )
    assert seen.smaller
    assert row(seen)[-1] == "met (512 MiB only)"
    assert not judge([_document(1.2)], [_RATIO])[0].smaller


def test_every_promise_names_a_ratio_or_a_figure_that_there_is() -> None:
    for must in MUSTS:
        scenario = load(must.scenario)
        if must.unit:
            side, figure = must.key.split()
            assert side in scenario.ours
            assert figure in scenario.figures
        else:
            assert must.key in {each.key for each in scenario.comparisons}, must.what


def test_the_set_that_is_run_for_it_has_every_side_it_needs() -> None:
    entries = {entry.name: entry for entry in MUSTS_SET}
    assert entries.keys() == {must.scenario for must in MUSTS}
    for must in (each for each in MUSTS if not each.unit):
        (compared,) = (each for each in load(must.scenario).comparisons if each.key == must.key)
        peers = {compared.peer} if isinstance(compared.peer, str) else set(compared.peer)
        only = set(entries[must.scenario].only)
        # A side that is a hash beside the fetches is always run.
        assert not only or {compared.ours, *peers} - {"sha512"} <= only, must.what


def test_it_is_printed_and_stands_on_the_page() -> None:
    console = Console(width=150, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as captured:
        print_musts(console, judge([_document(1.6)], [_RATIO]))
    text = captured.get()
    assert "aim met" in text
    assert all(heading in text for heading in HEAD)
    document = _document(1.3) | {"name": "relay"}
    document["compared"][0]["key"] = "curl"
    document["ratio_spread"] = {"curl": document["ratio_spread"]["peer"]}
    assert "relay 4 GiB" in page([document])
    assert "relay" in NAMES

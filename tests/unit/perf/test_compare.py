"""Ratios and spreads of benchmark runs."""

from __future__ import annotations

import pytest

from perf.compare import Run, ratio, spread, values


def _run(side: str, turn: int, **figures: float) -> Run:
    return Run(side=side, turn=turn, ok=True, figures=figures)


def test_a_spread_is_minimum_median_and_maximum() -> None:
    result = spread([3.0, 1.0, 10.0])
    assert (result.low, result.median, result.high) == (1.0, 3.0, 10.0)
    with pytest.raises(ValueError, match="no figures"):
        spread([])


def test_a_rate_is_compared_turn_by_turn_and_above_one_is_better() -> None:
    runs = [
        _run("ours", 0, rate=1000.0),
        _run("peer", 0, rate=100.0),
        _run("ours", 1, rate=300.0),
        _run("peer", 1, rate=150.0),
        _run("ours", 2, rate=900.0),
        _run("peer", 2, rate=100.0),
    ]
    result = ratio("r", runs, ours="ours", peer="peer", figure="rate", more_is_better=True)
    assert result is not None
    assert result.turns == (10.0, 2.0, 9.0)
    assert result.spread.median == 9.0


def test_times_are_compared_the_other_way_round() -> None:
    runs = [_run("ours", 0, s=0.5), _run("peer", 0, s=2.0)]
    result = ratio("r", runs, ours="ours", peer="peer", figure="s", more_is_better=False)
    assert result is not None
    assert result.turns == (4.0,)


def test_turns_that_lack_a_side_or_a_figure_are_left_out() -> None:
    runs = [
        _run("ours", 0, s=1.0),
        _run("ours", 1, s=1.0),
        _run("peer", 1, other=3.0),
        _run("ours", 2, s=0.0),
        _run("peer", 2, s=3.0),
    ]
    assert values(runs, "ours", "s") == {0: 1.0, 1: 1.0, 2: 0.0}
    assert ratio("r", runs, ours="ours", peer="peer", figure="s", more_is_better=False) is None


def test_of_several_peers_the_best_of_each_turn_counts_and_a_wrong_one_does_not() -> None:
    runs = [
        _run("ours", 0, s=1.0),
        _run("a", 0, s=2.0),
        _run("b", 0, s=3.0),
        Run(side="c", turn=0, ok=False, figures={"s": 0.1}),
        _run("ours", 1, s=1.0),
        _run("a", 1, s=4.0),
        _run("b", 1, s=1.5),
    ]
    result = ratio("best", runs, ours="ours", peer=("a", "b", "c"), figure="s", more_is_better=False)
    assert result is not None
    assert result.turns == (2.0, 1.5)


def test_a_failed_run_of_ours_yields_no_ratio_and_a_peers_does() -> None:
    failed = Run(side="ours", turn=0, ok=False, figures={"s": 1.0})
    assert ratio("r", [failed, _run("peer", 0, s=2.0)], ours="ours", peer="peer", figure="s",
                 more_is_better=False) is None  # fmt: skip
    peer = Run(side="peer", turn=0, ok=False, figures={"s": 2.0})
    result = ratio("r", [_run("ours", 0, s=1.0), peer], ours="ours", peer="peer", figure="s",
                   more_is_better=False)  # fmt: skip
    assert result is not None
    assert result.turns == (2.0,)

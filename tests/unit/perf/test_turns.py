"""Sides take turns, and what the host spoiled is repeated."""

from __future__ import annotations

from perf.bench import RunOptions
from perf.compare import Run
from perf.turns import run_turns

_OPTIONS = RunOptions(runs=2, files=1, size_bytes=1)


class _Side:
    """Hands out runs with the steal of a script, and notes the order in which sides were asked."""

    def __init__(self, name: str, order: list[str], steals: list[float], wrong: tuple[str, ...] = ()) -> None:
        self._name, self._order, self._steals, self._wrong = name, order, steals, wrong

    def __call__(self, turn: int) -> Run:
        self._order.append(f"{self._name}{turn}")
        figures = {"steal": self._steals.pop(0), "left": float(len(self._steals))}
        return Run(side=self._name, turn=turn, ok=not self._wrong, wrong=self._wrong, figures=figures)


def test_sides_take_turns() -> None:
    order: list[str] = []
    sides = {"a": _Side("a", order, [0.0, 0.0]), "b": _Side("b", order, [0.0, 0.1])}
    runs = run_turns(lambda _line: None, _OPTIONS, sides)
    assert order == ["a0", "b0", "a1", "b1"]
    assert [(run.side, run.turn, run.repeated) for run in runs] == [
        ("a", 0, 0),
        ("b", 0, 0),
        ("a", 1, 0),
        ("b", 1, 0),
    ]


def test_only_the_sides_asked_for_run() -> None:
    order: list[str] = []
    options = RunOptions(runs=1, files=1, size_bytes=1, only=("b",))
    run_turns(lambda _line: None, options, {"a": _Side("a", order, []), "b": _Side("b", order, [0.0])})
    assert order == ["b0"]


def test_a_spoiled_run_is_repeated_and_says_so() -> None:
    said: list[str] = []
    side = _Side("a", [], [0.3, 0.05, 0.0])
    runs = run_turns(said.append, _OPTIONS, {"a": side})
    assert [(run.figures["steal"], run.repeated) for run in runs] == [(0.05, 1), (0.0, 0)]
    assert len(said) == 1
    assert "30%" in said[0]


def test_after_three_repetitions_the_least_spoiled_one_stays() -> None:
    options = RunOptions(runs=1, files=1, size_bytes=1)
    (run,) = run_turns(lambda _line: None, options, {"a": _Side("a", [], [0.5, 0.2, 0.4, 0.3, 0.0])})
    assert (run.figures["steal"], run.repeated) == (0.2, 3)


def test_a_wrong_output_is_not_thrown_away_with_a_spoiled_run() -> None:
    class Wrong(_Side):
        def __call__(self, turn: int) -> Run:
            self._wrong = ("bytes",) if len(self._steals) == 2 else ()
            return super().__call__(turn)

    options = RunOptions(runs=1, files=1, size_bytes=1)
    (run,) = run_turns(lambda _line: None, options, {"a": Wrong("a", [], [0.5, 0.0])})
    assert not run.ok
    assert run.wrong == ("bytes",)


def test_no_turn_is_begun_that_would_end_too_late_but_the_first() -> None:
    said: list[str] = []
    order: list[str] = []
    options = RunOptions(runs=3, files=1, size_bytes=1, until_s=0.0)
    runs = run_turns(said.append, options, {"a": _Side("a", order, [0.0, 0.0, 0.0])})
    assert order == ["a0"]
    assert len(runs) == 1
    assert said == ["1 of 3 turns: the time is over"]

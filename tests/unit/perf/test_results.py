"""Results are read back, shown on a page of their own, and compared with earlier ones."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from perf.compare import Run
from perf.documents import Document, DocumentError, read_documents
from perf.moved import moves
from perf.page import page
from perf.report import build
from perf.scenario import NAMES, Comparison, Scenario, load
from perf.scenarios.latency import percentile
from perf.svg import Bar, bars, lines

_FACTS: dict[str, object] = {
    "time": "2026-01-01T00:00:00Z", "commit": "abc", "kernel": "6", "cpu": "a <b>", "cpus": 2,
    "python": "3.11", "place": "/x", "load": (0.0, 0.0, 0.0), "limits_mb_per_s": {"memcpy": 8000.0},
}  # fmt: skip


def _scenario(over: str = "") -> Scenario:
    return Scenario(
        name="one",
        summary="one & only",
        runs=1,
        files=1,
        size_bytes=1,
        in_memory=True,
        comparisons=(
            Comparison(key="peer", ours="ours", peer="peer", figure="seconds"),
            Comparison(key="best", ours="ours", peer=("peer", "other"), figure="seconds"),
        ),
        ours=("ours",),
        figures=("seconds", "mb_per_s", "size_mb"),
        run=lambda _bench, _options: [],
        over=over,
    )


def _document(seconds: list[float], *, over: str = "", ok: bool = True) -> Document:
    runs = []
    for turn, value in enumerate(seconds):
        ours = {"seconds": value, "mb_per_s": 100 / value, "size_mb": 1.0 + turn, "tool_user_s": 0.5,
                "tool_system_s": 0.25}  # fmt: skip
        runs.append(Run(side="ours", turn=turn, ok=ok, wrong=() if ok else ("<bytes>",), figures=ours))
        runs.append(Run(side="peer", turn=turn, ok=True, figures={"seconds": 2.0}, repeated=1))
    return json.loads(json.dumps(build(_scenario(over), runs, _FACTS, "all of them")))


def test_documents_are_read_from_files_and_directories_and_the_newest_counts(tmp_path: Path) -> None:
    old, new = _document([1.0]), _document([2.0])
    new["machine"]["time"] = "2026-02-01T00:00:00Z"
    (tmp_path / "b.json").write_text(json.dumps(old))
    (tmp_path / "a.json").write_text(json.dumps(new))
    assert read_documents([str(tmp_path)]) == [new]
    assert read_documents([str(tmp_path / "b.json")]) == [old]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "x", "machine": {}, "ratios": {}}', "not json"])
def test_a_file_of_another_kind_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DocumentError, match=r"x\.json"):
        read_documents([str(tmp_path)])


def test_no_results_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="no results"):
        read_documents([str(tmp_path)])


def test_the_page_has_everything_in_it_and_fetches_nothing() -> None:
    text = page([_document([1.0, 1.1, 0.9])])
    assert "one &amp; only" in text
    assert "a &lt;b&gt;" in text
    assert text.count("<svg") == 2
    assert "memcpy 8,000" in text
    assert "src=" not in text
    assert 'href="#one"' in text
    assert "thrown away" in text
    for reference in ("http://", "https://"):
        assert reference not in text.replace("http://www.w3.org/2000/svg", "")


def test_the_page_shows_growth_and_failure() -> None:
    text = page([_document([1.0, 4.0], over="size_mb", ok=False)])
    assert "our output is WRONG" in text
    assert "&lt;bytes&gt;" in text
    assert "<polyline" in text
    assert "memcpy" in text


def test_plots_are_well_formed_whatever_the_numbers() -> None:
    side = Bar(label="<a&b>", low=0.0, median=0.0, high=0.0, text="0", failed=True)
    for drawing in (
        bars([side], "t"),
        bars([], "t"),
        lines({}, "t", "x"),
        lines({"a": [(1.0, 2.0)], "b": [(0.0, 3.0), (1000.0, 1e6)]}, "t <", "x"),
    ):
        ElementTree.fromstring(drawing)


def test_noise_has_not_moved() -> None:
    assert moves([_document([1.0, 1.2, 0.9])], [_document([1.1, 1.0, 1.15])]) == []
    assert moves([_document([1.0])], [_document([1.12])]) == []  # one turn: no spread to judge by
    assert (
        moves([_document([1.0, 1.001, 1.002])], [_document([1.03, 1.031, 1.032])]) == []
    )  # apart, but small


def test_what_moved_is_told_worst_first_and_the_better_is_told_from_the_worse() -> None:
    slower = moves([_document([1.0, 1.01, 0.99])], [_document([1.5, 1.51, 1.49])])
    assert {move.what for move in slower} == {"ratio peer", "ratio best", "ours seconds", "ours mb_per_s"}
    assert not any(move.better for move in slower)
    assert [abs(move.change) for move in slower] == sorted((abs(m.change) for m in slower), reverse=True)
    faster = moves([_document([1.5, 1.51, 1.49])], [_document([1.0, 1.01, 0.99])])
    assert faster
    assert all(move.better for move in faster)


def test_scenarios_that_only_one_has_are_left_out() -> None:
    other = _document([9.0])
    other["name"] = "other"
    assert moves([_document([1.0])], [other]) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_scenario_is_consistent(name: str) -> None:
    scenario = load(name)
    assert scenario.name == name
    assert set(scenario.ours)
    assert all(each.ours in scenario.ours for each in scenario.comparisons)
    keys = [each.key for each in scenario.comparisons]
    assert len(set(keys)) == len(keys)
    assert scenario.runs >= 1


def test_percentiles_are_values_that_were_seen() -> None:
    numbers = [float(n) for n in range(1, 101)]
    assert percentile(numbers, 0.5) == 50.0
    assert percentile(numbers, 0.99) == 99.0
    assert percentile([3.0], 0.99) == 3.0
    with pytest.raises(ValueError, match="no figures"):
        percentile([], 0.5)

from __future__ import annotations

import pytest

from sarrapipe.errors import (
    IdentityMismatch,
    NoSpace,
    RangeNotHonoured,
    SourceChanged,
    SourceGone,
    TransferError,
)
from sarrapipe.flow.sources import Source, Sources

A, B, C = "http://a/f", "http://b/f", "http://c/f"


@pytest.fixture
def two() -> tuple[Sources, Source, Source]:
    sources = Sources(Source(A))
    sources.learn([(A, '"a"'), (B, '"b"')], lambda url: True)
    first, second = sources
    return sources, first, second


def test_each_pins_its_own_version(two):
    _, first, second = two
    assert (first.validator, second.validator) == ('"a"', '"b"')


def test_a_version_that_is_pinned_stays(two):
    sources, first, _ = two
    sources.learn([(A, '"other"')], lambda url: True)
    assert first.validator == '"a"'


def test_the_version_of_a_source_whose_url_only_its_owner_can_use():
    source = Source(A, is_escaped=True)
    Sources(source).pinned("", '"a"')
    assert source.validator == '"a"'


def test_what_cannot_be_used_is_not_taken_up():
    sources = Sources(Source(A))
    sources.learn([("", ""), ("file:/etc/passwd", ""), (B, "")], lambda url: url == B)
    assert [source.url for source in sources] == [A, B]


def test_they_are_bounded():
    sources = Sources(Source(A))
    sources.learn([(f"http://{number}/f", "") for number in range(100)], lambda url: True)
    assert len(sources) == 9


def test_the_next_segment_comes_from_where_most_streams_are_free(two):
    sources, first, second = two
    assert sources.pick({"http://a": 1, "http://b": 2}.get) is second
    assert sources.pick({"http://a": 2, "http://b": 1}.get) is first
    assert sources.pick({"http://a": 2, "http://b": 1}.get, avoid=first) is second
    assert sources.room({"http://a": 2, "http://b": -1}.get) == 2


@pytest.mark.parametrize("error", [SourceChanged, SourceGone, RangeNotHonoured, IdentityMismatch])
def test_one_that_holds_something_else_is_left_out_at_once(two, error):
    sources, first, second = two
    assert sources.failed(first, error("x"), 3)
    assert list(sources) == [second]
    assert not sources.is_live(first)


def test_one_that_fails_is_left_out_after_some_failures_in_a_row(two):
    sources, first, second = two
    assert not sources.failed(first, TransferError("x"), 3)
    assert not sources.failed(first, TransferError("x"), 3)
    first.failures = 0
    assert not sources.failed(first, TransferError("x"), 3)
    assert not sources.failed(first, TransferError("x"), 3)
    assert sources.failed(first, TransferError("x"), 3)
    assert list(sources) == [second]
    sources.learn([(A, "")], lambda url: True)
    assert list(sources) == [second], "and does not come back"


def test_the_last_one_is_never_left_out():
    sources = Sources(Source(A))
    assert not sources.failed(sources.first, SourceChanged("x"), 1)
    assert len(sources) == 1


def test_what_the_disk_refuses_is_no_fault_of_a_source(two):
    sources, first, _ = two
    assert not sources.failed(first, NoSpace("x"), 1)
    assert len(sources) == 2

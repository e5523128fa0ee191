"""R17: large files move as segments; the plan covers every byte exactly once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarrapipe.segment.plan import MOST_SEGMENTS, Segment, SegmentPlan, segment_size

MIB = 1 << 20


@given(size=st.integers(0, 1 << 62), cut=st.integers(1, 1 << 40))
def test_segments_partition_the_file(size: int, cut: int) -> None:
    plan = SegmentPlan(size, max(cut, size // 5000 + 1))
    end = 0
    for number, segment in enumerate(plan):
        assert segment.number == number
        assert segment.offset == end
        assert segment.length > 0 or size == 0
        end = segment.end
    assert end == size
    assert len(plan) == number + 1


@given(size=st.integers(1, 1 << 50), data=st.data())
def test_covering_is_what_overlaps(size: int, data: st.DataObject) -> None:
    plan = SegmentPlan(size, size // 40 + 1)
    offset = data.draw(st.integers(0, size))
    length = data.draw(st.integers(0, size - offset))
    overlapping = [s.number for s in plan if s.offset < offset + length and offset < s.end and length]
    assert list(plan.covering(offset, length)) == overlapping


@given(size=st.integers(0, 1 << 60), minimum=st.integers(1, 1 << 40), stream=st.integers(0, 1 << 32))
def test_segment_size_keeps_its_bounds(size: int, minimum: int, stream: int) -> None:
    cut = segment_size(size, minimum, stream_bytes=stream)
    assert cut % MIB == 0
    assert cut >= minimum
    assert cut >= 10 * stream
    assert len(SegmentPlan(size, cut)) <= MOST_SEGMENTS


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, 8), (1, 8), (8 * MIB, 8), (16_000 * MIB, 8), (16_001 * MIB, 9), (100_000 * MIB, 50)],
)
def test_segment_size_of_known_files(size: int, expected: int) -> None:
    assert segment_size(size) == expected * MIB


def test_the_last_segment_is_what_is_left() -> None:
    assert list(SegmentPlan(20 * MIB, 8 * MIB)) == [
        Segment(0, 0, 8 * MIB),
        Segment(1, 8 * MIB, 8 * MIB),
        Segment(2, 16 * MIB, 4 * MIB),
    ]


def test_an_empty_file_is_one_empty_segment() -> None:
    assert list(SegmentPlan(0, 8)) == [Segment(0, 0, 0)]
    assert list(SegmentPlan(0, 8).covering(0, 0)) == []


@pytest.mark.parametrize(("size", "cut"), [(-1, 8), (8, 0), (8, -1)])
def test_refuses_what_is_no_plan(size: int, cut: int) -> None:
    with pytest.raises(ValueError, match="no plan"):
        SegmentPlan(size, cut)


@pytest.mark.parametrize(("size", "minimum", "stream"), [(-1, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_refuses_what_gives_no_size(size: int, minimum: int, stream: int) -> None:
    with pytest.raises(ValueError, match="no segment size"):
        segment_size(size, minimum, stream_bytes=stream)


@pytest.mark.parametrize("number", [-1, 3])
def test_there_is_no_such_segment(number: int) -> None:
    with pytest.raises(IndexError):
        SegmentPlan(20, 8)[number]


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, 21), (20, 1), (1, -1)])
def test_refuses_a_range_outside_the_file(offset: int, length: int) -> None:
    with pytest.raises(ValueError, match="not inside"):
        SegmentPlan(20, 8).covering(offset, length)

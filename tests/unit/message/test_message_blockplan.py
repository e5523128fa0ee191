"""How files are cut into announced blocks: thresholds, ranges, order, and what a message says of it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe.errors import TooLarge
from sarrapipe.message.blockplan import MAX_BLOCKS, BlockPlan, block_size, version_id
from sarrapipe.message.blocks import parse_blocks

MIB = 1 << 20


@pytest.mark.parametrize(
    ("wanted", "file_size", "expected"),
    [
        (1, 10**12, None),
        (1000, 999, None),
        (1000, 1000, None),
        (1000, 1001, 1000),
        (2, 3, 2),
        (0, 0, None),
        (0, 50 * MIB, None),
        (0, 50 * MIB + 1, 17_476_267),
        (0, 500 * MIB, 174_762_667),
        (0, 500 * MIB + 1, 50 * MIB + 1),
        (0, 5000 * MIB, 500 * MIB),
        (0, 5000 * MIB + 1, 500 * MIB),
        (0, 10**13, 500 * MIB),
    ],
)
def test_block_sizes(wanted, file_size, expected):
    # wire.md 2.3
    assert block_size(wanted, file_size) == expected


def test_what_is_automatic_for_sr3_is_50_mib():
    assert block_size(0, 120 * MIB, as_sr3=True) == 50 * MIB
    assert block_size(0, 50 * MIB, as_sr3=True) is None
    assert block_size(7, 120 * MIB, as_sr3=True) == 7


def test_equal_announcements_have_equal_ids_and_other_versions_others():
    one = version_id("a/b", 10, 20)
    assert one == version_id("a/b", 10, 20)
    assert len({one, version_id("a/c", 10, 20), version_id("a/b", 11, 20), version_id("a/b", 10, 21)}) == 4


@given(st.integers(2, 2**40), st.integers(1, 2**20), st.data())
@settings(max_examples=200, deadline=None)
def test_what_is_announced_is_read_as_it_was_meant(file_size, size, data):
    size = min(max(size, -(-file_size // MAX_BLOCKS)), file_size)
    plan = BlockPlan.of(file_size, size, "v")
    number = data.draw(st.integers(0, plan.count - 1))
    entry = plan.entry(number, "AA==")
    blocks = parse_blocks(plan.wire(number, {number: entry}))
    assert (blocks.offset, blocks.length) == plan.range_of(number)
    assert (blocks.file_size, blocks.count, blocks.number) == (file_size, plan.count, number)
    assert (blocks.method, blocks.id, blocks.manifest) == ("inplace", "v", {number: entry})


@given(st.integers(2, 5000), st.integers(1, 5000))
@settings(max_examples=100, deadline=None)
def test_ranges_cover_a_file_without_gap_or_overlap(file_size, size):
    plan = BlockPlan.of(file_size, size, "v")
    end = 0
    for number in plan.order():
        offset, length = plan.range_of(number)
        assert offset == end
        assert 0 < length <= size
        end += length
    assert end == file_size


def test_a_random_order_has_every_block_once():
    plan = BlockPlan.of(1000, 7, "v")
    order = list(plan.order(random.Random(1)))
    assert order != sorted(order)
    assert sorted(order) == list(range(plan.count))


def test_a_slip_in_block_size_is_refused():
    assert BlockPlan.of(MAX_BLOCKS * 10, 10, "v").count == MAX_BLOCKS
    with pytest.raises(TooLarge, match="raise blockSize"):
        BlockPlan.of(MAX_BLOCKS * 10 + 1, 10, "v")

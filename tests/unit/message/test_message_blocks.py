"""Announced blocks: both dialects, and the arithmetic of wire.md 2.1."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe.errors import MessageError
from sarrapipe.message.blocks import Blocks, ManifestEntry, parse_blocks, wire_int

SR3 = {
    "method": "inplace",
    "size": 1000,
    "number": 1,
    "manifest": {
        "0": {"size": 1000, "identity": "AA=="},
        "1": {"size": 1000, "identity": "AQ=="},
        "2": {"size": 560, "identity": "Ag=="},
    },
}
V2 = {"method": "inplace", "size": "1000", "count": "3", "remainder": "560", "number": "1"}


def test_both_dialects_say_the_same():
    sr3, v2 = parse_blocks(SR3), parse_blocks(V2)
    for blocks in (sr3, v2):
        assert (blocks.count, blocks.remainder, blocks.number) == (3, 560, 1)
        assert (blocks.offset, blocks.length, blocks.file_size) == (1000, 1000, 2560)
    assert sr3.manifest is not None
    assert sr3.manifest[2] == ManifestEntry(560, "Ag==")
    assert v2.manifest is None


def test_the_union_of_both_is_written_with_integers():
    assert parse_blocks(V2).to_wire() == {
        "method": "inplace",
        "size": 1000,
        "count": 3,
        "remainder": 560,
        "number": 1,
    }
    assert parse_blocks(SR3).to_wire() == {**SR3, "count": 3, "remainder": 560}


def test_a_manifest_with_the_own_entry_only_needs_a_count():
    wire = {"method": "inplace", "size": 8, "number": 1, "count": 3, "id": "x", "remainder": 0}
    wire["manifest"] = {"1": {"size": 8, "identity": "AQ=="}}
    blocks = parse_blocks(wire)
    assert blocks.file_size == 24
    assert blocks.to_wire() == wire
    del wire["count"]
    with pytest.raises(MessageError, match=r"blocks\.manifest: incomplete"):
        parse_blocks(wire)


def test_an_exact_multiple_has_no_remainder():
    wire = {"method": "inplace", "size": 1024, "count": 2, "remainder": 0, "number": 1}
    assert parse_blocks(wire).length == 1024
    assert parse_blocks(wire).file_size == 2048


def test_sr3s_v02_export_leaves_the_file_size_open_until_the_last_block():
    """It writes the block's own size as remainder (wire.md 2.1)."""
    middle = parse_blocks({**V2, "remainder": "1000"})
    assert (middle.length, middle.offset, middle.remainder, middle.file_size) == (1000, 1000, None, None)
    assert "remainder" not in middle.to_wire()
    last = parse_blocks({**V2, "remainder": "1000", "number": "2"})
    assert (last.length, last.file_size) == (1000, 3000)


def test_the_last_block_tells_the_remainder_by_its_own_size():
    wire = {"method": "inplace", "size": 1000, "count": 3, "number": 2}
    assert parse_blocks(wire, length=560).file_size == 2560
    assert parse_blocks(wire, length=1000).file_size == 3000
    assert parse_blocks(wire).file_size is None


def test_whitespace_in_manifest_identities_goes():
    wire = {**SR3, "manifest": {**SR3["manifest"], "1": {"size": "1000", "identity": "AQ\n=="}}}
    blocks = parse_blocks(wire)
    assert blocks.manifest is not None
    assert blocks.manifest[1] == ManifestEntry(1000, "AQ==")


def test_an_entry_without_identity_is_kept_so():
    wire = {"method": "inplace", "size": 8, "number": 0, "manifest": {"0": {"size": 5}}}
    assert parse_blocks(wire).to_wire()["manifest"] == {"0": {"size": 5}}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"method": "sideways"}, "blocks.method"),
        ({"method": ["inplace"]}, "blocks.method"),
        ({"method": None}, "blocks.method"),
        ({"size": 0}, "blocks"),
        ({"size": -1}, "blocks"),
        ({"size": 2**63}, "blocks"),
        ({"size": 1.5}, "blocks.size"),
        ({"size": None}, "blocks.size"),
        ({"size": "1e3"}, "blocks.size"),
        ({"count": 0}, "blocks"),
        ({"count": None}, "blocks.count"),
        ({"count": "three"}, "blocks.count"),
        ({"count": 2**62}, "blocks"),
        ({"number": 3}, "blocks"),
        ({"number": -1}, "blocks"),
        ({"number": True}, "blocks.number"),
        ({"remainder": 1001}, "blocks.remainder"),
        ({"remainder": -1}, "blocks.remainder"),
        ({"id": 5}, "blocks.id"),
        ({"manifest": []}, "blocks.manifest"),
        ({"manifest": {"x": {}}}, "blocks.manifest"),
        ({"manifest": {"0": 3}}, "blocks.manifest.0"),
        ({"manifest": {"0": {"size": -1}}}, "blocks.manifest.0"),
        ({"manifest": {"0": {"size": 999}}}, "blocks.manifest.0.size"),
        ({"manifest": {"0": {"size": 1000, "identity": 3}}}, "blocks.manifest.0.identity"),
        ({"manifest": {"0": {}}}, "blocks.manifest.0.size"),
        ({"manifest": {"3": {"size": 1000}}}, "blocks.manifest.3"),
    ],
)
def test_what_is_malformed_is_named(change, field):
    wire = {key: value for key, value in {**V2, **change}.items() if value is not None}
    with pytest.raises(MessageError) as caught:
        parse_blocks(wire)
    assert str(caught.value).startswith(field + ":")


@given(st.integers(1, 2**40), st.integers(1, 2**20), st.data())
@settings(max_examples=100, deadline=None)
def test_blocks_cover_a_file_exactly_once(file_size, size, data):
    count = -(-file_size // size)
    number = data.draw(st.integers(0, count - 1))
    wire = {
        "method": "inplace",
        "size": size,
        "count": count,
        "remainder": file_size % size,
        "number": number,
    }
    blocks = parse_blocks(wire)
    assert blocks.file_size == file_size
    assert blocks.offset == number * size
    assert blocks.length == min(size, file_size - blocks.offset)
    assert parse_blocks(blocks.to_wire()) == blocks
    assert isinstance(blocks, Blocks)


@pytest.mark.parametrize(("value", "number"), [(7, 7), ("7", 7), (" 7 ", 7), ("-7", -7), ("0", 0)])
def test_integers_come_as_numbers_or_digits(value, number):
    assert wire_int("size", value) == number


@pytest.mark.parametrize(
    "value", [None, True, 1.0, "", "-", "--7", "0x7", "7" * 20, 2**64, -(2**64), "\u0667", [7], "1_0", "+7"]
)
def test_anything_else_is_no_integer(value):
    with pytest.raises(MessageError, match=r"^size: "):
        wire_int("size", value)

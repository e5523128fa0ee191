"""What `segmentAt` makes of announcements."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarrapipe.callbacks.segment_at import blocks_of
from sarrapipe.message.model import Message

FIELDS = {"pubTime": "20240101T000000", "baseUrl": "http://h/", "relPath": "d/f", "size": 2560}
SHA512 = {"method": "sha512", "value": "A" * 86 + "=="}


def test_a_large_file_becomes_blocks_that_carry_its_identity():
    messages = blocks_of(Message({**FIELDS, "identity": SHA512}), 1000)
    assert [(m.blocks.number, m.size, m.blocks.offset) for m in messages] == [
        (0, 1000, 0),
        (1, 1000, 1000),
        (2, 560, 2000),
    ]
    for message in messages:
        assert message["blocks"]["file"] == SHA512
        assert message["identity"] == {"method": "cod", "value": "sha512"}
        assert message.blocks.file_size == 2560
    assert len({m.blocks.id for m in messages}) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 1000},
        {"size": None},
        {"fileOp": {"remove": ""}},
        {"content": {"encoding": "utf-8", "value": "x"}},
        {"baseUrl": "file:/d/"},
        {"blocks": {"method": "inplace", "size": 2000, "count": 2, "remainder": 560, "number": 0}},
    ],
)
def test_others_stay_whole(changes):
    message = Message(FIELDS).replace(**changes)
    assert blocks_of(message, 1000) == [message]


def test_versions_have_different_marks():
    one = blocks_of(Message({**FIELDS, "mtime": "20240101T000000"}), 1000)[0].blocks.id
    two = blocks_of(Message({**FIELDS, "mtime": "20240101T000001"}), 1000)[0].blocks.id
    assert one != two


@given(st.integers(0, 2**50), st.integers(1, 2**40))
def test_blocks_cover_the_file_once(size, block_bytes):
    if size > block_bytes and size // block_bytes > 10_000:
        block_bytes = size // 500
    messages = blocks_of(Message({**FIELDS, "size": size}), block_bytes)
    assert sum(message.size for message in messages) == size
    assert len(messages) <= 10_000

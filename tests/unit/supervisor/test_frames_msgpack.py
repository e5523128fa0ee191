"""Frames on the control socket and to the fork server."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe.errors import SupervisorError
from sarrapipe.supervisor.wire import FRAME_LIMIT, HEADER, Reader, pack

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.lists(values, max_size=4), st.data())
@settings(max_examples=100)
def test_values_come_back_however_the_stream_is_cut(sent, data):
    stream = b"".join(pack(value) for value in sent)
    reader, got = Reader(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        got += reader.feed(stream[:size])
        stream = stream[size:]
    assert got == sent


@given(st.binary(max_size=100))
@settings(max_examples=200)
def test_no_bytes_raise_anything_but_our_error(data):
    with contextlib.suppress(SupervisorError):
        Reader().feed(data)


def test_an_absurd_length_is_refused_before_anything_is_kept():
    with pytest.raises(SupervisorError, match="not from sarrapipe"):
        Reader().feed(HEADER.pack(FRAME_LIMIT + 1))

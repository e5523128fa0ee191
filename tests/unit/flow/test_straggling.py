from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarrapipe.errors import IdentityMismatch
from sarrapipe.flow.straggling import Pace, Scratch

MIB = 1 << 20


def test_nothing_is_late_before_siblings_have_arrived():
    pace = Pace()
    pace.took(MIB, 1.0)
    pace.took(MIB, 1.0)
    assert pace.late_after_s(MIB) == float("inf")
    pace.took(MIB, 1.0)
    assert pace.late_after_s(MIB) == pytest.approx(3.0)
    assert pace.late_after_s(MIB // 2) == pytest.approx(1.5), "a shorter one is late sooner"


def test_what_takes_no_time_is_not_late_at_once():
    pace = Pace()
    for _ in range(10):
        pace.took(MIB, 0.001)
    assert pace.late_after_s(MIB) == 0.5


@given(st.lists(st.floats(0.5, 2), min_size=3, max_size=50))
def test_a_segment_like_its_siblings_is_never_late(times):
    pace = Pace()
    for seconds in times:
        pace.took(MIB, seconds)
    middle = sorted(times[-32:])[len(times[-32:]) // 2]
    assert pace.late_after_s(MIB) > middle


def test_a_range_in_memory():
    scratch = Scratch(6, hashlib.md5())
    scratch.write(b"abc")
    assert (scratch.written, bytes(scratch.data)) == (3, b"abc")
    scratch.write(memoryview(b"def"))
    assert bytes(scratch.data) == b"abcdef"
    assert scratch.hasher.digest() == hashlib.md5(b"abcdef").digest()
    assert scratch.fileno() == -1
    with pytest.raises(IdentityMismatch, match="more than the 6 bytes"):
        scratch.write(b"g")

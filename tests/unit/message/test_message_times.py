"""Times of messages: tolerant on the way in, one form on the way out (wire.md 1.2, 1.5)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe.errors import MessageError
from sarrapipe.message.times import canonical_time, time_ns, v02_time
from sarrapipe.units import format_time, parse_time_ns


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("20231114T221320", "20231114T221320"),
        ("20231114T221320.5", "20231114T221320.5"),
        ("20231114T221320.123456789", "20231114T221320.123456789"),
        ("20231114T221320.1234567891", "20231114T221320.123456789"),
        ("20231114T221320.", "20231114T221320"),
        ("20231114T221320Z", "20231114T221320"),
        ("20231114T221320.50Z", "20231114T221320.50"),
        ("20231114221320.5", "20231114T221320.5"),
        ("20231114221320.0", "20231114T221320"),
        ("20231114221320", "20231114T221320"),
        (" 20231114T221320\n", "20231114T221320"),
        ("20231114T221320.00271606e-05", "20231114T221320"),
        ("20231231T235960", "20231231T235960"),
        ("19691231T235959.5", "19691231T235959.5"),
    ],
)
def test_every_form_on_real_pumps_is_read(text, canonical):
    assert canonical_time("pubTime", text) == canonical
    assert canonical_time("pubTime", canonical) == canonical


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "T",
            "now",
            "20231114",
            "20231114T2213",
            "20231314T221320",
            "20231132T221320",
            "20230229T000000",
        ),
        *("20231114T241320", "20231114T226020", "20231114T221361", "20231114T221320.x", "20231114T221320,5"),
        *(
            "2023-11-14T22:13:20",
            "00000101T000000",
            "\uff12\uff10\uff12\uff13\uff11\uff11\uff11\uff14T221320",
            "20231114 221320",
            "2" * 10_000,
        ),
        *("20231114T221320.1.2", "20231114T221320.5+01", "e", "20231114T221320.1e5e"),
        *(None, 3, 20231114221320.5, ["20231114T221320"], {}, b"20231114T221320", True),
    ],
)
def test_anything_else_is_a_message_error_naming_the_field(text):
    with pytest.raises(MessageError, match=r"^mtime: "):
        canonical_time("mtime", text)


def test_nanoseconds():
    assert time_ns("mtime", "20231114T221320.123456001") == 1_700_000_000_123_456_001
    assert time_ns("mtime", "20231114T221320") == 1_700_000_000_000_000_000
    assert time_ns("mtime", "19691231T235959.5") == -500_000_000


@given(st.integers(0, 4_000_000_000 * 10**9))
@settings(max_examples=200, deadline=None)
def test_agrees_with_units(wall_ns):
    text = format_time(wall_ns)
    assert canonical_time("pubTime", text) is text
    assert time_ns("pubTime", text) == wall_ns == parse_time_ns(text)
    assert v02_time(text) == format_time(wall_ns, separator="")
    assert canonical_time("pubTime", v02_time(text)) == text


@given(st.text(max_size=40) | st.from_regex(r"\d{8}T?\d{6}(\.\d*)?(e-\d+)?Z?", fullmatch=True))
@settings(max_examples=300, deadline=None)
def test_no_text_raises_anything_else(text):
    try:
        canonical = canonical_time("pubTime", text)
    except MessageError:
        return
    assert canonical_time("pubTime", canonical) is canonical
    time_ns("pubTime", canonical)

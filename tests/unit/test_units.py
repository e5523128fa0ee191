"""Sizes, durations and times as configuration and wire write them (sr3-surface.md 2.4, wire.md 1.2, 2.3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarrapipe import units


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1", 1),
        ("12M", 12_000_000),
        ("12MB", 12_582_912),
        ("12Mi", 12_582_912),
        ("1.5k", 1500),
        ("1.5kib", 1536),
        ("4GiB", 4 << 30),
        ("off", 0),
    ],
)
def test_sizes_have_decimal_letters_and_binary_suffixes(text, size):
    assert units.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1x", "k", "1e3", "9999999999999t", "\u0661", "nan", "0x10"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match=r"size|larger"):
        units.parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("30s", 30), ("5m", 300), ("2h", 7200), ("1d", 86400), ("1w", 604800), ("1h30m", 5400),
     ("0.5s", 0.5), ("off", 0), ("none", 0), ("on", 300)],
)  # fmt: skip
def test_durations(text, seconds):
    assert units.parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "5y", "m5", "1h 30", "inf"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="duration"):
        units.parse_duration_s(text)


@given(st.integers(0, 253402300799 * 10**9))
def test_times_round_trip_in_both_dialects(wall_ns):
    assert units.parse_time_ns(units.format_time(wall_ns)) == wall_ns
    assert units.parse_time_ns(units.format_time(wall_ns, separator="")) == wall_ns


def test_times_are_utc_and_have_no_zone_suffix():
    """R135: every stamp is UTC whatever TZ says."""
    assert units.format_time(1_700_000_000_123_456_001) == "20231114T221320.123456001"
    assert units.format_time(1_700_000_000_000_000_000) == "20231114T221320"
    assert units.format_time(1_700_000_000_000_000_000, separator="") == "20231114221320.0"


def test_sr3_times_with_an_exponent_keep_their_second():
    assert units.parse_time_ns("20231114T221320.00271606e-05") == 1_700_000_000_000_000_000


@given(st.text(max_size=30))
def test_parsers_raise_nothing_but_value_error(text):
    for parse in (units.parse_size, units.parse_duration_s, units.parse_time_ns):
        try:
            parse(text)
        except ValueError as error:
            assert str(error)

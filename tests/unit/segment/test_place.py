"""R11: completion is signalled by suffix, prefix, directory or not at all, as the option `inflight` says."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarrapipe.segment.place import NAME_BYTES, InflightKind, InflightPlace

NONCE = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("value", "kind", "path"),
    [
        (None, InflightKind.HIDDEN, NONCE),
        ("", InflightKind.HIDDEN, NONCE),
        ("native", InflightKind.HIDDEN, NONCE),
        (".tmp", InflightKind.SUFFIX, f"a/b/c.{NONCE}.tmp"),
        ("_part", InflightKind.SUFFIX, f"a/b/c.{NONCE}_part"),
        (".", InflightKind.PREFIX, f"a/b/.c.{NONCE}"),
        ("part/", InflightKind.DIRECTORY, f"a/b/part/c.{NONCE}"),
        ("/x/part/", InflightKind.DIRECTORY, f"c.{NONCE}"),
        ("none", InflightKind.IN_PLACE, "a/b/c"),
        ("None", InflightKind.IN_PLACE, "a/b/c"),
        ("off", InflightKind.IN_PLACE, "a/b/c"),
    ],
)
def test_the_values_of_inflight(value: str | None, kind: InflightKind, path: str) -> None:
    place = InflightPlace.parse(value)
    assert place.kind is kind
    assert place.path("a/b/c", NONCE) == path


def test_a_target_in_the_root_has_no_directory() -> None:
    assert InflightPlace.parse(".tmp").path("c", NONCE) == f"c.{NONCE}.tmp"
    assert InflightPlace.parse("part/").path("c", NONCE) == f"part/c.{NONCE}"


def test_only_a_directory_from_the_root_is_absolute() -> None:
    assert InflightPlace.parse("/x").absolute
    assert not InflightPlace.parse("x/").absolute
    assert not InflightPlace.parse(None).absolute


@given(
    name=st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1),
    value=st.sampled_from([None, ".tmp", ".", "part/", "/x"]),
)
def test_no_name_grows_too_long(name: str, value: str | None) -> None:
    name = os.fsencode(name)[:NAME_BYTES].decode("utf-8", "surrogateescape")
    last = InflightPlace.parse(value).path(f"a/{name}", NONCE).rpartition("/")[2]
    assert len(os.fsencode(last)) <= NAME_BYTES
    assert NONCE in last

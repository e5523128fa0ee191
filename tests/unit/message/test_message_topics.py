"""Topics and binding keys (wire.md 1.6, R13)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe.errors import ConfigError
from sarrapipe.message.topics import MAX_TOPIC_BYTES, binding_key, decode_topic, topic


@pytest.mark.parametrize(
    ("prefix", "path", "expected"),
    [
        (("v03",), "20231114/SOURCE/hello.txt", "v03.20231114.SOURCE"),
        (("v02", "post"), "a/b", "v02.post.a"),
        (("v03",), "rootfile.txt", "v03"),
        ((), "a/b/c", "a.b"),
        ((), "c", ""),
        (("v03",), "/a/b", "v03.a"),
        (("v03",), "a#b/c*d/e.f/100%/x#1*2", "v03.a%23b.c%22d.e.f.100%"),
        (("v03",), "sub dir/a file", "v03.sub dir"),
        (("v03",), "données/x", "v03.données"),
    ],
)
def test_topics(prefix, path, expected):
    assert topic(prefix, path) == expected


def test_decoding_gives_the_directories_back():
    assert decode_topic("v03.a%23b.c%22d.100%", ("v03",)) == ["a#b", "c*d", "100%"]
    assert decode_topic("v02.post.a", ("v03",)) == ["v02", "post", "a"]
    assert decode_topic("v03", ("v03",)) == []
    assert decode_topic("") == []


@pytest.mark.parametrize("character", ["x", "é", "日", "😀"])
@pytest.mark.parametrize("offset", range(4))
def test_cut_at_255_bytes_on_a_character(character, offset):
    full = "v" * (3 + offset) + "." + character * 400
    cut = topic(("v" * (3 + offset),), character * 400 + "/f")
    assert full.startswith(cut)
    assert MAX_TOPIC_BYTES - 3 <= len(cut.encode()) <= MAX_TOPIC_BYTES


def test_a_topic_of_255_bytes_is_not_cut():
    assert len(topic(("v03",), "x" * 251 + "/f")) == 255
    assert topic(("v03",), "é" * 125 + "x/f") == "v03." + "é" * 125 + "x"


@given(st.lists(st.text(max_size=8), max_size=3), st.text(st.characters(), max_size=300))
@settings(max_examples=300, deadline=None)
def test_never_fails_and_always_fits(prefix, path):
    """Names that are no UTF-8 (lone surrogates) included."""
    made = topic(tuple(prefix), path)
    assert len(made.encode("utf-8")) <= MAX_TOPIC_BYTES


plain = st.text(st.characters(exclude_characters="./%", exclude_categories=["Cs"]), min_size=1, max_size=9)


@given(st.lists(plain, min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_directories_survive_the_topic(directories):
    assert decode_topic(topic(("v03",), "/".join([*directories, "f"])), ("v03",)) == directories


def test_binding_keys():
    assert binding_key(("v03",)) == "v03.#"
    assert binding_key(("v02", "post"), "a.*.b.#") == "v02.post.a.*.b.#"
    assert binding_key((), "#") == "#"
    assert binding_key(("v03",), "") == "v03"


def test_a_binding_key_is_never_cut():
    assert len(binding_key(("v03",), "x" * 251)) == 255
    with pytest.raises(ConfigError, match=r"^subtopic .* 256 bytes"):
        binding_key(("v03",), "x" * 252)

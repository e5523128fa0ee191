"""Identity methods, hashers, fingerprints (wire.md 1.3, 3.4; R104, R105, R157)."""

from __future__ import annotations

import base64
import hashlib
import random

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe.errors import MessageError
from sarrapipe.message.identity import (
    DIGEST_BYTES,
    LETTERS,
    METHODS,
    canonical_identity,
    fingerprint,
    hasher,
    parse_text,
    random_value,
)
from sarrapipe.message.model import Identity, Message

SHA512 = base64.b64encode(hashlib.sha512(b"x").digest()).decode()
MD5 = base64.b64encode(hashlib.md5(b"x").digest()).decode()


@pytest.mark.parametrize(
    ("method", "digest"),
    [
        ("sha512", hashlib.sha512(b"hello, world\n").digest()),
        ("md5", hashlib.md5(b"hello, world\n").digest()),
        ("xxh3_128", xxhash.xxh3_128_digest(b"hello, world\n")),
    ],
)
def test_hashers(method, digest):
    made = hasher(method)
    assert made is not None
    made.update(b"hello, ")
    made.update(memoryview(bytearray(b"world\n")))
    assert made.value() == base64.b64encode(digest).decode()
    assert canonical_identity("identity", {"method": method, "value": made.value()}) is not None


@pytest.mark.parametrize("method", sorted(METHODS - set(DIGEST_BYTES)))
def test_nothing_is_computed_for_the_others(method):
    assert hasher(method) is None


@pytest.mark.parametrize("method", ["", "sha1", "SHA512", "link", "md5name"])
def test_unknown_methods_have_no_hasher(method):
    with pytest.raises(MessageError, match=r"^identity\.method: "):
        hasher(method)


@pytest.mark.parametrize(
    ("text", "method", "value"),
    [
        ("sha512", "sha512", ""),
        ("s", "sha512", ""),
        ("d", "md5", ""),
        ("xxh3_128", "xxh3_128", ""),
        ("cod,sha512", "cod", "sha512"),
        ("cod,xxh3_128", "cod", "xxh3_128"),
        ("z,d", "cod", "md5"),
        ("arbitrary,my,tag", "arbitrary", "my,tag"),
        ("a,x", "arbitrary", "x"),
        ("random", "random", ""),
        ("0,17", "random", "17"),
        ("none", "none", ""),
        ("n", "none", ""),
    ],
)
def test_text_forms(text, method, value):
    assert parse_text(text) == Identity(method, value)


@pytest.mark.parametrize("text", ["", "sha1", "L", "R,00", "cod", "cod,random", "z,q"])
def test_text_that_names_no_method(text):
    with pytest.raises(MessageError, match=r"^identity\."):
        parse_text(text)


def test_letters_of_v02_as_the_wire_has_them():
    assert {letter: LETTERS[letter] for letter in "sd0az"} == {
        "s": "sha512",
        "d": "md5",
        "0": "random",
        "a": "arbitrary",
        "z": "cod",
    }
    assert "xxh3_128" not in LETTERS.values()


def test_exact_values_are_not_touched():
    for method, value in [("sha512", SHA512), ("arbitrary", " a\tb \n"), ("random", "0017"), ("cod", "md5")]:
        wire = {"method": method, "value": value}
        assert canonical_identity("identity", wire) is wire


@pytest.mark.parametrize(
    ("wire", "exact"),
    [
        (
            {"method": "sha512", "value": SHA512[:76] + "\n" + SHA512[76:]},
            {"method": "sha512", "value": SHA512},
        ),
        ({"method": "md5", "value": f" {MD5}\n"}, {"method": "md5", "value": MD5}),
        ("cod,sha512", {"method": "cod", "value": "sha512"}),
        (f'{{"method": "md5", "value": "{MD5}"}}', {"method": "md5", "value": MD5}),
        (f"md5,{MD5}", {"method": "md5", "value": MD5}),
        ({"method": "random", "value": 17}, {"method": "random", "value": "17"}),
        ({"method": "md5", "value": MD5, "extra": 1}, {"method": "md5", "value": MD5}),
        ({"method": "none"}, None),
        ("none", None),
    ],
)
def test_tolerant_forms(wire, exact):
    assert canonical_identity("identity", wire) == exact


@pytest.mark.parametrize(
    "wire",
    [
        *({}, [], 3, True, "", "{", "{}", "[1]", "sha1,AA=="),
        *({"method": "sha1", "value": "AA=="}, {"method": ["md5"], "value": MD5}, {"method": "md5"}),
        *(
            {"method": "md5", "value": 3},
            {"method": "md5", "value": SHA512},
            {"method": "md5", "value": "é" * 24},
        ),
        *({"method": "md5", "value": MD5[:-1]}, {"method": "md5", "value": "A=" + MD5[2:]}),
        *(
            {"method": "cod", "value": "random"},
            {"method": "cod", "value": ""},
            {"method": "sha512", "value": ""},
        ),
    ],
)
def test_malformed_identities_name_the_field(wire):
    """An unknown algorithm is refused at once (R104)."""
    with pytest.raises(MessageError, match=r"^identity"):
        canonical_identity("identity", wire)


def test_random_values_are_four_digits():
    generator = random.Random(1)
    values = {random_value(generator) for _ in range(100)}
    assert len(values) > 50
    assert all(len(value) == 4 and value.isdigit() for value in values)


BASE = {
    "pubTime": "20231114T221320",
    "baseUrl": "http://h",
    "relPath": "a/b",
    "size": 3,
    "mtime": "20231114T221319",
    "identity": {"method": "md5", "value": MD5},
}


def make(**changes: object) -> Message:
    return Message(dict(BASE)).replace(**changes)


def same(one: Message, two: Message) -> bool:
    return fingerprint(one) == fingerprint(two)


def test_the_same_data_from_two_sources_has_one_fingerprint():
    """Winnowing (R157): neither time, path, URL nor mode counts."""
    assert len(fingerprint(make())) == 16
    assert same(make(), make(baseUrl="http://b", pubTime="20240101T000000", relPath="c", mode="644"))
    assert not same(make(), make(size=4))
    assert not same(make(), make(identity={"method": "md5", "value": MD5.lower()}))


def test_with_a_path_only_the_same_path_is_the_same():
    assert fingerprint(make(), "/d/a") == fingerprint(make(relPath="x"), "/d/a")
    assert fingerprint(make(), "/d/a") != fingerprint(make(), "/d/b") != fingerprint(make())


@pytest.mark.parametrize("identity", [None, {"method": "cod", "value": "sha512"}])
def test_without_a_usable_identity_name_and_time_count(identity):
    one = make(identity=identity)
    assert same(one, make(identity=identity, pubTime="20240101T000000"))
    assert not same(one, make(identity=identity, relPath="c"))
    assert not same(one, make(identity=identity, mtime="20240101T000000"))
    assert not same(one, make(identity=identity, size=4))
    assert not same(one.replace(mtime=None), one.replace(mtime=None, pubTime="20240101T000000"))


def test_equal_blocks_of_one_file_are_not_duplicates():
    """sr3 drops the second of two equal blocks (wire.md 2.6, 6)."""
    zeros = [make(blocks={"number": number, "size": 3}) for number in (0, 1)]
    assert not same(*zeros)


def test_events_are_known_by_name():
    link = make(identity=None, fileOp={"link": "t"})
    assert same(link, link.replace(pubTime="20240101T000000"))
    assert not same(link, link.replace(relPath="c"))
    assert not same(link, link.replace(fileOp={"link": "u"}))
    assert not same(link, link.replace(fileOp={"hlink": "t"}))
    directory = make(identity=None, fileOp={"directory": ""})
    assert same(directory, directory.replace(pubTime="20240101T000000"))
    assert not same(directory, directory.replace(mode="700"))
    removal = make(identity=None, fileOp={"remove": ""})
    assert same(removal, removal.replace(baseUrl="http://b"))
    assert not same(removal, removal.replace(pubTime="20240101T000000"))
    assert not same(removal, removal.replace(fileOp={"remove": "", "directory": ""}))
    renamed = make(fileOp={"rename": "old"})
    assert not same(renamed, make())
    assert not same(renamed, make(fileOp={"rename": "older"}))
    assert same(renamed, make(fileOp={"rename": "old"}, relPath="c"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=30),
    lambda v: st.dictionaries(st.text(max_size=8), v),
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "method": st.sampled_from([*METHODS, *LETTERS.values()]) | json_values,
            "value": json_values,
        },
    )
    | json_values
)
@settings(max_examples=120, deadline=None)
def test_no_value_raises_anything_but_message_error(wire):
    try:
        exact = canonical_identity("identity", wire)
    except MessageError as error:
        assert str(error).startswith("identity")
    else:
        assert exact is None or canonical_identity("identity", exact) is exact

"""v03: JSON in, JSON out (wire.md 1.2)."""

from __future__ import annotations

import json
import string

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe.errors import MessageError
from sarrapipe.message.codec_v03 import decode, encode
from sarrapipe.message.fields import is_local, known
from sarrapipe.message.legacy import LEGACY_FIELDS
from sarrapipe.message.model import Message

BASE = {"pubTime": "20231114T221320", "baseUrl": "http://h/d", "relPath": "a/b.txt"}
MD5 = "IsNoOwlBNsM5g5GucbIPBA=="


def read(**changes: object) -> Message:
    return decode(json.dumps({**BASE, **changes}).encode())


def test_the_example_of_c():
    """wire.md 1.10 D, spaces and strings as C writes them."""
    body = (
        b'{ "pubTime" : "20231114T221320.123456", "baseUrl" : "http://www.example.com/data", '
        b'"relPath" : "20231114/SOURCE/big.bin", "identity" : {  "method" : "md5", '
        b'"value" : "IsNoOwlBNsM5g5GucbIPBA=="  }, "source" : "tsource", "blocks" : { "method": "inplace", '
        b'"size" : "1000", "count": "3", "remainder": "560", "number" : "2" }, '
        b'"atime" : "20231114T221319.5", "mtime" : "20231114T221319.5", "mode" : "644" }  '
    )
    message = decode(body)
    assert message.blocks is not None
    assert (message.blocks.offset, message.blocks.length, message.size) == (2000, 560, 560)
    assert message.identity is not None
    assert message.identity.value == MD5


def test_the_example_of_v2():
    """wire.md 1.10 C."""
    message = read(
        to_clusters="ALL",
        relPath="/20231114/SOURCE/big.bin",
        identity={"method": "md5", "value": "rkSzTrPbU50NerAfQV6CVQ=="},
        size=1000,
        blocks={"method": "inplace", "size": "1000", "count": "3", "remainder": "560", "number": "1"},
    )
    assert message.rel_path == "20231114/SOURCE/big.bin"
    body, headers = encode(message)
    assert headers == {}
    assert json.loads(body)["blocks"] == {
        "method": "inplace",
        "size": 1000,
        "number": 1,
        "count": 3,
        "remainder": 560,
    }


def test_a_part_of_early_v2_in_json():
    message = read(parts="i,1000,3,560,1", integrity={"method": "md5", "value": MD5}, retPath="x")
    assert message.blocks is not None
    assert message.size == 1000
    assert message.retrieve_path == "x"
    assert message.identity is not None


def test_percent_escapes_in_v03_stay():
    """A literal %20 is a name there; only v02 escapes (wire.md 1.5)."""
    assert read(relPath="a%20b").rel_path == "a%20b"


def test_content_is_passed_on():
    message = read(content={"encoding": "base64", "value": "AAE="})
    assert message.content() == b"\0\1"
    assert decode(encode(message)[0]) == message


def test_wide_integers_of_unknown_fields_keep_every_digit():
    wide = {"id": 2**80 + 1, "list": [{"n": -(2**70) - 1}], "float": 1.5e300}
    message = read(**wide, plain=1.5)
    assert {name: message[name] for name in wide} == wide
    assert json.loads(encode(message)[0]) == {**BASE, **wide, "plain": 1.5}


def test_duplicate_suppression_by_json_is_left_to_the_last():
    body = b'{"pubTime":"20231114T221320","baseUrl":"http://h","relPath":"a","relPath":"b"}'
    assert decode(body).rel_path == "b"


def test_wis_is_refused_by_name():
    for fields in ({"version": "v04"}, {"conformsTo": ["http://wis.wmo.int/spec/wnm/1"]}):
        with pytest.raises(MessageError, match="WIS2"):
            decode(json.dumps({**fields, "type": "Feature"}).encode())
    assert read(version="v3", conformsTo=["x", 3], extra=1)["version"] == "v3"
    assert read(conformsTo=[])["conformsTo"] == []


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"{",
            b"[]",
            b"3",
            b"null",
            b'"x"',
            b"{}x",
            b"\xff\xfe",
            b'{"a":\xff}',
            b'{"a":NaN}',
            b'{"a":1e999}',
        ),
        *(b'{"relPath":"\\ud800"}', b'{"a":' * 2000 + b"1" + b"}" * 2000, b"[" * 100_000, b'{"a":"\n"}'),
    ],
)
def test_what_is_no_json_object(body):
    with pytest.raises(MessageError, match=r"^body: "):
        decode(body)


@pytest.mark.parametrize(
    "more",
    [
        b'"x":1e30,"n":' + b"9" * 5000,
        b'"x":1e30,"identity":{"method":"cod","value":"md5","y":' + b"[" * 1000 + b"]" * 1000 + b"}",
    ],
)
def test_what_the_exact_reader_cannot_read(more):
    body = json.dumps(BASE)[:-1].encode() + b"," + more + b"}"
    with pytest.raises(MessageError, match=r"^body: "):
        decode(body)


@pytest.mark.parametrize(
    ("name", "value"), [("x", {1}), ("x", b"bytes"), ("x", "\ud800"), ("é\ud800", 1), ("x", {1: object()})]
)
def test_what_cannot_be_written_is_named(name, value):
    with pytest.raises(MessageError):
        encode(Message({**BASE, name: value}))


@pytest.mark.parametrize(("name", "value"), [("size", "x"), ("mtime", 3), ("relPath", ""), ("identity", {})])
def test_what_is_malformed_is_not_sent(name, value):
    with pytest.raises(MessageError, match=f"^{name}"):
        encode(Message({**BASE, name: value}))


def test_local_fields_are_not_sent():
    message = Message({**BASE, "_format": "v03", "new_dir": "/x", "exchange": "xs", "topic": "t"})
    assert json.loads(encode(message)[0]) == BASE
    assert "_format" in message


def test_encoding_leaves_the_message_as_it_is():
    message = Message({**BASE, "size": "3"})
    assert json.loads(encode(message)[0])["size"] == 3
    assert message["size"] == "3"


# Any JSON that orjson can read: 64-bit integers, no lone surrogates.
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
wire_names = st.sampled_from(
    [
        "pubTime",
        "baseUrl",
        "relPath",
        "retrievePath",
        "retPath",
        "identity",
        "integrity",
        "size",
        "blocks",
        "mtime",
        "atime",
        "mode",
        "fileOp",
        "rename",
        "content",
        "contentType",
        "source",
        "to_clusters",
        "report",
        "sum",
        "parts",
        "oldname",
        "link",
        "version",
        "conformsTo",
        "_x",
        "topic",
    ]
)


@given(st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_arbitrary_bytes_raise_message_error_alone(body):
    with pytest.raises(MessageError):
        decode(body)


@given(st.dictionaries(wire_names | st.text(max_size=8), json_values, max_size=8))
@settings(max_examples=150, deadline=None)
def test_arbitrary_objects_raise_message_error_alone(changes):
    try:
        message = read(**changes)
    except MessageError:
        return
    check_all_properties(message)
    assert decode(encode(message)[0]) == message


identity_parts = st.fixed_dictionaries(
    {},
    optional={
        "method": st.sampled_from(["md5", "sha512", "cod", "link", "none"]) | json_values,
        "value": json_values,
    },
)
block_parts = st.fixed_dictionaries(
    {"method": st.sampled_from(["inplace", "separate"]), "number": st.integers(-1, 4) | json_values},
    optional={
        "size": st.integers(-1, 10) | json_values,
        "count": st.integers(-1, 4) | json_values,
        "remainder": st.integers(-1, 11) | json_values,
        "manifest": st.dictionaries(
            st.sampled_from("0123x"), st.fixed_dictionaries({"size": st.integers(0, 10) | json_values})
        ),
        "id": json_values,
    },
)
operations = st.dictionaries(
    st.sampled_from(["link", "hlink", "rename", "remove", "directory", "mkdir", "x"]), json_values
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "identity": identity_parts,
            "blocks": block_parts,
            "fileOp": operations,
            "size": st.integers(-1, 12),
            "link": json_values,
            "content": st.fixed_dictionaries({}, optional={"encoding": json_values, "value": json_values}),
        },
    )
)
@settings(max_examples=150, deadline=None)
def test_nearly_right_objects_raise_message_error_alone(changes):
    try:
        message = read(**changes)
    except MessageError as error:
        assert ":" in str(error)
        return
    check_all_properties(message)
    assert decode(encode(message)[0]) == message


def check_all_properties(message: Message) -> None:
    """What a codec let through can be read."""
    for name in (
        "pub_time_ns",
        "url",
        "size",
        "mtime_ns",
        "atime_ns",
        "mode",
        "identity",
        "file_op",
        "blocks",
    ):
        getattr(message, name)
    assert not any(is_local(name) for name in message)


unknown_names = st.text(string.ascii_letters + "é_", min_size=1, max_size=8).filter(
    lambda name: not known(name) and not is_local(name) and name not in LEGACY_FIELDS
)


@given(st.dictionaries(unknown_names, json_values, max_size=5))
@settings(max_examples=100, deadline=None)
def test_unknown_fields_go_through_untouched(extra):
    """R64, every integer to its last digit."""
    again = json.loads(encode(read(**extra))[0])
    assert again == {**BASE, **extra}
    assert repr(again) == repr({**BASE, **json.loads(json.dumps(extra))})


def test_bodies_are_compact_utf8():
    body, _ = encode(read(relPath="données/é"))
    assert b": " not in body
    assert "données/é".encode() in body
    assert orjson.loads(body)["relPath"] == "données/é"

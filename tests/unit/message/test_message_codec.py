"""Which dialect a message is in (wire.md 1.8)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe.errors import Disposition, MessageError
from sarrapipe.message.codec import CONTENT_TYPES, FORMATS, decode, encode
from sarrapipe.message.model import FileOp, Message

V03 = b'{"pubTime": "20231114T221320.5", "baseUrl": "http://h", "relPath": "a/b"}'
V02 = b"20231114221320.5 http://h a/b"
MESSAGE = Message({"pubTime": "20231114T221320.5", "baseUrl": "http://h", "relPath": "a/b"})


@pytest.mark.parametrize("content_type", [None, "application/json", "text/plain", "application/octet-stream"])
@pytest.mark.parametrize("topic", ["v03.a", "v02.post.a", ""])
@pytest.mark.parametrize("body", [V03, V02, b" \n" + V03, b"\xef\xbb\xbf" + V03, b" " + V02 + b" \n"])
def test_the_body_decides(body, content_type, topic):
    assert decode(body, {}, content_type, topic) == MESSAGE


def test_the_transitional_form_has_v02s_headers_in_json():
    headers = {"sum": "L,00", "link": "t", "parts": "1,3", "mtime": "20231114221319.5", "x": {"y": [1]}}
    body = json.dumps(["20231114221320.5", "http://h", "/a%20b", headers]).encode()
    message = decode(b" " + body, {}, "application/json", "v03.post")
    assert message.rel_path == "a b"
    assert message.file_op == FileOp(link="t")
    assert message.size == 3
    assert message["mtime"] == "20231114T221319.5"
    assert message["x"] == {"y": [1]}


@pytest.mark.parametrize(
    "body",
    [b"[", b"[]", b"[1,2,3]", b'["a","b","c","d"]', b'["a","b","c",{},{}]', b"[" * 2000, b"[1,2,3,{}]"],
)
def test_other_arrays_are_refused(body):
    with pytest.raises(MessageError):
        decode(body, {})


def test_what_is_not_supported_says_so():
    with pytest.raises(MessageError, match="SWIM"):
        decode(b"<x/>", {"conformsTo": "https://eur-registry.swim.aero/x"})
    with pytest.raises(MessageError, match="WIS2"):
        decode(b'{"conformsTo": ["http://wis.wmo.int/spec/wnm/1/conf/core"]}', {}, "application/geo+json")
    with pytest.raises(MessageError, match="announced as JSON"):
        decode(b"nothing", {}, "application/json")
    with pytest.raises(MessageError, match=r"^body: 1 words"):
        decode(b"nothing", {}, "text/plain")


def test_a_malformed_message_is_rejected_not_retried():
    with pytest.raises(MessageError) as caught:
        decode(b"", {})
    assert caught.value.disposition is Disposition.REJECT
    assert caught.value.code == 417


@pytest.mark.parametrize("post_format", sorted(FORMATS))
def test_encoding_by_name(post_format):
    body, headers, content_type = encode(MESSAGE, post_format)
    assert content_type == CONTENT_TYPES[post_format]
    assert decode(body, headers, content_type) == MESSAGE


@given(
    st.binary(max_size=60) | st.text(max_size=40).map(str.encode),
    st.sampled_from([b"", b"{", b"[", b'["a",', V02, b" "]),
)
@settings(max_examples=150, deadline=None)
def test_arbitrary_bodies_raise_message_error_alone(body, start):
    try:
        message = decode(start + body, {}, "application/json", "v02.report.x")
    except MessageError:
        return
    assert decode(*encode(message, "v03")) == message

"""The notification message and its typed properties."""

from __future__ import annotations

import pytest

from sarrapipe.errors import MessageError
from sarrapipe.message.model import Blocks, FileOp, Identity, Message

FIELDS = {
    "pubTime": "20231114T221320.123456001",
    "baseUrl": "http://www.example.com/data/",
    "relPath": "20231114/SOURCE/hello.txt",
    "source": "tsource",
    "mode": "644",
    "size": 13,
    "mtime": "20231114T221319.5",
    "atime": "20231114T221319",
    "identity": {"method": "cod", "value": "sha512"},
}


def make(**changes: object) -> Message:
    return Message(dict(FIELDS)).replace(**changes)


def test_properties_read_the_wire_fields():
    message = make()
    assert message.pub_time == "20231114T221320.123456001"
    assert message.pub_time_ns == 1_700_000_000_123_456_001
    assert message.mtime_ns == 1_699_999_999_500_000_000
    assert message.atime_ns == 1_699_999_999_000_000_000
    assert message.base_url == "http://www.example.com/data/"
    assert message.rel_path == "20231114/SOURCE/hello.txt"
    assert message.source == "tsource"
    assert message.mode == 0o644
    assert message.size == 13
    assert message.identity == Identity("cod", "sha512")
    assert message.file_op is None
    assert message.blocks is None
    assert message.retrieve_path is None
    assert message.content() is None


def test_optional_properties_are_none_when_absent():
    message = Message({"pubTime": "20231114T221320", "baseUrl": "http://h", "relPath": "a"})
    for name in ("size", "mtime_ns", "atime_ns", "mode", "identity", "file_op", "blocks", "source"):
        assert getattr(message, name) is None, name


@pytest.mark.parametrize(
    ("base", "path", "url"),
    [
        ("http://h", "a/b", "http://h/a/b"),
        ("http://h/", "a/b", "http://h/a/b"),
        ("http://h/d//", "/a/b", "http://h/d/a/b"),
        ("file:", "data/x", "file:/data/x"),
        ("http://h", "é ü.txt", "http://h/é ü.txt"),
    ],
)
def test_url_has_one_slash_where_the_parts_meet(base, path, url):
    assert make(baseUrl=base, relPath=path).url == url


def test_retrieve_path_takes_the_place_of_rel_path_for_fetching_only():
    message = make(retrievePath="cgi?name=hello")
    assert message.url == "http://www.example.com/data/cgi?name=hello"
    assert message.rel_path == "20231114/SOURCE/hello.txt"


def test_replace_makes_another_message_and_none_takes_a_field_away():
    message = make(retrievePath="x")
    other = message.replace(baseUrl="http://b", retrievePath=None, absent=None)
    assert other.base_url == "http://b"
    assert "retrievePath" not in other
    assert "absent" not in other
    assert message.retrieve_path == "x"


def test_it_is_a_mapping_of_the_wire_fields():
    message = make()
    assert dict(message) == FIELDS
    assert message["size"] == 13
    assert "size" in message
    assert "nothing" not in message
    assert message.get("nothing", 4) == 4
    assert len(message) == len(FIELDS)
    assert message == Message(dict(FIELDS))
    assert message != make(size=14)
    assert message != FIELDS
    assert "hello.txt" in repr(message)
    assert message.to_dict() is not message.fields
    with pytest.raises(KeyError):
        message["nothing"]


def test_it_is_frozen():
    with pytest.raises(AttributeError):
        make().size = 4
    with pytest.raises(TypeError):
        hash(make())


def test_set_id_bits_are_not_taken_from_a_message():
    assert make(mode="6755").mode == 0o755
    assert make(mode="1777").mode == 0o1777
    assert make(mode="100644").mode == 0o644


def test_file_op_parts_come_together():
    assert make(fileOp={"remove": "", "directory": ""}).file_op == FileOp(remove=True, directory=True)
    assert make(fileOp={"rename": "/old", "link": "t"}).file_op == FileOp(link="t", rename="/old")
    assert make(fileOp={"hlink": "h"}).file_op == FileOp(hlink="h")


def test_blocks_property():
    wire = {"method": "inplace", "size": 10, "count": 2, "remainder": 3, "number": 1}
    assert make(blocks=wire, size=3).blocks == Blocks("inplace", 10, 2, 3, 1)


@pytest.mark.parametrize(
    ("content", "data"),
    [
        ({"encoding": "utf-8", "value": "héllo\n"}, "héllo\n".encode()),
        ({"encoding": "base64", "value": "AAEC/w=="}, b"\x00\x01\x02\xff"),
        ({"encoding": "base64", "value": "AAEC\n /w=="}, b"\x00\x01\x02\xff"),
        ({"encoding": "iso-8859-1", "value": "é"}, b"\xe9"),
        ({"encoding": "utf-8", "value": ""}, b""),
    ],
)
def test_content(content, data):
    assert make(content=content).content() == data


@pytest.mark.parametrize(
    "content",
    [
        {"encoding": "base64", "value": "A"},
        {"encoding": "base64", "value": "é==="},
        {"encoding": "iso-8859-1", "value": "日"},
        {"encoding": "utf-8", "value": "\ud800"},
        {"encoding": "rot13", "value": "x"},
        {"encoding": "utf-8", "value": 3},
        {"value": "x"},
    ],
)
def test_content_that_cannot_be_decoded_is_a_message_error(content):
    with pytest.raises(MessageError, match=r"^content\."):
        make(content=content).content()


@pytest.mark.parametrize(
    ("name", "value", "reader"),
    [
        ("pubTime", 3, "pub_time"),
        ("pubTime", "yesterday", "pub_time_ns"),
        ("baseUrl", ["x"], "base_url"),
        ("relPath", None, "rel_path"),
        ("size", "13", "size"),
        ("size", True, "size"),
        ("mtime", 3.5, "mtime_ns"),
        ("mode", "rw-", "mode"),
        ("identity", "cod,sha512", "identity"),
        ("identity", {"method": "md5"}, "identity"),
        ("fileOp", {"link": 3}, "file_op"),
        ("blocks", {}, "blocks"),
        ("source", 1, "source"),
    ],
)
def test_a_field_that_no_codec_checked_raises_message_error_naming_it(name, value, reader):
    fields = dict(FIELDS)
    fields[name] = value
    with pytest.raises(MessageError, match=name):
        getattr(Message(fields), reader)

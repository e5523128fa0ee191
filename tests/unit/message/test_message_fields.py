"""The rules of single fields, and those that tie fields together."""

from __future__ import annotations

import pytest

from sarrapipe.errors import MessageError
from sarrapipe.message.fields import MAX_DEPTH, canonical, check_depth, is_local, known, normalise

BASE = {"pubTime": "20231114T221320", "baseUrl": "http://h/d", "relPath": "a/b.txt"}
MD5 = "IsNoOwlBNsM5g5GucbIPBA=="


def normal(**changes: object) -> dict[str, object]:
    fields = {**BASE, **changes}
    normalise(fields)
    again = dict(fields)
    normalise(again)
    assert again == fields, "a second pass must change nothing"
    return fields


def nested(depth: int) -> object:
    value: object = "leaf"
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    return value


def test_canonical_fields_stay_the_objects_they_are():
    fields = {**BASE, "size": 3, "identity": {"method": "md5", "value": MD5}, "extra": {"a": [1, None]}}
    before = dict(fields)
    normalise(fields)
    assert all(fields[name] is value for name, value in before.items())
    assert fields.keys() == before.keys()


@pytest.mark.parametrize("name", ["pubTime", "baseUrl", "relPath"])
@pytest.mark.parametrize("value", ["absent", None])
def test_mandatory_fields(name, value):
    fields = {**BASE, name: value}
    if value == "absent":
        del fields[name]
    with pytest.raises(MessageError, match=f"^{name}: missing"):
        normalise(fields)


@pytest.mark.parametrize(
    ("name", "value", "exact"),
    [
        ("relPath", "/a/b", "a/b"),
        ("relPath", "//a//b", "a//b"),
        ("retrievePath", "/api/x", "api/x"),
        ("rename", "/new/name", "new/name"),
        ("size", "13", 13),
        ("mtime", "20231114221319.50", "20231114T221319.50"),
        ("atime", "20231114T221319Z", "20231114T221319"),
        ("mode", "0644", "0644"),
        ("identity", "cod,sha512", {"method": "cod", "value": "sha512"}),
        ("fileOp", {"remove": True}, {"remove": ""}),
        ("fileOp", {"remove": None, "directory": 0}, {"remove": "", "directory": ""}),
        ("fileOp", {"rename": "x", "mkdir": ""}, {"rename": "x", "directory": ""}),
        ("fileOp", {"link": "t", "hlink": None, "future": [1]}, {"link": "t", "future": [1]}),
        ("fileOp", '{"remove": ""}', {"remove": ""}),
        ("report", '{"code": 201}', {"code": 201}),
    ],
)
def test_tolerant_forms(name, value, exact):
    assert normal(**{name: value})[name] == exact
    assert canonical(name, value) == exact


@pytest.mark.parametrize(
    "name",
    ["retrievePath", "identity", "size", "blocks", "mtime", "mode", "fileOp", "content", "source", "report"],
)
def test_null_is_absent(name):
    assert name not in normal(**{name: None})
    assert canonical(name, None) is None


def test_empty_operations_and_the_method_none_are_absent():
    fields = normal(fileOp={}, identity={"method": "none", "value": ""})
    assert fields == BASE


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("relPath", "", "relPath"),
        ("relPath", "/", "relPath"),
        ("relPath", 3, "relPath"),
        ("baseUrl", "", "baseUrl"),
        ("baseUrl", "nowhere", "baseUrl"),
        ("baseUrl", {}, "baseUrl"),
        ("retrievePath", [], "retrievePath"),
        ("rename", "", "rename"),
        ("size", 1.5, "size"),
        ("mode", "", "mode"),
        ("mode", "9", "mode"),
        ("mode", "00000644", "mode"),
        ("mode", "-644", "mode"),
        ("mode", 644, "mode"),
        ("mtime", "soon", "mtime"),
        ("source", 3, "source"),
        ("to_clusters", ["a"], "to_clusters"),
        ("fileOp", [], "fileOp"),
        ("fileOp", "{", "fileOp"),
        ("fileOp", {"link": ""}, "fileOp.link"),
        ("fileOp", {"rename": 3}, "fileOp.rename"),
        ("content", {"encoding": ["utf-8"], "value": ""}, "content.encoding"),
        ("content", {"encoding": "utf-8"}, "content.value"),
        ("content", "x", "content"),
        ("report", 3, "report"),
        ("blocks", [], "blocks"),
    ],
)
def test_malformed_fields_are_named(name, value, named):
    with pytest.raises(MessageError) as caught:
        normalise({**BASE, name: value})
    assert str(caught.value).startswith(f"{named}: ")


def test_unknown_fields_are_passed_on_untouched():
    """R64."""
    extra = {"PRINTER": "lp0", "geometry": {"type": "Point", "coordinates": [1.5, None]}, "é": "", "n": None}
    fields = normal(**extra)
    assert all(fields[name] is value for name, value in extra.items())
    assert not known("PRINTER")


def test_what_belongs_to_a_process_does_not_pass():
    """wire.md 1.2: never on the wire, so not taken from it either."""
    local = [
        "_format",
        "_deleteOnPost",
        "ack_id",
        "exchange",
        "topic",
        "subtopic",
        "new_dir",
        "old_relPath",
        "isRetry",
    ]
    assert all(map(is_local, local))
    assert normal(**dict.fromkeys(local, "x")) == BASE


def test_nesting_is_limited_so_that_it_can_be_written_again():
    normal(deep=nested(MAX_DEPTH - 1))
    with pytest.raises(MessageError, match=r"^deep: nested"):
        normalise({**BASE, "deep": nested(MAX_DEPTH + 1)})
    with pytest.raises(MessageError, match=r"^x: nested"):
        check_depth("x", nested(300))
    for name in ("fileOp", "report", "content"):
        value = {"encoding": "utf-8", "value": ""} if name == "content" else {}
        with pytest.raises(MessageError, match=f"^{name}.*nested"):
            normalise({**BASE, name: {**value, "k": nested(MAX_DEPTH + 1)}})


@pytest.mark.parametrize(
    ("method", "extra", "operation"),
    [
        ("link", {"link": "t"}, {"link": "t"}),
        ("hlink", {"hlink": "t"}, {"hlink": "t"}),
        ("hlink", {"link": "t"}, {"hlink": "t"}),
        ("remove", {}, {"remove": ""}),
        ("mkdir", {}, {"directory": ""}),
        ("rmdir", {}, {"remove": "", "directory": ""}),
        ("mkdir", {"fileOp": {"rename": "x"}}, {"rename": "x", "directory": ""}),
        ("link", {}, None),
        ("md5name", {}, None),
        ("sha512name", {}, None),
    ],
)
def test_events_that_v2_writes_as_identities(method, extra, operation):
    fields = normal(identity={"method": method, "value": "x"}, **extra)
    assert fields.get("fileOp") == operation
    assert "identity" not in fields
    assert "link" not in fields


def test_the_target_of_such_a_link_must_be_text():
    with pytest.raises(MessageError, match=r"^link: "):
        normalise({**BASE, "identity": {"method": "link", "value": "x"}, "link": 3})


V2_BLOCKS = {"method": "inplace", "size": "1000", "count": "3", "remainder": "560", "number": "2"}


@pytest.mark.parametrize(("size", "length"), [(None, 560), (560, 560), ("560", 560), (0, 560)])
def test_size_becomes_the_blocks_length(size, length):
    """C announces none; v2 a 0 for the last block of a file of whole blocks (wire.md 2.1, 2.2)."""
    fields = normal(blocks=V2_BLOCKS, size=size)
    assert fields["size"] == length
    assert fields["blocks"] == {"method": "inplace", "size": 1000, "number": 2, "count": 3, "remainder": 560}


def test_a_size_that_contradicts_the_block_is_refused():
    with pytest.raises(MessageError, match=r"^size: 5 contradicts blocks"):
        normalise({**BASE, "blocks": V2_BLOCKS, "size": 5})
    with pytest.raises(MessageError, match=r"^size: 0 contradicts blocks"):
        normalise({**BASE, "blocks": {**V2_BLOCKS, "number": 1}, "size": 0})


def test_unknown_parts_of_blocks_are_passed_on():
    fields = normal(blocks={**V2_BLOCKS, "id": "mark", "future": {"a": 1}})
    assert fields["blocks"]["id"] == "mark"
    assert fields["blocks"]["future"] == {"a": 1}


def test_sr3s_message_of_a_reassembled_file_is_a_whole_files():
    """No number, and the identity of the block that came last (wire.md 2.6, 4)."""
    blocks = {"method": "inplace", "size": 1000, "manifest": {"0": {"size": 1000, "identity": MD5}}}
    fields = normal(blocks=blocks, size=1000, identity={"method": "md5", "value": MD5})
    assert "blocks" not in fields
    assert fields["identity"] == {"method": "cod", "value": "md5"}
    assert fields["size"] == 1000
    trusted = normal(blocks={**blocks, "id": "x"}, identity={"method": "md5", "value": MD5})
    assert trusted["identity"] == {"method": "md5", "value": MD5}
    assert "identity" not in normal(blocks=blocks)

"""v02: words in the body, strings in the headers (wire.md 1.5)."""

from __future__ import annotations

import hashlib
import string
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe.errors import MessageError
from sarrapipe.message.codec_v02 import decode, encode
from sarrapipe.message.fields import is_local, known
from sarrapipe.message.legacy import LEGACY_FIELDS
from sarrapipe.message.model import FileOp, Identity, Message

BODY = b"20231114221320.123456 http://www.example.com/data /20231114/SOURCE/big.bin"
MD5_HEX, MD5 = "22c3683b094136c3398391ae71b20f04", "IsNoOwlBNsM5g5GucbIPBA=="
SHA_OF_LINK = (  # of "hello.txt", as in wire.md
    "acec329f80cc50edbab0dfbc2283d427ac673f84e6d8b949101791867b9b7771"
    "a53d2ffb1f8386189227beed4395b9a78171a1349700e2885c70ae14358d72ff"
)
BASE = {"pubTime": "20231114T221320.5", "baseUrl": "http://h/d", "relPath": "a/b.txt"}


def make(**changes: object) -> Message:
    return Message({**BASE, **changes})


def headers_of(message: Message) -> dict[str, object]:
    return encode(message)[1]


def sha512(text: str) -> str:
    return hashlib.sha512(text.encode()).hexdigest()


def test_the_block_of_v2():
    """wire.md 1.10 E."""
    headers = {
        "to_clusters": "ALL",
        "mtime": "20231114221319.5",
        "atime": "20231114221319.5",
        "mode": "644",
        "parts": "i,1000,3,560,2",
        "sum": f"d,{MD5_HEX}",
    }
    message = decode(BODY, headers)
    assert message.pub_time == "20231114T221320.123456"
    assert message.rel_path == "20231114/SOURCE/big.bin"
    assert message["mtime"] == "20231114T221319.5"
    assert message.identity == Identity("md5", MD5)
    assert message.blocks is not None
    assert (message.blocks.offset, message.size, message.blocks.file_size) == (2000, 560, 2560)
    body, again = encode(message)
    assert again == headers
    assert body == BODY.replace(b" /", b" ")


def test_the_part_file_of_v2():
    """wire.md 1.10 F."""
    name = b"20231114221320.1 http://h /big.bin.1000.3.560.1.d.Part"
    message = decode(name, {"parts": "p,1000,3,560,1", "sum": f"d,{MD5_HEX}"})
    assert message.blocks is not None
    assert message.blocks.method == "partitioned"
    assert headers_of(message)["parts"] == "p,1000,3,560,1"


def test_the_link_of_v2():
    """wire.md 1.10 G."""
    headers = {"to_clusters": "ALL", "link": "hello.txt", "sum": f"L,{SHA_OF_LINK}"}
    message = decode(BODY, headers)
    assert message.file_op == FileOp(link="hello.txt")
    assert message.identity is None
    assert headers_of(message) == headers


def test_a_link_without_its_target_is_fetched():
    """sr3's export leaves the target out: then there is no link to be made."""
    message = decode(BODY, {"sum": f"L,{SHA_OF_LINK}"})
    assert message.file_op is None
    assert message.identity is None


def test_c_ends_its_body_with_a_blank_and_a_line():
    assert decode(BODY + b" \n", {}) == decode(BODY, {})


def test_further_words_are_reserved():
    assert decode(BODY + b" more words of a later version to come", {}) == decode(BODY, {})


def test_v02_escapes_blank_and_hash_and_nothing_else():
    body = "20231114221320.5 http://h/d%20e a%20b/c%23d/%41%%25é".encode()
    message = decode(body, {})
    assert message.base_url == "http://h/d e"
    assert message.rel_path == "a b/c#d/%41%%25é"
    assert encode(message)[0] == body


def test_names_with_other_blanks_than_ascii_are_one_word():
    message = make(relPath="a\u00a0b\u3000c")
    assert decode(*encode(message)).rel_path == "a\u00a0b\u3000c"


def test_a_report_is_told_by_its_topic():
    """wire.md 3.1."""
    body = BODY + b" 201 host.example.com alice 0.125"
    assert "report" not in decode(body, {}, "v02.post.20231114")
    message = decode(body, {"message": "Downloaded"}, "v02.report.20231114")
    assert message["report"] == {
        "elapsedTime": 0.125,
        "resultCode": 201,
        "host": "host.example.com",
        "user": "alice",
    }
    assert message["message"] == "Downloaded"
    with pytest.raises(MessageError, match=r"^report: "):
        decode(BODY + b" ok host alice 0.1", {}, "v02.report.20231114")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"20231114221320.5 http://h", "body"),
        (b"20231114221320.5 http://h \xff", "body"),
        (b"yesterday http://h a", "pubTime"),
        (b"20231114221320.5 nowhere a", "baseUrl"),
        (b"20231114221320.5 http://h /", "relPath"),
        (b"<?xml version='1.0' encoding='UTF-8'?>", "pubTime"),
    ],
)
def test_malformed_bodies(body, field):
    with pytest.raises(MessageError, match=f"^{field}: "):
        decode(body, {})


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"sum": "x,00"}, "sum"),
        ({"sum": "d,00"}, "identity.value"),
        ({"sum": 3}, "sum"),
        ({"parts": "i,1000,3"}, "parts"),
        ({"parts": "i,1000,3,560,3"}, "blocks"),
        ({"mtime": "soon"}, "mtime"),
        ({"mode": "rw"}, "mode"),
        ({"source": 3}, "source"),
        ({"x": b"\xff"}, "x"),
        ({"x": object()}, "x"),
        ({"x": "\ud800"}, "'x'"),
        ({"x": {"\ud800": 1}}, "'x'"),
        ({"report": "{"}, "report"),
        ({"oldname": ""}, "oldname"),
    ],
)
def test_malformed_headers_are_named(headers, field):
    with pytest.raises(MessageError) as caught:
        decode(BODY, headers)
    assert str(caught.value).startswith(f"{field}: ")


def test_headers_cannot_replace_the_body():
    message = decode(
        BODY, {"relPath": "x", "baseUrl": "http://evil", "pubTime": "20000101000000", "topic": "v02.x"}
    )
    assert message.rel_path == "20231114/SOURCE/big.bin"
    assert message.base_url == "http://www.example.com/data"
    assert "topic" not in message


def test_values_of_amqp_tables_become_json():
    headers = {
        "i": 3,
        "f": 1.5,
        "t": True,
        "v": None,
        "b": b"bytes",
        "d": Decimal("1.5"),
        "when": datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
        "table": {"k": [b"x", Decimal(1)]},
    }
    message = decode(BODY, headers)
    assert {name: message[name] for name in headers} == {
        "i": 3,
        "f": 1.5,
        "t": True,
        "v": None,
        "b": "bytes",
        "d": "1.5",
        "when": "20231114T221320",
        "table": {"k": ["x", "1"]},
    }


def test_nested_headers_have_a_limit():
    value: object = "x"
    for _ in range(200):
        value = {"k": value}
    with pytest.raises(MessageError, match=r"^deep: nested"):
        decode(BODY, {"deep": value})


def test_objects_are_flattened_as_v2_does_and_read_back():
    report = {"code": 201, "message": "é"}
    message = make(report=report, geometry={"type": "Point"}, n=3, t=True, nothing=None, user={"a": 1})
    headers = headers_of(message)
    assert headers["report"] == '{"code":201,"message":"é"}'
    assert (headers["n"], headers["t"], headers["nothing"]) == ("3", "true", "null")
    assert all(isinstance(value, str) for value in headers.values())
    again = decode(*encode(message))
    assert again["report"] == report
    assert again["geometry"] == {"type": "Point"}
    assert again["user"] == '{"a":1}', "nothing says that it was an object"


@pytest.mark.parametrize(
    ("operation", "letter", "of", "extra"),
    [
        ({"link": "../t"}, "L", "../t", {"link": "../t"}),
        ({"hlink": "t"}, "l", "t", {"hlink": "t"}),
        ({"remove": ""}, "R", "b.txt", {}),
        ({"remove": "", "directory": ""}, "r", "b.txt", {}),
        ({"directory": ""}, "m", "b.txt", {}),
        ({"rename": "/o", "link": "t"}, "L", "t", {"link": "t", "oldname": "/o"}),
        ({"rename": "/o", "directory": ""}, "m", "b.txt", {"oldname": "/o"}),
    ],
)
def test_operations_as_letters(operation, letter, of, extra):
    """sr3 drops the link header and says R of a directory; this does not."""
    message = make(fileOp=operation, mode="755")
    headers = headers_of(message)
    assert headers == {"mode": "755", "sum": f"{letter},{sha512(of)}", **extra}
    assert decode(*encode(message)) == message


def test_a_renamed_file_keeps_its_identity_and_size():
    message = make(fileOp={"rename": "/old"}, identity={"method": "md5", "value": MD5}, size=13)
    headers = headers_of(message)
    assert headers == {"oldname": "/old", "parts": "1,13,1,0,0", "sum": f"d,{MD5_HEX}"}
    assert decode(*encode(message)) == message


def test_operations_of_the_future_go_through():
    message = make(fileOp={"truncate": 5, "rename": "x"})
    assert headers_of(message)["fileOp"] == '{"truncate":5}'
    assert decode(*encode(message)) == message


@pytest.mark.parametrize(
    ("identity", "text"),
    [
        ({"method": "md5", "value": MD5}, f"d,{MD5_HEX}"),
        ({"method": "cod", "value": "sha512"}, "z,s"),
        ({"method": "cod", "value": "md5"}, "z,d"),
        ({"method": "random", "value": "0017"}, "0,0017"),
        ({"method": "arbitrary", "value": "my,tag é"}, "a,my,tag é"),
    ],
)
def test_identities_as_letters(identity, text):
    message = make(identity=identity)
    assert headers_of(message)["sum"] == text
    assert decode(*encode(message)) == message


def test_no_identity_is_the_md5_of_the_name():
    assert headers_of(make())["sum"] == f"n,{hashlib.md5(b'b.txt').hexdigest()}"
    assert decode(*encode(make())) == make()


@pytest.mark.parametrize(
    "identity",
    [{"method": "xxh3_128", "value": "AAAAAAAAAAAAAAAAAAAAAA=="}, {"method": "cod", "value": "xxh3_128"}],
)
def test_xxh3_has_no_letter(identity):
    with pytest.raises(MessageError, match=r"^identity.*xxh3_128 has no letter in v02"):
        encode(make(identity=identity))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"fileOp": {"link": "x" * 256}}, "link"),
        ({"fileOp": {"rename": "é" * 128}}, "oldname"),
        ({"user": "x" * 256}, "user"),
        ({"report": {"message": "x" * 250}}, "report"),
        ({"identity": {"method": "arbitrary", "value": "x" * 254}}, "sum"),
        ({"k" * 256: "x"}, "k" * 60),
        ({"é" * 128: "x"}, "é" * 60),
    ],
)
def test_a_field_over_255_bytes_is_refused_for_good(changes, field):
    """sr3 tries for ever, or sends it; v2 and C drop it (wire.md 1.5)."""
    with pytest.raises(MessageError, match=f"^{field}: .* v02 takes 255"):
        encode(make(**changes))


def test_255_bytes_fit():
    assert len(str(headers_of(make(user="é" * 127 + "x"))["user"]).encode()) == 255


def test_long_paths_stand_in_the_body():
    message = make(relPath="/".join(["x" * 200] * 10))
    assert decode(*encode(message)).rel_path == message.rel_path


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"relPath": "a\tb"}, "relPath"),
        ({"relPath": "a\nb"}, "relPath"),
        ({"baseUrl": "http://h/\r"}, "baseUrl"),
        ({"relPath": "a\udce9"}, "relPath"),
        ({"user": "\udce9"}, "'user'"),
        ({"user": {1, 2}}, "user"),
        ({"fileOp": {"x": b""}}, "fileOp"),
        ({"size": "x"}, "size"),
    ],
)
def test_what_v02_cannot_say_is_named(changes, field):
    with pytest.raises(MessageError, match=f"^{field}: "):
        encode(make(**changes))


def test_content_and_manifest_stay_behind():
    """The receiver fetches by the URL; sr3 leaves content out as well."""
    manifest = {"0": {"size": 4, "identity": MD5}, "1": {"size": 2, "identity": MD5}}
    message = make(
        content={"encoding": "utf-8", "value": "x" * 500},
        blocks={
            "method": "separate",
            "size": 4,
            "number": 1,
            "count": 2,
            "remainder": 2,
            "manifest": manifest,
        },
        size=2,
        identity={"method": "md5", "value": MD5},
    )
    assert headers_of(message) == {"parts": "p,4,2,2,1", "sum": f"d,{MD5_HEX}"}


def test_an_unknown_remainder_is_passed_on_as_sr3_wrote_it():
    message = decode(BODY, {"parts": "i,1000,3,1000,1", "sum": f"d,{MD5_HEX}"})
    assert message.blocks is not None
    assert message.blocks.file_size is None
    assert headers_of(message)["parts"] == "i,1000,3,1000,1"


def test_local_fields_are_not_sent():
    assert set(headers_of(make(_x="1", new_dir="d", exchange="e", user="u"))) == {"user", "sum"}


def test_whole_seconds_have_a_fraction_in_v02():
    message = make(pubTime="20231114T221320", mtime="20231114T221319")
    body, headers = encode(message)
    assert body.startswith(b"20231114221320.0 ")
    assert headers["mtime"] == "20231114221319.0"
    assert decode(body, headers) == message


amqp_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=8)
    | st.decimals()
    | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
header_names = st.sampled_from(
    [
        "sum",
        "parts",
        "mtime",
        "atime",
        "mode",
        "source",
        "from_cluster",
        "to_clusters",
        "rename",
        "oldname",
        "newname",
        "link",
        "hlink",
        "filename",
        "message",
        "report",
        "geometry",
        "identity",
        "size",
        "blocks",
        "fileOp",
        "content",
        "topic",
    ]
)
sums = st.builds(
    "{},{}".format, st.sampled_from("sd0azLRmrnlpNx"), st.sampled_from(["", "s", "00", MD5_HEX, "é"])
)
parts = st.lists(st.sampled_from(["1", "i", "p", "0", "3", "1000", "-1", "x"]), max_size=6).map(",".join)


@given(st.binary(max_size=100), st.dictionaries(header_names | st.text(max_size=8), amqp_values, max_size=6))
@settings(max_examples=100, deadline=None)
def test_arbitrary_bytes_and_headers_raise_message_error_alone(body, headers):
    with pytest.raises(MessageError):
        decode(body, headers)


@given(
    st.dictionaries(header_names | st.text(max_size=8), amqp_values, max_size=6),
    st.fixed_dictionaries({}, optional={"sum": sums, "parts": parts}),
)
@settings(max_examples=150, deadline=None)
def test_arbitrary_headers_raise_message_error_alone(headers, more):
    try:
        message = decode(BODY, {**headers, **more})
    except MessageError as error:
        assert ":" in str(error)
        return
    for name in ("url", "size", "mtime_ns", "mode", "identity", "file_op", "blocks"):
        getattr(message, name)
    try:
        body, written = encode(message)
    except MessageError:
        return
    assert all(isinstance(value, str) for value in written.values())
    again = decode(body, written)
    assert encode(again) == (body, written), "what was written is read and written the same"


unknown = st.text(string.ascii_letters, min_size=1, max_size=8).filter(
    lambda name: not known(name) and not is_local(name) and name not in LEGACY_FIELDS
)
names = st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/%"), min_size=1, max_size=12),
    min_size=1,
    max_size=4,
).map("/".join)


@given(
    names,
    st.dictionaries(unknown, st.text(st.characters(exclude_categories=["Cs"]), max_size=60), max_size=4),
)
@settings(max_examples=100, deadline=None)
def test_names_and_unknown_headers_go_through_untouched(rel_path, extra):
    """R64; a literal % is left out, v02 cannot tell it from its escapes."""
    message = make(relPath=rel_path, size=3, identity={"method": "md5", "value": MD5}, **extra)
    assert decode(*encode(message)) == message

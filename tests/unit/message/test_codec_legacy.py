"""v2's and C's `sum`, `parts`, `oldname`, and the names of early v03 (wire.md 1.2 to 1.5, 2.1)."""

from __future__ import annotations

import pytest

from sarrapipe.errors import MessageError
from sarrapipe.message.legacy import LEGACY_FIELDS, translate

MD5_HEX, MD5 = "22c3683b094136c3398391ae71b20f04", "IsNoOwlBNsM5g5GucbIPBA=="
IDENTITY = {"method": "md5", "value": MD5}


def translated(**fields: object) -> dict[str, object]:
    translate(fields)
    assert LEGACY_FIELDS.isdisjoint(fields)
    return fields


def test_early_names():
    assert translated(integrity=IDENTITY, retPath="x") == {"identity": IDENTITY, "retrievePath": "x"}


def test_v03s_own_names_win():
    both = translated(
        identity="new", integrity="old", retrievePath="new", retPath="old", sum="d,00", size=3, parts="1,4"
    )
    assert both == {"identity": "new", "retrievePath": "new", "size": 3}


@pytest.mark.parametrize(
    ("text", "method", "value"),
    [
        (f"d,{MD5_HEX}", "md5", MD5),
        (f" d,{MD5_HEX.upper()} ", "md5", MD5),
        ("0,9472", "random", "9472"),
        ("0", "random", ""),
        ("a,my,tag", "arbitrary", "my,tag"),
        ("z,s", "cod", "sha512"),
        ("z,d", "cod", "md5"),
        ("z,sha512", "cod", "sha512"),
        ("n,2e54", "md5name", "2e54"),
        ("p,00", "sha512name", "00"),
        ("N,00", "sha512name", "00"),
        ("L,00", "link", "00"),
        ("l,00", "hlink", "00"),
        ("R", "remove", ""),
        ("m,00", "mkdir", "00"),
        ("r,00", "rmdir", "00"),
    ],
)
def test_sum(text, method, value):
    assert translated(sum=text) == {"identity": {"method": method, "value": value}}


@pytest.mark.parametrize("text", ["", "x,00", "sha512,00", "d,xyz", "d,é", "s,0", 3, None, ["d"]])
def test_malformed_sums(text):
    with pytest.raises(MessageError, match=r"^sum: "):
        translate({"sum": text})


def test_cod_of_what_cannot_be_computed():
    with pytest.raises(MessageError, match=r"^identity\.value: cod"):
        translate({"sum": "z,0"})


@pytest.mark.parametrize(
    ("text", "size"), [("1,13,1,0,0", 13), ("1,13", 13), ("1,13,1", 13), ("1, 13 ", 13), ("1,0,1,0,0", 0)]
)
def test_parts_of_a_whole_file(text, size):
    """v2 takes one to five fields."""
    assert translated(parts=text) == {"size": size}


def test_parts_without_a_size():
    assert translated(parts="1") == {}


@pytest.mark.parametrize(
    ("flag", "name", "method"),
    [
        ("i", "big.bin", "inplace"),
        ("p", "big.bin.1000.3.560.1.d.Part", "partitioned"),
        ("p", "big.bin§block_0001,1000bytes_§", "separate"),
    ],
)
def test_parts_of_a_block(flag, name, method):
    fields = translated(relPath=name, parts=f"{flag},1000,3,560,1")
    assert fields["blocks"] == {"method": method, "size": 1000, "count": 3, "remainder": 560, "number": 1}
    assert "size" not in fields


@pytest.mark.parametrize(
    "text",
    ["", "x,1,1,0,0", "i", "i,1000,3,560", "i,1000,3,560,x", "1,1,1,0,0,0", "1,x", "1,1.5", 3, None, {}],
)
def test_malformed_parts(text):
    with pytest.raises(MessageError, match=r"^parts: "):
        translate({"parts": text})


def test_oldname():
    assert translated(oldname="/a/b") == {"fileOp": {"rename": "/a/b"}}
    assert translated(oldname="a", fileOp={"link": "t"}) == {"fileOp": {"rename": "a", "link": "t"}}
    assert translated(oldname="a", fileOp={"rename": "b"}) == {"fileOp": {"rename": "b"}}
    assert translated(oldname="a", fileOp="malformed") == {"fileOp": "malformed"}
    for name in ("", 3, None):
        with pytest.raises(MessageError, match=r"^oldname: "):
            translate({"oldname": name})

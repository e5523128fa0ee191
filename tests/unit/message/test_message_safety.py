"""What a message may claim (R82; issue 2, "Bad input")."""

from __future__ import annotations

import os
import posixpath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe.errors import MessageError, UnsafePath
from sarrapipe.message.model import Message
from sarrapipe.message.safety import check, check_link, check_path, old_rel_path

SCHEMES = frozenset({"http", "https", "sftp", "file"})
BASE = {
    "pubTime": "20231114T221320",
    "baseUrl": "http://h/d",
    "relPath": "a/b.txt",
    "size": 3,
    "source": "alice",
}

GOOD_PATHS = [
    *(
        "a",
        "a/b.txt",
        ".hidden",
        "a/.hidden",
        "..a/b..",
        "a/...",
        "a b/c",
        'a#b/c*d/e.f/100%/x#1*2%20+"q"&r,s:t',
    ),
    *(
        "données/été §1 日本.txt",
        "a\u00a0b",
        "x" * 255,
        "/".join(["é" * 127] * 15),
        "%2e",
        "100%/a",
        "a\\b",
        "~",
    ),
]
BAD_PATHS = [
    *("", "/", "/etc/passwd", "..", "../a", "a/../b", "a/..", ".", "./a", "a/./b", "a/.", "a//b", "a/", "//"),
    *("a\0b", "a\nb", "a/\x1b[2J", "\x7f", "a\x85b", "a\udce9", "x" * 256, "é" * 128, "a/" * 2100 + "a"),
    *("%2e%2e/a", "a/%2E./b", "..%2fetc", "a%2f..%2fb", "a%00b"),
]


def make(**changes: object) -> Message:
    return Message({**BASE, **changes})


@pytest.mark.parametrize("path", GOOD_PATHS)
def test_good_paths(path):
    check_path("relPath", path)
    check(make(relPath=path, retrievePath=path, rename=path), SCHEMES)


@pytest.mark.parametrize("path", BAD_PATHS)
@pytest.mark.parametrize("field", ["relPath", "rename"])
def test_bad_paths_are_named(path, field):
    with pytest.raises(UnsafePath, match=f"^{field}: "):
        check_path(field, path)
    with pytest.raises(UnsafePath, match=f"^{field}: "):
        check(make(**{field: path}), SCHEMES)


def test_errors_can_be_printed_whatever_the_path_holds():
    for path in BAD_PATHS:
        with pytest.raises(UnsafePath) as caught:
            check_path("relPath", path)
        text = str(caught.value)
        text.encode("utf-8")
        assert text.isprintable()
        assert len(text) < 200


@pytest.mark.parametrize("path", ["a//b", "api?u=http://x/../y", "x/", "%2e"])
def test_retrieve_paths_are_parts_of_a_url(path):
    check(make(retrievePath=path), SCHEMES)


@pytest.mark.parametrize("path", ["..", "a/../b", "a\0", "a\nb", "%2e%2e/x", "x" * 4096, "a\udce9"])
def test_bad_retrieve_paths(path):
    with pytest.raises(UnsafePath, match=r"^retrievePath: "):
        check(make(retrievePath=path), SCHEMES)


@pytest.mark.parametrize("size", [-1, -(2**63), 2**63, 2**64])
def test_absurd_sizes(size):
    with pytest.raises(MessageError, match=r"^size: "):
        check(make(size=size), SCHEMES)


@pytest.mark.parametrize("size", [0, 1, 2**63 - 1])
def test_large_sizes_are_not_absurd(size):
    check(make(size=size), SCHEMES)


def test_a_message_without_a_size_passes():
    check(make().replace(size=None, source=None), SCHEMES)


@pytest.mark.parametrize("url", ["ftp://h/", "javascript:alert(1)", "HTTPX://h", ":", "h/d", " http://h"])
def test_refused_schemes(url):
    with pytest.raises(MessageError, match=r"^baseUrl: the scheme "):
        check(make(baseUrl=url), SCHEMES)


@pytest.mark.parametrize(
    "url", ["file:/a/../b", "file:///..", "http://h/\0", "http://h/a\nb", "file:/%2e%2e/"]
)
def test_bad_base_urls(url):
    with pytest.raises(UnsafePath, match=r"^baseUrl: "):
        check(make(baseUrl=url), SCHEMES)


@pytest.mark.parametrize(
    "url", ["HTTP://h/", "file:", "file:///data", "sftp://u@h:22//a b", "http://h/é%20x"]
)
def test_good_base_urls(url):
    check(make(baseUrl=url), SCHEMES)


@pytest.mark.parametrize("source", ["", ".", "..", "a/b", "../x", "a\0", "a\n"])
def test_a_source_is_one_name(source):
    """`${SOURCE}` puts it into directories."""
    with pytest.raises(UnsafePath, match=r"^source: "):
        check(make(source=source), SCHEMES)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("link", "hello.txt"),
        ("link", "./a//b/"),
        ("a/link", "../b"),
        ("a/b/link", "../../x/y"),
        ("a/b/link", "./../.././x"),
        ("link", "..."),
        ("link", "a b#é"),
    ],
)
def test_good_link_targets(path, target):
    check_link("fileOp.link", path, target)
    check(make(relPath=path, fileOp={"link": target}), SCHEMES)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("link", "/etc/passwd"),
        ("link", ""),
        ("link", ".."),
        ("link", "../x"),
        ("a/link", "../../x"),
        ("a/link", "d/.."),
        ("a/link", "../d/../x"),
        ("link", "a\0b"),
        ("link", "a\nb"),
        ("link", "a\udce9"),
        ("link", "x/" * 2048),
    ],
)
def test_bad_link_targets(path, target):
    with pytest.raises(UnsafePath, match=r"^fileOp\.link: "):
        check_link("fileOp.link", path, target)


def test_operations_are_checked():
    check(make(fileOp={"remove": "", "directory": ""}), SCHEMES)
    check(make(fileOp={"rename": "/data/docroot/old"}), SCHEMES)
    check(make(fileOp={"future": 1}), SCHEMES)
    check(Message({**BASE, "fileOp": None}), SCHEMES)
    for operation, field in [
        ({"link": "/etc/passwd"}, "fileOp.link"),
        ({"hlink": "../x"}, "fileOp.hlink"),
        ({"hlink": "/etc/passwd"}, "fileOp.hlink"),
        ({"rename": "a/../b"}, "fileOp.rename"),
        ({"rename": "//a"}, "fileOp.rename"),
        ({"rename": "/"}, "fileOp.rename"),
        ({"rename": "/a\0"}, "fileOp.rename"),
        ({"link": "ok", "rename": ".."}, "fileOp.rename"),
    ]:
        with pytest.raises(UnsafePath, match=f"^{field}: "):
            check(make(fileOp=operation), SCHEMES)


def test_old_names_come_into_the_tree_or_name_nothing():
    """sr3 sends the absolute path on its own host (wire.md 1.4)."""
    prefixes = ["", "/", "/data/docroot/", "/other"]
    assert old_rel_path(make(), prefixes) is None
    assert old_rel_path(make(fileOp={"remove": ""}), prefixes) is None
    assert old_rel_path(make(fileOp={"rename": "a/b"}), prefixes) == "a/b"
    assert old_rel_path(make(fileOp={"rename": "/data/docroot/a/b"}), prefixes) == "a/b"
    assert old_rel_path(make(fileOp={"rename": "/other/x"}), prefixes) == "x"
    assert old_rel_path(make(fileOp={"rename": "/etc/passwd"}), prefixes) is None
    assert old_rel_path(make(fileOp={"rename": "/otherwise/x"}), prefixes) is None
    for name in ("/other/", "/other//x", "/data/docroot/../x", "../x", ""):
        with pytest.raises(UnsafePath, match=r"^fileOp\.rename: "):
            old_rel_path(make(fileOp={"rename": name}), prefixes)


pieces = st.sampled_from(["..", ".", "", "a", "é", "%2e", "%2f", "%2e%2e", "\0", "\n", " ", "b.c", "x" * 300])
paths = st.lists(pieces, max_size=6).map("/".join) | st.text(st.characters(), max_size=40)


@given(paths)
@settings(max_examples=400, deadline=None)
def test_what_passes_stays_inside_and_is_a_name_of_its_own(path):
    try:
        check_path("relPath", path)
    except UnsafePath:
        return
    root = "/srv/data"
    joined = posixpath.normpath(posixpath.join(root, path))
    assert joined == f"{root}/{path}", "normal already: one file, one name"
    assert b"\0" not in os.fsencode(path)
    assert max(map(len, path.encode("utf-8").split(b"/"))) <= 255


@given(
    st.lists(st.sampled_from("abcd"), max_size=4),
    st.lists(st.sampled_from(["..", ".", "", "a", "b"]), max_size=6),
)
@settings(max_examples=300, deadline=None)
def test_links_that_pass_resolve_inside_the_tree(directories, parts):
    path, target = "/".join([*directories, "link"]), "/".join(parts)
    try:
        check_link("fileOp.link", path, target)
    except UnsafePath:
        return
    resolved = posixpath.normpath(posixpath.join("/srv/data", *directories, target))
    assert f"{resolved}/".startswith("/srv/data/")

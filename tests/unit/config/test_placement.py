"""Where files go: the rules of sr3-surface.md 2.4, 3.3; no message leads out of the directory (R82)."""

from __future__ import annotations

import os.path
import timeit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe.config.masks import match_text
from sarrapipe.config.placement import Announcer, Placer, safe_relative_path
from sarrapipe.errors import MessageError, UnsafePath
from sarrapipe.units import parse_time_ns

NOW = parse_time_ns("20240229T013005")
PATH = "20240229/SRC/obs/a_b:c:d.txt"


def message(path=PATH, **fields):
    return {
        "baseUrl": "http://h/pub/",
        "relPath": path,
        "pubTime": "20240229T013004.25",
        "source": "alice",
        **fields,
    }


@pytest.fixture
def target(conf):
    def place(text, path=PATH, **fields):
        config = conf.read(text)
        wire = message(path, **fields)
        return Placer(config).target(wire, config.masks.match(match_text(wire)), NOW)

    return place


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mirror\ndirectory /d\n", "/d/20240229/SRC/obs/a_b:c:d.txt"),
        ("mirror\ndirectory /\n", "/20240229/SRC/obs/a_b:c:d.txt"),
        ("mirror\ndirectory /d/\n", "/d/20240229/SRC/obs/a_b:c:d.txt"),
        ("mirror off\ndirectory /d\n", "/d/a_b:c:d.txt"),
        ("mirror\ndirectory /d\nstrip 2\n", "/d/obs/a_b:c:d.txt"),
        ("mirror\ndirectory /d\nstrip 9\n", "/d/a_b:c:d.txt"),
        ("mirror\ndirectory /d\nstrip .*SRC/\n", "/d/obs/a_b:c:d.txt"),
        # as for v2, whose paths began with a slash
        ("mirror\ndirectory /d\nstrip /20240229/\n", "/d/SRC/obs/a_b:c:d.txt"),
        ("mirror\ndirectory /d\nstrip .*_\n", "/d/a_b:c:d.txt"),
        ("mirror off\ndirectory /d\nflatten _\n", "/d/20240229_SRC_obs_a_b:c:d.txt"),
        ("mirror off\ndirectory /d\nstrip 1\nflatten +\n", "/d/SRC+obs+a_b:c:d.txt"),
        ("mirror\ndirectory /d\nfilename WHATFN\n", "/d/20240229/SRC/obs/a_b"),
        ("mirror off\ndirectory /d\nfilename HEADFN\n", "/d/a_b"),
        ("mirror off\ndirectory /d\nfilename NONE:TIME\n", "/d/a_b:c:d.txt:20240229013004"),
        ("mirror off\ndirectory /d\nfilename DESTFN=x\n", "/d/x"),
        ("mirror off\ndirectory /d\nfilename WHATFN:SATNET=1\n", "/d/a_b:SATNET=1"),
        ("mirror off\ndirectory /d/${SOURCE}/${%Y%m%d}\n", "/d/alice/20240229/a_b:c:d.txt"),
        ("mirror off\ndirectory /d\naccept .*\nfilename WHATFN\n", "/d/a_b:c:d.txt"),
        ("mirror off\ndirectory /d/${1}/${2}\naccept .*/(S.C)/(.)bs/.*\n", "/d/SRC/o/a_b:c:d.txt"),
        ("mirror off\ndirectory /d\naccept .*txt WHATFN\n", "/d/a_b"),
        ("mirror off\nfilename WHATFN\ndirectory /d\naccept .*txt None\n", "/d/a_b:c:d.txt"),
        ("mirror\ndirectory /d\nbaseUrl_relPath\n", "/d/pub/20240229/SRC/obs/a_b:c:d.txt"),
        ("mirror\ndirectory /d\nbaseDir /20240229/SRC\n", "/d/obs/a_b:c:d.txt"),
        ("mirror\ndirectory ${BUP}/x\n", "/pub/x/20240229/SRC/obs/a_b:c:d.txt"),
        ("mirror off\ndirectory ~/d\n", "/home/u/d/a_b:c:d.txt"),
        ("mirror off\ndirectory d/../e\n", "/work/e/a_b:c:d.txt"),
        ("mirror off\n", "/work/a_b:c:d.txt"),
        ("mirror off\npost_baseDir /served\n", "/served/a_b:c:d.txt"),
        ("mirror off\nvarTimeOffset -2h\ndirectory /d/${%d}\n", "/d/28/a_b:c:d.txt"),
    ],
)
def test_rules(target, text, expected):
    assert target(text) == expected


def test_each_accept_line_has_what_stood_above_it(target):
    text = """
    directory /first
    mirror off
    accept .*one.*
    directory /second
    mirror on
    strip 1
    accept .*two.*
    directory /third
    """
    assert target(text, "d/one/x") == "/first/x"
    assert target(text, "d/two/x") == "/second/two/x"
    assert target(text, "d/three/x") == "/third/three/x"


def test_rename_takes_the_place_of_the_path(target):
    assert target("mirror\ndirectory /d\n", rename="new/name") == "/d/new/name"
    assert target("mirror\ndirectory /d\n", rename="new/") == "/d/new/a_b:c:d.txt"
    with pytest.raises(MessageError, match="rename"):
        target("directory /d\n", rename=7)


def test_any_path_a_message_speaks_of_is_placed_alike(conf):
    config = conf.read("mirror\ndirectory /d\nstrip 1\n")
    wire = message()
    match = config.masks.match(match_text(wire))
    assert Placer(config).place("x/old/name", wire, match, NOW) == "/d/old/name"


def test_sundew_names(target):
    name = "SACN43_CWAO_012000_AAA_41613:ncp1:CWAO:SA:3:I:20050201200339"
    scheme = "mirror off\ndirectory /d\nfilename {}\n"
    assert target(scheme.format("NONE"), name) == "/d/SACN43_CWAO_012000_AAA_41613:ncp1:CWAO:SA:3:I"
    assert target(scheme.format("HEADFN"), name) == "/d/SACN43_CWAO"
    assert target(scheme.format("WHATFN:TIME"), name) == "/d/SACN43_CWAO_012000_AAA_41613:20050201200339"
    assert target(scheme.format("SENDER"), "a:b:SENDER=me:x") == "/d/me"
    assert target(scheme.format("SENDER"), "a:b") == "/d/a:b"
    assert target(scheme.format("NONE"), "a:b:SENDER=me:x") == "/d/a:b"
    assert target(scheme.format("NONESENDER"), "a:b:SENDER=me:x") == "/d/a:b:SENDER=me"
    assert target(scheme.format("NONE"), "a:b", sundew_extension="c:d:e:3:g:h") == "/d/a:c:d:e:3:g"
    assert target(scheme.format("NONE"), "a:b", sundew_extension="c:d:e:ff:g:h") == "/d/a:c:d:e:ff"


@pytest.mark.parametrize(
    ("given_path", "expected"),
    [("a/b", "a/b"), ("/a/b", "a/b"), ("a//b", "a/b"), ("./a/./b", "a/b"), ("a/b/", "a/b"), ("...", "..."),
     ("a..b/..c", "a..b/..c"), ("été/日本", "été/日本"), ("a\udce9b", "a\udce9b")],
)  # fmt: skip
def test_harmless_paths(given_path, expected):
    assert safe_relative_path(given_path) == expected


BAD_PATHS = ["", "/", ".", "./.", "..", "../x", "a/../b", "a/..", "/../etc/passwd", "a\0b", "a\nb", "a\x7f",
             "x" * 256, "é" * 128, "a/" * 2100 + "b", "\ud800"]  # fmt: skip


@pytest.mark.parametrize("path", BAD_PATHS)
def test_paths_that_no_file_may_have(path, target):
    with pytest.raises(UnsafePath):
        safe_relative_path(path)
    with pytest.raises(UnsafePath):
        target("mirror\ndirectory /d\n", path)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("mirror\ndirectory /d\n", {"rename": "../../etc/passwd"}),
        ("mirror\ndirectory /d/${SOURCE}\n", {"source": ".."}),
        ("mirror off\ndirectory /d\nfilename SENDER\n", {"path": "a:SENDER=.."}),
        ("mirror\ndirectory /d\nstrip x\n", {"path": ".x./b"}),
        ("mirror\ndirectory /d/${1}\naccept .*/(.*)/x$\n", {"path": "%2e/../x"}),
        ("mirror\ndirectory /d/${BUP}\n", {"baseUrl": "http://h/..%2F..%2Fetc"}),
        ("mirror\ndirectory ${1}\naccept .*/(z.*)\n", {"path": "zebra"}),
        ("mirror\ndirectory /d\nbaseUrl_relPath\n", {"baseUrl": "http://h/%2e%2e/x"}),
    ],
)
def test_what_configuration_makes_of_a_path_is_checked_too(target, text, fields):
    with pytest.raises(UnsafePath):
        target(text, **fields)


SETTINGS = [
    "mirror\ndirectory /d\n",
    "mirror off\ndirectory /d\nflatten .\n",
    "mirror\ndirectory /d/${SOURCE}/${1}\nstrip 1\naccept .*/([^/]*)$\n",
    "mirror\ndirectory /d\nstrip a\nfilename SENDER:TIME\n",
    "mirror\ndirectory /d\nstrip [./]*\nbaseUrl_relPath\n",
]


@pytest.fixture(scope="module")
def configurations(make_home):
    return [make_home().read(text) for text in SETTINGS]


nasty = st.text(alphabet="./a\\ SENDER=:%2e\0é", max_size=12)


@given(st.sampled_from(range(len(SETTINGS))), nasty, nasty, nasty, st.none() | nasty)
@settings(max_examples=500, deadline=None)
def test_no_message_leads_out_of_the_directory(configurations, number, path, base, source, rename):
    config = configurations[number]
    wire = message(path, baseUrl=f"http://h/{base}", source=source)
    if rename is not None:
        wire["rename"] = rename
    match = config.masks.match(match_text(wire))
    try:
        placed = Placer(config).target(wire, match, NOW)
    except (UnsafePath, MessageError):
        return
    assert placed.startswith("/d/")
    assert os.path.normpath(placed) == placed


def test_the_common_case_costs_little(conf):
    config = conf.read("mirror\ndirectory /d\naccept .*\n")
    wire, placer = message(), Placer(config)
    match = config.masks.match(match_text(wire))
    seconds = min(timeit.repeat(lambda: placer.target(wire, match, NOW), number=2000, repeat=5)) / 2000
    assert seconds < 20e-6  # 1.0 us here, 5 us wanted; the bound is for a busy machine


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("post_baseDir /srv\n", "/srv/a/b", "a/b"),
        ("post_baseDir /srv/\n", "/srv/a/b", "a/b"),
        ("post_baseDir /srv\n", "/srvx/a", "srvx/a"),
        ("", "/srv/a", "srv/a"),
        ("post_baseDir /srv/${%Y}\n", "/srv/2024/a", "a"),
        ("post_baseUrl file:/srv/x\n", "/srv/x/a", "a"),
        ("baseDir /data\n", "/data/a", "a"),
    ],
)
def test_announced_paths(conf, text, path, expected):
    announcer = Announcer(conf.read(text))
    assert announcer.rel_path(path, message(), (), NOW) == expected


def test_announced_urls(conf):
    announcer = Announcer(conf.read("post_baseUrl http://${HOSTNAME}/${SOURCE}\nrename /in/${SOURCE}/\n"))
    assert announcer.base_url(message(), (), NOW) == "http://node1.example.com/alice"
    assert announcer.rename("x/y", message(), NOW) == "/in/alice/y"
    plain = Announcer(conf.read("rename /in/fixed\n"))
    assert plain.base_url(message(), (), NOW) is None
    assert plain.rename("x/y", message(), NOW) == "/in/fixed"
    assert Announcer(conf.read("")).rename("x/y", message(), NOW) is None

"""Accept and reject lines: first match decides, matched from the start of the URL (R36, R51)."""

from __future__ import annotations

import pickle
import re
import timeit

import pytest

from sarrapipe.config.masks import Mask, Masks, PlacementRule, match_text
from sarrapipe.config.substitute import Template
from sarrapipe.config.values import Origin, Strip

URL = "http://h/data/20240229/a.grib2"


def rule(directory="/d", **changes):
    values = {"mirror": True, "strip": Strip(), "flatten": "/", "filename": None} | changes
    return PlacementRule(Template(directory), **values)


def mask(kind, regex, placement=None):
    return Mask(kind == "accept", re.compile(regex), placement or rule(), origin=Origin("x.conf", 3, 1))


def masks(*lines, unmatched=True):
    return Masks(tuple(lines), rule("/default"), accept_unmatched=unmatched)


@pytest.mark.parametrize("unmatched", [True, False])
def test_nothing_matches(unmatched):
    for lines in ((), (mask("accept", "ftp:.*"),)):
        match = masks(*lines, unmatched=unmatched).match(URL)
        assert (match.accepted, match.mask) == (unmatched, None)
        assert match.rule.directory.text == "/default"


def test_the_first_match_decides():
    lines = masks(mask("reject", ".*tmp$"), mask("accept", ".*grib2$", rule("/grib")), mask("reject", ".*"))
    assert lines.match(URL).accepted
    assert lines.match(URL).rule.directory.text == "/grib"
    assert not lines.match(URL + ".tmp").accepted
    assert not lines.match("http://h/x").accepted
    assert lines.match("http://h/x").mask.regex.pattern == ".*"


def test_expressions_are_anchored_at_the_start_only():
    assert not masks(mask("accept", "data"), unmatched=False).match(URL).accepted
    assert masks(mask("accept", "http://h/data"), unmatched=False).match(URL).accepted


def test_groups_are_taken_where_the_placement_uses_them():
    lines = masks(mask("accept", r".*/(\d{8})/(.*\.bufr)?", rule("/x/${1}")), unmatched=False)
    assert lines.match(URL).groups[1:] == ("20240229", "")
    assert masks(mask("accept", r".*/(\d{8})/.*")).match(URL).groups == ()


def test_accept_everything_needs_no_expression_but_its_groups():
    assert masks(mask("accept", ".*", rule("/x/${0}"))).match(URL).groups == (URL,)
    assert masks(mask("accept", ".*")).match("") == masks(mask("accept", ".*")).match("anything")


@pytest.mark.parametrize(
    ("base", "path", "expected"),
    [
        ("http://h", "a/b", "http://h/a/b"),
        ("http://h/", "a/b", "http://h/a/b"),
        ("http://h/", "/a/b", "http://h/a/b"),
        ("http://h", "/a/b", "http://h/a/b"),
        ("file:", "/a/b", "file:/a/b"),
    ],
)
def test_what_is_matched(base, path, expected):
    assert match_text({"baseUrl": base, "relPath": path}) == expected


def test_masks_travel_between_processes():
    lines = masks(mask("accept", ".*grib2$", rule("/x/${1}")), mask("reject", ".*"), unmatched=False)
    copy = pickle.loads(pickle.dumps(lines))
    assert copy == lines
    assert copy != masks()
    assert copy.match("http://h/y").accepted is False


def test_a_mask_says_which_line_it_is():
    assert str(mask("reject", ".*tmp$")) == "reject .*tmp$ (x.conf:3:1)"


def test_common_cases_cost_little():
    lines = masks(mask("reject", r".*\.tmp$"), mask("accept", ".*"))
    seconds = min(timeit.repeat(lambda: lines.match(URL), number=2000, repeat=5)) / 2000
    assert seconds < 20e-6  # 0.8 us here; the bound is for a busy machine

"""Text into lines: nothing but lines and errors with file and line, whatever the text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe.config.parse import COMMAND_LINE, Line, parse


def options(text):
    lines, errors = parse(text, "a.conf")
    assert not errors
    return [(line.option, line.value) for line in lines]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prefetch 30", [("prefetch", "30")]),
        ("  prefetch\t 30  \r\n", [("prefetch", "30")]),
        ("mirror", [("mirror", "")]),
        ("# comment\n   # comment\n\nmirror", [("mirror", "")]),
        # A # in a value is data: it is a wildcard of topics (sr3-surface.md 3.3).
        ("subtopic a.#\nsubtopic #", [("subtopic", "a.#"), ("subtopic", "#")]),
        (
            "directory /with blanks/in it # not a comment",
            [("directory", "/with blanks/in it # not a comment")],
        ),
        ("\ufeffmirror", [("mirror", "")]),
        ("accept .*é.*", [("accept", ".*é.*")]),
        ("", []),
    ],
)
def test_lines(text, expected):
    assert options(text) == expected


def test_places_are_told_from_one():
    (line,), _ = parse("\n\n   prefetch   30", "a.conf")
    assert (line.line, line.column, line.value_column) == (3, 4, 15)
    assert str(line.error("no")) == "a.conf:3:4: no"
    assert str(line.error("no", 1)) == "a.conf:3:16: no"
    assert str(line.origin) == "a.conf:3:4"


def test_the_command_line_has_no_columns():
    line = Line("prefetch", "x", COMMAND_LINE, 0, 0, 0)
    assert str(line.error("no", 0)) == "command line: no"


@pytest.mark.parametrize("bad", ["a\0b c", "name va\x07lue", "x \ud800", "y " + "z" * 40000])
def test_what_is_no_text_is_an_error_of_its_line(bad):
    lines, errors = parse(f"mirror\n{bad}\nprefetch 3", "a.conf")
    assert [line.option for line in lines] == ["mirror", "prefetch"]
    assert [(error.file, error.line) for error in errors] == [("a.conf", 2)]


def test_errors_are_bounded():
    _, errors = parse("\0\n" * 5000, "a.conf")
    assert len(errors) == 100


@given(st.text(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_text_gives_lines_and_errors_with_places(text):
    lines, errors = parse(text, "a.conf")
    for line in lines:
        assert line.option
        assert not line.option.startswith("#")
        assert line.line >= 1
        assert line.column >= 1
        raw = text.removeprefix("\ufeff").split("\n")[line.line - 1]
        assert raw[line.column - 1 :].startswith(line.option)
        assert raw[line.value_column - 1 :].startswith(line.value)
    assert all(error.file == "a.conf" and error.line >= 1 for error in errors)

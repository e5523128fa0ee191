"""What stands in the log, whatever others put into names."""

from __future__ import annotations

import logging
import os

import pytest

from sarrapipe.log import configure, flush, get_logger, printable, reopen


@pytest.fixture
def root_logger():
    """The handlers and level of the root logger, put back afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    # `configure` closes what it replaces: not those of the test runner.
    for handler in handlers:
        root.removeHandler(handler)
    yield root
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)


def test_names_that_are_no_text_do_not_lose_the_line(root_logger, tmp_path):
    configure("info", str(tmp_path / "log"))
    get_logger("x").error("not announced: %s", "a\udcff")
    assert (tmp_path / "log").read_text().endswith("not announced: a\\udcff\n")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("d/naïve file #1", "d/naïve file #1"),
        ("a\n2024 ERROR forged", "'a\\n2024 ERROR forged'"),
        ("a\x1b[31m", "'a\\x1b[31m'"),
        ("a\udcff", "'a\\udcff'"),
        (None, "None"),
    ],
)
def test_what_others_wrote_stays_on_its_line(text, line):
    assert printable(text) == line


def test_lines_of_a_batch_wait_until_they_are_asked_for_or_one_is_urgent(root_logger, tmp_path):
    configure("info", str(tmp_path / "log"), batched=True)
    log = get_logger("x")
    log.info("first")
    assert (tmp_path / "log").read_text() == ""
    flush()
    assert (tmp_path / "log").read_text().endswith(f" INFO {os.getpid()} x first\n")
    log.info("second")
    log.warning("third")
    assert [line.split()[-1] for line in (tmp_path / "log").read_text().splitlines()] == [
        "first",
        "second",
        "third",
    ]


def test_lines_that_wait_are_written_before_the_file_is_opened_anew(root_logger, tmp_path):
    configure("info", str(tmp_path / "log"), batched=True)
    get_logger("x").info("old")
    (tmp_path / "log").rename(tmp_path / "log.1")
    reopen()
    get_logger("x").info("new")
    logging.shutdown([lambda: root_logger.handlers[0]])
    assert (tmp_path / "log.1").read_text().endswith("old\n")
    assert (tmp_path / "log").read_text().endswith("new\n")

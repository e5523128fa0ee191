"""The documentation is true: generated pages match, links lead somewhere, every command is described."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sarrapipe import errors
from sarrapipe.cli import document as commands_page
from sarrapipe.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "perf/README.md", ROOT / "native/README.md"]
)
LINK = re.compile(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)")


def test_the_page_of_commands_is_what_the_commands_say():
    assert (ROOT / "docs/reference/commands.md").read_text() == commands_page.reference(), "run `make docs`"


def test_every_verb_has_a_sentence_of_help():
    page = commands_page.reference()
    for verb in COMMANDS:
        section = page.partition(f"## sarrapipe {verb}\n")[2].partition("\n## ")[0]
        assert re.search(r"\n\n[A-Z].+[.;]", section), f"{verb} says nothing of itself"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_fits_on_a_few_screens():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_every_error_is_in_the_tree_at_the_head_of_its_module():
    assert errors.__doc__ is not None
    for name in errors.__all__:
        if name != "Disposition":
            assert name in errors.__doc__, f"{name} is missing in the drawing"

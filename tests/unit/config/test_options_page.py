"""docs/reference/options.md is what the declarations say."""

from __future__ import annotations

from pathlib import Path

from sarrapipe.config.document import reference
from sarrapipe.config.model import option_specs
from sarrapipe.config.statements import STATEMENTS
from sarrapipe.config.synonyms import LATER, SYNONYMS

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "options.md"


def test_the_page_is_up_to_date():
    hint = "run: python -m sarrapipe.config.document > docs/reference/options.md"
    assert PAGE.read_text(encoding="utf-8") == reference(), hint


def test_everything_is_on_the_page():
    text = reference()
    for spec in option_specs():
        assert f"**`{spec.key}`**" in text
        assert spec.help in text
    for statement in STATEMENTS.values():
        assert f"**`{statement.key} " in text
    for name in (*LATER, *SYNONYMS):
        assert f"`{name}`" in text

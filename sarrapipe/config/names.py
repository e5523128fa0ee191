"""From a name as written to the option or statement it means. Pure."""

from __future__ import annotations

from functools import lru_cache

from sarrapipe.config.model import option_specs
from sarrapipe.config.option import OptionSpec
from sarrapipe.config.statements import STATEMENTS
from sarrapipe.config.synonyms import LATER, NEEDLESS, REWRITES, SYNONYMS, nearest, snake_case

__all__ = ["find", "statement_words", "unknown_name"]


@lru_cache(maxsize=1)
def statement_words() -> frozenset[str]:
    """Return the first words of all statements: accept, declare, include ..."""
    return frozenset(key.split()[0] for key in STATEMENTS)


@lru_cache(maxsize=1)
def _table() -> dict[str, OptionSpec | str]:
    table: dict[str, OptionSpec | str] = {word: word for word in statement_words()}
    specs = option_specs()
    for spec in specs:
        for name in (snake_case(spec.key), spec.attribute, spec.key):
            table[name] = spec
    for name, target in SYNONYMS.items():
        table.setdefault(name, table[target])
    return table


def find(name: str) -> OptionSpec | str | None:
    """Return the option, or the first word of the statement, that a name means; None for an unknown name."""
    return _table().get(name)


def unknown_name(name: str) -> tuple[str, bool]:
    """Return what to say of an unknown name, and whether it looks like a slip in a known one."""
    known = {*_table(), *LATER, *NEEDLESS, *REWRITES}
    near = nearest(name, known)
    shown = name if len(name) <= 60 else name[:57] + "..."
    if near is None:
        return f"unknown option {shown!r}; 'sarrapipe list options' names them all", False
    found = _table().get(near)
    meant = found.key if isinstance(found, OptionSpec) else near
    return f"unknown option {shown!r}; did you mean {meant!r}?", nearest(name, known, cutoff=0.8) is not None

"""How commands print: tables for people, JSON for programs, one line for an error."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence

import click

from sarrapipe.supervisor.remote import Answer

__all__ = ["print_answers", "print_json", "print_table", "rate", "size"]


def print_json(value: object) -> None:
    """Print one JSON value on one line (indenting a hundred flows takes a fifth of a second)."""
    click.echo(json.dumps(value, ensure_ascii=False, default=_fields))


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 2) -> None:
    """Print columns as wide as they need to be.

    Args:
        header: Titles.
        rows: Cells; the last may be long.
        left: So many first columns are aligned to the left, and so is the last; the others to the right.
    """
    table = [header, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    last = len(header) - 1
    for row in table:
        cells = [
            cell.ljust(width) if column < left or column == last else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


def print_answers(answers: Sequence[Answer], *, as_json: bool = False) -> int:
    """Print what became of each flow; return the first exit status that is not 0."""
    if as_json:
        print_json([{"flow": a.flow, "ok": a.ok, "text": a.text} for a in answers])
    else:
        for answer in answers:
            # An error names the flow or file at fault by itself.
            click.echo(f"{answer.flow}: {answer.text}" if answer.ok else answer.text, err=not answer.ok)
    return next((answer.code for answer in answers if answer.code), 0)


def _fields(value: object) -> dict[str, object]:
    """Return a dataclass as a map; `dataclasses.asdict` copies everything first."""
    assert dataclasses.is_dataclass(value)
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def size(count: float) -> str:
    """Return an amount for a table: `1.5k`, `3.4M`; powers of 1000."""
    for unit in ("", "k", "M", "G", "T"):
        if abs(count) < 1000 or unit == "T":
            return f"{count:.0f}{unit}" if not unit or abs(count) >= 100 else f"{count:.1f}{unit}"
        count /= 1000
    raise AssertionError("unreachable: the loop ends at T")


def rate(per_second: float) -> str:
    """Return a rate for a table: small ones with a digit, so that one file a minute does not read as none."""
    return f"{per_second:.2f}" if 0 < per_second < 10 else size(per_second)

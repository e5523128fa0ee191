"""The table of promises as a terminal shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from perf.musts import HEAD, Seen, row

__all__ = ["print_musts"]


def print_musts(console: Console, seen: Sequence[Seen]) -> None:
    """Print a line for each promise, and how many are kept.

    Args:
        console: Where.
        seen: What `musts.judge` found.
    """
    table = Table(title="must / aim / seen (ratios: above 1 is better)", title_justify="left")
    for number, heading in enumerate(HEAD):
        table.add_column(heading, justify="right" if 0 < number < len(HEAD) - 1 else "left")
    for each in seen:
        table.add_row(*row(each))
    console.print(table, markup=False)
    told = Counter(each.verdict.value for each in seen)
    console.print(", ".join(f"{count} {word}" for word, count in told.items()), markup=False)

"""How far the large files of a flow are, read from its ledger while it runs; nobody is asked or disturbed."""

from __future__ import annotations

import heapq
import os
from typing import NamedTuple

from sarrapipe.ledger.environment import open_for_reading
from sarrapipe.ledger.records import ASSEMBLING, MISSING, FileRow
from sarrapipe.ledger.tables import DATABASES, LmdbTables

__all__ = ["Transfer", "transfers"]


class Transfer(NamedTuple):
    """One file of several segments that is being put together."""

    target: str
    url: str
    """Of its first source, as announced."""
    size: int
    """Bytes; -1 while unknown."""
    done: int
    """Bytes of the segments that are written and verified."""
    segments: int
    segments_done: int
    streams: int
    """Segments that living instances are fetching."""


def transfers(directory: str, limit: int) -> list[Transfer]:
    """Return the largest files under way, largest first.

    Args:
        directory: Of the ledger.
        limit: How many at most.

    Raises:
        LedgerError: The ledger is damaged or foreign.
    """
    if not os.path.exists(os.path.join(directory, "data.mdb")):
        return []
    environment = open_for_reading(directory, "ledger", DATABASES)
    try:
        with environment.read() as txn:
            tables = LmdbTables(txn, environment.databases, LmdbTables.packing())
            alive = tables.alive()
            rows = (
                (generation, row)
                for generation, row in tables.files()
                if row.phase == ASSEMBLING and row.segment_count > 1
            )
            largest = heapq.nlargest(limit, rows, key=lambda one: _bytes(one[1]))
            found = [_describe(tables, generation, row, alive) for generation, row in largest]
    finally:
        environment.close()
    return found


def _bytes(row: FileRow) -> int:
    return row.size if row.size >= 0 else row.segment_count * row.segment_size


def _describe(tables: LmdbTables, generation: bytes, row: FileRow, alive: dict[int, int]) -> Transfer:
    written, streams, last_written = 0, 0, False
    for number, segment in tables.segments(generation):
        if segment.state != MISSING:
            written += 1
            last_written = last_written or number == row.segment_count - 1
        elif segment.claim in alive:
            streams += 1
    done = written * row.segment_size
    if last_written and row.size >= 0:
        done -= row.segment_count * row.segment_size - row.size  # the last one is shorter
    return Transfer(row.target, row.url, row.size, done, row.segment_count, written, streams)

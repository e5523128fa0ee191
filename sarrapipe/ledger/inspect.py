"""What is under way in a ledger, and whether its tables agree with each other and with the file system.

For `sarrapipe ledger show` and `check`, and for tests. Reads only; a running flow is not disturbed.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sarrapipe.ledger.environment import open_for_reading
from sarrapipe.ledger.kept import KeptStore
from sarrapipe.ledger.records import COMMITTED, MISSING, NOBODY, PHASE_NAMES, FileRow, Pending
from sarrapipe.ledger.tables import DATABASES, LmdbTables

__all__ = ["KeptSummary", "Report", "UnderWay", "inconsistencies", "inspect"]


class UnderWay(NamedTuple):
    """One file under way."""

    target: str
    phase: str
    owner: str
    """`instance 3`, `parked` or `dead`."""
    size: int
    """Bytes; -1 if unknown."""
    segments: int
    missing: int
    fetching: dict[int, int]
    """Living instances that hold claims on its segments, with how many."""
    messages: int
    generation: str
    nonce: str
    age_s: float
    """Since its admission, or since somebody took it over."""


class KeptSummary(NamedTuple):
    """What waits in the kept store."""

    kept: int
    leased: int
    next_due_s: float | None
    """Seconds until the next one is due; negative if it is late; None if none waits."""


class Report(NamedTuple):
    """What `ledger show` and `check` print."""

    directory: str
    under_way: list[UnderWay]
    removals: list[str]
    """Paths with a removal that is not settled."""
    paths: int
    seen: int
    instances: dict[int, int]
    """Instance number to incarnation, of those not buried."""
    used_bytes: int
    kept: KeptSummary | None
    problems: list[str]
    """Empty: the ledger is consistent."""


def inspect(directory: str, kept_directory: str | None, now_ns: int, inflight: Iterable[str] = ()) -> Report:
    """Read a ledger and prove it consistent.

    Args:
        directory: Of the ledger.
        kept_directory: Of the kept store; None or missing: there is none.
        now_ns: Wall time.
        inflight: Hidden directories of inflight files, to be compared with the rows.

    Raises:
        LedgerError: There is no ledger, or it is damaged or foreign.
    """
    # Before the rows: a row is written before its file is made, so a file that is there now has one, unless
    # it is gone by then as well.
    files = list(_files(inflight))
    environment = open_for_reading(directory, "ledger", DATABASES)
    try:
        with environment.read() as txn:
            tables = LmdbTables(txn, environment.databases, LmdbTables.packing())
            alive = tables.alive()
            rows = list(tables.files())
            under_way = [_describe(tables, generation, row, alive, now_ns) for generation, row in rows]
            removals = [path for _, path, record in tables.paths() if record.pending == Pending.REMOVAL]
            problems = inconsistencies(tables)
            counts = {name: txn.stat(environment.databases[name])["entries"] for name in ("paths", "seen")}
        used_bytes = environment.usage()[0]
    finally:
        environment.close()
    problems += [f"{path}: inflight, and no row knows it" for path in _unknown(files, rows)]
    return Report(
        directory=directory,
        under_way=under_way,
        removals=removals,
        paths=counts["paths"],
        seen=counts["seen"],
        instances={number: incarnation for incarnation, number in alive.items()},
        used_bytes=used_bytes,
        kept=_kept(kept_directory, now_ns),
        problems=problems,
    )


def _describe(
    tables: LmdbTables, generation: bytes, row: FileRow, alive: dict[int, int], now_ns: int
) -> UnderWay:
    if row.owner == NOBODY:
        owner = "parked"
    else:
        owner = f"instance {alive[row.owner]}" if row.owner in alive else "dead"
    claims = [segment.claim for _, segment in tables.segments(generation)] if row.segment_count > 1 else []
    return UnderWay(
        target=row.target,
        phase=PHASE_NAMES.get(row.phase, str(row.phase)),
        owner=owner,
        size=row.size,
        segments=row.segment_count,
        missing=0 if row.phase == COMMITTED else row.missing,
        fetching=dict(sorted(Counter(alive[claim] for claim in claims if claim in alive).items())),
        messages=1 + row.further,
        generation=generation.hex(),
        nonce=row.nonce.hex(),
        age_s=(now_ns - row.touched_ns) / 1e9,
    )


def _kept(directory: str | None, now_ns: int) -> KeptSummary | None:
    if directory is None or not os.path.exists(os.path.join(directory, "data.mdb")):
        return None
    with KeptStore.open_for_reading(directory) as store:
        messages = store.messages()
        due_ns = store.next_due_ns()
    leased = sum(message.lease != NOBODY for message in messages)
    return KeptSummary(len(messages), leased, None if due_ns is None else (due_ns - now_ns) / 1e9)


def _files(directories: Iterable[str]) -> Iterator[str]:
    for directory in directories:
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(directory):
                yield os.path.join(directory, name)


def _unknown(files: Iterable[str], rows: Iterable[tuple[bytes, FileRow]]) -> Iterator[str]:
    """Yield files whose name holds no row's nonce, and which are still there."""
    nonces = {row.nonce.hex() for _, row in rows}
    for path in files:
        name = os.path.basename(path)
        if name not in nonces and not any(nonce in name for nonce in nonces) and os.path.lexists(path):
            yield path


def inconsistencies(tables: LmdbTables) -> list[str]:
    """Compare every table with every other.

    Returns:
        One line for each thing that cannot be if every decision was one transaction.
    """
    rows = dict(tables.files())
    return [
        *_path_problems(tables, rows),
        *_claim_problems(tables, rows),
        *_segment_problems(tables, rows),
        *_message_problems(tables, rows),
    ]


def _path_problems(tables: LmdbTables, rows: dict[bytes, FileRow]) -> Iterator[str]:
    for generation, row in rows.items():
        if row.phase not in PHASE_NAMES:
            yield f"{row.target}: its row has phase {row.phase}, which does not exist"
        if row.phase == COMMITTED:
            record = tables.get_path(row.target)
            if record is None or record.generation != generation:
                yield f"{row.target}: committed, but its path records another version"
    for _, path, record in tables.paths():
        if record.pending == Pending.REMOVAL and not record.holder:
            yield f"{path}: a removal is pending, but nobody's"
        if record.present and record.pub_ns > record.known_ns:
            yield f"{path}: holds a version that was never announced"


def _claim_problems(tables: LmdbTables, rows: dict[bytes, FileRow]) -> Iterator[str]:
    claimed: set[bytes] = set()
    for _, entry in tables.claims():
        claimed.add(entry.generation)
        if entry.generation not in rows:
            yield f"{entry.target}: its fingerprint is claimed, but nothing is under way"
    for generation, row in rows.items():
        if generation not in claimed:
            yield f"{row.target}: under way, but its fingerprint is not claimed"


def _segment_problems(tables: LmdbTables, rows: dict[bytes, FileRow]) -> Iterator[str]:
    written: Counter[bytes] = Counter()
    for generation, number, segment in tables.all_segments():
        row = rows.get(generation)
        if row is None:
            yield f"segment {number} of {generation.hex()}: its file is not under way"
            continue
        if number >= row.segment_count:
            yield f"{row.target}: segment {number} of {row.segment_count}"
        if segment.state != MISSING:
            written[generation] += 1
            if segment.claim != NOBODY:
                yield f"{row.target}: segment {number} is written and still claimed"
    for generation, row in rows.items():
        if row.segment_count > 1 and row.missing != row.segment_count - written[generation]:
            missing = row.segment_count - written[generation]
            yield f"{row.target}: {row.missing} segments missing by its row, {missing} by its segments"


def _message_problems(tables: LmdbTables, rows: dict[bytes, FileRow]) -> Iterator[str]:
    counted: Counter[bytes] = Counter()
    for generation, message_id, _ in tables.all_messages():
        counted[generation] += 1
        if generation not in rows:
            yield f"message {message_id.hex()}: recorded with a file that is not under way"
    for generation, row in rows.items():
        if row.further != counted[generation]:
            yield f"{row.target}: {row.further} more messages by its row, {counted[generation]} recorded"

"""What the project promises of its speed, and whether a set of results keeps it: data, and pure functions.

A ratio is ours against its peer within one run, above 1 better; a limit is a figure of ours by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from perf.compare import Run, Spread, spread, values
from perf.documents import Document, runs_of
from perf.report import number

__all__ = ["HEAD", "MUSTS", "Kind", "Must", "Seen", "Verdict", "judge", "row"]

_GIB: Final = 1 << 30
_MIB: Final = 1 << 20


class Kind(Enum):
    """How a figure is held against what it must be."""

    AT_LEAST = "at least"
    AT_MOST = "at most"
    EQUAL = "equal within 10 %"


_TOLERANCE: Final = 0.10  # of EQUAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Must:
    """One promise.

    Args:
        what: For a reader.
        scenario: Where it is measured.
        key: The ratio's; or `SIDE FIGURE` for a figure by itself.
        must: What the median has to be; None where only an aim is given.
        aim: What is hoped for; None where nothing is.
        kind: How it is compared.
        unit: Of a figure by itself; a ratio has none.
        size_bytes: The size the promise is about; results of smaller ones are marked.
    """

    what: str
    scenario: str
    key: str
    must: float | None
    aim: float | None = None
    kind: Kind = Kind.AT_LEAST
    unit: str = ""
    size_bytes: int = 0


def _rows(
    what: str, scenario: str, size_bytes: int, *rows: tuple[str, str, float | None, float | None]
) -> tuple[Must, ...]:
    return tuple(
        Must(what=f"{what}: {peer}", scenario=scenario, key=key, must=must, aim=aim, size_bytes=size_bytes)
        for peer, key, must, aim in rows
    )


MUSTS: Final = (
    *_rows(
        "4 GiB HTTP to /dev/shm, verified", "bulk-http-4g", 4 * _GIB,
        ("x curl", "curl", 1.0, 1.15), ("x aria2c", "aria2c", 1.6, None), ("x sr3", "sr3", 3.0, None),
        ("client CPU, at most 1.25 x curl's", "cpu-curl", 1 / 1.25, 1 / 1.1),
    ),
    *_rows(
        "4 GiB HTTP to disk", "bulk-disk", 4 * _GIB,
        ("durability process x curl", "curl", 1.0, 1.16),
        ("durability host x curl && sync", "curl-sync", 1.0, 1.16),
    ),
    *_rows(
        "4 GiB HTTP, sha512 of the file verified", "bulk-sha512", 4 * _GIB,
        ("x the hash alone", "hash", 0.85, None), ("x sr3", "sr3", 1.5, None),
    ),
    *_rows(
        "announce 4 GiB in blocks of 64 MiB", "announce-blocks", 4 * _GIB,
        ("sha512 x sr3_post", "sr3", 8.0, None), ("xxh3_128 x sr3_post", "sr3-xxh3", 8.0, 40.0),
    ),
    *_rows(
        "put 4 GiB together from blocks, 4 instances, verified", "fetch-blocks", 4 * _GIB,
        ("xxh3_128 x sr3", "sr3-xxh3", 5.0, None), ("sha512 x sr3", "sr3-sha512", 2.5, None),
        ("xxh3_128 x own whole-file speed", "whole", None, 0.9),
    ),
    *_rows(
        "fetch 1 GiB over SFTP, one cipher", "sftp-get", _GIB,
        ("x OpenSSH", "openssh", 0.95, 1.2), ("x paramiko", "paramiko", 2.5, None),
    ),
    *_rows(
        "send 1 GiB over SFTP, one cipher", "sftp-put", _GIB,
        ("x OpenSSH", "openssh", 0.95, 1.2), ("x paramiko", "paramiko", 2.5, None),
    ),
    *_rows(
        "256 MiB over 1 Gbit/s, RTT 50 ms, loss 0.1 %", "wan", 256 * _MIB,
        ("x the best peer", "best", 1.0, 1.2), ("x curl", "curl", 2.0, None),
    ),
    *_rows(
        "1 GiB, RTT 100 ms, 100 MB/s, receive buffer 1 MiB", "wan-window", _GIB,
        ("x one stream", "curl", 8.0, None),
    ),
    *_rows(
        "relay 4 GiB from server to server, no disk", "relay", 4 * _GIB,
        ("x curl piped to curl", "curl", 1.0, None),
    ),
    Must(
        what="peak memory, 16 GiB to disk against 1 GiB", scenario="memory", key="large",
        must=1.0, kind=Kind.EQUAL, size_bytes=16 * _GIB,
    ),
    Must(
        what="peak memory, 64 GiB discarded against 1 GiB", scenario="memory", key="sparse",
        must=1.0, kind=Kind.EQUAL, size_bytes=64 * _GIB,
    ),
    Must(
        what="1 KiB files while 16 GiB moves: p99, post to announcement", scenario="latency",
        key="sarrapipe p99_ms", must=500.0, aim=200.0, kind=Kind.AT_MOST, unit="ms", size_bytes=16 * _GIB,
    ),
)  # fmt: skip
"""Every promise about large files, in the order of the table."""


class Verdict(Enum):
    """What a result says about a promise."""

    AIM = "aim met"
    MET = "met"
    SHORT = "below the aim"
    MISSED = "MISSED"
    WRONG = "WRONG OUTPUT"
    UNSEEN = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A promise and what was measured of it; `size_bytes` is 0 where the result does not tell."""

    must: Must
    verdict: Verdict
    spread: Spread | None = None
    turns: int = 0
    size_bytes: int = 0

    @property
    def smaller(self) -> bool:
        """Whether it was measured on less than the promise is about."""
        return 0 < self.size_bytes < self.must.size_bytes

    @property
    def kept(self) -> bool:
        """Whether the promise is kept."""
        return self.verdict in (Verdict.AIM, Verdict.MET, Verdict.SHORT)


def judge(documents: Sequence[Document], musts: Sequence[Must] = MUSTS) -> list[Seen]:
    """Hold results against promises.

    Args:
        documents: Results; of a scenario that is not there nothing is known.
        musts: The promises.

    Returns:
        One for each promise, in order. The median counts.
    """
    by_name = {document["name"]: document for document in documents}
    return [_judge_one(by_name, must) for must in musts]


def _judge_one(by_name: Mapping[str, Document], must: Must) -> Seen:
    document = by_name.get(must.scenario)
    if document is None:
        return Seen(must=must, verdict=Verdict.UNSEEN)
    side = _our_side(document, must)
    runs = [run for run in runs_of(document) if run.side == side]
    turns = len(runs)
    size_bytes = _size_bytes(document, runs)
    found = _spread(document, must)
    if not all(run.ok for run in runs):
        return Seen(must=must, verdict=Verdict.WRONG, spread=found, turns=turns, size_bytes=size_bytes)
    if found is None:
        return Seen(must=must, verdict=Verdict.UNSEEN)
    verdict = _verdict(must, found.median)
    return Seen(must=must, verdict=verdict, spread=found, turns=turns, size_bytes=size_bytes)


def _size_bytes(document: Document, runs: Sequence[Run]) -> int:
    """Return the size measured: that of the runs, which one side may have to itself, or the one asked for."""
    told = [int(each) for run in runs if isinstance(each := run.settings.get("size_bytes"), int)]
    return max(told) if told else int(document.get("asked", {}).get("size_bytes", 0))


def _our_side(document: Document, must: Must) -> str:
    if must.unit:
        return must.key.split()[0]
    compared = {each["key"]: each["ours"] for each in document.get("compared", ())}
    return str(compared.get(must.key, ""))


def _spread(document: Document, must: Must) -> Spread | None:
    if must.unit:
        side, figure = must.key.split()
        found = list(values(runs_of(document), side, figure).values())
        return spread(found) if found else None
    each = document["ratio_spread"].get(must.key)
    return Spread(**each) if each else None


def _verdict(must: Must, median: float) -> Verdict:
    if must.aim is not None and _reached(must.kind, median, must.aim):
        return Verdict.AIM
    if must.must is None:  # an aim alone: missing it breaks no promise
        return Verdict.SHORT
    return Verdict.MET if _reached(must.kind, median, must.must) else Verdict.MISSED


def _reached(kind: Kind, seen: float, wanted: float) -> bool:
    if kind is Kind.AT_LEAST:
        return seen >= wanted
    if kind is Kind.AT_MOST:
        return seen <= wanted
    return abs(seen - wanted) <= _TOLERANCE * wanted


HEAD: Final = ("what", "must", "aim", "seen", "min - max", "turns", "verdict")
"""The columns of `row`."""


def row(seen: Seen) -> tuple[str, ...]:
    """Return a line of the table, cell by cell."""
    must = seen.must
    verdict = seen.verdict.value
    if seen.smaller:
        verdict += f" ({_size(seen.size_bytes)} only)"
    found = seen.spread
    return (
        must.what,
        _wanted(must, must.must),
        _wanted(must, must.aim),
        _figure(must, found.median) if found else "",
        f"{_figure(must, found.low)} - {_figure(must, found.high)}" if found else "",
        str(seen.turns or ""),
        verdict,
    )


def _wanted(must: Must, value: float | None) -> str:
    if value is None:
        return ""
    if must.kind is Kind.EQUAL:
        return f"{value - _TOLERANCE:g} - {value + _TOLERANCE:g}"
    return ("at most " if must.kind is Kind.AT_MOST else "") + _figure(must, value)


def _figure(must: Must, value: float) -> str:
    return f"{number(value)} {must.unit}".strip() if must.unit else f"{value:.2f}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:g} GiB" if size_bytes >= _GIB else f"{size_bytes / _MIB:g} MiB"

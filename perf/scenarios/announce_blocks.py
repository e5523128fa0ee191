"""Announcing one large file in blocks of 64 MiB: read, hash, one message for each block, every one confirmed.

The file is random bytes in /dev/shm, read once before the first turn, so that what is measured is hashing and
announcing, for every side the same. Digests are compared with ones computed here; sr3's are known to cover
more than their block (all but the last), so its runs are timed and marked wrong.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

import xxhash

from perf.bench import Bench, RunOptions
from perf.cage import Cage
from perf.compare import Run
from perf.delivery import COUNT_QUEUE, IN_EXCHANGE
from perf.meter import TOOL, Meter
from perf.peers.sr3 import Sr3
from perf.sarrapipe_side import Sarrapipe
from perf.scenario import Comparison, Scenario
from perf.side import FlowSide, Posting
from perf.turns import run_turns

__all__ = ["SCENARIO"]

_NAME: Final = "large.bin"
_BLOCK_BYTES: Final = 64 << 20
_PIECE_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class _Contender:
    """One side, and what it is told."""

    side: FlowSide
    identity: str
    settings: tuple[str, ...] = ()


def _run(bench: Bench, options: RunOptions) -> Sequence[Run]:
    path = os.path.join(bench.site.docroot, _NAME)
    bench.say(f"making a file of {options.size_bytes} bytes")
    with open(path, "wb") as file:
        for offset in range(0, options.size_bytes, _PIECE_BYTES):
            file.write(os.urandom(min(_PIECE_BYTES, options.size_bytes - offset)))
    wanted = {method: _digests(path, method) for method in ("sha512", "xxh3_128")}
    contenders = (
        _Contender(Sarrapipe(bench.site, bench.path("ours")), "sha512"),
        _Contender(Sarrapipe(bench.site, bench.path("xxh3"), name="sarrapipe-xxh3"), "xxh3_128"),
        _Contender(Sr3(bench.site, bench.path("sr3")), "sha512", ("block_manifest_delete on",)),
    )
    bench.probe.declare_exchange(IN_EXCHANGE)
    measures = {
        each.side.name: partial(_measure, bench, each, path, wanted[each.identity]) for each in contenders
    }
    return run_turns(bench.say, options, measures)


def _digests(path: str, method: str) -> list[str]:
    """Return the digest of every block as messages have it, computed apart from the programs under test."""
    offsets = range(0, os.path.getsize(path), _BLOCK_BYTES)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(partial(_digest, path, method), offsets))


def _digest(path: str, method: str, offset: int) -> str:
    hasher = hashlib.sha512() if method == "sha512" else xxhash.xxh3_128()
    with open(path, "rb", buffering=0) as file:
        file.seek(offset)
        left = _BLOCK_BYTES
        while left and (data := file.read(min(left, 1 << 20))):
            hasher.update(data)
            left -= len(data)
    return base64.b64encode(hasher.digest()).decode()


def _measure(bench: Bench, each: _Contender, path: str, wanted: Sequence[str], turn: int) -> Run:
    posting = Posting(
        name="perf",
        user="feeder",
        exchange=IN_EXCHANGE,
        base_dir=bench.site.docroot,
        base_url=bench.site.http_url,
        identity=each.identity,
        settings=(f"blockSize {_BLOCK_BYTES}", *each.settings),
    )
    each.side.write_posting(posting)
    bench.probe.delete_queue(COUNT_QUEUE)
    bench.probe.declare_queue(COUNT_QUEUE, exchange=IN_EXCHANGE)
    with (
        Cage(isolated=each.side.isolated) as cage,
        Meter({TOOL: cage.processes, **bench.roles()}, memory=cage.pids) as meter,
    ):
        done = each.side.post(cage, posting, [path])
    wrong = _find_faults(bench.probe.drain(COUNT_QUEUE), wanted)
    size = os.path.getsize(path)
    figures = {
        **meter.figures(),
        "blocks": len(wanted),
        "seconds": done.seconds,
        "mb_per_s": size / 1e6 / done.seconds,
    }
    bench.say(f"turn {turn + 1}: {each.side.name} {done.seconds:.2f} s")
    settings: dict[str, object] = {"identity": each.identity, "lines": list(posting.settings), "size": size}
    return Run(
        side=each.side.name, turn=turn, ok=not wrong, wrong=tuple(wrong), figures=figures, settings=settings
    )


def _find_faults(bodies: Sequence[bytes], wanted: Sequence[str]) -> list[str]:
    """Compare the announcements with the digests of the blocks."""
    announced: dict[int, object] = {}
    wrong = []
    for body in bodies:
        fields: Mapping[str, object] = json.loads(body)
        blocks, identity = fields.get("blocks"), fields.get("identity")
        if not isinstance(blocks, dict) or not isinstance(identity, dict):
            wrong.append(f"{fields.get('relPath')!r} was announced without blocks or identity")
        elif blocks["number"] in announced:
            wrong.append(f"block {blocks['number']} was announced again")
        else:
            announced[blocks["number"]] = identity.get("value")
    numbers = range(len(wanted))
    wrong += [f"block {number} was not announced" for number in numbers if number not in announced]
    wrong += [f"there is no block {number}" for number in announced if number not in numbers]
    wrong += [
        f"block {number} has another digest than its bytes"
        for number in numbers
        if number in announced and announced[number] != wanted[number]
    ]
    return wrong[:10]


SCENARIO = Scenario(
    name="announce-blocks",
    summary="post of 4 GiB in blocks of 64 MiB with sha512, and with xxh3_128, beside sr3_post",
    runs=3,
    files=1,
    size_bytes=4 << 30,
    in_memory=True,
    comparisons=(
        Comparison(key="sr3", ours="sarrapipe", peer="sr3", figure="seconds"),
        Comparison(key="sr3-xxh3", ours="sarrapipe-xxh3", peer="sr3", figure="seconds"),
    ),
    ours=("sarrapipe", "sarrapipe-xxh3"),
    figures=("seconds", "mb_per_s", "cpu_s", "peak_pss_mb", "steal"),
    run=_run,
)

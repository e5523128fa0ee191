"""Small files while a large one moves through the same flow (R16): from post to announcement, file by file.

The small files are announced one by one at a fixed pace, whatever came of the ones before, from when the
large file is announced until it has arrived. A file's latency is from the publishing of its announcement to
the arrival of the flow's own. What was published while the large file moved counts, and nothing else.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from perf import trees
from perf.bench import Bench, RunOptions
from perf.bulk import BulkFlow, counting_queue, start_flow
from perf.compare import Run
from perf.memory import prewarm
from perf.meter import TOOL, Meter
from perf.peers.sr3 import Sr3
from perf.sarrapipe_side import Sarrapipe
from perf.scenario import Comparison, Scenario
from perf.side import Flow, FlowSide
from perf.turns import run_turns

__all__ = ["SCENARIO", "percentile"]

_LARGE: Final = "latency/large.bin"
_SMALL: Final = "latency/small"
_SMALL_BYTES: Final = 1024
_EVERY_S: Final = 0.02
_SETTLE_S: Final = 30.0
_LIMIT_S: Final = 900.0
_FLOWS: Final = (
    BulkFlow(name="sarrapipe", instances=4, settings=("streams 16",)),
    BulkFlow(name="sr3", instances=4, identity="", sr3=True),
)


@dataclass(slots=True)
class _Seen:
    """When announcements arrived, monotonic seconds, by relPath; the first counts."""

    at_s: dict[str, float] = field(default_factory=dict)

    def note(self, body: bytes) -> None:
        self.at_s.setdefault(str(json.loads(body)["relPath"]).lstrip("/"), time.monotonic())


def percentile(numbers: Sequence[float], share: float) -> float:
    """Return the least number that at least `share` of the numbers do not exceed.

    Raises:
        ValueError: There are none.
    """
    if not numbers:
        raise ValueError("no figures")
    ordered = sorted(numbers)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]


def _run(bench: Bench, options: RunOptions) -> Sequence[Run]:
    docroot = bench.site.docroot
    bench.say(f"making a file of {options.size_bytes} bytes and {options.files} small ones")
    trees.make_small(os.path.join(docroot, _SMALL), files=options.files, size_bytes=_SMALL_BYTES)
    os.makedirs(os.path.dirname(os.path.join(docroot, _LARGE)), exist_ok=True)
    with open(os.path.join(docroot, _LARGE), "wb") as file:
        file.truncate(options.size_bytes)  # zeros take no memory: there is room for 16 GiB once, not twice
    small = list(trees.announcements(docroot, _SMALL, bench.site.http_url))
    return run_turns(
        bench.say, options, {each.name: partial(_measure, bench, each, small) for each in _FLOWS}
    )


def _measure(bench: Bench, bulk: BulkFlow, small: Sequence[tuple[str, bytes]], turn: int) -> Run:
    docroot = bench.site.docroot
    flow = bulk.flow(bench, bench.fresh("dest"))
    kind = Sr3 if bulk.sr3 else Sarrapipe
    side: FlowSide = kind(bench.site, bench.path(f"side-{bulk.name}"), name=bulk.name)
    source = os.path.join(docroot, _LARGE)
    identity = {} if bulk.sr3 else {"method": "xxh3_128", "value": trees.xxh3_128(source)}
    large = trees.announcement(docroot, _LARGE, bench.site.http_url, identity)
    prewarm(os.path.getsize(source) + (64 << 20))
    with (
        start_flow(bench, side, flow) as cage,
        Meter({TOOL: cage.processes, **bench.roles()}, memory=cage.pids) as meter,
    ):
        sent, seen = _drive(bench, flow, large, small)
    wrong = (
        []
        if trees.same_bytes(source, os.path.join(flow.destination, _LARGE))
        else ["large file: other bytes"]
    )
    names = [name for name in sent if name not in seen.at_s]
    wrong += [f"{len(names)} small files were not announced"] if names else []
    wrong += trees.compare_bytes(
        os.path.join(docroot, _SMALL), os.path.join(flow.destination, _SMALL), complete=False
    )[:5]
    ended_s = seen.at_s.get(_LARGE, time.monotonic())
    waits = [
        seen.at_s[name] - at_s
        for name, at_s in sent.items()
        if name != _LARGE and name in seen.at_s and at_s < ended_s
    ]
    figures = {"files": float(len(waits)), "seconds": ended_s - sent[_LARGE], **meter.figures()}
    if len(waits) > 1:
        figures |= {
            "p50_ms": percentile(waits, 0.5) * 1e3,
            "p99_ms": percentile(waits, 0.99) * 1e3,
            "max_ms": max(waits) * 1e3,
        }
        bench.say(f"turn {turn + 1}: {bulk.name} p50 {figures['p50_ms']:.0f} p99 {figures['p99_ms']:.0f} ms")
    settings: dict[str, object] = {"instances": flow.instances, "lines": list(flow.settings)}
    return Run(
        side=bulk.name, turn=turn, ok=not wrong, wrong=tuple(wrong), figures=figures, settings=settings
    )


def _drive(
    bench: Bench, flow: Flow, large: tuple[str, bytes], small: Sequence[tuple[str, bytes]]
) -> tuple[dict[str, float], _Seen]:
    """Publish the large file, then a small one every 20 ms while it moves; return when each went and came."""
    sent: dict[str, float] = {}
    seen = _Seen()
    with bench.probe.listening(counting_queue(flow), seen.note) as listen:
        _send(bench, flow, large, sent)
        due_s = time.monotonic()
        for message in small:
            if _LARGE in seen.at_s:
                break
            _send(bench, flow, message, sent)
            due_s += _EVERY_S
            listen(max(0.0, due_s - time.monotonic()))
        until_s = time.monotonic() + _LIMIT_S
        while _LARGE not in seen.at_s and time.monotonic() < until_s:
            listen(0.1)
        until_s = time.monotonic() + _SETTLE_S
        while len(seen.at_s) < len(sent) and time.monotonic() < until_s:
            listen(0.1)
    return sent, seen


def _send(bench: Bench, flow: Flow, message: tuple[str, bytes], sent: dict[str, float]) -> None:
    sent[str(json.loads(message[1])["relPath"])] = time.monotonic()
    bench.probe.send(flow.exchange, message)


SCENARIO = Scenario(
    name="latency",
    summary="1 KiB files while 16 GiB moves through the same flow of 4 instances: post to announcement",
    runs=1,
    files=4000,
    size_bytes=16 << 30,
    in_memory=True,
    comparisons=(
        Comparison(key="sr3", ours="sarrapipe", peer="sr3", figure="p99_ms"),
        Comparison(key="p50-sr3", ours="sarrapipe", peer="sr3", figure="p50_ms"),
    ),
    ours=("sarrapipe",),
    figures=("files", "seconds", "p50_ms", "p99_ms", "max_ms", "cpu_s", "peak_pss_mb", "steal"),
    run=_run,
)

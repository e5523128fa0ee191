"""Memory does not grow with the size of a file: a small one, one sixteen times as large, one discarded.

Each run has a flow of its own, so that a peak is that file's. `size` is that of the largest file on disk; the
sparse one has four times that, or what there is room for, and is not kept (`discard on`). A case for which
there is no room is left out.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from perf import procstat, trees
from perf.bench import Bench, RunOptions
from perf.bulk import BulkFlow, counting_queue, start_flow
from perf.compare import Run
from perf.memory import prewarm
from perf.meter import TOOL, Meter
from perf.sarrapipe_side import Sarrapipe
from perf.scenario import Comparison, Scenario
from perf.turns import run_turns

__all__ = ["SCENARIO"]

_BELOW: Final = "memory"
_LIMIT_S: Final = 1800.0
_ROOM_SHARE: Final = 0.8
_STEP_BYTES: Final = 256 << 20
_SMALL, _LARGE, _SPARSE = "small", "large", "sparse"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One file: how large, and whether it is kept."""

    name: str
    size_bytes: int
    discard: bool = False


def _run(bench: Bench, options: RunOptions) -> Sequence[Run]:
    # What is discarded is whole on disk for a moment too, while the two others' sources lie there.
    room = int((shutil.disk_usage(bench.path()).free - 1.1 * options.size_bytes) * _ROOM_SHARE)
    cases = (
        _Case(name=_SMALL, size_bytes=options.size_bytes // 16),
        _Case(name=_LARGE, size_bytes=options.size_bytes),
        _Case(
            name=_SPARSE,
            size_bytes=min(options.size_bytes * 4, max(0, room) // _STEP_BYTES * _STEP_BYTES),
            discard=True,
        ),
    )
    os.makedirs(os.path.join(bench.site.docroot, _BELOW))
    sides = {}
    for case in (each for each in cases if options.wants(each.name)):
        if (
            not case.size_bytes
            or case.size_bytes * (1 if case.discard else 2) > shutil.disk_usage(bench.path()).free
        ):
            bench.say(f"no room for the {case.name} file of {case.size_bytes} bytes: left out")
            continue
        bench.say(f"making the {case.name} file of {case.size_bytes} bytes")
        _make(_path(bench, case), case)
        sides[case.name] = partial(_measure, bench, case)
    return run_turns(bench.say, options, sides)


def _path(bench: Bench, case: _Case) -> str:
    return os.path.join(bench.site.docroot, _BELOW, f"{case.name}.bin")


def _make(path: str, case: _Case) -> None:
    if not case.discard:
        trees.make_large(path, case.size_bytes)
        return
    with open(path, "wb") as file:
        file.truncate(case.size_bytes)


def _measure(bench: Bench, case: _Case, turn: int) -> Run:
    settings = ("streams 16", "discard on") if case.discard else ("streams 16",)
    flow = BulkFlow(name=case.name, settings=settings).flow(bench, bench.fresh("dest"))
    side = Sarrapipe(bench.site, bench.path(f"ours-{case.name}"), name=case.name)
    source = _path(bench, case)
    identity = {} if case.discard else {"method": "xxh3_128", "value": trees.xxh3_128(source)}
    link = os.path.relpath(source, bench.site.docroot)
    message = trees.announcement(bench.site.docroot, link, bench.site.http_url, identity)
    os.sync()
    prewarm(min(case.size_bytes, 2 << 30))
    with start_flow(bench, side, flow) as cage:
        idle_bytes = procstat.pss_bytes(cage.pids())
        with Meter({TOOL: cage.processes, **bench.roles()}, memory=cage.pids) as meter:
            began_s, ended_s = bench.probe.await_one(
                counting_queue(flow), partial(bench.probe.publish, flow.exchange, [message]), limit_s=_LIMIT_S
            )
        peak_rss_bytes = procstat.peak_rss_bytes(cage.pids())
    copy = os.path.join(flow.destination, link)
    wrong: tuple[str, ...] = ()
    if not case.discard and not trees.same_bytes(source, copy):
        wrong = ("the copy has other bytes",)
    elif case.discard and os.path.exists(copy):
        wrong = ("the file was not discarded",)
    if os.path.exists(copy):
        os.unlink(copy)
    figures = {
        "size_mb": case.size_bytes / 1e6,
        "seconds": ended_s - began_s,
        "mb_per_s": case.size_bytes / 1e6 / (ended_s - began_s),
        "pss_mb": idle_bytes / 1e6,
        "peak_rss_mb": peak_rss_bytes / 1e6,
        **meter.figures(),
    }
    bench.say(f"turn {turn + 1}: {case.name} peak {figures['peak_pss_mb']:.1f} MB PSS")
    told: dict[str, object] = {"size_bytes": case.size_bytes, "lines": list(settings)}
    return Run(side=case.name, turn=turn, ok=not wrong, wrong=wrong, figures=figures, settings=told)


SCENARIO = Scenario(
    name="memory",
    summary="peak memory of one file of 1 GiB and 16 GiB to disk, and 64 GiB of zeros discarded (1: equal)",
    runs=1,
    files=1,
    size_bytes=16 << 30,
    in_memory=False,
    comparisons=(
        Comparison(key="large", ours=_LARGE, peer=_SMALL, figure="peak_pss_mb"),
        Comparison(key="sparse", ours=_SPARSE, peer=_SMALL, figure="peak_pss_mb"),
        Comparison(key="rss-large", ours=_LARGE, peer=_SMALL, figure="peak_rss_mb"),
        Comparison(key="rss-sparse", ours=_SPARSE, peer=_SMALL, figure="peak_rss_mb"),
    ),
    ours=(_SMALL, _LARGE, _SPARSE),
    figures=("size_mb", "seconds", "mb_per_s", "pss_mb", "peak_pss_mb", "peak_rss_mb", "written_mb", "steal"),
    run=_run,
    over="size_mb",
)

"""How rate and cost grow with the size of files, 1 KiB to 1 GiB, each 32 times as large as the one before.

As many files of a size as the largest one has bytes for, but no more than `--files`. The flow is running and
idle; it is timed from the publishing of the first announcement to the arrival of its last one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from perf import trees
from perf.bench import Bench, RunOptions
from perf.bulk import BulkFlow, counting_queue, start_flow
from perf.compare import Run
from perf.memory import prewarm
from perf.meter import TOOL, Meter
from perf.sarrapipe_side import Sarrapipe
from perf.scenario import Comparison, Scenario
from perf.turns import Measure, run_turns

__all__ = ["SCENARIO"]

_STEPS: Final = 5  # by default 1 and 32 KiB, 1 and 32 MiB, 1 GiB
_FACTOR_BITS: Final = 5
_LIMIT_S: Final = 900.0


def _name(number: int) -> str:
    return f"sarrapipe-{number}"


def _run(bench: Bench, options: RunOptions) -> Sequence[Run]:
    sides: dict[str, Measure] = {}
    for number in range(1, _STEPS + 1):
        size_bytes = max(1, options.size_bytes >> _FACTOR_BITS * (_STEPS - number))
        files = max(1, min(options.files, options.size_bytes // size_bytes))
        below = f"files-{number}"
        bench.say(f"making {files} files of {size_bytes} bytes")
        os.makedirs(os.path.join(bench.site.docroot, below))
        for each in range(files):
            path = os.path.join(bench.site.docroot, below, f"f{each:06d}.bin")
            trees.make_large(path, size_bytes, seed=each)
        messages = list(trees.announcements(bench.site.docroot, below, bench.site.http_url))
        sides[_name(number)] = partial(_measure, bench, number, below, size_bytes, messages)
    return run_turns(bench.say, options, sides)


def _measure(
    bench: Bench, number: int, below: str, size_bytes: int, messages: Sequence[tuple[str, bytes]], turn: int
) -> Run:
    flow = BulkFlow(name=_name(number), settings=("streams 16",)).flow(bench, bench.fresh("dest"))
    side = Sarrapipe(bench.site, bench.path(_name(number)), name=_name(number))
    files = len(messages)
    prewarm(files * size_bytes + (64 << 20))
    with (
        start_flow(bench, side, flow) as cage,
        Meter({TOOL: cage.processes, **bench.roles()}, memory=cage.pids) as meter,
    ):
        began_s = time.monotonic()
        bench.probe.publish(flow.exchange, messages)
        arrivals = bench.probe.watch(counting_queue(flow), files, limit_s=_LIMIT_S, every_s=0.005)
    seconds = arrivals.last_s - began_s
    wrong = trees.compare_bytes(
        os.path.join(bench.site.docroot, below), os.path.join(flow.destination, below)
    )
    if arrivals.count != files:
        wrong.append(f"{arrivals.count} announcements for {files} files")
    used = meter.figures()
    figures = {
        **used,
        "size_mb": size_bytes / 1e6,
        "files": float(files),
        "seconds": seconds,
        "files_per_s": files / seconds,
        "mb_per_s": files * size_bytes / 1e6 / seconds,
        "cpu_s_per_1000": used["cpu_s"] / files * 1000,
    }
    bench.say(f"turn {turn + 1}: {files} files of {size_bytes} bytes at {figures['mb_per_s']:.1f} MB/s")
    settings: dict[str, object] = {"instances": flow.instances, "lines": list(flow.settings)}
    return Run(
        side=_name(number),
        turn=turn,
        ok=not wrong,
        wrong=tuple(wrong[:5]),
        figures=figures,
        settings=settings,
    )


SCENARIO = Scenario(
    name="scale-files",
    summary="files of 1 KiB to 1 GiB over HTTP, sha512 verified: rate and CPU by size",
    runs=1,
    files=5000,
    size_bytes=1 << 30,
    in_memory=True,
    comparisons=(
        Comparison(
            key="rate-growth", ours=_name(_STEPS), peer=_name(1), figure="mb_per_s", more_is_better=True
        ),
    ),
    ours=tuple(_name(number) for number in range(1, _STEPS + 1)),
    figures=("size_mb", "files", "files_per_s", "mb_per_s", "cpu_s_per_1000", "peak_pss_mb", "steal"),
    run=_run,
    over="size_mb",
    limits=True,
)

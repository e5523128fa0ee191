"""How time and cost grow with the size of a file, each four times the one before, beside curl.

Files are sparse and ours are thrown away once they are whole (`discard on`), as curl's are (`-o
/dev/null`): in the end neither side has anything. What is under way of ours has to fit on the disk once; a
size for which there is no room is left out.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from functools import partial
from typing import Final

from perf import trees
from perf.bench import Bench, RunOptions
from perf.bulk import BulkFlow, counting_queue, start_flow
from perf.cage import Cage
from perf.compare import Run
from perf.meter import TOOL, Meter
from perf.peers.web import CURL
from perf.sarrapipe_side import Sarrapipe
from perf.scenario import Comparison, Scenario
from perf.turns import Measure, run_turns

__all__ = ["SCENARIO"]

_STEPS: Final = 6  # by default 64 and 256 MiB, 1, 4, 16 and 64 GiB
_ROOM_SHARE: Final = 0.8
_LIMIT_S: Final = 1800.0
_SETTINGS: Final = ("streams 16", "discard on")


def _run(bench: Bench, options: RunOptions) -> Sequence[Run]:
    sizes = [options.size_bytes >> 2 * step for step in reversed(range(_STEPS))]
    sides: dict[str, Measure] = {}
    for number, size_bytes in enumerate(sizes, start=1):
        if size_bytes > shutil.disk_usage(bench.path()).free * _ROOM_SHARE:
            bench.say(f"no room for {size_bytes} bytes under way: left out")
            continue
        name = f"size-{number}.bin"
        with open(os.path.join(bench.site.docroot, name), "wb") as file:
            file.truncate(size_bytes)
        sides[_ours(number)] = partial(_fetch_ours, bench, name, number)
        sides[_peer(number)] = partial(_fetch_peer, bench, name, number)
    return run_turns(bench.say, options, sides)


def _ours(number: int) -> str:
    return f"sarrapipe-{number}"


def _peer(number: int) -> str:
    return f"curl-{number}"


def _fetch_ours(bench: Bench, name: str, number: int, turn: int) -> Run:
    flow = BulkFlow(name=_ours(number), settings=_SETTINGS).flow(bench, bench.fresh("dest"))
    side = Sarrapipe(bench.site, bench.path(_ours(number)), name=_ours(number))
    message = trees.announcement(bench.site.docroot, name, bench.site.http_url, {})
    with (
        start_flow(bench, side, flow) as cage,
        Meter({TOOL: cage.processes, **bench.roles()}, memory=cage.pids) as meter,
    ):
        began_s, ended_s = bench.probe.await_one(
            counting_queue(flow), partial(bench.probe.publish, flow.exchange, [message]), limit_s=_LIMIT_S
        )
    return _told(bench, name, _ours(number), ended_s - began_s, meter, turn)


def _fetch_peer(bench: Bench, name: str, number: int, turn: int) -> Run:
    url = bench.site.http_url + name
    with (
        Cage(isolated=False) as cage,
        Meter({TOOL: cage.processes, **bench.roles()}, memory=cage.pids) as meter,
    ):
        done = CURL.fetch(cage, url, os.devnull, bench.path("peers.log"), limit_s=_LIMIT_S)
    return _told(bench, name, _peer(number), done.seconds, meter, turn)


def _told(bench: Bench, name: str, side: str, seconds: float, meter: Meter, turn: int) -> Run:
    size_mb = os.path.getsize(os.path.join(bench.site.docroot, name)) / 1e6
    figures = {"size_mb": size_mb, "seconds": seconds, "mb_per_s": size_mb / seconds, **meter.figures()}
    bench.say(f"turn {turn + 1}: {side} {size_mb:,.0f} MB at {figures['mb_per_s']:.0f} MB/s")
    return Run(side=side, turn=turn, ok=True, figures=figures, settings={"lines": list(_SETTINGS)})


SCENARIO = Scenario(
    name="scale-size",
    summary="files of 64 MiB to 64 GiB over HTTP, sparse and discarded, beside curl to /dev/null",
    runs=1,
    files=1,
    size_bytes=64 << 30,
    in_memory=False,
    comparisons=tuple(
        Comparison(key=f"curl-{n}", ours=_ours(n), peer=_peer(n), figure="seconds")
        for n in range(1, _STEPS + 1)
    ),
    ours=tuple(_ours(n) for n in range(1, _STEPS + 1)),
    figures=("size_mb", "seconds", "mb_per_s", "cpu_s", "peak_pss_mb", "steal"),
    run=_run,
    over="size_mb",
    limits=True,
)

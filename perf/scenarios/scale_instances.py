"""How the rate and the cost of small files grow with the number of instances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from perf.bench import Bench, RunOptions
from perf.compare import Run
from perf.delivery import IN_EXCHANGE, OUT_EXCHANGE, Work, lay_out, measure
from perf.sarrapipe_side import Sarrapipe
from perf.scenario import Comparison, Scenario
from perf.side import Flow
from perf.turns import run_turns

__all__ = ["SCENARIO"]

_COUNTS: Final = (1, 2, 4, 8, 16)


def _name(instances: int) -> str:
    return f"sarrapipe-{instances}"


def _run(bench: Bench, options: RunOptions) -> Sequence[Run]:
    work = lay_out(bench, "small", options.files, options.size_bytes)
    return run_turns(
        bench.say, options, {_name(count): partial(_measure, bench, work, count) for count in _COUNTS}
    )


def _measure(bench: Bench, work: Work, instances: int, turn: int) -> Run:
    flow = Flow(
        component="sarra",
        name="perf",
        user="feeder",
        instances=instances,
        exchange=IN_EXCHANGE,
        destination=bench.path("dest"),
        post_exchange=OUT_EXCHANGE,
        post_base_url=bench.site.http_url,
    )
    side = Sarrapipe(bench.site, bench.path(f"ours-{instances}"), name=_name(instances))
    run = measure(bench, side, flow, work, turn)
    return replace(run, figures={"instances": float(instances), **run.figures})


SCENARIO = Scenario(
    name="scale-instances",
    summary="sarra with 1, 2, 4, 8 and 16 instances on 10,000 files of 1 KiB",
    runs=1,
    files=10_000,
    size_bytes=1024,
    in_memory=False,
    comparisons=tuple(
        Comparison(
            key=f"{count}-1", ours=_name(count), peer=_name(1), figure="files_per_s", more_is_better=True
        )
        for count in _COUNTS[1:]
    ),
    ours=tuple(_name(count) for count in _COUNTS),
    figures=("files_per_s", "cpu_s_per_1000", "machine_cpu_s_per_1000", "pss_mb", "make_file_us", "steal"),
    run=_run,
    over="instances",
    limits=True,
)

"""Many small files through `sarra`: fetch over HTTP, verify sha512, put in place, announce again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from perf.bench import Bench, RunOptions
from perf.compare import Run
from perf.delivery import IN_EXCHANGE, OUT_EXCHANGE, lay_out, measure
from perf.peers.sr3 import TUNED, Sr3
from perf.sarrapipe_side import Sarrapipe
from perf.scenario import Comparison, Scenario
from perf.side import Flow, FlowSide
from perf.turns import run_turns

__all__ = ["SCENARIO"]

_MANY: Final = 16
_HOST: Final = ("durability host",)


def _run(bench: Bench, options: RunOptions) -> Sequence[Run]:
    work = lay_out(bench, "small", options.files, options.size_bytes)
    sides: tuple[tuple[FlowSide, int], ...] = (
        (Sarrapipe(bench.site, bench.path("ours-1"), name="sarrapipe-1"), 1),
        (Sarrapipe(bench.site, bench.path("host"), name="sarrapipe-1-host", settings=_HOST), 1),
        (Sr3(bench.site, bench.path("sr3-1"), name="sr3-1"), 1),
        (Sarrapipe(bench.site, bench.path("ours-16"), name="sarrapipe-16"), _MANY),
        (Sr3(bench.site, bench.path("sr3-16"), name="sr3-16"), _MANY),
        (Sr3(bench.site, bench.path("sr3-16-tuned"), name="sr3-16-tuned", settings=TUNED), _MANY),
    )
    return run_turns(
        bench.say,
        options,
        {side.name: partial(measure, bench, side, _flow(bench, count), work) for side, count in sides},
    )


def _flow(bench: Bench, instances: int) -> Flow:
    return Flow(
        component="sarra",
        name="perf",
        user="feeder",
        instances=instances,
        exchange=IN_EXCHANGE,
        destination=bench.path("dest"),
        post_exchange=OUT_EXCHANGE,
        post_base_url=bench.site.http_url,
    )


def _rate(key: str, ours: str) -> Comparison:
    return Comparison(key=key, ours=ours, peer=key, figure="files_per_s", more_is_better=True)


SCENARIO = Scenario(
    name="sarra-small",
    summary="sarra with 1 and 16 instances on 20,000 files of 1 KiB, beside sr3 default and tuned",
    runs=3,
    files=20_000,
    size_bytes=1024,
    in_memory=False,
    comparisons=(
        _rate("sr3-1", "sarrapipe-1"),
        Comparison(
            key="host",
            ours="sarrapipe-1-host",
            peer="sarrapipe-1",
            figure="files_per_s",
            more_is_better=True,
        ),
        _rate("sr3-16", "sarrapipe-16"),
        _rate("sr3-16-tuned", "sarrapipe-16"),
        Comparison(key="cpu-sr3-16", ours="sarrapipe-16", peer="sr3-16", figure="cpu_s_per_1000"),
    ),
    ours=("sarrapipe-1", "sarrapipe-1-host", "sarrapipe-16"),
    figures=("files_per_s", "cpu_s_per_1000", "machine_cpu_s_per_1000", "pss_mb", "make_file_us", "steal"),
    run=_run,
)

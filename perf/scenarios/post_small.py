"""Announcing many small files: read, sha512, publish, every post confirmed by the broker."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from perf.bench import Bench, RunOptions
from perf.cage import Cage
from perf.compare import Run
from perf.delivery import COUNT_QUEUE, IN_EXCHANGE, lay_out
from perf.meter import TOOL, Meter
from perf.peers.sr3 import Sr3
from perf.sarrapipe_side import Sarrapipe
from perf.scenario import Comparison, Scenario
from perf.side import FlowSide, Posting
from perf.turns import run_turns

__all__ = ["SCENARIO"]

_BELOW: Final = "small"


def _run(bench: Bench, options: RunOptions) -> Sequence[Run]:
    work = lay_out(bench, _BELOW, options.files, options.size_bytes)
    wanted = {}
    for _topic, body in work.messages:
        fields = json.loads(body)
        wanted[fields["relPath"]] = fields["identity"]
    sides: tuple[FlowSide, ...] = (
        Sarrapipe(bench.site, bench.path("ours")),
        Sr3(bench.site, bench.path("sr3")),
    )
    bench.probe.declare_exchange(IN_EXCHANGE)
    measures = {side.name: partial(_measure, bench, side, wanted) for side in sides}
    return run_turns(bench.say, options, measures)


def _measure(bench: Bench, side: FlowSide, wanted: Mapping[str, object], turn: int) -> Run:
    posting = Posting(
        name="perf",
        user="feeder",
        exchange=IN_EXCHANGE,
        base_dir=bench.site.docroot,
        base_url=bench.site.http_url,
    )
    side.write_posting(posting)
    bench.probe.delete_queue(COUNT_QUEUE)
    bench.probe.declare_queue(COUNT_QUEUE, exchange=IN_EXCHANGE)
    with Cage(isolated=side.isolated) as cage:
        with Meter({TOOL: cage.processes, **bench.roles()}, memory=cage.pids) as meter:
            done = side.post(cage, posting, [os.path.join(bench.site.docroot, _BELOW)])
        used = meter.figures()
    wrong = _find_faults(bench.probe.drain(COUNT_QUEUE), wanted)
    thousands = len(wanted) / 1000
    figures = {
        **used,
        "files": len(wanted),
        "seconds": done.seconds,
        "files_per_s": len(wanted) / done.seconds,
        "cpu_s_per_1000": used["cpu_s"] / thousands,
        "machine_cpu_s_per_1000": used["machine_cpu_s"] / thousands,
    }
    bench.say(f"turn {turn + 1}: {side.name} {figures['files_per_s']:.0f} files/s")
    settings: dict[str, object] = {"identity": posting.identity, "confirmed": True}
    return Run(
        side=side.name, turn=turn, ok=not wrong, wrong=tuple(wrong), figures=figures, settings=settings
    )


def _find_faults(bodies: Sequence[bytes], wanted: Mapping[str, object]) -> list[str]:
    """Compare the announcements with the files; those of directories are allowed and not looked at."""
    announced: dict[str, object] = {}
    again = 0
    for body in bodies:
        fields = json.loads(body)
        if "fileOp" not in fields:
            name = fields["relPath"].lstrip("/")
            again += name in announced
            announced[name] = fields.get("identity")
    wrong = [f"{name!r} was not announced" for name in wanted.keys() - announced.keys()]
    wrong += [f"{name!r} should not be announced" for name in announced.keys() - wanted.keys()]
    wrong += [
        f"{n!r} has another identity" for n in wanted.keys() & announced.keys() if wanted[n] != announced[n]
    ]
    if again:
        wrong.append(f"{again} announcements too many")
    return wrong[:10]


SCENARIO = Scenario(
    name="post-small",
    summary="post of 20,000 files of 1 KiB with sha512, every post confirmed, beside sr3_post",
    runs=3,
    files=20_000,
    size_bytes=1024,
    in_memory=False,
    comparisons=(
        Comparison(key="sr3", ours="sarrapipe", peer="sr3", figure="files_per_s", more_is_better=True),
    ),
    ours=("sarrapipe",),
    figures=("seconds", "files_per_s", "cpu_s_per_1000", "machine_cpu_s_per_1000", "steal"),
    run=_run,
)

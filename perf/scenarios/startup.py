"""Sixteen instances: from the command to the first file, memory when idle, stopping under load."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from perf import procstat, trees
from perf.background import Background
from perf.bench import Bench, RunOptions
from perf.cage import Cage
from perf.compare import Run
from perf.delivery import (
    COUNT_QUEUE,
    IN_EXCHANGE,
    OUT_EXCHANGE,
    Work,
    lay_out,
    reset_queues,
    wait_idle,
)
from perf.peers.sr3 import Sr3
from perf.sarrapipe_side import Sarrapipe
from perf.scenario import Comparison, Scenario
from perf.side import Flow, FlowSide
from perf.turns import run_turns

__all__ = ["SCENARIO"]

_INSTANCES: Final = 16
_FIRST_FILE_LIMIT_S: Final = 120.0
_LOADED_S: Final = 1.0
_SETTLE_S: Final = 1.0
_STOP_LIMIT_S: Final = 60.0


def _run(bench: Bench, options: RunOptions) -> Sequence[Run]:
    work = lay_out(bench, "small", options.files, options.size_bytes)
    flow = Flow(
        component="sarra",
        name="perf",
        user="feeder",
        instances=_INSTANCES,
        exchange=IN_EXCHANGE,
        destination=bench.path("dest"),
        post_exchange=OUT_EXCHANGE,
        post_base_url=bench.site.http_url,
    )
    sides: tuple[FlowSide, ...] = (
        Sarrapipe(bench.site, bench.path("ours-16"), name="sarrapipe-16"),
        Sr3(bench.site, bench.path("sr3-16"), name="sr3-16"),
    )
    measures = {side.name: partial(_measure, bench, side, flow, work) for side in sides}
    return run_turns(bench.say, options, measures)


def _measure(bench: Bench, side: FlowSide, flow: Flow, work: Work, turn: int) -> Run:
    before = procstat.cpu_clock()
    idle = _idle(bench, side, flow)
    loaded, wrong = _loaded(bench, side, flow, work)
    steal = procstat.steal_share(before, procstat.cpu_clock())
    figures = {**idle, **loaded, "steal": steal}
    told = ", ".join(f"{name} {value:.2f}" for name, value in figures.items())
    bench.say(f"turn {turn + 1}: {side.name} {told}")
    return Run(
        side=side.name,
        turn=turn,
        ok=not wrong,
        wrong=tuple(wrong),
        figures=figures,
        settings={"instances": flow.instances},
    )


def _idle(bench: Bench, side: FlowSide, flow: Flow) -> dict[str, float]:
    """Start without work: how long until ready, how much memory, how long to stop."""
    reset_queues(bench, flow)
    side.write_flow(flow)
    before = procstat.established_connections(bench.site.amqp_port)
    with Cage(isolated=side.isolated) as cage:
        started = side.start(cage, flow)
        ready_s = wait_idle(cage, bench.site.amqp_port, before=before, wanted=flow.instances)
        time.sleep(_SETTLE_S)
        pids = cage.pids()
        figures = {
            "ready_s": ready_s - started.started_s,
            "pss_mb": procstat.pss_bytes(pids) / 1e6,
            "processes": float(len(pids)),
        }
        figures["stop_idle_s"] = _stop(cage, side, flow)
    return figures


def _stop(cage: Cage, side: FlowSide, flow: Flow) -> float:
    """Stop a flow; return the seconds until the command had ended and every process was gone."""
    done = side.stop(cage, flow)
    return max(cage.wait_empty(_STOP_LIMIT_S), done.ended_s) - done.started_s


def _loaded(bench: Bench, side: FlowSide, flow: Flow, work: Work) -> tuple[dict[str, float], list[str]]:
    """Start with a full queue, wait for the first file, stop in the middle of the work."""
    reset_queues(bench, flow)
    flow = replace(flow, destination=bench.fresh("dest"))
    side.write_flow(flow)
    bench.probe.publish(flow.exchange, work.messages)
    before = procstat.established_connections(bench.site.amqp_port)
    with Cage(isolated=side.isolated) as cage:
        # The first file may come before the command ends.
        starting = Background(partial(side.start, cage, flow)).start()
        first = bench.probe.watch(COUNT_QUEUE, 1, limit_s=_FIRST_FILE_LIMIT_S, every_s=0.005)
        started = starting.result()
        _wait_connected(bench.site.amqp_port, before + flow.instances)
        time.sleep(_LOADED_S)
        running = len(cage.pids())
        figures = {"first_file_s": first.first_s - started.started_s, "stop_s": _stop(cage, side, flow)}
    wrong = _find_losses(bench, flow, work)
    if running < flow.instances:
        wrong.append(f"only {running} processes ran when it was stopped")
    return figures, wrong


def _wait_connected(port: int, wanted: int) -> None:
    """Wait until every instance has a connection to the broker: a stop before that is not one under load."""
    until = time.monotonic() + _FIRST_FILE_LIMIT_S
    while procstat.established_connections(port) < wanted and time.monotonic() < until:
        time.sleep(0.02)


def _find_losses(bench: Bench, flow: Flow, work: Work) -> list[str]:
    """After a stop in mid-work each file is announced, or its message waits; what is in place is right."""
    announced = {str(json.loads(body)["relPath"]).lstrip("/") for body in bench.probe.drain(COUNT_QUEUE)}
    waiting = {str(json.loads(body)["relPath"]) for body in bench.probe.drain(flow.queue)}
    wanted = {str(json.loads(body)["relPath"]) for _topic, body in work.messages}
    wrong = []
    if not waiting:
        wrong.append("the work was done before the stop: it needs more files")
    if lost := wanted - announced - waiting:
        wrong.append(f"{len(lost)} files are neither announced nor waiting")
    source, copy = os.path.join(bench.site.docroot, work.below), os.path.join(flow.destination, work.below)
    return wrong + trees.compare_bytes(source, copy, complete=False)[:5]


SCENARIO = Scenario(
    name="startup",
    summary="16 instances: command to first file, memory idle, stop under load, beside sr3",
    runs=3,
    files=20_000,
    size_bytes=1024,
    in_memory=False,
    comparisons=(
        Comparison(key="first-file-sr3-16", ours="sarrapipe-16", peer="sr3-16", figure="first_file_s"),
        Comparison(key="stop-sr3-16", ours="sarrapipe-16", peer="sr3-16", figure="stop_s"),
        Comparison(key="pss-sr3-16", ours="sarrapipe-16", peer="sr3-16", figure="pss_mb"),
    ),
    ours=("sarrapipe-16",),
    figures=("first_file_s", "ready_s", "stop_s", "stop_idle_s", "pss_mb", "processes", "steal"),
    run=_run,
)

"""One measured run of a flow: a known set of announcements goes in, files and announcements come out.

The instances are started first and reach their idle state; then they are stopped (SIGSTOP) while the queue
is filled, and let go together. So neither start-up nor the publishing of the work is part of the figures, for
any side.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from perf import procstat, trees
from perf.bench import Bench
from perf.cage import Cage
from perf.compare import Run
from perf.meter import TOOL, Meter
from perf.probe import Arrivals
from perf.side import Flow, FlowSide

__all__ = [
    "COUNT_QUEUE",
    "IN_EXCHANGE",
    "OUT_EXCHANGE",
    "Work",
    "deliver",
    "lay_out",
    "measure",
    "reset_queues",
    "wait_idle",
]

IN_EXCHANGE: Final = "xs_perf"
OUT_EXCHANGE: Final = "xperf_public"
COUNT_QUEUE: Final = "q_feeder.perf.count"
_READY_LIMIT_S: Final = 120.0
_IDLE_WINDOW_S: Final = 0.25
_IDLE_SHARE: Final = 0.25  # of one CPU: what idle sr3 instances stay well below


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Files that a web server offers, and their announcements."""

    below: str
    messages: Sequence[tuple[str, bytes]]


def lay_out(bench: Bench, below: str, files: int, size_bytes: int) -> Work:
    """Make small files below the document root and their announcements."""
    root = os.path.join(bench.site.docroot, below)
    bench.say(f"making {files} files of {size_bytes} bytes")
    trees.make_small(root, files=files, size_bytes=size_bytes)
    messages = list(trees.announcements(bench.site.docroot, below, bench.site.http_url))
    return Work(below=below, messages=messages)


def wait_idle(cage: Cage, port: int, *, before: int, wanted: int) -> float:
    """Wait until a flow's processes have connected and have nothing left to do; return the time.

    Args:
        cage: Where they run.
        port: The broker's port.
        before: Connections to the broker before they started.
        wanted: Connections they will have at least.

    Raises:
        TimeoutError: They did not come that far.
    """
    until = time.monotonic() + _READY_LIMIT_S
    used, quiet = cage.cpu_s(), 0
    while time.monotonic() < until:
        time.sleep(_IDLE_WINDOW_S)
        now_used = cage.cpu_s()
        connected = procstat.established_connections(port) - before >= wanted
        quiet = quiet + 1 if connected and now_used - used < _IDLE_WINDOW_S * _IDLE_SHARE else 0
        used = now_used
        if quiet >= 3:  # three windows in a row
            return time.monotonic()
    raise TimeoutError(f"the instances did not become ready in {_READY_LIMIT_S:.0f} s")


def reset_queues(bench: Bench, flow: Flow) -> None:
    """Make the exchanges, an empty work queue and an empty counting queue."""
    probe = bench.probe
    probe.declare_exchange(flow.exchange)
    probe.declare_exchange(flow.post_exchange)
    for queue, exchange in ((flow.queue, flow.exchange), (COUNT_QUEUE, flow.post_exchange)):
        probe.delete_queue(queue)
        probe.declare_queue(queue, exchange=exchange)


def measure(bench: Bench, side: FlowSide, flow: Flow, work: Work, turn: int) -> Run:
    """Run one flow over the work once; see `deliver` for what is measured."""
    reset_queues(bench, flow)
    flow = replace(flow, destination=bench.fresh("dest"))
    side.write_flow(flow)
    make_file_us = bench.make_file_us()
    before = procstat.established_connections(bench.site.amqp_port)
    with Cage(isolated=side.isolated) as cage:
        side.start(cage, flow)
        wait_idle(cage, bench.site.amqp_port, before=before, wanted=flow.instances)
        run = deliver(bench, cage, flow, work, Run(side=side.name, turn=turn, ok=True, figures={}))
        side.stop(cage, flow)
    wrong = find_faults(bench, flow, work)
    figures = {**run.figures, "make_file_us": make_file_us}
    bench.say(f"turn {turn + 1}: {side.name} {figures['files_per_s']:.0f} files/s")
    return replace(run, ok=not wrong, wrong=tuple(wrong[:10]), figures=figures)


def deliver(bench: Bench, cage: Cage, flow: Flow, work: Work, run: Run) -> Run:
    """Let an idle flow have the work and measure it: files/s, CPU of the flow and of the machine, memory."""
    pids = cage.pids()
    procstat.suspend(pids)
    bench.probe.publish(flow.exchange, work.messages)
    count = len(work.messages)
    with Meter({TOOL: cage.processes, **bench.roles()}, memory=cage.pids) as meter:
        procstat.resume(pids)
        arrivals = bench.probe.watch(COUNT_QUEUE, count, limit_s=60 + count / 20)
    return replace(
        run,
        figures=_figures(arrivals, meter.figures(), procstat.pss_bytes(cage.pids())),
        settings={"instances": flow.instances, "lines": list(flow.settings), "processes": len(pids)},
    )


def _figures(arrivals: Arrivals, used: dict[str, float], pss_bytes: int) -> dict[str, float]:
    thousands = arrivals.count / 1000
    return {
        **used,
        "files": arrivals.count,
        "seconds": arrivals.seconds,
        "files_per_s": arrivals.files_per_s,
        "cpu_s_per_1000": used["cpu_s"] / thousands,
        "machine_cpu_s_per_1000": used["machine_cpu_s"] / thousands,
        "pss_mb": pss_bytes / 1e6,
    }


def find_faults(bench: Bench, flow: Flow, work: Work) -> list[str]:
    """Compare files and announcements with the source; return what differs."""
    source = os.path.join(bench.site.docroot, work.below)
    wrong = trees.compare_bytes(source, os.path.join(flow.destination, work.below))
    announced = Counter(
        str(json.loads(body)["relPath"]).lstrip("/") for body in bench.probe.drain(COUNT_QUEUE)
    )
    wanted = {str(json.loads(body)["relPath"]) for _topic, body in work.messages}
    if missing := len(wanted - announced.keys()):
        wrong.append(f"{missing} files were not announced")
    if extra := len(announced.keys() - wanted):
        wrong.append(f"{extra} announcements are of other files")
    if again := sum(times - 1 for times in announced.values()):
        wrong.append(f"{again} announcements too many")
    return wrong

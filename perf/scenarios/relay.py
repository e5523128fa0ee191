"""One large file from server to server, no disk here: `download stream` beside curl piped into curl.

The source is nginx, and so is the other side (PUT into another directory of /dev/shm). Ours is timed from the
publishing of the announcement to the arrival of the next one: fetched in ranges, staged in shared memory,
verified in order, sent, renamed, announced. The pipe verifies nothing and renames nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from perf import trees
from perf.bench import Bench, RunOptions
from perf.bulk import BULK_FIGURES, BulkFlow, counting_queue, start_flow
from perf.cage import Cage
from perf.compare import Run
from perf.memory import prewarm
from perf.meter import TOOL, Meter
from perf.peers.fetcher import Fetcher, shell
from perf.sarrapipe_side import Sarrapipe
from perf.scenario import Comparison, Scenario
from perf.side import Flow
from perf.turns import run_turns
from perf.websink import WebSink, open_web_sink

__all__ = ["SCENARIO"]

_LIMIT_S: Final = 600.0
_OURS: Final = ("sarrapipe", "sarrapipe-sha512")
_METHODS: Final = {"sarrapipe": "xxh3_128", "sarrapipe-sha512": "sha512"}
_DIGESTS: Final = {"xxh3_128": trees.xxh3_128, "sha512": trees.sha512}


def _pipe(sink: WebSink) -> Fetcher:
    script = f'curl -sSf "$1" | curl -sSf -T - -H Expect: "{sink.url}$2"'
    return Fetcher(name="curl-pipe", program="curl", arguments=shell(script))


def _run(bench: Bench, options: RunOptions) -> Sequence[Run]:
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(open_web_sink(bench.path("sink")))
        os.makedirs(os.path.join(bench.source_root, "relay"))
        source = os.path.join(bench.source_root, "relay", "source.bin")
        bench.say(f"making a file of {options.size_bytes} bytes")
        trees.make_large(source, options.size_bytes)
        sides: dict[str, Callable[[int], Run]] = {}
        for name in filter(options.wants, _OURS):
            sides[name] = _our_side(stack, bench, sink, name, source)
        peer = _pipe(sink)
        if options.wants(peer.name):
            cage = stack.enter_context(Cage(isolated=False))
            sides[peer.name] = partial(
                _measure, bench, sink, cage, peer.name, source, _piped(bench, cage, peer)
            )
        return run_turns(bench.say, options, sides)


def _our_side(
    stack: contextlib.ExitStack, bench: Bench, sink: WebSink, name: str, source: str
) -> Callable[[int], Run]:
    identity = {"method": _METHODS[name], "value": _DIGESTS[_METHODS[name]](source)}
    lines = ("streams 8", f"sendTo {sink.url}", "download stream")
    flow = BulkFlow(name=name, settings=lines, instances=1).flow(bench, "/")
    side = Sarrapipe(bench.site, bench.path(name), name=name)
    cage = stack.enter_context(start_flow(bench, side, flow))
    return partial(_measure, bench, sink, cage, name, source, _relayed(bench, flow, identity))


def _relayed(bench: Bench, flow: Flow, identity: dict[str, str]) -> Callable[[str], float]:
    def move(link: str) -> float:
        message = trees.announcement(bench.source_root, link, bench.source_url, identity)
        began_s, arrived_s = bench.probe.await_one(
            counting_queue(flow), partial(bench.probe.publish, flow.exchange, [message]), limit_s=_LIMIT_S
        )
        return arrived_s - began_s

    return move


def _piped(bench: Bench, cage: Cage, peer: Fetcher) -> Callable[[str], float]:
    def move(link: str) -> float:
        log = bench.path("peers.log")
        return peer.fetch(cage, bench.source_url + link, link, log, limit_s=_LIMIT_S).seconds

    return move


def _measure(
    bench: Bench,
    sink: WebSink,
    cage: Cage,
    name: str,
    source: str,
    move: Callable[[str], float],
    turn: int,
) -> Run:
    """Move a hard link of the source once."""
    link = f"relay/{os.path.basename(bench.fresh(name))}.bin"
    os.link(source, os.path.join(bench.source_root, link))
    arrived = os.path.join(sink.root, link)
    os.makedirs(os.path.dirname(arrived), exist_ok=True)
    os.chmod(os.path.dirname(arrived), 0o777)
    size_bytes = os.path.getsize(source)
    warm = prewarm(size_bytes + size_bytes // 4)
    roles = {TOOL: cage.processes, **bench.roles(), "link": sink.pids}
    with Meter(roles, memory=cage.pids) as meter:
        seconds = move(link)
    wrong = () if trees.same_bytes(source, arrived) else ("the copy has other bytes",)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(arrived)
    figures = {
        "seconds": seconds,
        "mb_per_s": size_bytes / 1e6 / seconds,
        "warm_mb_per_s": warm / 1e6,
        **meter.figures(),
    }
    bench.say(f"turn {turn + 1}: {name} {figures['mb_per_s']:.0f} MB/s")
    settings: dict[str, object] = {"size_bytes": size_bytes}
    return Run(side=name, turn=turn, ok=not wrong, wrong=wrong, figures=figures, settings=settings)


SCENARIO = Scenario(
    name="relay",
    summary="4 GiB from one web server to another through memory, verified, beside curl piped into curl",
    runs=3,
    files=1,
    size_bytes=4 << 30,
    in_memory=True,
    comparisons=(
        Comparison(key="curl", ours="sarrapipe", peer="curl-pipe", figure="seconds"),
        Comparison(key="sha512-curl", ours="sarrapipe-sha512", peer="curl-pipe", figure="seconds"),
    ),
    ours=_OURS,
    figures=BULK_FIGURES,
    run=_run,
    limits=True,
)

"""One large file, fetched by every side in turn: what a bulk scenario is, as data, and how it is run.

    SCENARIO = bulk_scenario(
        name="bulk-disk", ..., flows=(BulkFlow(name="process"),), peers=(CURL,), comparisons=(...),
    )

Peers are timed from the start to the end of their program, and verify nothing. A flow is timed from the
publishing of the announcement to the arrival of the next one, by a flow that is running and idle: the way
through the broker, the ranges, the verification, the rename and the confirmed announcement are in it. Every
result is compared with the source byte by byte.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from perf import procstat, trees
from perf.bench import Bench, RunOptions
from perf.blocks import announce_blocks, renamed
from perf.cage import Cage, CageError
from perf.compare import Run
from perf.delivery import wait_idle
from perf.link.spec import LinkSpec
from perf.memory import prewarm
from perf.meter import TOOL, Meter
from perf.peers.fetcher import Fetcher
from perf.peers.sr3 import Sr3
from perf.probe import ProbeError
from perf.sarrapipe_side import Sarrapipe
from perf.scenario import Comparison, Scenario
from perf.side import Flow, FlowSide
from perf.turns import run_turns

__all__ = ["BULK_FIGURES", "BulkFlow", "bulk_scenario", "counting_queue", "run_bulk", "start_flow"]

BULK_FIGURES: Final = (
    "seconds", "mb_per_s", "cpu_s", "tool_user_s", "tool_system_s", "server_user_s", "server_system_s",
    "broker_user_s", "broker_system_s", "link_user_s", "link_system_s", "machine_cpu_s", "peak_pss_mb",
    "written_mb", "warm_mb_per_s", "steal",
)  # fmt: skip
"""What bulk scenarios print, in order; what a scenario does not have is left out."""

_BELOW: Final = "bulk"
_LIMIT_S: Final = 900.0
_BLOCKS_LIMIT_S: Final = 180.0
"""sr3 does not complete every file in blocks: that is a failed run, and not worth waiting for."""
_Announce = Callable[[str], Sequence[tuple[str, bytes]]]
"""Makes the messages (topic, body) that announce the file under a name."""
_IDENTITIES: Final[dict[str, Callable[[str], str]]] = {"xxh3_128": trees.xxh3_128, "sha512": trees.sha512}


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkFlow:
    """A pump as one side of a bulk scenario.

    Args:
        name: How figures call it.
        settings: Configuration lines.
        identity: What is announced and verified: `xxh3_128`, `sha512`, or nothing if empty.
        instances: How many; two make one a CPU here: hashing and writing of one, receiving of the other.
        sr3: Whether it is the peer's; then it is started for each run, since it polls when it is idle.
        block_bytes: The file is announced in blocks of so many bytes; whole if 0.
    """

    name: str
    settings: tuple[str, ...] = ()
    identity: str = "xxh3_128"
    instances: int = 2
    sr3: bool = False
    block_bytes: int = 0

    def flow(self, bench: Bench, destination: str) -> Flow:
        """Return the configuration: exchanges of its own, so that idle flows see nothing of each other."""
        return Flow(
            component="sarra",
            name="perf",
            user="feeder",
            instances=self.instances,
            exchange=f"xs_perf_{self.name}",
            destination=destination,
            post_exchange=f"xperf_{self.name}",
            post_base_url=bench.site.http_url,
            settings=(*bench.flow_settings, *self.settings),
            queue_name=f"q_feeder.perf.{self.name}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fetched:
    """How long one fetch took (0 if it broke off), where the file is, and what went wrong with it."""

    seconds: float
    path: str
    fault: str = ""


def bulk_scenario(
    *,
    name: str,
    summary: str,
    runs: int,
    size_bytes: int,
    in_memory: bool,
    flows: Sequence[BulkFlow],
    comparisons: tuple[Comparison, ...],
    peers: Sequence[Fetcher] = (),
    hash_side: str = "",
    link: LinkSpec | None = None,
    tls: bool = False,
) -> Scenario:
    """Return a scenario that moves one file of `size_bytes` with every side.

    Args:
        name: As the command line knows it.
        summary: One line for `list`.
        runs: Turns by default.
        size_bytes: Size by default.
        in_memory: Whether files live in /dev/shm; else what is dirty is written out before each run.
        flows: Pumps, ours and sr3's.
        comparisons: The ratios.
        peers: Programs that fetch one file; one that is not installed is left out, and that is said.
        hash_side: Name of an identity that is computed on one core beside the fetches: the limit of it.
        link: The network in between, if any.
        tls: Whether over HTTPS.
    """
    run = partial(run_bulk, tuple(flows), tuple(peers), hash_side)
    return Scenario(
        name=name,
        summary=summary,
        runs=runs,
        files=1,
        size_bytes=size_bytes,
        in_memory=in_memory,
        comparisons=comparisons,
        ours=tuple(flow.name for flow in flows if not flow.sr3),
        figures=BULK_FIGURES,
        run=run,
        link=link,
        tls=tls,
        limits=True,
    )


def run_bulk(
    flows: Sequence[BulkFlow], peers: Sequence[Fetcher], hash_side: str, bench: Bench, options: RunOptions
) -> Sequence[Run]:
    """Move the file with every side in turn; the arguments are those of `bulk_scenario`."""
    source = _lay_out(bench, options.size_bytes)
    with contextlib.ExitStack() as stack:
        cage = stack.enter_context(Cage(isolated=False))
        sides = {}
        for flow in (each for each in flows if options.wants(each.name)):
            sides[flow.name] = stack.enter_context(_flow_side(bench, source, flow))
        for peer in (each for each in peers if options.wants(each.name)):
            if peer.installed():
                sides[peer.name] = partial(_fetch_peer, bench, source, cage, peer)
            else:
                bench.say(f"{peer.name} is not installed and left out: .ci/setup bench")
        if hash_side:
            sides[hash_side] = partial(_hash, bench, source, hash_side)
        return run_turns(bench.say, options, sides)


def _lay_out(bench: Bench, size_bytes: int) -> str:
    """Make the file; each run fetches it under another name, a hard link."""
    bench.say(f"making a file of {size_bytes} bytes in {bench.source_root}")
    os.makedirs(os.path.join(bench.source_root, _BELOW))
    source = os.path.join(bench.source_root, _BELOW, "source.bin")
    trees.make_large(source, size_bytes)
    return source


@contextlib.contextmanager
def _flow_side(bench: Bench, source: str, bulk: BulkFlow) -> Iterator[Callable[[int], Run]]:
    """Yield how to measure one pump; ours runs from the first turn to the last."""
    announce = _announcing(bench, source, bulk)
    flow = bulk.flow(bench, bench.fresh("dest"))
    side: FlowSide
    if bulk.sr3:
        side = Sr3(bench.site, bench.path(bulk.name), name=bulk.name)
        yield partial(_fetch_started, bench, source, side, flow, bulk, announce)
        return
    side = Sarrapipe(bench.site, bench.path(bulk.name), name=bulk.name)
    with start_flow(bench, side, flow) as cage:
        yield partial(_fetch_flow, bench, source, cage, side, flow, bulk, announce)


def _announcing(bench: Bench, source: str, bulk: BulkFlow) -> _Announce:
    """Compute the digests beforehand, and return what announces the file under any name."""
    if bulk.block_bytes:
        bodies = announce_blocks(
            bench, source, name=bulk.name, block_bytes=bulk.block_bytes, identity=bulk.identity
        )
        return partial(renamed, bodies)
    identity = {}
    if bulk.identity:
        identity = {"method": bulk.identity, "value": _IDENTITIES[bulk.identity](source)}
    return lambda link: [trees.announcement(bench.source_root, link, bench.source_url, identity)]


@contextlib.contextmanager
def start_flow(bench: Bench, side: FlowSide, flow: Flow) -> Iterator[Cage]:
    """Start a flow with empty queues and wait until it is idle; stop it at the end.

    What it announces is counted in a queue named after `flow.post_exchange`.
    """
    probe = bench.probe
    for exchange, queue in ((flow.exchange, flow.queue), (flow.post_exchange, counting_queue(flow))):
        probe.declare_exchange(exchange)
        probe.delete_queue(queue)
        probe.declare_queue(queue, exchange=exchange)
    with Cage(isolated=side.isolated) as cage:
        side.write_flow(flow)
        before = procstat.established_connections(bench.site.amqp_port)
        side.start(cage, flow)
        wait_idle(cage, bench.site.amqp_port, before=before, wanted=flow.instances)
        yield cage
        side.stop(cage, flow)


def counting_queue(flow: Flow) -> str:
    """Return the queue that gets what a flow announces."""
    return f"q_feeder.count.{flow.post_exchange}"


def _fetch_started(
    bench: Bench, source: str, side: FlowSide, flow: Flow, bulk: BulkFlow, announce: _Announce, turn: int
) -> Run:
    with start_flow(bench, side, flow) as cage:
        return _fetch_flow(bench, source, cage, side, flow, bulk, announce, turn)


def _fetch_flow(
    bench: Bench,
    source: str,
    cage: Cage,
    side: FlowSide,
    flow: Flow,
    bulk: BulkFlow,
    announce: _Announce,
    turn: int,
) -> Run:
    limit_s = _BLOCKS_LIMIT_S if bulk.block_bytes else _LIMIT_S

    def fetch(link: str) -> _Fetched:
        publish = partial(bench.probe.publish, flow.exchange, announce(link))
        path = os.path.join(flow.destination, link)
        try:
            began_s, arrived_s = bench.probe.await_one(counting_queue(flow), publish, limit_s=limit_s)
        except ProbeError as error:
            return _Fetched(seconds=limit_s, path=path, fault=str(error))
        return _Fetched(seconds=arrived_s - began_s, path=path)

    run = _measure(bench, source, side.name, cage, fetch, turn)
    run.settings.update(
        instances=flow.instances,
        lines=list(flow.settings),
        identity=bulk.identity,
        block_bytes=bulk.block_bytes,
    )
    return run


def _fetch_peer(bench: Bench, source: str, cage: Cage, peer: Fetcher, turn: int) -> Run:
    def fetch(link: str) -> _Fetched:
        path = bench.path(f"{os.path.basename(link)}.out")
        log = bench.path("peers.log")
        try:
            done = peer.fetch(cage, bench.source_url + link, path, log, limit_s=_LIMIT_S)
        except CageError as error:  # axel crashes now and then; that is no reason to lose all other figures
            return _Fetched(seconds=0.0, path=path, fault=str(error))
        return _Fetched(seconds=done.seconds, path=path)

    return _measure(bench, source, peer.name, cage, fetch, turn)


def _measure(
    bench: Bench, source: str, name: str, cage: Cage, fetch: Callable[[str], _Fetched], turn: int
) -> Run:
    link = f"{_BELOW}/{os.path.basename(bench.fresh(name))}.bin"
    os.link(source, os.path.join(bench.source_root, link))
    size_bytes = os.path.getsize(source)
    if not bench.in_memory:
        os.sync()  # what an earlier run left dirty is not written at this one's expense
    warm = prewarm(size_bytes + size_bytes // 4)
    with Meter({TOOL: cage.processes, **bench.roles()}, memory=cage.pids) as meter:
        fetched = fetch(link)
    wrong: tuple[str, ...] = (fetched.fault,) if fetched.fault else ()
    if not wrong and not trees.same_bytes(source, fetched.path):
        wrong = ("the copy has other bytes",)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fetched.path)
    figures = {
        **(_rate(size_bytes, fetched.seconds) if fetched.seconds else {}),
        "warm_mb_per_s": warm / 1e6,
        **meter.figures(),
    }
    bench.say(f"turn {turn + 1}: {name} {figures.get('mb_per_s', 0.0):.0f} MB/s {'; '.join(wrong)}")
    settings: dict[str, object] = {"size_bytes": size_bytes}
    return Run(side=name, turn=turn, ok=not wrong, wrong=wrong, figures=figures, settings=settings)


def _rate(size_bytes: int, seconds: float) -> dict[str, float]:
    return {"seconds": seconds, "mb_per_s": size_bytes / 1e6 / seconds}


def _hash(bench: Bench, source: str, method: str, turn: int) -> Run:
    """Hash the source on one core from the page cache: the limit of what hashes the whole file."""
    before = procstat.cpu_clock()
    began_s = time.monotonic()
    _IDENTITIES[method](source)
    seconds = time.monotonic() - began_s
    size_bytes = os.path.getsize(source)
    figures = {
        "seconds": seconds,
        "mb_per_s": size_bytes / 1e6 / seconds,
        "steal": procstat.steal_share(before, procstat.cpu_clock()),
    }
    bench.say(f"turn {turn + 1}: {method} {figures['mb_per_s']:.0f} MB/s")
    return Run(side=method, turn=turn, ok=True, figures=figures, settings={"size_bytes": size_bytes})

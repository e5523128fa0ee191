"""One large file over SSH in /dev/shm: what the scenarios that fetch and that send have in common."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from perf import trees
from perf.bench import Bench
from perf.bulk import BulkFlow, counting_queue, start_flow
from perf.cage import Cage
from perf.compare import Run
from perf.memory import prewarm
from perf.meter import TOOL, Meter
from perf.peers.fetcher import Fetcher
from perf.sarrapipe_side import Sarrapipe
from perf.side import Flow
from perf.sshsite import CIPHER, SshSite

__all__ = ["our_side", "peer_side"]

_LIMIT_S: Final = 600.0


def our_side(
    stack: contextlib.ExitStack,
    bench: Bench,
    ssh: SshSite,
    bulk: BulkFlow,
    source: str,
    base_url: str,
    identity: dict[str, str],
) -> Callable[[int], Run]:
    """Start a flow that can log in; return how to measure it.

    Args:
        stack: Ends the flow.
        bench: Where.
        ssh: The server.
        bulk: The flow; `sftpKnownHosts` is added.
        source: Path of the file.
        base_url: Under which a path of this machine is announced.
        identity: What is announced with it.
    """
    bulk = replace(bulk, settings=(*bulk.settings, f"sftpKnownHosts {ssh.target.known_hosts}"))
    flow = bulk.flow(bench, bench.fresh("dest"))
    site = replace(bench.site, secrets={**bench.site.secrets, "sftp": ssh.credential})
    side = Sarrapipe(site, bench.path(bulk.name), name=bulk.name)
    cage = stack.enter_context(start_flow(bench, side, flow))

    def move(link: str, _path: str) -> tuple[float, str]:
        message = trees.announcement("/", link.lstrip("/"), base_url, identity)
        began_s, arrived_s = bench.probe.await_one(
            counting_queue(flow), partial(bench.probe.publish, flow.exchange, [message]), limit_s=_LIMIT_S
        )
        return arrived_s - began_s, f"{flow.destination}{link}"

    return partial(_measure_ours, bench, ssh, cage, flow, bulk.name, source, move, identity)


def _measure_ours(
    bench: Bench,
    ssh: SshSite,
    cage: Cage,
    flow: Flow,
    name: str,
    source: str,
    move: Callable[[str, str], tuple[float, str]],
    identity: dict[str, str],
    turn: int,
) -> Run:
    run = _measure(bench, ssh, cage, name, source, move, turn)
    run.settings.update(instances=flow.instances, lines=list(flow.settings), identity=identity["method"])
    return run


def peer_side(bench: Bench, ssh: SshSite, cage: Cage, peer: Fetcher, source: str) -> Callable[[int], Run]:
    """Return how to measure a peer, which moves the file from one path to another."""

    def move(link: str, path: str) -> tuple[float, str]:
        done = peer.fetch(cage, link, path, bench.path("peers.log"), limit_s=_LIMIT_S)
        return done.seconds, path

    return partial(_measure, bench, ssh, cage, peer.name, source, move)


def _measure(
    bench: Bench,
    ssh: SshSite,
    cage: Cage,
    name: str,
    source: str,
    move: Callable[[str, str], tuple[float, str]],
    turn: int,
) -> Run:
    """Move a hard link of the source once."""
    link = bench.fresh(name)
    os.link(source, link)
    size_bytes = os.path.getsize(source)
    warm = prewarm(size_bytes + size_bytes // 4)
    roles = {TOOL: cage.processes, **bench.roles(), "server": ssh.pids}
    with Meter(roles, memory=cage.pids) as meter:
        seconds, path = move(link, f"{link}.out")
    wrong = () if trees.same_bytes(source, path) else ("the copy has other bytes",)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    figures = {
        "seconds": seconds,
        "mb_per_s": size_bytes / 1e6 / seconds,
        "warm_mb_per_s": warm / 1e6,
        **meter.figures(),
    }
    bench.say(f"turn {turn + 1}: {name} {figures['mb_per_s']:.0f} MB/s")
    settings: dict[str, object] = {"size_bytes": size_bytes, "cipher": CIPHER}
    return Run(side=name, turn=turn, ok=not wrong, wrong=wrong, figures=figures, settings=settings)

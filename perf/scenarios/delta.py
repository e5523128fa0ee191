"""A file of which one block in a hundred changed, brought up to date: announced in blocks, beside rsync.

Both have the older version in place. Ours is told the digests of all blocks by their announcements, compares
with what stands there, and fetches over HTTP what changed; it is timed from the publishing of the first block
to the announcement of the whole file, verified. rsync (over ssh, with the one cipher of all scenarios) reads
and sums both versions while it is timed, at both ends; the digests that ours is told were computed when the
file was posted, which `announce-blocks` measures. `moved_mb` is what crossed the network towards the copy.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import xxhash

from perf import trees
from perf.bench import Bench, RunOptions
from perf.bulk import BULK_FIGURES, BulkFlow, counting_queue, start_flow
from perf.cage import Cage
from perf.compare import Run
from perf.flowstatus import read_counters
from perf.memory import prewarm
from perf.meter import TOOL, Meter
from perf.peers.fetcher import Fetcher
from perf.peers.ssh import rsync_get
from perf.sarrapipe_side import Sarrapipe
from perf.scenario import Comparison, Scenario
from perf.sshsite import SshSite, open_ssh_site
from perf.turns import run_turns
from sarrapipe.message.blocks import Blocks

__all__ = ["SCENARIO"]

_BLOCK_BYTES: Final = 1 << 20
_ONE_IN: Final = 100
_BELOW: Final = "delta"
_LIMIT_S: Final = 600.0
_LONG_AGO: Final = (1e9, 1e9)
_OURS: Final = ("sarrapipe", "sarrapipe-2", "sarrapipe-inplace")
_LINES: Final = {"sarrapipe-inplace": ("inplace on",)}
_RECEIVED: Final = re.compile(r"^Total bytes received: ([0-9,]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Versions:
    """Both versions of the file, and the digests of the new one's blocks."""

    old: str
    new: str
    digests: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        return os.path.getsize(self.new)


def _lay_out(bench: Bench, size_bytes: int) -> _Versions:
    directory = os.path.join(bench.source_root, _BELOW)
    os.makedirs(directory)
    old, new = (os.path.join(directory, name) for name in ("old.bin", "new.bin"))
    bench.say(f"making two versions of a file of {size_bytes} bytes")
    trees.make_large(old, size_bytes)
    shutil.copyfile(old, new)
    with open(new, "r+b") as file:
        for offset in range(0, size_bytes, _ONE_IN * _BLOCK_BYTES):
            file.seek(offset)
            file.write(os.urandom(min(_BLOCK_BYTES, size_bytes - offset)))
    with open(new, "rb") as file:
        blocks = iter(partial(file.read, _BLOCK_BYTES), b"")
        digests = tuple(base64.b64encode(xxhash.xxh3_128_digest(block)).decode() for block in blocks)
    return _Versions(old, new, digests)


def _run(bench: Bench, options: RunOptions) -> Sequence[Run]:
    with contextlib.ExitStack() as stack:
        ssh = stack.enter_context(open_ssh_site(bench.path("ssh")))
        versions = _lay_out(bench, options.size_bytes)
        sides: dict[str, Callable[[int], Run]] = {}
        for name in filter(options.wants, _OURS):
            sides[name] = _our_side(stack, bench, ssh, versions, name)
        cage = stack.enter_context(Cage(isolated=False))
        peers = (
            rsync_get(ssh.target, "--stats"),
            rsync_get(ssh.target, "--stats", "--inplace", name="rsync-inplace"),
        )
        for peer in peers:
            if not options.wants(peer.name):
                continue
            if peer.installed():
                sides[peer.name] = _peer_side(bench, ssh, cage, versions, peer)
            else:
                bench.say(f"{peer.name} is not installed and left out: .ci/setup bench")
        return run_turns(bench.say, options, sides)


def _our_side(
    stack: contextlib.ExitStack, bench: Bench, ssh: SshSite, versions: _Versions, name: str
) -> Callable[[int], Run]:
    instances = 2 if name.endswith("-2") else 1
    lines = ("streams 16", "identity xxh3_128", *_LINES.get(name, ()))
    bulk = BulkFlow(name=name, settings=lines, instances=instances)
    flow = bulk.flow(bench, bench.fresh("dest"))
    side = Sarrapipe(bench.site, bench.path(name), name=name)
    cage = stack.enter_context(start_flow(bench, side, flow))

    def update(link: str) -> tuple[float, float]:
        before = read_counters(side, [flow])[0].bytes_received
        began_s, arrived_s = bench.probe.await_one(
            counting_queue(flow),
            partial(bench.probe.publish, flow.exchange, _messages(bench, versions, link)),
            limit_s=_LIMIT_S,
        )
        return arrived_s - began_s, read_counters(side, [flow])[0].bytes_received - before

    def path_of(link: str) -> str:
        return os.path.join(flow.destination, link)

    return partial(_measure, bench, ssh, cage, versions, name, path_of, update)


def _messages(bench: Bench, versions: _Versions, link: str) -> list[tuple[str, bytes]]:
    """Announce the new version in blocks, as `post` with `blockSize` does."""
    whole = trees.announcement(bench.source_root, link, bench.source_url, {})
    size_bytes, count = versions.size_bytes, len(versions.digests)
    messages = []
    for number, digest in enumerate(versions.digests):
        remainder = size_bytes % _BLOCK_BYTES
        blocks = Blocks("inplace", _BLOCK_BYTES, count, remainder, number, None, os.path.basename(link))
        body = json.loads(whole[1])
        body["size"] = blocks.length
        body["blocks"] = blocks.to_wire()
        body["identity"] = {"method": "xxh3_128", "value": digest}
        messages.append((whole[0], json.dumps(body).encode()))
    return messages


def _peer_side(
    bench: Bench, ssh: SshSite, cage: Cage, versions: _Versions, peer: Fetcher
) -> Callable[[int], Run]:
    def update(link: str) -> tuple[float, float]:
        log = bench.path(f"{os.path.basename(link)}.log")
        source = os.path.join(bench.source_root, link)
        done = peer.fetch(cage, source, path_of(link), log, limit_s=_LIMIT_S)
        with open(log, encoding="utf-8") as file:
            found = _RECEIVED.search(file.read())
        return done.seconds, float(found[1].replace(",", "")) if found else 0.0

    def path_of(link: str) -> str:
        return bench.path(f"{os.path.basename(link)}.out")

    return partial(_measure, bench, ssh, cage, versions, peer.name, path_of, update)


def _measure(
    bench: Bench,
    ssh: SshSite,
    cage: Cage,
    versions: _Versions,
    name: str,
    path_of: Callable[[str], str],
    update: Callable[[str], tuple[float, float]],
    turn: int,
) -> Run:
    """Bring a copy of the old version up to date once, from a hard link of the new one."""
    link = f"{_BELOW}/{os.path.basename(bench.fresh(name))}.bin"
    os.link(versions.new, os.path.join(bench.source_root, link))
    path, size_bytes = path_of(link), versions.size_bytes
    os.makedirs(os.path.dirname(path), exist_ok=True)
    shutil.copyfile(versions.old, path)
    os.utime(path, _LONG_AGO)
    warm = prewarm(size_bytes + size_bytes // 4)
    roles = {TOOL: cage.processes, **bench.roles(), "server": ssh.pids}
    with Meter(roles, memory=cage.pids) as meter:
        seconds, moved_bytes = update(link)
    wrong = () if trees.same_bytes(versions.new, path) else ("the copy has other bytes",)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    figures = {
        "seconds": seconds,
        "mb_per_s": size_bytes / 1e6 / seconds,
        "moved_mb": moved_bytes / 1e6,
        "warm_mb_per_s": warm / 1e6,
        **meter.figures(),
    }
    bench.say(f"turn {turn + 1}: {name} {seconds:.2f} s, {moved_bytes / 1e6:.1f} MB moved")
    settings: dict[str, object] = {
        "size_bytes": size_bytes,
        "block_bytes": _BLOCK_BYTES,
        "changed_blocks": -(-len(versions.digests) // _ONE_IN),
    }
    return Run(side=name, turn=turn, ok=not wrong, wrong=wrong, figures=figures, settings=settings)


SCENARIO = Scenario(
    name="delta",
    summary="1 GiB of which one block of 1 MiB in a hundred changed, brought up to date, beside rsync",
    runs=3,
    files=1,
    size_bytes=1 << 30,
    in_memory=True,
    comparisons=(
        Comparison(key="rsync", ours="sarrapipe", peer="rsync", figure="seconds"),
        Comparison(key="rsync-inplace", ours="sarrapipe-inplace", peer="rsync-inplace", figure="seconds"),
        Comparison(key="rsync-moved", ours="sarrapipe", peer="rsync", figure="moved_mb"),
        Comparison(key="two", ours="sarrapipe-2", peer="sarrapipe", figure="seconds"),
    ),
    ours=_OURS,
    figures=("moved_mb", *BULK_FIGURES),
    run=_run,
    limits=True,
)

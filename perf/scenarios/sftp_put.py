"""One large file sent over SFTP on loopback, /dev/shm to /dev/shm, beside OpenSSH, paramiko, rclone and lftp.

All but rclone, which chooses by itself, use the same cipher. Ours is timed from the publishing of the
announcement to the arrival of the next one: read, hashed, written in ranges, given its times, renamed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Final

from perf import trees
from perf.bench import Bench, RunOptions
from perf.bulk import BULK_FIGURES, BulkFlow
from perf.cage import Cage
from perf.compare import Run
from perf.peers.paramiko import paramiko_put
from perf.peers.ssh import lftp_put, rclone_put, scp_put, sftp_put
from perf.scenario import Comparison, Scenario
from perf.sshbulk import our_side, peer_side
from perf.sshsite import CIPHER, open_ssh_site
from perf.turns import run_turns

__all__ = ["SCENARIO"]

_IDENTITY: Final = "xxh3_128"
_OURS: Final = ("sarrapipe", "sarrapipe-paramiko")
_PEERS: Final = {"openssh": "sftp", "scp": "scp", "paramiko": "paramiko", "rclone": "rclone", "lftp": "lftp"}
_LINES: Final = {"sarrapipe-paramiko": ("sftpDriver paramiko",)}


def _run(bench: Bench, options: RunOptions) -> Sequence[Run]:
    with contextlib.ExitStack() as stack:
        ssh = stack.enter_context(open_ssh_site(bench.path("ssh")))
        source = bench.path("source.bin")
        bench.say(f"making a file of {options.size_bytes} bytes")
        trees.make_large(source, options.size_bytes)
        identity = {"method": _IDENTITY, "value": trees.xxh3_128(source)}
        cage = stack.enter_context(Cage(isolated=False))
        sides: dict[str, Callable[[int], Run]] = {}
        for name in filter(options.wants, _OURS):
            lines = ("streams 16", f"sendTo {ssh.url}", "baseDir /", *_LINES.get(name, ()))
            bulk = BulkFlow(name=name, settings=lines, instances=1)
            sides[name] = our_side(stack, bench, ssh, bulk, source, "file:///", identity)
        target = ssh.target
        openssh = (sftp_put(target), scp_put(target))
        for peer in (*openssh, paramiko_put(target, CIPHER), rclone_put(target), lftp_put(target)):
            if not options.wants(peer.name):
                continue
            if peer.installed():
                sides[peer.name] = peer_side(bench, ssh, cage, peer, source)
            else:
                bench.say(f"{peer.name} is not installed and left out: .ci/setup bench")
        return run_turns(bench.say, options, sides)


SCENARIO = Scenario(
    name="sftp-put",
    summary="1 GiB sent over SFTP on loopback, /dev/shm, verified, beside OpenSSH, paramiko, rclone and lftp",
    runs=3,
    files=1,
    size_bytes=1 << 30,
    in_memory=True,
    comparisons=tuple(
        Comparison(key=key, ours="sarrapipe", peer=peer, figure="seconds") for key, peer in _PEERS.items()
    ),
    ours=_OURS,
    figures=BULK_FIGURES,
    run=_run,
    limits=True,
)

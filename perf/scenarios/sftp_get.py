"""One large file over SFTP on loopback into /dev/shm, beside OpenSSH, paramiko, rclone and lftp.

All but rclone, which chooses by itself, use the same cipher. Ours is timed from the publishing of the
announcement to the arrival of the next one, with every segment and the whole file verified.
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
from perf.peers.paramiko import paramiko_get
from perf.peers.ssh import lftp_get, rclone_get, scp_get, sftp_get
from perf.scenario import Comparison, Scenario
from perf.sshbulk import our_side, peer_side
from perf.sshsite import CIPHER, open_ssh_site
from perf.turns import run_turns

__all__ = ["SCENARIO"]

_IDENTITY: Final = "xxh3_128"
_OURS: Final = ("sarrapipe", "sarrapipe-2", "sarrapipe-paramiko")
_INSTANCES: Final = {"sarrapipe-2": 2}
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
            lines = ("streams 16", *_LINES.get(name, ()))
            bulk = BulkFlow(name=name, settings=lines, instances=_INSTANCES.get(name, 1))
            sides[name] = our_side(stack, bench, ssh, bulk, source, ssh.url, identity)
        target = ssh.target
        openssh = (sftp_get(target), scp_get(target))
        for peer in (*openssh, paramiko_get(target, CIPHER), rclone_get(target), lftp_get(target)):
            if not options.wants(peer.name):
                continue
            if peer.installed():
                sides[peer.name] = peer_side(bench, ssh, cage, peer, source)
            else:
                bench.say(f"{peer.name} is not installed and left out: .ci/setup bench")
        return run_turns(bench.say, options, sides)


SCENARIO = Scenario(
    name="sftp-get",
    summary="1 GiB over SFTP on loopback into /dev/shm, verified, beside OpenSSH, paramiko, rclone and lftp",
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

"""Announcements of a large file in blocks, made once by `sarrapipe post`, used for every name of the file."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from perf.bench import Bench
from perf.cage import Cage
from perf.sarrapipe_side import Sarrapipe
from perf.side import Posting

__all__ = ["announce_blocks", "renamed"]

_EXCHANGE = "xs_perf_blocks"
_QUEUE = "q_feeder.perf.blocks"


def announce_blocks(bench: Bench, path: str, *, name: str, block_bytes: int, identity: str) -> list[bytes]:
    """Return the announcement of every block of a file.

    The manifest in each is the full one, as sr3's reassembly needs it. The blocks are in an order of chance,
    the same in every run: sr3 never completes a file whose blocks come in their order (its check for
    overwriting takes the first block for the file).

    Args:
        bench: Its document root holds the file.
        path: Of the file.
        name: Of the side they are for.
        block_bytes: Size of a block.
        identity: Method of the digests.
    """
    bench.probe.declare_exchange(_EXCHANGE)
    bench.probe.delete_queue(_QUEUE)
    bench.probe.declare_queue(_QUEUE, exchange=_EXCHANGE)
    side = Sarrapipe(bench.site, bench.path(f"post-{name}"))
    posting = Posting(
        name="blocks",
        user="feeder",
        exchange=_EXCHANGE,
        base_dir=bench.source_root,
        base_url=bench.source_url,
        identity=identity,
        settings=(f"blockSize {block_bytes}", "blocksManifest full"),
    )
    side.write_posting(posting)
    with Cage(isolated=False) as cage:
        side.post(cage, posting, [path])
    bodies = bench.probe.drain(_QUEUE)
    random.Random(1).shuffle(bodies)
    return bodies


def renamed(bodies: Sequence[bytes], rel_path: str) -> list[tuple[str, bytes]]:
    """Return (topic, body) of the same blocks of a file that has another name, a hard link."""
    topic = ".".join(["v03", *rel_path.split("/")[:-1]])
    return [(topic, json.dumps({**json.loads(body), "relPath": rel_path}).encode()) for body in bodies]

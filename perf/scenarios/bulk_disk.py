"""4 GiB over HTTP on loopback to disk, like beside like.

`durability process` stands beside `curl`, which leaves the file in the page cache, and `durability host`
beside `curl && sync FILE`.
"""

from __future__ import annotations

from perf.bulk import BulkFlow, bulk_scenario
from perf.peers.web import ARIA2C, CURL, CURL_SYNC, LFTP
from perf.scenario import Comparison

__all__ = ["SCENARIO"]

SCENARIO = bulk_scenario(
    name="bulk-disk",
    summary="4 GiB over HTTP on loopback to disk: durability process beside curl, host beside curl && sync",
    runs=3,
    size_bytes=4 << 30,
    in_memory=False,
    flows=(
        BulkFlow(name="process", settings=("streams 16", "durability process")),
        BulkFlow(name="host", settings=("streams 16", "durability host")),
    ),
    peers=(CURL, CURL_SYNC, ARIA2C, LFTP),
    comparisons=(
        Comparison(key="curl", ours="process", peer="curl", figure="seconds"),
        Comparison(key="curl-sync", ours="host", peer="curl-sync", figure="seconds"),
        Comparison(key="aria2c", ours="process", peer="aria2c", figure="seconds"),
        Comparison(key="lftp", ours="process", peer="lftp", figure="seconds"),
    ),
)

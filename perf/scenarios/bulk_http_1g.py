"""One large file over HTTP on loopback into /dev/shm, beside one curl stream and sixteen of aria2c."""

from __future__ import annotations

from perf.bulk import BulkFlow, bulk_scenario
from perf.peers.web import ARIA2C, CURL
from perf.scenario import Comparison

__all__ = ["SCENARIO"]

SCENARIO = bulk_scenario(
    name="bulk-http-1g",
    summary="1 GiB over HTTP on loopback into /dev/shm, verified, beside curl and aria2c -x16 -s16",
    runs=5,
    size_bytes=1 << 30,
    in_memory=True,
    flows=(BulkFlow(name="sarrapipe", settings=("streams 16",)),),
    peers=(CURL, ARIA2C),
    comparisons=(
        Comparison(key="curl", ours="sarrapipe", peer="curl", figure="seconds"),
        Comparison(key="aria2c", ours="sarrapipe", peer="aria2c", figure="seconds"),
    ),
)

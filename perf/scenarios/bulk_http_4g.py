"""4 GiB over HTTP on loopback into /dev/shm, beside every program that people fetch large files with."""

from __future__ import annotations

from perf.bulk import BulkFlow, bulk_scenario
from perf.peers.web import ALL
from perf.scenario import Comparison

__all__ = ["SCENARIO"]

_PEERS = tuple(peer.name for peer in ALL)

SCENARIO = bulk_scenario(
    name="bulk-http-4g",
    summary="4 GiB over HTTP on loopback into /dev/shm, verified (xxh3_128), beside all HTTP peers and sr3",
    runs=3,
    size_bytes=4 << 30,
    in_memory=True,
    flows=(
        BulkFlow(name="sarrapipe", settings=("streams 16",)),
        # Nothing announced, nothing verified: its fastest.
        BulkFlow(name="sr3", identity="", instances=1, sr3=True),
    ),
    peers=ALL,
    comparisons=(
        *(Comparison(key=name, ours="sarrapipe", peer=name, figure="seconds") for name in _PEERS),
        Comparison(key="best", ours="sarrapipe", peer=_PEERS, figure="seconds"),
        Comparison(key="sr3", ours="sarrapipe", peer="sr3", figure="seconds"),
        Comparison(key="cpu-curl", ours="sarrapipe", peer="curl", figure="cpu_s"),
    ),
)

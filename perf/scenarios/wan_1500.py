"""The plain Internet: packets of 1,500 bytes, so that loss and not the line bounds a stream to 1 MB/s."""

from __future__ import annotations

from perf.bulk import BulkFlow, bulk_scenario
from perf.link.spec import LinkSpec
from perf.peers.web import ARIA2C, AXEL, CURL, LFTP, RCLONE
from perf.scenario import Comparison

__all__ = ["SCENARIO"]

_PEERS = (CURL, ARIA2C, RCLONE, AXEL, LFTP)

SCENARIO = bulk_scenario(
    name="wan-1500",
    summary="64 MiB as `wan`, but packets of 1,500 bytes: one stream gets 1 MB/s",
    runs=1,
    size_bytes=64 << 20,
    in_memory=True,
    link=LinkSpec(rate_bytes_per_s=125e6, rtt_s=0.05, loss=0.001),
    flows=(
        BulkFlow(name="sarrapipe", settings=("streams 16",)),
        BulkFlow(name="fixed", settings=("streams 16", "streamsStart 16")),
    ),
    peers=_PEERS,
    comparisons=(
        Comparison(key="curl", ours="sarrapipe", peer="curl", figure="seconds"),
        Comparison(key="best", ours="sarrapipe", peer=tuple(p.name for p in _PEERS), figure="seconds"),
        Comparison(key="fixed", ours="sarrapipe", peer="fixed", figure="seconds"),
    ),
)

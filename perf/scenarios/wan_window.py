"""A long link without loss on which one stream is bound by its receive window."""

from __future__ import annotations

from perf.bulk import BulkFlow, bulk_scenario
from perf.link.spec import LinkSpec
from perf.peers.web import ARIA2C, CURL
from perf.scenario import Comparison

__all__ = ["SCENARIO"]

SCENARIO = bulk_scenario(
    name="wan-window",
    summary="1 GiB over 100 MB/s, RTT 100 ms, no loss, receive buffer 1 MiB, beside one stream of curl",
    runs=1,
    size_bytes=1 << 30,
    in_memory=True,
    link=LinkSpec(rate_bytes_per_s=100e6, rtt_s=0.1, receive_buffer_bytes=1 << 20),
    flows=(BulkFlow(name="sarrapipe", settings=("streams 16",)),),
    peers=(CURL, ARIA2C),
    comparisons=(
        Comparison(key="curl", ours="sarrapipe", peer="curl", figure="seconds"),
        Comparison(key="aria2c", ours="sarrapipe", peer="aria2c", figure="seconds"),
    ),
)

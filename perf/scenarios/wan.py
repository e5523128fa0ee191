"""A long fat network with loss: real TCP over a link of our own between two network namespaces.

With packets of 1,500 bytes a stream gets 1 MB/s at this loss whatever the line could carry (`wan-1500`);
packets of 64 KiB, as segmentation offload hands them to a virtual line, let one stream reach about 35 MB/s.
"""

from __future__ import annotations

from perf.bulk import BulkFlow, bulk_scenario
from perf.link.spec import LinkSpec
from perf.peers.web import ARIA2C, AXEL, CURL, LFTP, RCLONE
from perf.scenario import Comparison

__all__ = ["SCENARIO"]

_PEERS = (CURL, ARIA2C, RCLONE, AXEL, LFTP)

SCENARIO = bulk_scenario(
    name="wan",
    summary="256 MiB over 1 Gbit/s, RTT 50 ms, loss 0.1 %, cubic, beside curl and four others",
    runs=3,
    size_bytes=256 << 20,
    in_memory=True,
    link=LinkSpec(rate_bytes_per_s=125e6, rtt_s=0.05, loss=0.001, mtu_bytes=65000),
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

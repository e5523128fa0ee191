"""`bulk-http-4g` over TLS: what encryption costs each side, with a certificate that ours checks."""

from __future__ import annotations

from perf.bulk import BulkFlow, bulk_scenario
from perf.peers.web import TLS
from perf.scenario import Comparison

__all__ = ["SCENARIO"]

_PEERS = tuple(peer.name for peer in TLS)

SCENARIO = bulk_scenario(
    name="bulk-https",
    summary="4 GiB over HTTPS on loopback into /dev/shm, verified (xxh3_128), beside the HTTPS peers",
    runs=3,
    size_bytes=4 << 30,
    in_memory=True,
    tls=True,
    flows=(BulkFlow(name="sarrapipe", settings=("streams 16",)),),
    peers=TLS,
    comparisons=(
        *(Comparison(key=name, ours="sarrapipe", peer=name, figure="seconds") for name in _PEERS),
        Comparison(key="best", ours="sarrapipe", peer=_PEERS, figure="seconds"),
        Comparison(key="cpu-curl", ours="sarrapipe", peer="curl", figure="cpu_s"),
    ),
)

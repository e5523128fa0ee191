"""4 GiB with a sequential digest of the whole file announced and verified: how far it delays the transfer."""

from __future__ import annotations

from perf.bulk import BulkFlow, bulk_scenario
from perf.peers.web import CURL
from perf.scenario import Comparison

__all__ = ["SCENARIO"]

SCENARIO = bulk_scenario(
    name="bulk-sha512",
    summary="4 GiB over HTTP into /dev/shm, sha512 of the file verified, beside the hash alone, sr3 and curl",
    runs=3,
    size_bytes=4 << 30,
    in_memory=True,
    flows=(
        BulkFlow(name="sarrapipe", settings=("streams 16",), identity="sha512"),
        BulkFlow(name="slots", settings=("streams 16", "staging slots"), identity="sha512"),
        BulkFlow(name="none", settings=("streams 16", "staging none"), identity="sha512"),
        BulkFlow(name="sr3", identity="", instances=1, sr3=True),
    ),
    peers=(CURL,),
    hash_side="sha512",
    comparisons=(
        Comparison(key="hash", ours="sarrapipe", peer="sha512", figure="seconds"),
        Comparison(key="sr3", ours="sarrapipe", peer="sr3", figure="seconds"),
        Comparison(key="curl", ours="sarrapipe", peer="curl", figure="seconds"),
        Comparison(key="slots", ours="slots", peer="none", figure="seconds"),
        Comparison(key="slots-cpu", ours="slots", peer="none", figure="cpu_s"),
    ),
)

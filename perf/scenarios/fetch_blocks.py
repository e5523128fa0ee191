"""4 GiB announced in 64 blocks, fetched by four instances, put together and announced whole."""

from __future__ import annotations

from typing import Final

from perf.bulk import BulkFlow, bulk_scenario
from perf.scenario import Comparison

__all__ = ["SCENARIO"]

_BLOCK_BYTES: Final = 64 << 20
_INSTANCES: Final = 4
# The digest over the whole file that is announced in the end; sr3 computes none.
_OURS: Final = ("identity xxh3_128",)
# What sr3's own block_reassembly.inc says, and the one `inflight` that callback works with.
_SR3: Final = (
    "callback_prepend block_reassembly",
    "inflight None",
    "block_manifest_delete on",
    "reject .*flufl_lock.*",
    "reject .*§block_manifest§.*",
)

SCENARIO = bulk_scenario(
    name="fetch-blocks",
    summary="4 GiB in blocks of 64 MiB put together by 4 instances, beside sr3 and our own whole-file speed",
    runs=3,
    size_bytes=4 << 30,
    in_memory=True,
    flows=(
        BulkFlow(name="sarrapipe", instances=_INSTANCES, block_bytes=_BLOCK_BYTES, settings=_OURS),
        BulkFlow(
            name="sha512",
            identity="sha512",
            instances=_INSTANCES,
            block_bytes=_BLOCK_BYTES,
            settings=_OURS,
        ),
        BulkFlow(name="whole", instances=_INSTANCES),
        BulkFlow(
            name="sr3",
            identity="sha512",
            instances=_INSTANCES,
            sr3=True,
            block_bytes=_BLOCK_BYTES,
            settings=_SR3,
        ),
    ),
    comparisons=(
        Comparison(key="sr3-xxh3", ours="sarrapipe", peer="sr3", figure="seconds"),
        Comparison(key="sr3-sha512", ours="sha512", peer="sr3", figure="seconds"),
        Comparison(key="whole", ours="sarrapipe", peer="whole", figure="seconds"),
    ),
)

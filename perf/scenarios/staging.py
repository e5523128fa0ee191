"""What decides `staging auto`: files through slots beside files written straight, by how they are hashed."""

from __future__ import annotations

from perf.bulk import BulkFlow, bulk_scenario
from perf.scenario import Comparison

__all__ = ["SCENARIO"]

_IN_ONE_PIECE = "segmentSize 64Gi"  # as from a server without ranges
_WAYS = (
    ("segments-sha512", "sha512", ()),
    ("segments-xxh3", "xxh3_128", ()),
    ("piece-sha512", "sha512", (_IN_ONE_PIECE,)),
)
"""Name, identity, settings."""

SCENARIO = bulk_scenario(
    name="staging",
    summary="1 GiB over HTTP into /dev/shm, staged in slots of shared memory beside written straight",
    runs=5,
    size_bytes=1 << 30,
    in_memory=True,
    flows=tuple(
        BulkFlow(
            name=f"{staging}-{name}", settings=("streams 16", f"staging {staging}", *lines), identity=identity
        )
        for name, identity, lines in _WAYS
        for staging in ("slots", "none")
    ),
    hash_side="sha512",
    comparisons=tuple(
        Comparison(key=f"{name}{suffix}", ours=f"slots-{name}", peer=f"none-{name}", figure=figure)
        for name, _, _ in _WAYS
        for figure, suffix in (("seconds", ""), ("cpu_s", "-cpu"))
    ),
)

"""How the rate falls as the round trip grows: the link of `wan` with RTT 0, 20 and 100 ms."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from perf.bench import Bench, RunOptions
from perf.bulk import BULK_FIGURES, BulkFlow, run_bulk
from perf.compare import Run
from perf.link.spec import LinkSpec
from perf.peers.web import ARIA2C, CURL
from perf.scenario import Comparison, Scenario

__all__ = ["SCENARIO"]

_RTTS_MS: Final = (0, 20, 100)
_LEAST_MS: Final = 0.1  # what a link without delay takes itself: logarithmic plots have no 0
_LINK: Final = LinkSpec(rate_bytes_per_s=125e6, rtt_s=0.0, loss=0.001, mtu_bytes=65000)
_OURS: Final = "sarrapipe"
_FLOWS: Final = (BulkFlow(name=_OURS, settings=("streams 16",)),)
_PEERS: Final = (CURL, ARIA2C)


def _run(bench: Bench, options: RunOptions) -> Sequence[Run]:
    """Run every side over one link after the other; each has a pump of its own at its near end."""
    runs: list[Run] = []
    for rtt_ms in _RTTS_MS:
        place = bench.path(f"rtt-{rtt_ms}")
        os.mkdir(place)
        with Bench(place, say=bench.say, link=replace(_LINK, rtt_s=rtt_ms / 1e3)) as inner:
            found = run_bulk(_FLOWS, _PEERS, "", inner, options)
        runs += [
            replace(
                run,
                side=f"{run.side}-{rtt_ms}",
                figures={"rtt_ms": float(rtt_ms) or _LEAST_MS, **run.figures},
            )
            for run in found
        ]
    return runs


SCENARIO = Scenario(
    name="wan-rtt",
    summary="256 MiB over 1 Gbit/s, loss 0.1 %, RTT 0, 20 and 100 ms, beside curl and aria2c",
    runs=1,
    files=1,
    size_bytes=256 << 20,
    in_memory=True,
    comparisons=tuple(
        Comparison(
            key=f"{peer.name}-{rtt_ms}",
            ours=f"{_OURS}-{rtt_ms}",
            peer=f"{peer.name}-{rtt_ms}",
            figure="seconds",
        )
        for rtt_ms in _RTTS_MS
        for peer in _PEERS
    ),
    ours=tuple(f"{_OURS}-{rtt_ms}" for rtt_ms in _RTTS_MS),
    figures=("rtt_ms", *BULK_FIGURES),
    run=_run,
    over="rtt_ms",
    limits=True,
)

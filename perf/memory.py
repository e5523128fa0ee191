"""Memory that the host has to hand over first is slow: have it handed over before the clock starts.

A virtual machine may give freed memory back to its host within seconds; the first touch afterwards was seen
to run at a fifth of the speed of the second (8 GiB: 219 MB/s, again at once 1.2 GB/s). Each run that fills
/dev/shm is therefore preceded by filling and freeing as much.
"""

from __future__ import annotations

import os
import time
from typing import Final

from perf.bench import MEMORY_DIR

__all__ = ["prewarm"]

_CHUNK_BYTES: Final = 8 << 20
_WARM_BYTES_PER_S: Final = 1.2e9
_ROUNDS: Final = 4


def prewarm(size_bytes: int) -> float:
    """Touch and free `size_bytes` of memory, again until it is fast; return the last rate in bytes/s."""
    path = os.path.join(MEMORY_DIR, f"sarrapipe-perf-warm-{os.getpid()}")
    chunk = memoryview(bytes(_CHUNK_BYTES))
    rate = 0.0
    for _round in range(_ROUNDS):
        started_s = time.monotonic()
        try:
            with open(path, "wb", buffering=0) as file:
                for _chunk in range(-(-size_bytes // _CHUNK_BYTES)):
                    file.write(chunk)
            rate = size_bytes / (time.monotonic() - started_s)
        finally:
            os.unlink(path)
        if rate > _WARM_BYTES_PER_S:
            break
    return rate

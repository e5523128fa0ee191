"""The kernels that are written in C where a measurement asked for it, or their Python twins.

>>> from sarrapipe import native
>>> words = bytearray(16)
>>> native.atomic_add(words, 8, 3)
3

`BUILT` tells which of the two is at work. native/README.md lists the kernels and why they are there.
"""

from __future__ import annotations

__all__ = [
    "BUILT",
    "atomic_add",
    "atomic_load",
    "atomic_store",
    "compare_and_swap",
    "open_beneath",
    "sync_file_system",
]

try:
    from sarrapipe._native import (
        atomic_add,
        atomic_load,
        atomic_store,
        compare_and_swap,
        open_beneath,
        sync_file_system,
    )

    BUILT = True
    """Whether the C extension was built and is in use."""
except ImportError:
    from sarrapipe._twin import (
        atomic_add,
        atomic_load,
        atomic_store,
        compare_and_swap,
        open_beneath,
        sync_file_system,
    )

    BUILT = False

"""Which CPUs an instance is bound to; pure, the system's facts are arguments.

Instance i runs on the i-th usable CPU, modulo their number; where there are four or more, the first is left
to broker, kernel and parent.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from typing import Final

__all__ = ["cpus_for", "numa_nodes", "parse_cpu_list"]

_SPARE_FROM: Final = 4  # with so many CPUs one is left free (design: processes.md)
_PIN_FROM: Final = 3


def cpus_for(
    number: int, mode: str, usable: Sequence[int], nodes: Sequence[frozenset[int]]
) -> frozenset[int]:
    """Return the CPUs for an instance; empty for "wherever the kernel puts it".

    Args:
        number: Instance number from 1.
        mode: `core`, `numa` or `off`.
        usable: CPUs this flow may use, in order.
        nodes: CPUs of each memory node.
    """
    if mode == "off" or len(usable) < _PIN_FROM:
        return frozenset()
    cpus = list(usable[1:] if len(usable) >= _SPARE_FROM else usable)
    if mode == "core":
        return frozenset((cpus[(number - 1) % len(cpus)],))
    ours = [node & frozenset(cpus) for node in nodes if node & frozenset(cpus)]
    return ours[(number - 1) % len(ours)] if len(ours) > 1 else frozenset()


def parse_cpu_list(text: str) -> frozenset[int]:
    """Return the numbers of a kernel CPU list such as `0-3,8,10-11`."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)


def numa_nodes(pattern: str = "/sys/devices/system/node/node*/cpulist") -> list[frozenset[int]]:
    """Return the CPUs of each memory node; empty where the system does not tell."""
    nodes = []
    for path in sorted(glob.glob(pattern)):
        with open(path, encoding="ascii") as file:
            nodes.append(parse_cpu_list(file.read()))
    return nodes

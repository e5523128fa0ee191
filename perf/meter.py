"""What one run uses: CPU of the tool, of the web server and of the broker; memory, bytes written, steal.

    with Meter({TOOL: cage.processes, **bench.roles()}, memory=cage.pids) as meter:
        cage.run(...)
    meter.figures()

CPU and bytes are differences of counters that the kernel keeps, ended children included. Memory is sampled:
the Pss of all processes of the tool together, about ten times a second, at most a twentieth of one CPU.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self

from perf import procstat
from perf.procstat import Usage

__all__ = ["STEAL_LIMIT", "TOOL", "Meter", "Pids"]

STEAL_LIMIT: Final = 0.10
"""Share of CPU time taken away by the host from which on a run says nothing and is repeated."""

TOOL: Final = "tool"
"""The role of the program under test."""

_SAMPLE_S: Final = 0.1
_SAMPLE_COST: Final = 20  # a pause is so many times as long as a sample took

Pids = Callable[[], list[int]]
"""Names the live processes of a role at the moment."""


class Meter:
    """Measures from entering its context to leaving it.

    Args:
        roles: The processes of each role; `tool` is the program under test.
        memory: Those of the tool whose memory counts; none if not given.
    """

    def __init__(self, roles: Mapping[str, Pids], *, memory: Pids | None = None) -> None:
        self._roles = dict(roles)
        self._memory = memory
        self._used: dict[str, Usage] = {}
        self._began = procstat.CpuClock(busy_s=0, steal_s=0, total_s=0)
        self._ended = self._began
        self._peak_pss_bytes = 0
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._used = {role: procstat.usage(pids()) for role, pids in self._roles.items()}
        self._began = procstat.cpu_clock()
        self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = procstat.cpu_clock()
        self._stop.set()
        self._sampler.join()
        for role, pids in self._roles.items():
            self._used[role] = procstat.usage(pids()) - self._used[role]

    def figures(self) -> dict[str, float]:
        """Return what was used, by the names that reports know."""
        figures: dict[str, float] = {}
        for role, used in self._used.items():
            figures[f"{role}_user_s"] = used.user_s
            figures[f"{role}_system_s"] = used.system_s
        if TOOL in self._used:
            tool = self._used[TOOL]
            figures["cpu_s"] = tool.user_s + tool.system_s
            figures["written_mb"] = tool.written_bytes / 1e6
        if self._peak_pss_bytes:
            figures["peak_pss_mb"] = self._peak_pss_bytes / 1e6
        figures["machine_cpu_s"] = self._ended.busy_s - self._began.busy_s
        figures["steal"] = procstat.steal_share(self._began, self._ended)
        return figures

    def _sample(self) -> None:
        """Be the thread that looks at memory."""
        pause_s = 0.0
        while self._memory is not None and not self._stop.wait(pause_s):
            began_s = time.monotonic()
            self._peak_pss_bytes = max(self._peak_pss_bytes, procstat.pss_bytes(self._memory()))
            pause_s = max(_SAMPLE_S, _SAMPLE_COST * (time.monotonic() - began_s))

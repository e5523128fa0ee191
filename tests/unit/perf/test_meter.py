"""What a run used is told by role, ended children included."""

from __future__ import annotations

import os
import time
from pathlib import Path

from perf import procstat
from perf.background import Background
from perf.cage import Cage
from perf.meter import TOOL, Meter
from perf.procstat import Usage


def test_usage_adds_and_subtracts() -> None:
    more = Usage(user_s=3.0, system_s=2.0, written_bytes=10)
    less = Usage(user_s=1.0, system_s=0.5, written_bytes=4)
    assert more - less == Usage(user_s=2.0, system_s=1.5, written_bytes=6)
    assert (more - less) + less == more
    assert procstat.usage([]) == Usage()


def test_a_command_that_has_ended_is_counted_with_its_role_and_no_other() -> None:
    with Cage(isolated=False) as cage, Cage(isolated=False) as idle:
        with Meter({TOOL: cage.processes, "server": idle.processes}, memory=cage.pids) as meter:
            cage.run(["sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"])
        figures = meter.figures()
    assert figures["cpu_s"] == figures["tool_user_s"] + figures["tool_system_s"]
    assert figures["tool_user_s"] > 0.02
    assert figures["server_user_s"] < figures["tool_user_s"]
    assert figures["machine_cpu_s"] >= 0
    assert 0 <= figures["steal"] <= 1


def test_bytes_given_to_a_disk_are_counted_after_the_writer_ended(tmp_path: Path) -> None:
    path = tmp_path / "written"
    probe = procstat.usage([os.getpid()]).written_bytes
    path.write_bytes(b"x" * 4_000_000)
    on_disk = procstat.usage([os.getpid()]).written_bytes > probe  # not where the directory is in memory
    with Cage(isolated=False) as cage:
        with Meter({TOOL: cage.processes}) as meter:
            # A file of its own: pages that are dirty already are not counted again.
            cage.run(["dd", "if=/dev/zero", f"of={path}.new", "bs=1M", "count=4"])
        figures = meter.figures()
    assert not on_disk or figures["written_mb"] >= 4
    assert "peak_pss_mb" not in figures


def test_memory_is_what_the_command_has_at_its_peak(tmp_path: Path) -> None:
    end = tmp_path / "end"
    # It holds the memory until that was seen: how often the meter looks depends on how busy the machine is.
    script = (
        "import os, sys, time\ndata = bytearray(b'x' * 60_000_000)\n"
        "while not os.path.exists(sys.argv[1]): time.sleep(0.01)"
    )
    with Cage(isolated=False) as cage:
        with Meter({TOOL: cage.processes}, memory=cage.pids) as meter:
            held = Background(lambda: cage.run(["python3", "-c", script, str(end)])).start()
            until_s = time.monotonic() + 60
            while meter.figures().get("peak_pss_mb", 0.0) <= 60 and time.monotonic() < until_s:
                time.sleep(0.01)
            end.touch()
            held.result()
        assert meter.figures()["peak_pss_mb"] > 60

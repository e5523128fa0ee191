"""The demonstration and the benchmarks run, say what they found, and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import servers
from servers import MS, REPOSITORY, wait_until

pytestmark = [pytest.mark.broker, pytest.mark.nginx, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def _servers() -> None:
    servers.pump_or_skip()


def _start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _processes_of(tmp_path: Path) -> list[str]:
    """Processes whose environment or command line names the test's directory: TMPDIR is inherited by all."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for name in ("environ", "cmdline"):
            try:
                data = Path(f"/proc/{pid}/{name}").read_bytes()
            except OSError:
                continue
            if os.fsencode(tmp_path) in data and int(pid) != os.getpid():
                found.append(pid)
    return found


def _nothing_is_left(tmp_path: Path) -> None:
    wait_until(lambda: not _processes_of(tmp_path), 10.0, "nothing runs any more")
    assert [name for name in os.listdir(tmp_path) if name.startswith("sarrapipe-")] == []


def test_the_smallest_set_runs_and_makes_a_page_and_compares_with_itself(tmp_path: Path) -> None:
    out = tmp_path / "results"
    process = _start(tmp_path, "perf", "all", "--smoke", "--out", str(out))
    output, _ = process.communicate(timeout=120 * MS)
    logs = "".join(path.read_text() for path in out.glob("*.log"))
    assert process.returncode == 0, output + logs
    document = json.loads((out / "bulk-http-1g.json").read_text())
    assert document["ok"] is True
    assert set(document["ratios"]) == {"curl", "aria2c"}
    figures = document["figures"][0]["figures"]
    assert {"tool_user_s", "server_system_s", "broker_user_s", "peak_pss_mb", "written_mb", "steal"} <= set(
        figures
    )
    assert document["machine"]["limits_mb_per_s"]["memcpy"] > 0
    assert "<svg" in (out / "report.html").read_text()
    assert "took " in output
    process = _start(tmp_path, "perf", "musts", str(out))
    output, _ = process.communicate(timeout=30 * MS)
    assert process.returncode == 1
    assert "not measured" in output
    process = _start(tmp_path, "perf", "compare", str(out), str(out))
    output, _ = process.communicate(timeout=30 * MS)
    assert (process.returncode, output.strip()) == (0, "nothing moved by more than the noise")
    _nothing_is_left(tmp_path)


def test_the_demonstration_moves_a_real_tree_and_says_ok(tmp_path: Path) -> None:
    process = _start(tmp_path, "perf.demo", "--size", "24MiB")
    output, _ = process.communicate(timeout=200 * MS)
    assert process.returncode == 0, output
    assert output.rstrip().endswith("demo ok")
    for row in ("files", "bytes", "seconds", "MB/s", "segments", "verified", "retried", "duplicates"):
        assert row in output
    _nothing_is_left(tmp_path)


@pytest.mark.slow
def test_an_interrupted_demonstration_leaves_nothing(tmp_path: Path) -> None:
    process = _start(tmp_path, "perf.demo", "--size", "1GiB")
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if line.startswith("posting"):
            break
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60 * MS)
    assert process.returncode == 130, seen + output
    _nothing_is_left(tmp_path)


@pytest.mark.sr3
def test_a_benchmark_compares_both_programs_and_writes_its_figures(tmp_path: Path, sr3_home: Path) -> None:
    path = tmp_path / "out.json"
    arguments = ("post-small", "--files", "300", "--runs", "2", "--json", str(path))
    process = _start(tmp_path, "perf", "run", *arguments)
    output, _ = process.communicate(timeout=200 * MS)
    assert process.returncode == 0, output
    document = json.loads(path.read_text())
    assert document["name"] == "post-small"
    assert document["ok"] is True
    assert document["ratios"]["sr3"] > 0
    assert [(run["side"], run["turn"], run["ok"]) for run in document["figures"]] == [
        ("sarrapipe", 0, True),
        ("sr3", 0, True),
        ("sarrapipe", 1, True),
        ("sr3", 1, True),
    ]
    assert document["machine"]["cpus"] >= 1
    assert "sr3 3.03.01" in document["against"]
    _nothing_is_left(tmp_path)


@pytest.mark.slow
@pytest.mark.sr3
def test_what_sarra_delivers_is_measured_for_every_setting(tmp_path: Path, sr3_home: Path) -> None:
    path = tmp_path / "out.json"
    process = _start(
        tmp_path, "perf", "run", "sarra-small", "--files", "300", "--runs", "1", "--json", str(path)
    )
    output, _ = process.communicate(timeout=250 * MS)
    assert process.returncode == 0, output
    ratios = json.loads(path.read_text())["ratios"]
    assert set(ratios) == {"sr3-1", "sr3-16", "sr3-16-tuned", "cpu-sr3-16", "host"}
    _nothing_is_left(tmp_path)


@pytest.mark.slow
def test_a_file_is_fetched_over_a_long_link_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
        servers.missing("root and /dev/net/tun")
    path = tmp_path / "out.json"
    sides = ("--only", "sarrapipe", "--only", "curl")
    process = _start(
        tmp_path, "perf", "run", "wan", "--size", "16MiB", "--runs", "1", *sides, "--json", str(path)
    )
    output, _ = process.communicate(timeout=200 * MS)
    assert process.returncode == 0, output
    document = json.loads(path.read_text())
    assert [run["ok"] for run in document["figures"]] == [True, True]
    assert all(run["figures"]["seconds"] > 0.15 for run in document["figures"])  # three round trips and more
    _nothing_is_left(tmp_path)


@pytest.mark.slow
def test_a_file_is_fetched_over_tls(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    sides = ("--only", "sarrapipe", "--only", "curl")
    process = _start(
        tmp_path, "perf", "run", "bulk-https", "--size", "8MiB", "--runs", "1", *sides, "--json", str(path)
    )
    output, _ = process.communicate(timeout=120 * MS)
    assert process.returncode == 0, output
    document = json.loads(path.read_text())
    assert [run["ok"] for run in document["figures"]] == [True, True]
    assert set(document["ratios"]) == {"curl", "best", "cpu-curl"}
    _nothing_is_left(tmp_path)


@pytest.mark.slow
def test_an_interrupted_benchmark_leaves_nothing(tmp_path: Path) -> None:
    process = _start(tmp_path, "perf", "run", "bulk-http-1g", "--size", "64MiB", "--runs", "50")
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if line.startswith("turn 1: curl"):
            break
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60 * MS)
    assert process.returncode == 130, seen + output
    _nothing_is_left(tmp_path)

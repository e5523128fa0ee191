"""The test servers themselves: whatever happens to a run, nothing of it is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
import servers
from servers import MS, wait_until

from sarrapipe.pump.processes import marked

pytestmark = pytest.mark.broker

RUN = """
import json, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it may be ignored
sys.path.insert(0, "tests")
import servers
info = servers.PumpGuard().start()
print(json.dumps(info.directory), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_killed_leaves_no_server_and_no_directory(sig: signal.Signals) -> None:
    servers.pump_or_skip()
    run = subprocess.Popen(
        [sys.executable, "-c", RUN], cwd=servers.REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert run.stdout is not None
    with run.stdout:
        directory = json.loads(run.stdout.readline())
        logs = (f"{directory}/broker/log", f"{directory}/web")
        assert marked(logs[0])
        run.send_signal(sig)
    run.wait(timeout=10 * MS)
    wait_until(lambda: not os.path.exists(directory), 20, "the pump's directory is removed")
    assert not any(marked(log) for log in logs)

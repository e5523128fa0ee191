"""The set-up that every make target begins with: what it says when it may not install; how quick it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

import pytest
import servers
from servers import MS, REPOSITORY

RABBITMQ = "/usr/lib/rabbitmq/bin"
HIDDEN = f"mount -t tmpfs none {RABBITMQ}; exec unshare --user bash .ci/setup"


def test_without_root_it_names_what_is_missing_in_one_line() -> None:
    if os.geteuid() != 0 or not os.path.exists(RABBITMQ) or shutil.which("unshare") is None:
        servers.missing("root, to hide RabbitMQ and not to be root")
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-ec", HIDDEN],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=60 * MS,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines() == [
        "setup: missing packages, install them as root: "
        "apt-get install --no-install-recommends rabbitmq-server"
    ]


@pytest.mark.parametrize("argument", ["", "sr3"])
def test_when_all_is_there_it_takes_a_moment(argument: str) -> None:
    if not (REPOSITORY / ".venv" / "stamp").exists():
        servers.missing(".venv, made by .ci/setup")
    if argument and not (servers.SR3_VENV / "stamp").exists():
        servers.missing("metpx-sr3, installed by .ci/setup sr3")
    began = time.monotonic()
    done = subprocess.run(
        ["bash", ".ci/setup", *([argument] if argument else [])],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=60 * MS,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - began < 5 * MS

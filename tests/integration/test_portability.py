"""`post` and `subscribe` where the system has no pidfd, memfd and eventfd (R30)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from killkit import COMMAND, REPOSITORY
from servers import MS, DocRoot, Vhost, wait_until

from perf import trees

pytestmark = [pytest.mark.broker, pytest.mark.nginx]

# Python imports this by itself, in every process that has its directory on the path.
SITE = """
import os, signal
gone = []
for module in (os, signal):
    for name in dir(module):
        if name.startswith(("pidfd", "memfd", "eventfd", "EFD_", "MFD_", "PIDFD_")):
            delattr(module, name)
            gone.append(name)
with open(os.environ["GONE"], "a") as file:
    print(os.getpid(), *sorted(gone), file=file)
"""


@pytest.fixture
def environment(tmp_path: Path, vhost: Vhost, docroot: DocRoot) -> dict[str, str]:
    """Two configurations, and an interpreter that lacks the calls."""
    site, config = tmp_path / "site", tmp_path / "config"
    for directory in (site, config / "post", config / "subscribe", docroot.path / "source"):
        directory.mkdir(parents=True)
    (site / "sitecustomize.py").write_text(SITE)
    (config / "credentials.conf").touch(mode=0o600)
    (config / "credentials.conf").write_text(f"{vhost.url('tsource')}\n{vhost.url('feeder')}\n")
    (config / "post" / "x.conf").write_text(
        f"post_broker {vhost.url('tsource', password=False)}\npost_exchange xs_tsource\n"
        f"post_baseUrl {docroot.url}source/\npost_baseDir {docroot.path}/source\n"
    )
    (config / "subscribe" / "x.conf").write_text(
        f"broker {vhost.url('feeder', password=False)}\nexchange xs_tsource\nsubtopic #\n"
        f"directory {tmp_path}/fetched\nmirror on\nsegmentSize 1Mi\n"
    )
    return {
        **os.environ,
        "SARRA_CONFIG_HOME": str(config),
        "SARRA_STATE_HOME": str(tmp_path / "state"),
        "PYTHONPATH": os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "GONE": str(tmp_path / "gone"),
    }


def test_post_and_subscribe(
    environment: dict[str, str], vhost: Vhost, docroot: DocRoot, tmp_path: Path
) -> None:
    source = docroot.path / "source"
    trees.make_small(str(source / "small"), files=20, size_bytes=700)
    trees.make_large(str(source / "large"), 5_000_000)
    (source / "link").symlink_to("large")
    command = [*COMMAND, "run", "subscribe/x", "--instances", "1"]
    with open(tmp_path / "log", "wb") as log:
        subscriber = subprocess.Popen(command, env=environment, cwd=REPOSITORY, stdout=log, stderr=log)
    try:
        wait_until(lambda: "q_feeder.subscribe.x" in vhost.queues(), 20, "it consumes")
        wait_until(lambda: vhost.bindings("q_feeder.subscribe.x"), 20, "its queue is bound")
        post = [*COMMAND, "post", "post/x", str(source)]
        subprocess.run(post, env=environment, cwd=REPOSITORY, check=True, timeout=30 * MS)
        wait_until(lambda: not trees.compare_trees(str(source), f"{tmp_path}/fetched"), 20, "all is fetched")
    finally:
        subscriber.terminate()
        status = subscriber.wait(20 * MS)
    assert status == 0, (tmp_path / "log").read_text()
    # post, parent and fork server, without which there would be nothing to see here.
    lacking = [line.split()[1:] for line in (tmp_path / "gone").read_text().splitlines()]
    assert len(lacking) >= 3
    for names in lacking:
        assert {"eventfd", "memfd_create", "pidfd_open", "pidfd_send_signal"} <= set(names)

"""Real servers for tests: one private pump a run, a virtual host and a document directory a test.

The pump is kept by a guardian process which ends it when this one goes away, however it goes: at the end of
the run, on Ctrl-C, on a time-out that exits at once, on kill -9. Limits on waiting are multiples of `MS`, so
that a slow machine can stretch them all: SARRAPIPE_TEST_MS=3.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pika
import pytest

from sarrapipe.pump.accounts import definitions
from sarrapipe.pump.localpump import LocalPump, PumpInfo, PumpOptions, missing_packages
from sarrapipe.pump.managementapi import ManagementApi, segment

MS = float(os.environ.get("SARRAPIPE_TEST_MS", "1"))
"""Factor for every time limit in the tests."""

REPOSITORY = Path(__file__).resolve().parent.parent
SR3_VENV = REPOSITORY / ".venv-sr3"


def missing(what: str) -> None:
    """Skip the test for want of `what`; in CI, where everything is installed, fail instead."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is missing, and CI is set", pytrace=False)
    pytest.skip(f"{what} is missing")


def wait_until(predicate: Callable[[], object], timeout_s: float, what: str) -> None:
    """Poll `predicate` until it is true; fail naming `what` after `timeout_s` times MS."""
    deadline = time.monotonic() + timeout_s * MS
    pause_s = 0.005
    while not predicate():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s * MS:g} s: {what}")
        time.sleep(pause_s)
        pause_s = min(0.1, pause_s * 1.5)


@dataclass(frozen=True)
class Vhost:
    """A virtual host of its own for one test, with every user's permissions and the standard exchanges."""

    name: str
    pump: PumpInfo

    def url(self, user: str = "feeder", *, password: bool = True, tls: bool = False) -> str:
        """The broker's URL for one user, this virtual host included."""
        return self.pump.url(user, vhost=self.name, password=password, tls=tls)

    @property
    def api(self) -> ManagementApi:
        """The management API as administrator; paths need `self.quoted`."""
        return self.pump.api()

    @property
    def quoted(self) -> str:
        """The virtual host's name for the paths of the management API."""
        return segment(self.name)

    @contextlib.contextmanager
    def connect(self, user: str = "feeder") -> Iterator[pika.BlockingConnection]:
        """A plain pika connection, closed at the end."""
        connection = pika.BlockingConnection(pika.URLParameters(self.url(user)))
        try:
            yield connection
        finally:
            if connection.is_open:
                connection.close()

    def depth(self, queue: str) -> int:
        """Messages ready in a queue, as the broker counts them now."""
        with self.connect("admin") as connection:
            return int(connection.channel().queue_declare(queue, passive=True).method.message_count)

    def queues(self) -> list[str]:
        """Names of all queues."""
        rows = self.api.get(f"/api/queues/{self.quoted}?columns=name")
        assert isinstance(rows, list)
        return sorted(row["name"] for row in rows)

    def bindings(self, queue: str) -> set[tuple[str, str]]:
        """(exchange, routing key) of a queue's bindings, without the default one."""
        rows = self.api.get(f"/api/queues/{self.quoted}/{segment(queue)}/bindings")
        assert isinstance(rows, list)
        return {(row["source"], row["routing_key"]) for row in rows if row["source"]}


@dataclass(frozen=True)
class DocRoot:
    """A directory of one test under the pump's document root."""

    path: Path
    url: str
    """Base URL of the directory, with its trailing slash."""


class PumpGuard:
    """Starts a private pump in a temporary directory; its guardian ends it and removes the directory."""

    def __init__(self, options: PumpOptions | None = None) -> None:
        self._options = options
        self._guardian: subprocess.Popen[bytes] | None = None

    def start(self) -> PumpInfo:
        """Start guardian and pump."""
        directory = tempfile.mkdtemp(prefix="sarrapipe-pump-")
        self._guardian = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), directory],
            stdin=subprocess.PIPE,
            cwd=REPOSITORY,
            start_new_session=True,  # Ctrl-C in the terminal must not end the guardian first
        )
        return LocalPump(directory).up(self._options)

    def stop(self) -> None:
        """Tell the guardian to clean up, and wait for it."""
        if self._guardian is not None:
            assert self._guardian.stdin is not None
            self._guardian.stdin.close()
            self._guardian.wait(timeout=60 * MS)
            self._guardian = None


def pump_or_skip() -> None:
    """Skip or fail when the servers of a private pump are not installed."""
    lacking = missing_packages()
    if lacking:
        missing(" and ".join(lacking))


def make_vhost(pump: PumpInfo) -> Vhost:
    """Create a virtual host with every user's permissions, exchanges and bindings."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    pump.api().post("/api/definitions", definitions(list(pump.users.values()), name, None))
    return Vhost(name, pump)


def drop_vhost(vhost: Vhost) -> None:
    """Delete a virtual host and all that is in it; connections to it are closed by the broker."""
    vhost.api.delete(f"/api/vhosts/{vhost.quoted}")


def make_docroot(pump: PumpInfo) -> DocRoot:
    """Make a directory under the document root."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    path = Path(pump.document_root) / name
    path.mkdir()
    return DocRoot(path, f"{pump.http_url}{name}/")


def sr3_or_skip() -> Path:
    """The directory of the peer's programs, `.ci/setup sr3` having installed it."""
    if not (SR3_VENV / "bin" / "sr3").exists():
        missing("metpx-sr3 (.ci/setup sr3)")
    return SR3_VENV / "bin"


def _guard(directory: str) -> None:
    """Wait until the other end of standard input is gone, then clean up. Runs as a process of its own."""
    sys.stdin.buffer.read()
    LocalPump(directory).down(graceful=False)
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    _guard(sys.argv[1])

"""What the tests of kills share: a source, a pump's flow in real processes, and what must be true at the end.

    place = Place(vhost, docroot, tmp_path)
    messages = [place.write("a/b", b"...")]
    with Mover(place, instances=2, crash_at="committed:3") as mover:
        place.send(messages)
        mover.settle(announced=1)          # waits until nothing is under way any more
    place.check()                          # both trees are equal, nothing is left behind

Messages are made here rather than by `sarrapipe post`, which has nothing to say about removals and renames.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Self

import pika
import pytest
from servers import MS, DocRoot, Vhost, wait_until
from standins import StandIn

from perf import trees
from sarrapipe.errors import LedgerError
from sarrapipe.flow.staging import RING_FILE
from sarrapipe.ledger.environment import open_for_reading
from sarrapipe.ledger.inspect import inspect
from sarrapipe.ledger.kept import KeptStore
from sarrapipe.ledger.records import WRITTEN
from sarrapipe.ledger.tables import DATABASES, LmdbTables
from sarrapipe.segment.place import HIDDEN_DIRECTORY
from sarrapipe.shm import host
from sarrapipe.shm.ring import slots_in_use
from sarrapipe.supervisor.paths import FlowPaths
from sarrapipe.supervisor.status import FlowStatus, read_status
from sarrapipe.units import format_time

COMMAND = [sys.executable, "-m", "sarrapipe"]
REPOSITORY = Path(__file__).resolve().parent.parent
PROBE = "q_admin_probe"
QUIET_S = 0.3

Wire = dict[str, Any]
"""A v03 message."""


class Place:
    """A source's tree, a pump's tree, and a queue that gets everything the pump announces.

    Args:
        vhost: Where the source and the pump announce.
        docroot: Served by nginx; holds both trees.
        home: Configurations, states and logs.
        base_url: Where the source's files are fetched, if not from `docroot`.
        confirms: The source waits for the broker's confirm of each message: the broker will be killed.
    """

    def __init__(
        self,
        vhost: Vhost,
        docroot: DocRoot,
        home: Path,
        base_url: str | None = None,
        *,
        confirms: bool = False,
    ) -> None:
        self.vhost = vhost
        self._confirms = confirms
        self.home = home
        self.source = docroot.path / "source"
        self.pump = docroot.path / "pump"
        self.url = docroot.url
        self.base_url = base_url or f"{docroot.url}source/"
        self.source.mkdir()
        self._last_ns = time.time_ns()
        with vhost.connect("admin") as connection:
            channel = connection.channel()
            channel.queue_declare(PROBE, durable=True)
            channel.queue_bind(PROBE, "xpublic", "#")

    # ---- the source

    def write(self, name: str, data: bytes, mtime_ns: int | None = None) -> Wire:
        """Write a file whole, as a careful source does, and return its message."""
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.write_bytes(data)
        if mtime_ns is not None:
            os.utime(new, ns=(mtime_ns, mtime_ns))
        new.rename(path)
        return self.announce(name)

    def write_large(self, name: str, size_bytes: int, seed: int = 2) -> Wire:
        """Write a file whose content repeats nowhere on the scale of a segment."""
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        trees.make_large(str(new), size_bytes, seed=seed)
        new.rename(path)
        return self.announce(name)

    def announce(self, name: str) -> Wire:
        """Return the message of a file as it is."""
        path = self.source / name
        facts = path.stat()
        return {
            **self._event(name),
            "size": facts.st_size,
            "mtime": format_time(facts.st_mtime_ns),
            "mode": f"{facts.st_mode & 0o7777:o}",
            "identity": {"method": "sha512", "value": trees.sha512(str(path))},
        }

    def link(self, name: str, target: str) -> Wire:
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
        return {**self._event(name), "fileOp": {"link": target}}

    def directory(self, name: str) -> Wire:
        (self.source / name).mkdir(parents=True)
        mode = f"{(self.source / name).stat().st_mode & 0o7777:o}"
        return {**self._event(name), "mode": mode, "fileOp": {"directory": ""}}

    def remove(self, name: str) -> Wire:
        (self.source / name).unlink()
        return {**self._event(name), "fileOp": {"remove": ""}}

    def rename(self, old: str, new: str) -> Wire:
        (self.source / new).parent.mkdir(parents=True, exist_ok=True)
        (self.source / old).rename(self.source / new)
        return {**self.announce(new), "fileOp": {"rename": old}}

    def _event(self, name: str) -> Wire:
        # A later event has a later pubTime, however coarse the clock.
        self._last_ns = max(time.time_ns(), self._last_ns + 1)
        return {"pubTime": format_time(self._last_ns), "baseUrl": self.base_url, "relPath": name}

    def send(self, messages: Iterable[Wire]) -> None:
        """Publish messages as the source; returns when the broker has them."""
        with self.sending() as send:
            for message in messages:
                send(message)

    @contextlib.contextmanager
    def sending(self) -> Iterator[Callable[[Wire], None]]:
        """Give what publishes one message; when the block is left the broker has all of them."""
        with self.vhost.connect("tsource") as connection:
            channel = connection.channel()
            if self._confirms:
                channel.confirm_delivery()

            def send(message: Wire) -> None:
                topic = ".".join(["v03", *message["relPath"].split("/")[:-1]])
                body = json.dumps(message).encode()
                properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)
                channel.basic_publish("xs_tsource", topic, body, properties)

            yield send
            channel.close()  # its answer comes after everything before it was routed

    # ---- what came of it

    def announced(self) -> list[Wire]:
        """Take what the pump has announced since the last call, in order."""
        taken = []
        with self.vhost.connect("admin") as connection:
            channel = connection.channel()
            for method, _, body in channel.consume(PROBE, inactivity_timeout=0.2, auto_ack=True):
                if method is None:
                    break
                taken.append(json.loads(body))
            channel.cancel()
        return taken

    def announced_count(self) -> int:
        """How many announcements wait in the probe's queue."""
        return self.vhost.depth(PROBE)

    def check(self) -> None:
        """Fail unless the pump's tree equals the source's, inflight files included."""
        assert self.differences() == []

    def differences(self) -> list[str]:
        """What differs between the source's tree and the pump's."""
        return trees.compare_trees(str(self.source), str(self.pump))


def is_announcement_of(message: Wire, sent: Wire) -> bool:
    """Whether what a pump announced stands for what its source sent."""
    return all(message.get(name) == sent.get(name) for name in ("relPath", "size", "identity", "mtime"))


def counted(announced: Iterable[Wire]) -> Counter[tuple[str, str, str]]:
    """Count announcements by path, kind of event and content."""
    return Counter(_what(message) for message in announced)


def _what(message: Wire) -> tuple[str, str, str]:
    identity = message.get("identity") or {}
    return message["relPath"], ",".join(message.get("fileOp") or {}), identity.get("value", "")


def tree_after(announced: Iterable[Wire]) -> dict[str, str]:
    """Return the files of a next hop that heard all announcements, in whatever order: identity by path.

    A path is there if a file was announced for it later than its last removal; of several files the one with
    the later modification time counts, then the later announcement (docs/explanation/ledger.md).
    """
    files: dict[str, tuple[str, str, str]] = {}
    last: dict[str, str] = {}
    gone: dict[str, str] = {}
    for message in announced:
        path, pub_time = message["relPath"], message["pubTime"]
        event = message.get("fileOp") or {}
        if "remove" in event:
            gone[path] = max(gone.get(path, ""), pub_time)
            continue
        if "rename" in event:
            gone[event["rename"]] = max(gone.get(event["rename"], ""), pub_time)
        last[path] = max(last.get(path, ""), pub_time)
        version = (message["mtime"], pub_time, message["identity"]["value"])
        files[path] = max(files.get(path, version), version)
    return {path: version[2] for path, version in files.items() if last[path] > gone.get(path, "")}


def segments_written(state_dir: str) -> dict[str, set[int]]:
    """Read from a flow's ledger, beside its processes, which segments of which targets are written."""
    environment = open_for_reading(f"{state_dir}/ledger", "ledger", DATABASES)
    try:
        with environment.read() as txn:
            tables = LmdbTables(txn, environment.databases, LmdbTables.packing())
            return {
                row.target: {n for n, segment in tables.segments(generation) if segment.state >= WRITTEN}
                for generation, row in list(tables.files())
                if row.segment_count > 1
            }
    finally:
        environment.close()


class Mover:
    """A flow of the component sarra on one host, run by `sarrapipe run`.

    Args:
        place: Where it works.
        instances: How many.
        name: Of the configuration.
        host: Movers on different ones share nothing but the broker; each has its own tree.
        crash_at: Points at which one process each is killed, as SARRAPIPE_CRASH_AT.
        credentials: Lines of credentials.conf for servers.
        options: Configuration lines by name.
    """

    def __init__(
        self,
        place: Place,
        *,
        instances: int,
        name: str = "mover",
        host: str = "one",
        crash_at: str = "",
        credentials: str = "",
        **options: object,
    ) -> None:
        self.place = place
        self.credentials = credentials
        self.instances = instances
        self.name = name
        self.home = place.home / host
        self.pump = place.pump if host == "one" else place.pump.with_name(f"pump-{host}")
        self.marks = self.home / "marks"
        self.crash_at = crash_at
        self.options = options
        self.queue = f"q_feeder.sarra.{name}"
        self.log_path = self.home / f"{name}.log"
        self.paths = FlowPaths("sarra", name, str(self.home / "state" / "sarra" / name))
        self.process: subprocess.Popen[bytes] | None = None
        self.subtopics = ["#"]
        self._received = 0
        """Messages that there had been when `is_quiet` looked last."""
        self._seen: set[tuple[int, int]] = set()
        """Process id and start time of every instance there was."""

    # ---- running it

    def configure(self) -> None:
        """Write the configuration."""
        directory = self.home / "config" / "sarra"
        directory.mkdir(parents=True, exist_ok=True)
        self.marks.mkdir(exist_ok=True)
        credentials = directory.parent / "credentials.conf"
        credentials.touch(mode=0o600)
        credentials.write_text(f"{self.place.vhost.url('feeder')}\n{self.credentials}")
        broker = self.place.vhost.url("feeder", password=False)
        lines = [
            f"broker {broker}",
            "exchange xs_tsource",
            *(f"subtopic {subtopic}" for subtopic in self.subtopics),
            f"directory {self.pump}",
            f"post_broker {broker}",
            "post_exchange xpublic",
            f"post_baseUrl {self.place.url}{self.pump.name}/",
            f"post_baseDir {self.pump}",
            "nodupe_ttl 300",
            *(f"{name} {value}" for name, value in self.options.items()),
        ]
        path = directory / f"{self.name}.conf"
        path.with_suffix(".new").write_text("\n".join(lines) + "\n")
        path.with_suffix(".new").rename(path)

    @property
    def environment(self) -> dict[str, str]:
        homes = {"SARRA_CONFIG_HOME": f"{self.home}/config", "SARRA_STATE_HOME": f"{self.home}/state"}
        points = {"SARRAPIPE_CRASH_AT": self.crash_at, "SARRAPIPE_CRASH_MARKS": str(self.marks)}
        return {**os.environ, **homes, **points}

    def command(self, *arguments: str, timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
        """Run a command about this flow."""
        return subprocess.run(
            [*COMMAND, *arguments],
            env=self.environment,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s * MS,
        )

    def start(self) -> Self:
        """Start it and wait until it consumes."""
        self.configure()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "run", f"sarra/{self.name}", "--instances", str(self.instances)],
                env=self.environment,
                cwd=REPOSITORY,
                stdout=log,
                stderr=log,
            )
        self.wait(lambda: self.status().running, 20, "an instance runs")
        return self

    def start_declared(self) -> Self:
        """The same, and wait until the queue is bound, so that nothing announced from now on is missed."""
        self.start()
        self.wait(lambda: self.queue in self.place.vhost.queues(), 20, "the queue is there")
        self.wait(self.is_bound, 20, "the queue is bound")
        return self

    def is_bound(self) -> bool:
        """Whether the queue is bound as it is configured, and not otherwise."""
        wanted = {("xs_tsource", f"v03.{subtopic}") for subtopic in self.subtopics}
        return self.place.vhost.bindings(self.queue) == wanted

    def stop(self) -> float:
        """Stop it by SIGTERM; return the seconds it took."""
        assert self.process is not None
        self.status()
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(30 * MS)
        seconds = time.monotonic() - began
        assert status == 0, self.log[-3000:]
        self.process = None
        return seconds

    def reload(self) -> None:
        """Reload it by SIGHUP; the instances are those of the new configuration when this returns."""
        assert self.process is not None
        generation = max(one.generation for one in self.status().instances)
        self.process.send_signal(signal.SIGHUP)

        def taken_over() -> bool:
            return all(one.generation > generation for one in self.status().instances)

        self.wait(taken_over, 30, "the new instances have taken over")

    def kill_parent(self) -> None:
        """SIGKILL the parent; the kernel ends the rest."""
        assert self.process is not None
        self.status()
        self.process.kill()
        self.process.wait()
        self.process = None
        self.wait(lambda: not any(host.is_alive(*one) for one in self._seen), 10, "instances end with it")

    def __enter__(self) -> Self:
        try:
            return self.start_declared()
        except BaseException:
            self._end()
            raise

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None and self.process is not None:
                self.stop()
        finally:
            self._end()

    def _end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for pid, ticks in self._seen:
            if host.is_alive(pid, ticks):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    # ---- looking at it

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def status(self) -> FlowStatus:
        found = read_status(self.paths)
        self._seen.update((one.pid, host.start_ticks(one.pid)) for one in found.instances if one.pid)
        return found

    def pids(self) -> list[int]:
        """Of the instances at work."""
        return [one.pid for one in self.status().instances if one.pid and one.state == "running"]

    def running(self, count: int, timeout_s: float = 30) -> None:
        """Wait until exactly so many instances run."""

        def all_run() -> bool:
            states = [one.state for one in self.status().instances]
            return states == ["running"] * count

        self.wait(all_run, timeout_s, f"{count} instances run")

    def fork_server(self) -> int:
        """Pid of the fork server: the child of the parent that is no instance; 0 if there is none now."""
        assert self.process is not None
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        others = set(map(int, children)) - {one.pid for one in self.status().instances}
        return next(iter(others)) if len(others) == 1 else 0

    def under_way(self) -> list[str]:
        """What the ledger and the kept store hold, and what is wrong with them, as sentences."""
        state = self.paths.state_dir
        hidden = self.pump / HIDDEN_DIRECTORY
        report = inspect(f"{state}/ledger", f"{state}/kept", time.time_ns(), map(str, hidden.glob("*")))
        files = [f"{file.target} {file.phase} by {file.owner}" for file in report.under_way]
        removals = [f"removal of {path}" for path in report.removals]
        kept = [f"{report.kept.kept} kept"] if report.kept and report.kept.kept else []
        return [*files, *removals, *kept, *report.problems]

    def kept(self) -> int:
        """How many messages the kept store holds."""
        with KeptStore.open_for_reading(f"{self.paths.state_dir}/kept") as store:
            return store.count()

    def is_quiet(self) -> bool:
        """Whether nothing is in hand, queued or kept; there may be rows that nobody goes on with."""
        totals = self.status().totals
        in_hand = totals["gauge_inflight_messages"] + totals["messages_received"] - self._received
        self._received = totals["messages_received"]
        return not in_hand and not self.kept() and self.place.vhost.depth(self.queue) == 0

    def crashed(self) -> set[str]:
        """Points at which a process was killed so far."""
        return {mark.name for mark in self.marks.iterdir()}

    def wait(self, predicate: Callable[[], object], timeout_s: float, what: str) -> None:
        """As `servers.wait_until`, and tells what the flow says if it does not come true."""
        try:
            wait_until(predicate, timeout_s, what)
        except pytest.fail.Exception as failure:
            state = ""
            with contextlib.suppress(LedgerError, OSError):
                state = f"under way: {self.under_way()}\ndiffering: {self.place.differences()}"
            log = self.log[-6000:] if self.log_path.exists() else ""
            status = self.status()
            counts = {name: count for name, count in status.totals.items() if count}
            pytest.fail(f"{failure}\n{state}\n{status.state} {counts}\n{log}", pytrace=False)

    def settle(self, announced: int, timeout_s: float = 30) -> None:
        """Wait until so much was announced and nothing is under way any more."""
        self.wait(lambda: self.place.announced_count() >= announced, timeout_s, f"{announced} announcements")
        self.wait(lambda: self.place.vhost.depth(self.queue) == 0, timeout_s, "the queue is empty")
        self.wait(lambda: not self.under_way(), timeout_s, "nothing is under way")

    def settle_trees(self, timeout_s: float = 60) -> None:
        """Wait until the pump's tree equals the source's and nothing is under way, and stays so for a moment.

        For loads of which the number of announcements is not known: what is overtaken is not announced.
        """
        quiet_since = [time.monotonic()]

        def quiet() -> bool:
            done = self.place.vhost.depth(self.queue) == 0 and not self.under_way()
            if not done or self.place.differences():
                quiet_since[0] = time.monotonic()
            return time.monotonic() - quiet_since[0] > QUIET_S

        self.wait(quiet, timeout_s, "both trees are equal and nothing is under way")

    def check_nothing_left(self) -> None:
        """After a stop: nothing unacknowledged, kept, inflight or under way."""
        assert self.process is None, "stop it first: what is unacknowledged is counted when it is back"
        wait_until(lambda: self.place.vhost.depth(self.queue) == 0, 0, "everything is acknowledged")
        assert self.under_way() == []
        assert slots_in_use(f"{self.paths.state_dir}/{RING_FILE}") == 0
        checked = self.command("ledger", "check", f"sarra/{self.name}")
        assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout


class UnwillingServer(StandIn):
    """Serves a directory, but answers 503 until it is willing; while `slow` is set nobody gets an answer."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self.willing = threading.Event()
        self.slow = threading.Event()
        self.waiting = 0
        """Requests that got no answer yet."""

    def answer(self, handler: BaseHTTPRequestHandler, headers: dict[str, str]) -> None:
        if self.slow.is_set():
            self.waiting += 1
            while self.slow.is_set() and not self.ending.wait(0.05):
                pass
        if not self.willing.is_set():
            self.head(handler, 503, 0)
            return
        body = (self._directory / handler.path.lstrip("/")).read_bytes()
        self.head(handler, 200, len(body))
        handler.wfile.write(body)

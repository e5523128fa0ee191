"""The real metpx-sr3 and sarrapipe side by side: one tree of files, one virtual host, two configurations.

What sr3 itself cannot carry is left out of the trees (found by letting it talk to itself): it announces no
dangling links and follows links to directories, its v02 messages of links lack the target, and it does not
unescape `%20` and `%23` in the v02 paths it receives (wire.md 1.5).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from servers import MS, DocRoot, Vhost, wait_until

from perf import trees

SR3_MTIME_TOLERANCE_NS = 1000
"""sr3 keeps times as floating-point seconds."""

_TOPIC_PREFIX = {"v03": "v03", "v02": "v02.post"}
_PLAIN_NAMES = (
    "plain.txt",
    "deep/er/file.dat",
    "plus+amp&eq=",
    "naïve-ü",
    "日本語/名前",
    "quo'te\"s",
    "semi;colon,comma",
    "que?ry",
    "tilde~[br]{ac}",
    "per%41cent",
    "star*dir/file",
)
_ESCAPED_NAMES = ("a file with blanks", "sub dir/x y", "hash#name", "h#sh/#")


def make_tree(root: Path, *, escaped_names: bool, links: bool) -> None:
    """Make files with odd names, modes and times, an empty file, an empty directory and perhaps links."""
    names = _PLAIN_NAMES + (_ESCAPED_NAMES if escaped_names else ())
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{name} {number}\n".encode() * (number * 37 + 1))
        path.chmod((0o644, 0o600, 0o755)[number % 3])
        os.utime(path, ns=(10**18, 1_600_000_000 * 10**9 + number * 1_000_037))
    (root / "empty").touch()
    (root / "nothing-inside").mkdir()
    (root / "large.bin").write_bytes(bytes(range(256)) * 12_000)
    if links:
        (root / "link").symlink_to("plain.txt")
        (root / "deep" / "link-up").symlink_to("../plain.txt")


@dataclass(frozen=True)
class Hop:
    """One flow: where it reads, where its files go, and where it announces them, if it does."""

    component: str
    exchange: str
    directory: Path
    post_exchange: str = ""
    post_base_url: str = ""

    @property
    def queue(self) -> str:
        return f"q_feeder.{self.component}.interop"


@dataclass
class Interop:
    """One test's place: what is posted, where it arrives, and how to run either program.

    `posting` are further lines of the configuration that posts.
    """

    vhost: Vhost
    docroot: DocRoot
    sr3_bin: Path
    home: Path
    message_format: str
    identity: str
    posting: tuple[str, ...] = ()
    wanted: Path = field(init=False)
    pumped: Path = field(init=False)
    arrived: Path = field(init=False)

    def __post_init__(self) -> None:
        self.wanted = self.docroot.path / "source"
        self.pumped = self.docroot.path / "pump"
        self.arrived = self.home / "arrived"
        for directory in (self.wanted, self.pumped, self.arrived):
            directory.mkdir(parents=True)

    @property
    def direct(self) -> Hop:
        """A subscriber to what is posted."""
        return Hop("subscribe", "xs_tsource", self.arrived)

    @property
    def through_pump(self) -> tuple[Hop, Hop]:
        """A pump that fetches what is posted and announces it again, and a subscriber to that."""
        pump = Hop("sarra", "xs_tsource", self.pumped, "xpublic", f"{self.docroot.url}pump/")
        return pump, Hop("subscribe", "xpublic", self.arrived)

    def _configure(self, tree: Path, component: str, lines: Sequence[str]) -> None:
        (tree / component).mkdir(parents=True, exist_ok=True)
        credentials = tree / "credentials.conf"
        credentials.touch(mode=0o600)
        credentials.write_text("".join(f"{self.vhost.url(user)}\n" for user in ("feeder", "tsource")))
        (tree / component / "interop.conf").write_text("".join(f"{line}\n" for line in lines))

    def _posting(self) -> list[str]:
        return [
            f"post_broker {self.vhost.url('tsource', password=False)}",
            "post_exchange xs_tsource",
            f"post_baseUrl {self.docroot.url}source/",
            f"post_baseDir {self.wanted}",
            f"post_format {self.message_format}",
            f"post_topicPrefix {_TOPIC_PREFIX[self.message_format]}",
            f"identity {self.identity}",
            *self.posting,
        ]

    def _flow(self, hop: Hop, instances: int) -> list[str]:
        broker = self.vhost.url("feeder", password=False)
        lines = [
            f"broker {broker}",
            f"exchange {hop.exchange}",
            f"queueName {hop.queue}",
            f"topicPrefix {_TOPIC_PREFIX[self.message_format]}",
            f"instances {instances}",
            "mirror on",
            f"directory {hop.directory}",
            "subtopic #",
        ]
        if hop.post_exchange:
            lines += [
                f"post_broker {broker}",
                f"post_exchange {hop.post_exchange}",
                f"post_baseUrl {hop.post_base_url}",
                f"post_baseDir {hop.directory}",
                f"post_format {self.message_format}",
                f"post_topicPrefix {_TOPIC_PREFIX[self.message_format]}",
            ]
        return lines

    @property
    def _sr3_env(self) -> dict[str, str]:
        home = self.home / "sr3"
        places = {"XDG_CONFIG_HOME": str(home / "config"), "XDG_CACHE_HOME": str(home / "state")}
        return {**os.environ, "USER": "interop", **places}

    @property
    def _our_env(self) -> dict[str, str]:
        home = self.home / "ours"
        places = {"SARRA_CONFIG_HOME": str(home / "config"), "SARRA_STATE_HOME": str(home / "state")}
        return {**os.environ, **places}

    def sr3_posts(self) -> None:
        """Announce the tree with sr3_post."""
        self._configure(self.home / "sr3/config/sr3", "post", self._posting())
        command = [str(self.sr3_bin / "sr3_post"), "-c", "interop", "-p", str(self.wanted)]
        self._finish(command, self._sr3_env)

    def sarrapipe_posts(self) -> None:
        """Announce the tree with `sarrapipe post`."""
        self._configure(self.home / "ours/config", "post", self._posting())
        command = [sys.executable, "-m", "sarrapipe", "post", "post/interop", str(self.wanted)]
        self._finish(command, self._our_env)

    @contextlib.contextmanager
    def sr3_runs(self, hop: Hop) -> Iterator[None]:
        """Run `sr3 foreground` for as long as the context lasts."""
        self._configure(self.home / "sr3/config/sr3", hop.component, self._flow(hop, 1))
        (self.home / "sr3/state/sr3" / hop.component / "interop").mkdir(parents=True, exist_ok=True)
        command = [str(self.sr3_bin / "sr3"), "foreground", f"{hop.component}/interop"]
        with self._running(hop, command, self._sr3_env, whole_group=True):
            yield

    @contextlib.contextmanager
    def sarrapipe_runs(self, hop: Hop, instances: int = 2) -> Iterator[None]:
        """Run `sarrapipe run` for as long as the context lasts."""
        self._configure(self.home / "ours/config", hop.component, self._flow(hop, instances))
        command = [sys.executable, "-m", "sarrapipe", "run", f"{hop.component}/interop"]
        with self._running(hop, command, self._our_env):
            yield

    def differences(self) -> list[str]:
        """What distinguishes the two trees now."""
        tolerance_ns = SR3_MTIME_TOLERANCE_NS
        return trees.compare_trees(str(self.wanted), str(self.arrived), mtime_tolerance_ns=tolerance_ns)

    def wait_equal(self) -> None:
        """Wait until what arrived equals what was posted; fail with the differences and the logs."""
        with contextlib.suppress(pytest.fail.Exception):
            wait_until(lambda: not self.differences(), 30.0, "both trees equal")
        differences = self.differences()
        assert not differences, "\n".join([*differences, self.logs()])

    def logs(self) -> str:
        """The ends of all logs."""
        tails = []
        for path in sorted(self.home.rglob("*.log")):
            tails.append(f"--- {path}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-40:]))
        return "\n".join(tails)

    def _finish(self, command: Sequence[str], env: dict[str, str]) -> None:
        with open(self.home / "post.log", "ab") as log:
            done = subprocess.run(
                command, env=env, stdout=log, stderr=log, timeout=60 * MS, check=False, cwd=self.home
            )
        assert done.returncode == 0, self.logs()

    @contextlib.contextmanager
    def _running(
        self, hop: Hop, command: Sequence[str], env: dict[str, str], *, whole_group: bool = False
    ) -> Iterator[None]:
        with open(self.home / f"{hop.component}.log", "ab") as log:
            process = subprocess.Popen(
                command, env=env, stdout=log, stderr=log, cwd=self.home, start_new_session=True
            )
        try:
            wait_until(lambda: process.poll() is not None or self._bound(hop), 30.0, "the queue is bound")
            assert process.poll() is None, self.logs()
            yield
        finally:
            # sr3's command does not pass the signal on to its instance.
            os.killpg(process.pid, signal.SIGTERM) if whole_group else process.terminate()
            try:
                process.wait(20 * MS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise

    def _bound(self, hop: Hop) -> bool:
        return hop.queue in self.vhost.queues() and bool(self.vhost.bindings(hop.queue))

"""Two movers on hosts of their own, one broker, one file that was posted whole (`segmentAt`, R143, R158).

The hosts are network namespaces with a state, a tree and an address each; all that leaves one goes through a
relay. The end point is a third host's. Slow: real processes, at a rate that lets both take part.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from killkit import COMMAND, REPOSITORY, Place
from loggingweb import LoggingNginx, Request
from netns import Namespace
from servers import DocRoot, Vhost, wait_until

from perf import trees
from sarrapipe.ledger.inspect import inspect
from sarrapipe.shm import host
from sarrapipe.supervisor.paths import FlowPaths
from sarrapipe.supervisor.status import FlowStatus, read_status

pytestmark = [pytest.mark.slow, pytest.mark.broker, pytest.mark.nginx]

MIB = 1 << 20
SIZE = int(os.environ.get("SARRAPIPE_MOVERS_MIB", "128")) * MIB
"""4096 is the file of the design; 128 is enough to see how it is shared."""
BLOCK = SIZE // 64
STREAM_RATE = SIZE // 64
"""Bytes a second of each connection to the source: 8 of them take 8 s, whatever else the machine does."""
QUEUE = "q_feeder.movers"
ADDRESSES = ("127.0.0.2", "127.0.0.3")


class Node:
    """One flow, run by `sarrapipe run` on a host of its own.

    Args:
        home: Configuration and state.
        vhost: Its broker's.
        flow: Component and name.
        lines: Configuration.
        prefix: What its command begins with.
    """

    def __init__(self, home: Path, vhost: Vhost, flow: str, lines: str, prefix: list[str]) -> None:
        self._home = home
        component, _, name = flow.partition("/")
        self._flow = flow
        self.paths = FlowPaths(component, name, str(home / "state" / component / name))
        directory = home / "config" / component
        directory.mkdir(parents=True)
        credentials = home / "config" / "credentials.conf"
        credentials.touch(mode=0o600)
        credentials.write_text(f"{vhost.url('feeder')}\n")
        broker = vhost.url("feeder", password=False)
        text = lines.replace("BROKER", broker)
        (directory / f"{name}.conf").write_text("\n".join(map(str.strip, text.splitlines())) + "\n")
        self._prefix = prefix
        self.process: subprocess.Popen[bytes] | None = None
        self._seen: set[tuple[int, int]] = set()

    def __enter__(self) -> Node:
        homes = {"SARRA_CONFIG_HOME": f"{self._home}/config", "SARRA_STATE_HOME": f"{self._home}/state"}
        with open(self._home / "log", "ab") as log:
            self.process = subprocess.Popen(
                [*self._prefix, *COMMAND, "run", self._flow, "--instances", "2"],
                env={**os.environ, **homes},
                cwd=REPOSITORY,
                stdout=log,
                stderr=log,
            )
        try:
            self.wait(lambda: [one.state for one in self.status().instances] == ["running"] * 2, "it runs")
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self.process is not None and kind is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
        self.kill()

    def status(self) -> FlowStatus:
        found = read_status(self.paths)
        self._seen.update((one.pid, host.start_ticks(one.pid)) for one in found.instances if one.pid)
        return found

    def received(self) -> int:
        """Bytes it has fetched."""
        return int(self.status().totals["bytes_received"])

    def kill(self) -> None:
        """SIGKILL the parent, upon which the kernel ends the rest."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        self.process = None
        wait_until(lambda: not any(host.is_alive(*one) for one in self._seen), 20, "all of it has ended")

    def wait(self, predicate: object, what: str, timeout_s: float = 60.0) -> None:
        """As `servers.wait_until`, and tells what the flow says if it does not come true."""
        try:
            wait_until(predicate, timeout_s, what)
        except pytest.fail.Exception as failure:
            pytest.fail(f"{failure}\n{(self._home / 'log').read_text()[-6000:]}", pytrace=False)

    def under_way(self) -> list[str]:
        """What its ledger and kept store hold."""
        state = self.paths.state_dir
        report = inspect(f"{state}/ledger", f"{state}/kept", 0, ())
        kept = [f"{report.kept.kept} kept"] if report.kept and report.kept.kept else []
        return [file.target for file in report.under_way] + kept


class Scene:
    """A source, two movers, an end point, and what was asked of the source."""

    def __init__(self, place: Place, movers: list[Node], end: Node, nginx: LoggingNginx) -> None:
        self.place = place
        self.movers = movers
        self.end = end
        self._nginx = nginx

    def post(self) -> None:
        """Post the file whole."""
        self.place.send([self.place.write_large("d/big", SIZE)])

    def fetched_by(self, number: int) -> list[Request]:
        """Requests that one mover's host made of the source, answered in full."""
        return [
            one
            for one in self._nginx.requests()
            if one.client == ADDRESSES[number]
            and one.last is not None
            and one.sent == one.last - one.first + 1
        ]

    def arrived(self, timeout_s: float) -> None:
        """Wait until the end point has the file, whole; nothing is left anywhere."""
        self.end.wait(lambda: self.end.status().totals["files_assembled"] >= 1, "it arrives", timeout_s)
        wait_until(lambda: self.place.vhost.depth(QUEUE) == 0, 30, "the queue is empty")
        source = self.place.source / "d/big"
        assert trees.sha512(str(self.end_tree / "d/big")) == trees.sha512(str(source))

    @property
    def end_tree(self) -> Path:
        return self.place.source.with_name("end")


@contextlib.contextmanager
def scene(vhost: Vhost, docroot: DocRoot, tmp_path: Path) -> Iterator[Scene]:
    with contextlib.ExitStack() as stack:
        nginx = stack.enter_context(LoggingNginx(tmp_path / "nginx", docroot.path / "source", STREAM_RATE))
        place = Place(vhost, docroot, tmp_path / "posts", nginx.url)
        ports = [int(url.rpartition(":")[2].split("/")[0]) for url in (nginx.url, docroot.url)]
        movers = []
        for number, address in enumerate(ADDRESSES):
            namespace = stack.enter_context(Namespace())
            for port in (vhost.pump.amqp_port, *ports):
                namespace.relay(port, address)
            tree = docroot.path / f"mover{number}"
            lines = f"""broker BROKER
                exchange xinput
                queueName {QUEUE}
                subtopic #
                directory {tree}
                post_broker BROKER
                post_exchange xpublic
                post_baseUrl {docroot.url}mover{number}/
                post_baseDir {tree}
                reassemble off
                retryDelay 1
                prefetch 2
                batch 2
                streams 2"""
            home = tmp_path / f"mover{number}"
            movers.append(stack.enter_context(Node(home, vhost, "sarra/mover", lines, namespace.prefix)))
        tree = docroot.path / "end"
        lines = f"""broker BROKER
            exchange xpublic
            subtopic #
            mirror on
            directory {tree}
            housekeeping 1"""
        end = stack.enter_context(Node(tmp_path / "end", vhost, "subscribe/end", lines, []))
        lines = f"""broker BROKER
            exchange xs_tsource
            subtopic #
            post_broker BROKER
            post_exchange xinput
            segmentAt {BLOCK}"""
        stack.enter_context(Node(tmp_path / "split", vhost, "flow/split", lines, []))
        yield Scene(place, movers, end, nginx)


def test_both_carry_about_half_of_it(vhost: Vhost, docroot: DocRoot, tmp_path: Path) -> None:
    with scene(vhost, docroot, tmp_path) as its:
        its.post()
        its.arrived(240)
        shares = [mover.received() / SIZE for mover in its.movers]
        print(json.dumps({"bytes": SIZE, "shares": shares}))
        assert sum(shares) == 1.0, "nothing is fetched twice"
        assert all(0.4 <= share <= 0.6 for share in shares), shares
        its.end.wait(lambda: not its.end.under_way(), "nothing is under way")
        for mover in its.movers:
            assert mover.under_way() == []


def test_one_is_killed_in_the_middle(vhost: Vhost, docroot: DocRoot, tmp_path: Path) -> None:
    """Its parent and instances; its web server stays up, and what it had finished is fetched from there."""
    with scene(vhost, docroot, tmp_path) as its:
        its.post()
        lost, survivor = its.movers
        lost.wait(lambda: lost.received() >= 6 * BLOCK, "it has carried a tenth of it")
        lost.kill()
        its.arrived(240)
        fetched = its.fetched_by(1)
        assert len({one.first for one in fetched}) == len(fetched), "the survivor fetched nothing twice"
        assert survivor.received() == len(fetched) * BLOCK
        by_both = {one.first for one in (*its.fetched_by(0), *fetched)}
        assert by_both == set(range(0, SIZE, BLOCK))
        its.end.wait(lambda: not its.end.under_way(), "nothing is under way")
        assert survivor.under_way() == []

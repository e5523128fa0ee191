"""What an administrator does while files come: stop, reload, scale, a second host. Nothing is lost.

Nobody is killed here, except one whole host; an orderly end may not even repeat an announcement (design,
guarantee 1).
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from killkit import Mover, Place, UnwillingServer, Wire, counted
from servers import MS, DocRoot, Vhost

from perf import trees

pytestmark = [pytest.mark.chaos, pytest.mark.broker, pytest.mark.nginx]

STOP_S = 2.0
"""Issue 2, How fast: a stop under load with 16 instances takes at most this."""


@pytest.fixture
def place(vhost: Vhost, docroot: DocRoot, tmp_path: Path) -> Place:
    return Place(vhost, docroot, tmp_path)


class Stream:
    """Small files under `a/` and `b/`, written and announced by a thread until it is told to end."""

    def __init__(self, place: Place, batch: int = 20, pause_s: float = 0.05) -> None:
        self._place = place
        self._batch = batch
        self._pause_s = pause_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.sent: list[Wire] = []

    def _run(self) -> None:
        with self._place.sending() as send:
            while not self._end.wait(self._pause_s):
                first = len(self.sent)
                numbers = range(first, first + self._batch)
                batch = [self._place.write(f"{'ab'[n % 2]}/file{n}", b"%d" % n * (n % 300)) for n in numbers]
                for message in batch:
                    send(message)
                self.sent += batch

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Send until the block ends."""
        self._thread.start()
        try:
            yield
        finally:
            self._end.set()
            self._thread.join()


def check_once(place: Place, mover: Mover, sent: list[Wire]) -> None:
    place.check()
    mover.check_nothing_left()
    assert counted(place.announced()) == counted(sent)


def test_stop_and_start_under_load(place: Place) -> None:
    """Sixteen instances with hundreds of files and several large ones under way end within two seconds."""
    large = [place.write_large(f"large{n}", 24_000_000, seed=n) for n in range(4)]
    mover = Mover(place, instances=16, segmentSize="1Mi", byteRateMax="8Mi")
    stream = Stream(place, 60)
    with mover, stream.running():
        place.send(large)
        mover.wait(lambda: mover.status().totals["segments_ok"] > 4, 20, "segments come")
        stops = [mover.stop()]
        fetched = mover.under_way()
        assert any("large" in one and "assembling" in one for one in fetched)
        mover.options["byteRateMax"] = 0
        mover.start()
        mover.wait(lambda: mover.status().totals["files_ok"] > 20, 20, "files come again")
        stops.append(mover.stop())
        # The better of the two: what else this machine does at that moment is not what is asked about.
        assert min(stops) < STOP_S * MS
    with mover:
        mover.settle(len(large) + len(stream.sent))
    check_once(place, mover, large + stream.sent)


def test_reload_under_load(place: Place) -> None:
    """SIGHUP: other bindings and settings, then a file that is wrong. No moment is without a binding."""
    mover = Mover(place, instances=1)
    stream = Stream(place, 1, pause_s=0.0)
    with mover, stream.running():
        for number, subtopics in enumerate([("a.#", "b.#"), ("*.#",)]):
            mover.subtopics = list(subtopics)
            mover.options["batch"] = 50 + number
            mover.configure()
            mover.reload()
            mover.wait(mover.is_bound, 20, f"bound to {subtopics} and to nothing else")
            mover.running(1)
        mover.options["batch"] = "many"
        mover.configure()
        done = mover.command("reload", f"sarra/{mover.name}")
        assert done.returncode == 78
        assert "mover.conf" in done.stdout + done.stderr
        mover.running(1)
    mover.options["batch"] = 50
    with mover:
        mover.settle(len(stream.sent))
    check_once(place, mover, stream.sent)


def test_scale_under_load(place: Place) -> None:
    mover = Mover(place, instances=2)
    stream = Stream(place)
    with mover, stream.running():
        for count in (8, 1, 5):
            scaled = mover.command("scale", f"sarra/{mover.name}", str(count))
            assert scaled.returncode == 0, scaled.stderr
            mover.running(count)
        assert mover.process is not None
        mover.process.send_signal(signal.SIGTTIN)
        mover.running(6)
        mover.process.send_signal(signal.SIGTTOU)
        mover.running(5)
    with mover:
        mover.settle(len(stream.sent))
    check_once(place, mover, stream.sent)


def test_scale_down_while_retries_wait(vhost: Vhost, docroot: DocRoot, tmp_path: Path) -> None:
    """Whoever kept a message, those who are left try it again."""
    with UnwillingServer(docroot.path / "source") as server:
        place = Place(vhost, docroot, tmp_path, base_url=server.url)
        sent = [place.write(f"d/file{n}", os.urandom(1000)) for n in range(60)]
        mover = Mover(place, instances=8, attempts=1, batch=4, prefetch=4)
        with mover:
            place.send(sent)
            mover.wait(lambda: mover.kept() == len(sent), 20, "all messages are kept")
            mover.command("scale", f"sarra/{mover.name}", "1")
            mover.running(1)
            server.willing.set()
            mover.settle(len(sent))
        check_once(place, mover, sent)


def test_a_second_parent_is_refused(place: Place) -> None:
    sent = [place.write("file", b"x")]
    with Mover(place, instances=1) as mover:
        for verb in ("run", "start"):
            second = mover.command(verb, f"sarra/{mover.name}")
            assert second.returncode == 69
            assert f"runs already: parent pid {mover.process.pid}" in second.stdout + second.stderr
        place.send(sent)
        mover.settle(1)
    check_once(place, mover, sent)


def test_two_hosts_share_a_queue_and_one_dies(place: Place) -> None:
    """Each message goes to one of them; what the dead one had not finished, the other does."""
    one, two = (Mover(place, instances=2, host=host) for host in ("one", "two"))
    stream = Stream(place)
    with one, two:
        with stream.running():
            for mover in (one, two):
                mover.wait(
                    lambda m=mover: m.status().totals["files_ok"] > 30, 20, "it has its part of the files"
                )
            one.kill_parent()
        two.settle(len(stream.sent))
    two.check_nothing_left()
    announced = counted(place.announced())
    assert set(announced) == set(counted(stream.sent))
    # Twice only what was between the broker's confirm and its record when its host died.
    assert sum(announced.values()) - len(announced) <= 2 * 100
    source, trees_ = str(place.source), [str(mover.pump) for mover in (one, two)]
    for message in stream.sent:
        name = message["relPath"]
        there = [tree for tree in trees_ if os.path.exists(f"{tree}/{name}")]
        assert there, name
        assert all(trees.same_bytes(f"{source}/{name}", f"{tree}/{name}") for tree in there)
    # What the dead one had begun is of no use to it any more: its rows are dropped when they are an hour old.
    checked = one.command("ledger", "check", f"sarra/{one.name}")
    assert checked.returncode == 0, checked.stdout


def test_start_and_stop_as_daemons(place: Place) -> None:
    """The same through `start`, `restart` and `stop`."""
    mover = Mover(place, instances=4)
    mover.configure()
    stream = Stream(place)
    started = mover.command("start", f"sarra/{mover.name}", "--instances", "4")
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        assert mover.is_bound(), "what is announced when `start` has returned is not missed"
        mover.running(4)
        with stream.running():
            mover.wait(lambda: mover.status().totals["files_ok"] > 20, 20, "files come")
            restarted = mover.command("restart", f"sarra/{mover.name}")
            assert restarted.returncode == 0, restarted.stdout + restarted.stderr
            mover.wait(lambda: mover.status().totals["files_ok"] > 20, 20, "files come again")
        mover.settle(len(stream.sent))
    finally:
        stopped = mover.command("stop", f"sarra/{mover.name}")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    check_once(place, mover, stream.sent)

"""One file announced by two pumps: its segments come from both, each with an etag of its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from flowkit import Site, sha512
from loggingweb import LoggingNginx
from servers import wait_until
from standins import RecordingServer, StandIn
from test_flow_siblings import Sibling

from sarrapipe.shm.slots import Counter

pytestmark = [pytest.mark.broker, pytest.mark.nginx]

MIB = 1 << 20
SEGMENTS = 24
LARGE = os.urandom(4096) * 256 * SEGMENTS
LINES = "segmentSize 1MiB\nstreams 8\nattempts 2"
RATE = 4 * MIB
"""Bytes per second of a connection: a segment takes a quarter of a second."""


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


@pytest.fixture
def pumps(tmp_path):
    """Two web servers with a copy each, of different ages, so that their etags differ."""
    servers = []
    for number in range(2):
        root = tmp_path / f"root{number}"
        root.mkdir()
        (root / "big").write_bytes(LARGE)
        os.utime(root / "big", (1e9 + number, 1e9 + number))
        servers.append(LoggingNginx(tmp_path / f"nginx{number}", root, RATE))
    with servers[0], servers[1]:
        yield servers


def announce(site, server, body=LARGE, **changes):
    site.announce("big", body, put=False, baseUrl=server.url, **changes)


def ranges(server):
    """Offsets of the ranges a server has sent whole."""
    return sorted(r.first for r in server.requests() if r.status == 206 and r.sent == r.last + 1 - r.first)


def check_arrived(site, flow, tap, body=LARGE):
    assert tap.one()["identity"] == sha512(body)
    assert site.files() == {"big": body}
    site.assert_clean(flow)


def test_segments_come_from_both(site, pumps):
    tap, flow = site.tap(), site.run(lines=LINES)
    announce(site, pumps[0])
    flow.until_counted(Counter.SEGMENTS_OK)
    announce(site, pumps[1])
    flow.until_settled(2)
    first, second = ranges(pumps[0]), ranges(pumps[1])
    assert sorted(first + second) == [number * MIB for number in range(SEGMENTS)], "each of them once"
    assert len(first) >= 4
    assert len(second) >= 4
    assert flow.count(Counter.SOURCES_DROPPED) == 0
    check_arrived(site, flow, tap)


def test_an_idle_instance_uses_both_too(site, pumps):
    tap, flow = site.tap(), site.run(lines=LINES + "\nstreams 2")
    with Sibling(site) as sibling:
        announce(site, pumps[0])
        flow.until_counted(Counter.SEGMENTS_OK)
        announce(site, pumps[1])
        flow.until(lambda: ranges(pumps[1]), "the owner uses the second")
        sibling.work_announced()
        flow.until_settled(2)
        counters = sibling.stop()
    assert counters["SEGMENTS_HELPED"] >= 2
    assert "SOURCES_DROPPED" not in counters
    assert sorted(ranges(pumps[0]) + ranges(pumps[1])) == [number * MIB for number in range(SEGMENTS)]
    check_arrived(site, flow, tap)


@pytest.mark.parametrize("dies", [0, 1], ids=["the first", "the second"])
def test_when_one_of_two_dies_the_file_completes(site, pumps, dies):
    """What the survivor had sent is not fetched again; the dead one's segments under way come from it."""
    tap, flow = site.tap(), site.run(lines=LINES)
    announce(site, pumps[0])
    flow.until_counted(Counter.SEGMENTS_OK)
    announce(site, pumps[1])
    flow.until(lambda: all(ranges(pump) for pump in pumps), "both have sent something")
    kill(pumps[dies])
    flow.until_settled(2)
    survivor = ranges(pumps[1 - dies])
    assert len(survivor) == len(set(survivor)), "no segment of the survivor is fetched twice"
    assert set(survivor) | set(ranges(pumps[dies])) == {number * MIB for number in range(SEGMENTS)}
    assert flow.count(Counter.SOURCES_DROPPED) == 1
    assert flow.count(Counter.MESSAGES_FAILED) == 0
    check_arrived(site, flow, tap)


def kill(server):
    """End nginx and its worker at once."""
    parent = server._process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    for pid in (parent, *map(int, children)):
        os.kill(pid, signal.SIGKILL)
    server._process.wait(10)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), 10, "its worker is gone")


class Slow(StandIn):
    """Serves each range after a little while."""

    def answer(self, handler, headers):
        self.ending.wait(0.1)
        super().answer(handler, headers)


def begun_with(site, flow, server):
    announce(site, server)
    flow.until_counted(Counter.SEGMENTS_OK)


def test_a_source_of_another_size_is_left_out(site, caplog):
    tap, flow = site.tap(), site.run(lines=LINES + "\nstreams 4")
    with Slow(LARGE) as right, RecordingServer(LARGE + b"more") as other:
        begun_with(site, flow, right)
        announce(site, other)
        flow.until_settled(2)
        assert other.requests
    assert flow.count(Counter.SOURCES_DROPPED) == 1
    assert f"{other.url}big is left out, another source goes on: source has" in caplog.text
    check_arrived(site, flow, tap)


def test_a_source_that_refuses_is_left_out(site):
    class Refusing(StandIn):
        def answer(self, handler, headers):
            self.head(handler, 403, 0)

    tap, flow = site.tap(), site.run(lines=LINES + "\nstreams 4")
    with Slow(LARGE) as right, Refusing() as other:
        begun_with(site, flow, right)
        announce(site, other)
        flow.until_settled(2)
        assert 1 <= len(other.requests) <= 4
        assert len(right.requests) == SEGMENTS
    assert flow.count(Counter.SOURCES_DROPPED) == 1
    check_arrived(site, flow, tap)


def test_a_second_source_with_other_bytes_does_no_harm(site):
    """Nobody can tell before the whole is there which one is wrong: then each is tried by itself."""
    tap, flow = site.tap(), site.run(lines=LINES + "\nstreams 4\nattempts 4")
    with Slow(LARGE) as right, RecordingServer(bytes(len(LARGE))) as wrong:
        begun_with(site, flow, right)
        announce(site, wrong)
        flow.until_settled(2, timeout_s=40)
    assert flow.count(Counter.ERRORS_IDENTITY) >= 1
    check_arrived(site, flow, tap)


def test_a_local_path_is_no_further_source(site):
    """A path of this host that a message names is read only as its own file, after the checks for that."""
    path = site.directory / "elsewhere"
    path.mkdir()
    (path / "big").write_bytes(bytes(len(LARGE)))
    tap, flow = site.tap(), site.run(lines=LINES)
    with Slow(LARGE) as right:
        begun_with(site, flow, right)
        site.announce("big", LARGE, put=False, baseUrl=f"file:{path}/")
        flow.until_settled(2)
        assert len(right.requests) == SEGMENTS
    assert flow.count(Counter.ERRORS_IDENTITY) == 0
    check_arrived(site, flow, tap)

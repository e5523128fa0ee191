"""Two instances of one flow: segments of a large file, and what one leaves to the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from flowkit import Site, sha512
from servers import MS
from standins import RecordingServer, SlowServer, StandIn

from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

MIB = 1 << 20
LARGE = os.urandom(4096) * 256 * 12  # 12 MiB
LINES = "segmentSize 1MiB\nstreams 2"


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


class Sibling:
    """Another instance of the flow `t` of a site, as it is configured now; it takes messages if told to."""

    def __init__(self, site: Site, role: str = "help") -> None:
        program = Path(__file__).parent.parent / "flow_sibling.py"
        self._process = subprocess.Popen(
            [sys.executable, program, site.home.config_dir, site.home.state_dir, "t", role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Sibling:
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(10 * MS)
        self._process.stdin.close()
        self._process.stdout.close()

    def work_announced(self) -> None:
        self._process.stdin.write("work\n")
        self._process.stdin.flush()

    def stop(self) -> dict[str, int]:
        """End it in good order; return its counters."""
        self._process.stdin.close()
        counters = json.loads(self._process.stdout.readline())
        assert self._process.wait(10 * MS) == 0
        return counters


class SlowRanges(StandIn):
    """Serves each range after a little while, so that there is something to share."""

    def __init__(self, body: bytes, pause_s: float) -> None:
        super().__init__(body)
        self.pause_s = pause_s

    def answer(self, handler, headers):
        self.ending.wait(self.pause_s)
        super().answer(handler, headers)

    def offsets(self):
        return sorted(self.span(request.headers)[0] for request in self.requests)


def test_an_idle_instance_joins_a_siblings_large_file(site):
    tap = site.tap()
    announced = []
    flow = site.run(lines=LINES, announce_work=lambda: announced.append(1))
    with Sibling(site) as sibling, SlowRanges(LARGE, 0.1) as server:
        site.announce("big", LARGE, put=False, baseUrl=server.url)
        flow.until_counted(Counter.SEGMENTS_OK)
        assert announced, "the siblings are told"
        sibling.work_announced()
        flow.until_settled(1)
        assert server.offsets() == [number * MIB for number in range(12)], "no segment is fetched twice"
        counters = sibling.stop()
    assert counters["SEGMENTS_HELPED"] >= 2
    assert flow.count(Counter.SEGMENTS_OK) + counters["SEGMENTS_HELPED"] == 12
    assert tap.one()["identity"] == sha512(LARGE)
    assert site.files() == {"big": LARGE}
    assert flow.count(Counter.FILES_VERIFIED) == 1
    site.assert_clean(flow)


def test_refusals_met_by_either_instance_are_no_harm_to_the_file(site):
    class Moody(SlowRanges):
        """Refuses every third request once there is a helper."""

        def answer(self, handler, headers):
            if helping and len(self.requests) % 3 == 0:
                self.head(handler, 500, 0)
            else:
                super().answer(handler, headers)

    helping = []
    tap = site.tap()
    flow = site.run(lines=LINES + "\nattempts 10")
    with Sibling(site) as sibling, Moody(LARGE, 0.05) as server:
        site.announce("big", LARGE, put=False, baseUrl=server.url)
        flow.until_counted(Counter.SEGMENTS_OK)
        helping.append(True)
        sibling.work_announced()
        flow.until_settled(1)
        sibling.stop()
    assert tap.paths() == ["big"]
    assert site.files() == {"big": LARGE}
    site.assert_clean(flow)


def test_an_instance_goes_on_with_what_a_killed_one_had_under_way(site):
    """The owner dies; its message comes to another instance, which fetches only what is missing."""
    flow = site.run(lines=LINES)
    with SlowRanges(LARGE, 0.02) as server:
        site.announce("big", LARGE, put=False, baseUrl=server.url)
        flow.until_counted(Counter.SEGMENTS_OK, 4)
        flow.close(stop=False)
        done = flow.count(Counter.SEGMENTS_OK)
        tap = site.tap()
        again = site.run(lines=LINES)
        again.until_settled(1)
        assert again.count(Counter.SEGMENTS_OK) == 12 - done
    assert again.count(Counter.FILES_RESUMED) == 1
    assert tap.paths() == ["big"]
    site.assert_clean(again)


def test_a_message_that_a_sibling_works_on_waits_for_it(site):
    """Two announcements of one content, one with each instance: one transfer, one announcement."""
    data = b"x" * 3000
    tap = site.tap()
    flow = site.run(lines="nodupe_ttl 300\nprefetch 1")
    with SlowServer(data, piece=1000, pause_s=0.05) as server, RecordingServer(data) as other:
        site.publish(site.fields("f", data, baseUrl=server.url))
        flow.until(lambda: server.requests, "under way")
        site.publish(site.fields("f", data, baseUrl=other.url))
        flow.until_settled(2)
        assert other.requests == []
    assert tap.paths() == ["f"]
    site.assert_clean(flow)

"""A large transfer shows how far it is, on the instance's page and in `status`, while it runs."""

from __future__ import annotations

import json
import os
import threading

import pytest
from blockkit import Posted
from flowkit import Running, Site
from killkit import Mover, Place
from servers import wait_until
from standins import StandIn

from sarrapipe.shm.moving import Moving
from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

MIB = 1 << 20
SEGMENTS = 6
HALF = SEGMENTS // 2
DATA = os.urandom(1024) * 1024 * SEGMENTS
LINES = "segmentSize 1MiB\nstreams 2\nstreamsStart 2"


class Holding(StandIn):
    """Serves the first half; what follows only when it is let go."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self.go = threading.Event()

    def answer(self, handler, headers):
        span, half = self.span(headers), len(self.body) // 2
        if span is None:
            self.head(handler, 200, len(self.body))
            handler.wfile.write(self.body[:half])
            self.hold()
            handler.wfile.write(self.body[half:])
            return
        if span[0] >= half:
            self.hold()
        super().answer(handler, headers)

    def hold(self):
        while not (self.go.wait(0.05) or self.ending.is_set()):
            pass


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


def settled(site: Site, flow: Running) -> None:
    """It arrives, and nothing is told of it any more."""
    flow.until(lambda: not flow.moving(), "it is through")  # each look lets a second pass, for the byte rate
    flow.until_settled(1)
    assert flow.moving() == []
    assert site.files()["d/big"] == DATA


def test_segments_streams_and_bytes_are_those_of_now(site):
    with Holding(DATA) as server:
        flow = site.run(lines=LINES)
        assert flow.moving() == []
        site.announce("d/big", DATA, put=False, baseUrl=server.url)
        flow.until_counted(Counter.SEGMENTS_OK, HALF)
        flow.until(lambda: flow.moving()[0].streams == 2, "two are held")
        (one,) = flow.moving()
        assert (one.target, one.source) == (str(site.dest / "d/big"), server.url.rstrip("/"))
        assert (one.size, one.done, one.partial) == (len(DATA), len(DATA) // 2, 0)
        assert (one.segments, one.segments_done) == (SEGMENTS, HALF)
        server.go.set()
        settled(site, flow)


def test_a_file_in_one_piece(site):
    with Holding(DATA) as server:
        flow = site.run(lines="segmentSize 1GiB")
        site.announce("d/big", DATA, put=False, baseUrl=server.url)
        gathered = 1 << 18  # so much may have come and is not written yet
        flow.until(lambda: any(one.partial >= HALF * MIB - gathered for one in flow.moving()), "half came")
        (one,) = flow.moving()
        assert (one.size, one.done, one.segments, one.streams) == (len(DATA), 0, 1, 1)
        server.go.set()
        settled(site, flow)


@pytest.mark.parametrize("segment", ["1MiB", "1GiB"])
@pytest.mark.parametrize("component", ["sender", "sarra"])
def test_a_file_that_is_sent_or_relayed(site, component, segment):
    lines = f"sendTo file://{site.dest}\nsegmentSize {segment}\nstreams 2\nbyteRateMax 1M"
    if component == "sarra":
        lines += "\ndownload stream"
    flow = site.run(component, lines, limiter=site.limiter(1_000_000))
    site.announce("d/big", DATA)
    seen: list[Moving] = []

    def looked() -> bool:
        seen.extend(flow.moving())
        return len({one.done + one.partial for one in seen}) > 1

    flow.until(looked, "two looks tell of more and more")
    assert {(one.target, one.size) for one in seen} == {(str(site.dest / "d/big"), len(DATA))}
    assert any(one.bytes_per_s > 0 for one in seen)
    counts = [one.done + one.partial for one in seen]
    assert counts == sorted(counts)
    assert counts[-1] <= len(DATA)
    assert {one.segments for one in seen} == {SEGMENTS if segment == "1MiB" else 1}
    settled(site, flow)


def test_a_file_in_blocks(site):
    with Holding(DATA) as server:
        flow = site.run(lines="reassemble on\nstreams 2")
        site.publish_all(Posted(site, "d/big", DATA, MIB, put=False).messages(baseUrl=server.url))
        flow.until_counted(Counter.SEGMENTS_OK, HALF)
        flow.until(lambda: flow.moving()[0].segments_done == HALF, "half is written")
        (one,) = flow.moving()
        assert (one.size, one.done, one.segments) == (len(DATA), len(DATA) // 2, SEGMENTS)
        server.go.set()
        flow.until_settled(SEGMENTS)
        assert flow.moving() == []


def test_status_shows_it_while_it_runs_and_not_after(vhost, docroot, tmp_path):
    """As JSON and as a table."""
    place = Place(vhost, docroot, tmp_path)
    lines = {"segmentSize": "1MiB", "streams": 2, "streamsStart": 2}
    with Holding(DATA) as server, Mover(place, instances=2, **lines) as mover:
        place.send([place.write("d/big", DATA) | {"baseUrl": server.url}])
        done = [3]
        wait_until(lambda: [one.segments_done for one in mover.status().transfers] == done, 20, "half of it")
        (status,) = json.loads(mover.command("status", "--json").stdout)
        (one,) = status["transfers"]
        assert one["target"].endswith("/d/big")
        assert one["source"] == server.url.rstrip("/")
        assert (one["done"], one["size"], one["segments"]) == (3 * MIB, len(DATA), SEGMENTS)
        assert "3/6" in mover.command("status").stdout
        server.go.set()
        wait_until(lambda: place.announced_count() == 1, 20, "it is announced")
        wait_until(lambda: not mover.status().transfers, 20, "nothing is under way")

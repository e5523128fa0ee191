"""A wall clock set ahead or back by a day, with files under way, kept and incomplete: nothing is lost."""

from __future__ import annotations

import os
import threading

import pytest
from blockkit import Posted
from flowkit import Site
from standins import StandIn

from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

MIB = 1 << 20
DAY_S = 86_400.0
DATA = os.urandom(1024) * 1024 * 6
LINES = "segmentSize 1MiB\nstreams 2\nstreamsStart 2\nnodupe_ttl 300"
STEPS = pytest.mark.parametrize("step_s", [DAY_S, -DAY_S, 3600.0, -3600.0])


class Holding(StandIn):
    """Serves the first half; the other when it is let go, or an error before that if it is broken."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self.go = threading.Event()
        self.broken = False

    def answer(self, handler, headers):
        span = self.span(headers)
        if self.broken:
            self.head(handler, 503, 0)
            return
        if span is not None and span[0] >= len(self.body) // 2:
            while not (self.go.wait(0.05) or self.ending.is_set()):
                pass
        super().answer(handler, headers)


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


@STEPS
def test_a_large_file_under_way_goes_on(site, step_s):
    """Its segments stay claimed and are fetched once; housekeeping takes nothing of it for old."""
    with Holding(DATA) as server:
        tap, flow = site.tap(), site.run(lines=f"{LINES}\nhousekeeping 10")
        site.announce("d/big", DATA, put=False, baseUrl=server.url)
        flow.until_counted(Counter.SEGMENTS_OK, 3)
        site.clock.step(step_s)
        flow.advance(11.0, turns=4)
        server.go.set()
        flow.until_settled(1)
        assert flow.count(Counter.BYTES_RECEIVED) == len(DATA)
        assert tap.one().rel_path == "d/big"
        assert site.files()["d/big"] == DATA
        site.assert_clean(flow)


@STEPS
def test_what_is_kept_is_tried_again_soon(site, step_s):
    """Not only when the day comes again on which it was due."""
    with Holding(DATA) as server:
        server.broken = True
        tap, flow = site.tap(), site.run(lines="segmentSize 1GiB\nattempts 1")
        site.announce("small", b"some", put=False, baseUrl=server.url)
        flow.until(flow.kept, "it is kept")
        server.broken, server.body = False, b"some"
        site.clock.step(step_s)
        flow.advance(5.0)
        flow.until(lambda: not flow.kept(), "it was tried again")
        assert tap.paths() == ["small"]
        assert site.files() == {"small": b"some"}
        site.assert_clean(flow)


@STEPS
def test_blocks_that_wait_for_others_are_put_together(site, step_s):
    tap, flow = site.tap(), site.run(lines="reassemble on\nidentity sha512\nblockTimeout 7d\nhousekeeping 10")
    data = os.urandom(2560)
    posted = Posted(site, "d/big", data, 1000)
    site.publish_all(posted.messages((0, 2)))
    flow.until_counted(Counter.SEGMENTS_OK, 2)
    site.clock.step(step_s)
    flow.advance(11.0, turns=4)
    site.publish(posted.message(1))
    # Those that waited may be in the kept store by now, acknowledged: what counts is that nothing is left.
    flow.until(lambda: flow.count(Counter.FILES_ASSEMBLED) and not flow.kept(), "it is put together")
    flow.until(lambda: not flow.flow.in_hand, "nothing is in hand")
    assert tap.one().rel_path == "d/big"
    assert site.files()["d/big"] == data
    site.assert_clean(flow)

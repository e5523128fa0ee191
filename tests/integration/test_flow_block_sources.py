"""Blocks that one source cannot give come from another; those of one file are of one version (R143, R153)."""

from __future__ import annotations

import os

import pytest
from blockkit import Posted
from flowkit import Site, leftovers, sha512
from standins import RecordingServer, StandIn, StatusServer

from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

DATA = os.urandom(5560)
BLOCK = 1000
LINES = "identity sha512\nattempts 2\nblockTimeout 15m\nhousekeeping 10m"
UNKNOWN = {"method": "cod", "value": "sha512"}


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


class FirstBlockOnly(StandIn):
    """Serves the first block of a file, and has nothing else of it."""

    def answer(self, handler, headers):
        if self.span(headers) == (0, BLOCK - 1):
            super().answer(handler, headers)
        else:
            self.head(handler, 404, 0)


class Replaced(StandIn):
    """Serves one version to its first few requests and another to the rest; knows no preconditions."""

    def __init__(self, old: bytes, new: bytes, after: int) -> None:
        super().__init__(old)
        self._new = new
        self._after = after

    def answer(self, handler, headers):
        first, last = self.span(headers)
        is_new = len(self.requests) > self._after
        body, tag = (self._new, '"v2"') if is_new else (self.body, '"v1"')
        span = self.content_range(first, last)
        self.head(handler, 206, last + 1 - first, Content_Range=span, ETag=tag)
        handler.wfile.write(body[first : last + 1])


def assert_whole(site, tap, flow, data=DATA):
    message = tap.one()
    assert site.files()["d/big"] == data
    assert message["identity"] == sha512(data)
    site.assert_clean(flow)


def pass_time(flow, until=lambda: False):
    """Let time pass in steps in which resting blocks are asked about: longer than twice `blockTimeout`."""
    for _ in range(6):
        if not until():
            flow.advance(601, turns=4)


def until_quiet(flow):
    flow.until(lambda: not flow.flow.in_hand and not flow.kept(), "all is settled")


def test_missing_blocks_are_asked_of_every_source(site):
    tap, flow = site.tap(), site.run(lines=LINES)
    posted = Posted(site, "d/big", DATA, BLOCK, put=False)
    with FirstBlockOnly(DATA) as poor, RecordingServer(DATA) as rich:
        site.publish(posted.message(0, baseUrl=poor.url))
        site.publish(posted.message(5, baseUrl=rich.url))
        flow.until_counted(Counter.SEGMENTS_OK, 2)
        pass_time(flow, lambda: len(poor.requests) > 1)
        flow.until_counted(Counter.FILES_ASSEMBLED)
        until_quiet(flow)
        assert len(poor.requests) > 1, "it was asked too"
        assert len(rich.requests) == 5, "five blocks, none twice"
    assert_whole(site, tap, flow)


def test_blocks_that_no_source_has_are_reported(site, caplog):
    tap, flow = site.tap(), site.run(lines=LINES)
    posted = Posted(site, "d/big", DATA, BLOCK, put=False)
    with FirstBlockOnly(DATA) as one, FirstBlockOnly(DATA) as two:
        site.publish(posted.message(0, baseUrl=one.url))
        site.publish(posted.message(0, baseUrl=two.url, pubTime="20990102T030405"))
        flow.until_counted(Counter.SEGMENTS_OK)
        pass_time(flow, lambda: flow.count(Counter.MESSAGES_EXPIRED))
        assert flow.count(Counter.MESSAGES_EXPIRED) == 2
        assert {request.path for request in (*one.requests, *two.requests)} == {"/d/big"}
        assert len(one.requests) > 1
        assert len(two.requests) > 1
    assert "given up" in caplog.text
    until_quiet(flow)
    assert tap.take() == []
    flow.close()
    assert leftovers(flow.config) == {}
    assert site.files() in ({}, {"d": None})


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_block_that_fails_at_one_host_is_tried_at_the_others(site, order):
    """Two hosts announce the same blocks in files of their own; one has lost them."""
    tap, flow = site.tap(), site.run(lines=LINES)
    posted = Posted(site, "d/big", DATA[:2000], BLOCK, put=False)
    with StatusServer(404) as lost:
        for number in range(2):
            posted.put_block(number)
            urls = [lost.url, site.docroot.url]
            site.publish_all(posted.message(number, "separate", baseUrl=urls[n]) for n in order)
        flow.until_counted(Counter.FILES_ASSEMBLED)
        until_quiet(flow)
    assert_whole(site, tap, flow, DATA[:2000])


def test_the_same_for_a_mover_that_forwards_blocks(site):
    tap, flow = site.tap(), site.run(lines="reassemble off\nattempts 1")
    posted = Posted(site, "d/big", DATA[:2000], BLOCK, put=False)
    posted.put_block(1)
    with StatusServer(404) as lost:
        site.publish(posted.message(1, "separate", baseUrl=lost.url))
        site.publish(posted.message(1, "separate"))
        flow.until_settled(2)
    assert tap.one().blocks.number == 1
    site.assert_clean(flow)


def test_a_block_lost_at_its_host_comes_from_one_that_has_the_whole_file(site):
    tap, flow = site.tap(), site.run(lines=LINES)
    posted = Posted(site, "d/big", DATA, BLOCK)
    with StatusServer(404) as lost:
        site.publish_all(posted.messages((0, 1, 2, 4, 5)))
        flow.until_counted(Counter.SEGMENTS_OK, 5)
        site.publish(posted.message(3, "separate", baseUrl=lost.url))
        flow.until_settled(6)
        assert len(lost.requests) == 2
    assert flow.count(Counter.MESSAGES_REJECTED) == 0
    assert_whole(site, tap, flow)


def test_a_file_replaced_between_two_instances_is_not_mixed(site):
    """The first instance pins its version; the next one finds another, and no digest would tell."""
    tap = site.tap()
    posted = Posted(site, "d/big", DATA, BLOCK)
    first = site.run(lines=LINES)
    site.publish_all(posted.messages((0, 1, 2), identity=UNKNOWN))
    first.until_counted(Counter.SEGMENTS_OK, 3)
    first.close(stop=False)
    path = site.put("d/big", os.urandom(len(DATA)))
    os.utime(path, (10**9, 10**9))
    again = site.run(lines=LINES)
    site.publish_all(posted.messages((3, 4, 5), identity=UNKNOWN))
    again.until_counted(Counter.MESSAGES_REJECTED, 3)
    assert again.count(Counter.ERRORS_CHANGED) >= 3
    assert again.count(Counter.SEGMENTS_OK) == 0
    pass_time(again, lambda: again.count(Counter.MESSAGES_EXPIRED))
    until_quiet(again)
    assert tap.take() == []
    again.close()
    assert leftovers(again.config) == {}
    assert site.files() in ({}, {"d": None})


@pytest.mark.parametrize("after", [1, 3])
def test_what_came_of_another_version_is_not_marked(site, after):
    """The server answers for whatever it has: the version in its answer decides, before the mark."""
    tap = site.tap()
    posted = Posted(site, "d/big", DATA, BLOCK, put=False)
    with Replaced(DATA, os.urandom(len(DATA)), after) as server:
        first = site.run(lines=LINES)
        some = {"identity": UNKNOWN, "baseUrl": server.url}
        site.publish_all(posted.messages(range(after), **some))
        first.until_counted(Counter.SEGMENTS_OK, after)
        first.close(stop=False)
        again = site.run(lines=LINES)
        site.publish_all(posted.messages(range(after, 6), **some))
        again.until_counted(Counter.MESSAGES_REJECTED, 6 - after)
    assert again.count(Counter.SEGMENTS_OK) == 0
    assert tap.take() == []
    assert "d/big" not in site.files()

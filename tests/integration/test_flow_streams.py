"""Segments of a large file: what stalls, what straggles, and how many are fetched at a time."""

from __future__ import annotations

import os

import pytest
from flowkit import Site, sha512
from rangeservers import Ranges, Stalling
from standins import StandIn

from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

MIB = 1 << 20
LARGE = os.urandom(4096) * 256 * 12  # 12 MiB
LINES = "segmentSize 1MiB\ntimeout 1"
FIRST, MIDDLE, LAST = 0, 5 * MIB, 11 * MIB
HALF = MIB // 2


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


def announce(site, server, body=LARGE):
    site.announce("big", body, put=False, baseUrl=server.url)


def check_arrived(site, flow, tap):
    assert tap.one()["identity"] == sha512(LARGE)
    assert site.files() == {"big": LARGE}
    site.assert_clean(flow)


def others(server, *offsets):
    return {offset: count for offset, count in server.asked.items() if offset not in offsets}


# ---- stalls


def test_a_stalled_stream_gives_up_its_segment_only(site):
    """The others go on meanwhile, and are fetched once."""
    tap, flow = site.tap(), site.run(lines=LINES + "\nstreams 2")
    with Stalling(LARGE, 0.3, {FIRST: 1}) as server:
        announce(site, server)
        flow.until_settled(1)
        assert server.asked[FIRST] == 2
        assert others(server, FIRST) == {number * MIB: 1 for number in range(1, 12)}
    assert flow.count(Counter.SEGMENTS_RETRIED) == 1
    assert flow.count(Counter.ERRORS_TRANSFER) == 1
    assert flow.count(Counter.MESSAGES_FAILED) == 0, "the file did not fail"
    check_arrived(site, flow, tap)


def test_when_a_server_answers_again_the_file_goes_on(site):
    """All streams stall, for fewer times than `attempts`; what had come before is not fetched again."""
    tap, flow = site.tap(), site.run(lines=LINES + "\nstreams 4")
    stalled = {number * MIB: 2 for number in range(4, 8)}
    with Stalling(LARGE, 0.0, stalled) as server:
        announce(site, server)
        flow.until_settled(1)
        assert others(server, *stalled) == {n * MIB: 1 for n in range(12) if n * MIB not in stalled}
    assert flow.count(Counter.FILES_RESUMED) == 0
    check_arrived(site, flow, tap)


def test_a_segment_that_always_stalls_fails_the_file_after_some_attempts(site):
    tap, flow = site.tap(), site.run(lines=LINES + "\nattempts 2")
    with Stalling(LARGE, 0.0, {MIDDLE: 100}) as server:
        announce(site, server)
        flow.until(lambda: len(flow.kept()) == 1, "the message is kept for later")
        # Each attempt may have a second transfer beside it, as the segment straggles.
        assert 2 <= server.asked[MIDDLE] <= 4
        assert set(others(server, MIDDLE).values()) == {1}
        server.bad.clear()
        flow.advance(10)
        flow.until_counted(Counter.FILES_OK)
        flow.until(lambda: not flow.kept(), "it is settled")
        assert set(others(server, MIDDLE).values()) == {1}, "what was written is not fetched again"
    check_arrived(site, flow, tap)


# ---- stragglers


def test_a_straggling_last_segment_is_fetched_twice(site):
    """Long before its `timeout`."""
    tap, flow = site.tap(), site.run(lines="segmentSize 1MiB\ntimeout 300")
    with Stalling(LARGE, 0.0, {LAST: 1}) as server:
        announce(site, server)
        flow.until_settled(1)
        assert server.asked[LAST] == 2
        assert set(others(server, LAST).values()) == {1}
    assert flow.count(Counter.SEGMENTS_HEDGED) == 1
    assert flow.count(Counter.SEGMENTS_OK) == 12
    assert flow.count(Counter.SEGMENTS_RETRIED) == 0
    check_arrived(site, flow, tap)


def test_the_first_transfer_may_still_win(site):
    class LateThenNever(Stalling):
        """Answers late the first time; the second time it stalls."""

        def misbehave(self, handler, headers):
            if self.asked[LAST] == 1:
                self.ending.wait(1.5)
                StandIn.answer(self, handler, headers)
            else:
                super().misbehave(handler, headers)

    tap, flow = site.tap(), site.run(lines="segmentSize 1MiB\ntimeout 300")
    with LateThenNever(LARGE, 0.0, {LAST: 2}) as server:
        announce(site, server)
        flow.until_settled(1)
        assert server.asked[LAST] == 2
    assert flow.count(Counter.SEGMENTS_HEDGED) == 1
    check_arrived(site, flow, tap)


def test_when_the_first_transfer_fails_the_second_goes_on(site):
    class Refusing(Stalling):
        """Breaks the first transfer once the second has begun."""

        def misbehave(self, handler, headers):
            first, last = self.span(headers)
            self.head(
                handler, 206, last + 1 - first, Content_Range=self.content_range(first, last), ETag='"v1"'
            )
            handler.wfile.flush()
            while self.asked[LAST] < 2 and not self.ending.wait(0.02):
                pass
            handler.close_connection = True

        def answer(self, handler, headers):
            self.pause_s = 0.5 if self.asked[LAST] else 0.0
            super().answer(handler, headers)

    tap, flow = site.tap(), site.run(lines="segmentSize 1MiB\ntimeout 300")
    with Refusing(LARGE, 0.0, {LAST: 1}) as server:
        announce(site, server)
        flow.until_settled(1)
        assert server.asked[LAST] == 2
    assert flow.count(Counter.SEGMENTS_RETRIED) == 0
    check_arrived(site, flow, tap)


def test_what_the_loser_sends_late_does_not_touch_the_file(site):
    """Other bytes come on the first connection as soon as the second has answered."""

    class Poisoning(Stalling):
        def misbehave(self, handler, headers):
            first, last = self.span(headers)
            self.head(
                handler, 206, last + 1 - first, Content_Range=self.content_range(first, last), ETag='"v1"'
            )
            handler.wfile.write(b"?" * HALF)
            while self.asked[LAST] < 2 and not self.ending.wait(0.02):
                pass
            handler.wfile.write(b"?" * (HALF // 2))
            self.ending.wait(0.3)
            handler.wfile.write(b"?" * (HALF // 2))

    tap, flow = site.tap(), site.run(lines="segmentSize 1MiB\ntimeout 300")
    with Poisoning(LARGE, 0.0, {LAST: 1}) as server:
        announce(site, server)
        flow.until_settled(1)
    assert flow.count(Counter.SEGMENTS_HEDGED) == 1
    assert flow.count(Counter.ERRORS_IDENTITY) == 0
    check_arrived(site, flow, tap)


@pytest.mark.parametrize(("scratch_bytes", "at_once"), [(MIB, 1), (64 * MIB, 3)])
def test_second_transfers_are_bounded_in_memory(site, monkeypatch, scratch_bytes, at_once):
    """Three straggle; each has its second transfer, all at once or one after the other."""

    class Slowly(Stalling):
        """Takes its time over second transfers, and counts those that are under way."""

        seconds = most_seconds = 0

        def answer(self, handler, headers):
            again = self.asked[self.span(headers)[0]] > 0
            with self.lock:
                self.seconds += again
                self.most_seconds = max(self.most_seconds, self.seconds)
            self.ending.wait(1.0 if again else 0.0)
            with self.lock:
                self.seconds -= again
            super().answer(handler, headers)

    monkeypatch.setattr("sarrapipe.flow.watch.MOST_SCRATCH_BYTES", scratch_bytes)
    tap, flow = site.tap(), site.run(lines="segmentSize 1MiB\ntimeout 300")
    late = {number * MIB: 1 for number in (3, 7, 11)}
    with Slowly(LARGE, 0.0, late) as server:
        announce(site, server)
        flow.until_settled(1)
        assert {server.asked[offset] for offset in late} == {2}
        assert server.most_seconds == at_once
    assert flow.count(Counter.SEGMENTS_HEDGED) == 3
    check_arrived(site, flow, tap)


# ---- how many


def test_it_begins_with_few_streams_and_takes_more_where_that_gains(site):
    body = LARGE * 6
    tap, flow = site.tap(), site.run(lines="segmentSize 1MiB")
    with Ranges(body, 0.1) as server:
        announce(site, server, body)
        flow.until(lambda: server.most, "it has begun")
        assert server.most <= 4
        flow.until_settled(1)
        assert server.most == 16
    assert tap.one()["identity"] == sha512(body)
    site.assert_clean(flow)


@pytest.mark.parametrize(
    ("lines", "most"),
    [
        ("streams 16\nstreamsStart 16", 12),
        ("streams 3", 3),
        ("streamsPerHost 2", 2),
        ("streamsFlow 2", 2),
        ("streamsPerHost 8\ninstances 4", 2),
    ],
)
def test_options_bound_the_streams(site, lines, most):
    tap, flow = site.tap(), site.run(lines=f"segmentSize 1MiB\n{lines}")
    with Ranges(LARGE, 0.2) as server:
        announce(site, server)
        flow.until_settled(1)
        assert server.most == most
    check_arrived(site, flow, tap)


def test_one_host_leaves_streams_to_another(site):
    """`streamsPerHost` holds for small files as well."""
    small = b"x" * 1000

    class Small(Ranges):
        def span(self, headers):
            return super().span(headers) or (0, len(self.body) - 1)

        def content_range(self, first, last):
            return f"bytes {first}-{last}/{len(self.body)}"

    class Whole(Small):
        def head(self, handler, status, length, **headers):
            super().head(handler, 200, length, ETag='"v1"')

    flow = site.run(lines="streamsPerHost 3")
    with Whole(small, 0.2) as one, Whole(small, 0.2) as other:
        for number in range(12):
            site.announce(f"one{number}", small, put=False, baseUrl=one.url)
            site.announce(f"other{number}", small, put=False, baseUrl=other.url)
        flow.until_settled(24)
        assert (one.most, other.most) == (3, 3)
    site.assert_clean(flow)


# ---- how far


SMALLER = bytes(32 * MIB)
LARGER = bytes(64 * MIB)


def lengths(server, name):
    spans = [server.span(request.headers) for request in server.requests if request.path == name]
    return {last + 1 - first for first, last in spans}


def test_segments_of_a_far_remote_are_longer_once_that_is_known(site):
    flow = site.run(lines="streams 2")
    with Ranges(SMALLER, 0.2) as server:
        announce(site, server, SMALLER)
        flow.until_settled(1)
        assert lengths(server, "/big") == {8 * MIB}
        server.body = LARGER
        site.announce("larger", LARGER, put=False, baseUrl=server.url)
        flow.until_settled(2)
        assert lengths(server, "/larger") == {16 * MIB}, "no longer than leaves two for each stream"
    site.assert_clean(flow)


def test_whoever_goes_on_keeps_the_segments_as_they_were_cut(site):
    """The next owner knows how far the source is, and would have cut the file otherwise."""
    flow = site.run(lines="streams 2")
    with Ranges(LARGER, 0.2) as server:
        announce(site, server, LARGER)
        flow.until_counted(Counter.SEGMENTS_OK, 3)
        flow.close(stop=False)
        done = flow.count(Counter.SEGMENTS_OK)
        again = site.run(lines="streams 2", wait=False)
        known = flow.assembled.segments.watch.remotes
        assert known.segment_size(len(LARGER), server.url) == 16 * MIB
        again.assembled.segments.watch.remotes = known
        again.until_settled(1)
        assert again.count(Counter.SEGMENTS_OK) == 8 - done
        assert lengths(server, "/big") == {8 * MIB}
    assert again.count(Counter.FILES_RESUMED) == 1
    site.assert_clean(again)

"""What could not be done now is done later: kept messages, resumed files, stops and restarts."""

from __future__ import annotations

import os
import time

import pytest
from flowkit import Site, leftovers, sha512
from servers import MS
from standins import RecordingServer, SlowServer, StallingServer, StandIn

from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

DATA = b"some data"
MIB = 1 << 20
LARGE = os.urandom(4096) * 256 * 8  # 8 MiB


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


class SwitchedServer(StandIn):
    """Serves while it is on; answers 503 while it is off."""

    on = True

    def answer(self, handler, headers):
        if self.on:
            super().answer(handler, headers)
        else:
            self.head(handler, 503, 0)


class FromSegmentServer(RecordingServer):
    """Serves ranges below an offset; those above stall until the server ends, or are refused."""

    def __init__(self, body: bytes, below: int, *, refuses: bool = False) -> None:
        super().__init__(body)
        self.below = below
        self.refuses = refuses

    def answer(self, handler, headers):
        first, _ = self.span(headers) or (0, 0)
        if first >= self.below and self.refuses:
            self.head(handler, 503, 0)
        elif first >= self.below:
            self.ending.wait()
            handler.close_connection = True
        else:
            super().answer(handler, headers)


def test_a_server_that_was_down_delivers_when_it_comes_back(site):
    tap, flow = site.tap(), site.run(lines="attempts 1")
    with SwitchedServer(DATA) as server:
        server.on = False
        for number in range(5):
            site.announce(f"f{number}", DATA, put=False, baseUrl=server.url)
        flow.until(lambda: len(flow.kept()) == 5, "kept")
        assert flow.assembled.settlement.acknowledged == 5
        assert site.depth(flow.config.subscriptions[0].queue_name) == 0
        assert tap.take() == []
        flow.advance(2)
        flow.until(lambda: flow.count(Counter.MESSAGES_FAILED) == 10, "tried again")
        assert flow.count(Counter.MESSAGES_RETRIED) == 5
        assert flow.count(Counter.MESSAGES_KEPT) == 5, "kept once"
        assert [message.attempts for message in flow.kept()] == [2] * 5
        server.on = True
        flow.advance(1000)
        flow.until_settled(5)
    assert tap.paths() == [f"f{number}" for number in range(5)]
    site.assert_clean(flow)


def test_the_pauses_grow(site):
    flow = site.run(lines="attempts 1")
    with SwitchedServer(DATA) as server:
        server.on = False
        site.announce("f", DATA, put=False, baseUrl=server.url)
        waits = []
        for attempt in range(1, 13):
            flow.until_counted(Counter.MESSAGES_FAILED, attempt)
            flow.until(lambda: not flow.kept()[0].lease, "released")
            waits.append((flow.kept()[0].due_ns - site.clock.wall_ns()) / 1e9)
            flow.advance(waits[-1] + 2)
    full = [min(2.0**n, 600.0) for n in range(12)]
    assert all(0.4 * most <= wait <= most for wait, most in zip(waits, full, strict=True)), waits


def test_what_was_kept_survives_a_restart(site):
    tap, flow = site.tap(), site.run(lines="attempts 1")
    with SwitchedServer(DATA) as server:
        server.on = False
        site.announce("f", DATA, put=False, baseUrl=server.url)
        flow.until(flow.kept, "kept")
        flow.close()
        server.on = True
        again = site.run(lines="attempts 1")
        again.advance(2)
        again.until_settled(1)
    assert tap.paths() == ["f"]
    site.assert_clean(again)


def test_a_lease_of_an_instance_that_is_no_more_is_free(site):
    """Also of one that ended in good order, or whose number has been given to another since."""
    tap, flow = site.tap(), site.run(lines="attempts 1")
    with SwitchedServer(DATA) as server:
        server.on = False
        site.announce("f", DATA, put=False, baseUrl=server.url)
        flow.until(flow.kept, "kept")
        site.clock.advance(2)
        assert flow.assembled.kept.lease_due(1), "leased, and then the instance is gone"
        flow.close(stop=False)
        server.on = True
        again = site.run(lines="attempts 1", slot_number=flow.place.slot_number)
        again.until_settled(1)
    assert tap.paths() == ["f"]
    site.assert_clean(again)


def test_retry_ttl_ends_it(site, caplog):
    tap, flow = site.tap(), site.run(lines="attempts 1\nretry_ttl 1h\nhousekeeping 60")
    with SwitchedServer(DATA) as server:
        server.on = False
        site.announce("f", DATA, put=False, baseUrl=server.url)
        flow.until(flow.kept, "kept")
        flow.advance(1800)
        flow.until_counted(Counter.MESSAGES_FAILED, 2)
        assert flow.kept()
        flow.advance(1900)
        flow.until_counted(Counter.MESSAGES_EXPIRED)
    flow.until(lambda: not flow.kept(), "forgotten")
    assert "given up after retry_ttl 3600 s" in caplog.text
    assert tap.take() == []
    site.assert_clean(flow)


def test_the_source_of_a_kept_message_is_not_believed_the_second_time_either(site):
    # R54, R84
    tap, flow = site.tap(), site.run(lines="attempts 1\nsourceFromExchange on")
    with SwitchedServer(DATA) as server:
        server.on = False
        site.announce("f", DATA, put=False, baseUrl=server.url, source="forged")
        flow.until(flow.kept, "kept")
        server.on = True
        flow.advance(2)
        flow.until_settled(1)
    assert tap.one()["source"] == "tsource"
    site.assert_clean(flow)


def test_a_large_file_goes_on_where_a_stop_left_it(site):
    # design, guarantee 6: down to the segment
    tap, flow = site.tap(), site.run(lines="segmentSize 1MiB\nstreams 4")
    with FromSegmentServer(LARGE, below=5 * MIB) as server:
        site.announce("big", LARGE, put=False, baseUrl=server.url)
        flow.until_counted(Counter.SEGMENTS_OK, 5)
        began = time.monotonic()
        flow.close()
        assert time.monotonic() - began < 4 * MS  # of 5 s allowed
        assert site.depth(flow.config.subscriptions[0].queue_name) == 1, "its message is back"
        assert tap.take() == []
        server.below = len(LARGE)
        seen = len(server.requests)
        again = site.run(lines="segmentSize 1MiB\nstreams 4")
        again.until_settled(1)
        fetched = sorted(server.span(request.headers)[0] for request in server.requests[seen:])
        assert fetched == [5 * MIB, 6 * MIB, 7 * MIB], "finished segments are not fetched again"
    assert again.count(Counter.FILES_RESUMED) == 1
    assert tap.one()["identity"] == sha512(LARGE)
    assert site.files() == {"big": LARGE}
    site.assert_clean(again)


@pytest.mark.parametrize("method", [None, {"method": "cod", "value": "md5"}])
def test_a_resumed_file_that_is_gone_is_fetched_anew(site, method):
    """Somebody removed it, or it lies on a file system that was emptied: no holes are put in place."""
    tap, flow = site.tap(), site.run(lines="segmentSize 1MiB\nstreams 4")
    with FromSegmentServer(LARGE, below=5 * MIB) as server:
        site.announce("big", LARGE, put=False, baseUrl=server.url, identity=method)
        flow.until_counted(Counter.SEGMENTS_OK, 5)
        flow.close()
        (litter,) = [path for path in (site.dest / ".sarrapipe").rglob("*") if path.is_file()]
        litter.unlink()
        server.below = len(LARGE)
        again = site.run(lines="segmentSize 1MiB\nstreams 4")
        again.until_settled(1)
    assert site.files() == {"big": LARGE}
    assert again.count(Counter.SEGMENTS_OK) == 8
    assert len(tap.take()) == 1
    site.assert_clean(again)


def test_another_size_of_segments_after_a_restart(site):
    tap, flow = site.tap(), site.run(lines="segmentSize 1MiB\nstreams 4")
    with FromSegmentServer(LARGE, below=5 * MIB) as server:
        site.announce("big", LARGE, put=False, baseUrl=server.url, identity=None)
        flow.until_counted(Counter.SEGMENTS_OK, 5)
        flow.close()
        server.below = len(LARGE)
        again = site.run(lines="segmentSize 2MiB\nstreams 4")
        again.until_settled(1)
    assert site.files() == {"big": LARGE}
    assert len(tap.take()) == 1
    site.assert_clean(again)


def test_another_directory_after_a_restart(site):
    tap, flow = site.tap(), site.run(lines="segmentSize 1MiB\nstreams 4")
    with FromSegmentServer(LARGE, below=5 * MIB) as server:
        site.announce("big", LARGE, put=False, baseUrl=server.url)
        flow.until_counted(Counter.SEGMENTS_OK, 5)
        flow.close()
        server.below = len(LARGE)
        elsewhere = site.directory / "elsewhere"
        again = site.run(
            lines=f"segmentSize 1MiB\ndirectory {elsewhere}\npost_baseDir {elsewhere}\naccept .*"
        )
        again.until_settled(1)
    assert site.files(elsewhere) == {"big": LARGE}
    assert tap.one()["relPath"] == "big"
    site.assert_clean(again)


def test_a_large_file_keeps_its_segments_while_its_server_is_away(site):
    tap, flow = site.tap(), site.run(lines="segmentSize 1MiB\nstreams 4\nattempts 1")
    with FromSegmentServer(LARGE, below=5 * MIB, refuses=True) as server:
        site.announce("big", LARGE, put=False, baseUrl=server.url)
        flow.until(flow.kept, "kept")
        assert flow.count(Counter.SEGMENTS_OK) >= 4, "what ran beside the refusal is kept"
        server.below = len(LARGE)
        flow.advance(2)
        flow.until_settled(1)
    assert flow.count(Counter.SEGMENTS_OK) == 8
    assert flow.count(Counter.FILES_RESUMED) == 1
    assert tap.paths() == ["big"]
    site.assert_clean(flow)


def test_a_stop_ends_small_files_and_gives_the_rest_back(site):
    tap, flow = site.tap(), site.run(lines="timeout 1h")
    with StallingServer(DATA) as stalling, SlowServer(DATA, piece=3, pause_s=0.02) as slow:
        site.announce("stalling", DATA, put=False, baseUrl=stalling.url)
        site.announce("slow", DATA, put=False, baseUrl=slow.url)
        flow.until(lambda: stalling.requests and slow.requests, "both are under way")
        began = time.monotonic()
        flow.close()
        assert time.monotonic() - began < 4 * MS  # of 5 s allowed
    assert tap.paths() == ["slow"]
    assert site.depth(flow.config.subscriptions[0].queue_name) == 1
    assert list(leftovers(flow.config)) == ["rows"], "what is under way stays known"
    again = site.run()
    again.until(lambda: again.kept() or again.assembled.settlement.answered, "it is tried again")
    again.close(stop=False)


def test_kept_messages_in_hand_are_due_at_once_after_a_stop(site):
    tap, flow = site.tap(), site.run(lines="attempts 1\ntimeout 1h", keep_early_after_s=10)
    with StallingServer(DATA) as stalling:
        site.announce("f", DATA, put=False, baseUrl=stalling.url)
        flow.until(lambda: stalling.requests, "under way")
        flow.advance(11)
        flow.until(flow.kept, "kept early")
        flow.close()
    site.put("f", DATA)
    (kept,) = leftovers(flow.config)["kept"]
    assert kept.lease == 0
    assert kept.attempts == 0
    assert kept.due_ns <= site.clock.wall_ns()
    del tap


def test_what_nobody_knows_any_more_is_removed(site):
    """Files under way of a ledger that was lost with a loss of power."""
    flow = site.run(lines="housekeeping 60")
    site.announce("f", DATA)
    flow.until_settled(1)
    (hidden,) = (site.dest / ".sarrapipe").iterdir()
    (hidden / "0123456789abcdef").write_bytes(b"half a file")
    flow.advance(3600)
    assert len(list(hidden.iterdir())) == 1, "it may be another host's"
    flow.advance(90_000)
    assert list(hidden.iterdir()) == []
    site.assert_clean(flow)


def test_message_count_max_ends_the_flow_when_all_is_done(site):
    tap, flow = site.tap(), site.run(lines="messageCountMax 3\nbatch 1")
    for number in range(5):
        site.announce(f"f{number}", DATA)
    flow.until(lambda: flow.flow.finished, "finished")
    assert tap.paths() == ["f0", "f1", "f2"]
    flow.close()
    assert site.depth(flow.config.subscriptions[0].queue_name) == 2

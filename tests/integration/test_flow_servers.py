"""Data servers that fail, stall or lie: nothing wrong is ever put in place or announced."""

from __future__ import annotations

import base64

import pytest
from flowkit import Site, sha512
from standins import (
    EtagChangingServer,
    LyingRangeServer,
    OverlongServer,
    RangeIgnoringServer,
    RecordingServer,
    RedirectLoop,
    RedirectServer,
    ShortReadServer,
    StallingServer,
    StandIn,
    StatusServer,
)
from webserver import Nginx

from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

SMALL = b"0123456789" * 50
LARGE = bytes(range(256)) * 4096 * 4  # 4 MiB
IN_SEGMENTS = "segmentSize 1MiB\nattempts 2"


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


class ErrorThenBody(StandIn):
    """Refuses the first requests, then serves."""

    def __init__(self, body: bytes, status: int, refusals: int) -> None:
        super().__init__(body)
        self.status = status
        self.refusals = refusals

    def answer(self, handler, headers):
        if len(self.requests) <= self.refusals:
            self.head(handler, self.status, 0)
        else:
            super().answer(handler, headers)


def announce(site, server, body, name="d/f", **changes):
    site.announce(name, body, put=False, baseUrl=server.url, **changes)


def settle_rejected(site, flow, tap, count=1):
    """Everything ends in a rejection, announced nowhere and without a trace."""
    flow.until_settled(count)
    assert flow.count(Counter.MESSAGES_REJECTED) == count
    assert tap.take() == []
    site.assert_clean(flow)
    assert not [path for path, content in site.files().items() if content is not None]


def settle_kept(site, flow, tap, reason):
    """The message is kept for later and acknowledged, and nothing half done is in sight."""
    flow.until(lambda: flow.kept(), "kept")
    assert reason in flow.kept()[0].reason
    assert tap.take() == []
    assert not [path for path, content in site.files().items() if content is not None]
    flow.close()
    assert site.depth(flow.config.subscriptions[0].queue_name) == 0


@pytest.mark.parametrize("status", [404, 410])
def test_what_the_server_does_not_have_is_given_up_after_the_attempts(site, caplog, status):
    # design, errors: RETRY up to `attempts`, then REJECT with a report
    tap, flow = site.tap(), site.run(lines="attempts 3")
    with StatusServer(status) as server:
        announce(site, server, SMALL)
        settle_rejected(site, flow, tap)
        assert len(server.requests) == 3
    assert f"code=410: status {status}: {server.url}d/f" in caplog.text
    assert flow.count(Counter.ERRORS_GONE) == 3


@pytest.mark.parametrize("status", [401, 403])
def test_what_the_server_denies_is_rejected_at_once(site, caplog, status):
    tap, flow = site.tap(), site.run()
    with StatusServer(status) as server:
        announce(site, server, SMALL)
        settle_rejected(site, flow, tap)
        assert len(server.requests) == 1
    assert f"code=403: status {status}: {server.url}d/f" in caplog.text
    assert flow.count(Counter.ERRORS_ACCESS) == 1


@pytest.mark.parametrize("status", [500, 503, 400])
def test_a_server_in_trouble_is_asked_again_later(site, status):
    tap, flow = site.tap(), site.run(lines="attempts 2")
    with StatusServer(status) as server:
        announce(site, server, SMALL)
        settle_kept(site, flow, tap, f"status {status}")
        assert len(server.requests) == 2
    assert flow.count(Counter.ERRORS_TRANSFER) == 2
    assert flow.count(Counter.MESSAGES_KEPT) == 1


def test_a_pause_lies_between_attempts(site):
    tap, flow = site.tap(), site.run(lines="attempts 4")
    with ErrorThenBody(SMALL, 500, refusals=3) as server:
        announce(site, server, SMALL)
        turns = 0
        while flow.assembled.settlement.answered < 1:
            flow.flow.turn()
            turns += 1
            assert turns < 50, "attempts follow one another in a tight loop"
        assert len(server.requests) == 4
    assert tap.paths() == ["d/f"]
    site.assert_clean(flow)


@pytest.mark.parametrize("server_type", [ShortReadServer, OverlongServer])
def test_wrong_lengths(site, server_type):
    tap, flow = site.tap(), site.run(lines="attempts 1")
    with server_type(SMALL) as server:
        announce(site, server, SMALL)
        if server_type is OverlongServer:
            settle_rejected(site, flow, tap)  # what comes is not what was announced
            assert flow.count(Counter.ERRORS_IDENTITY) == 1
        else:
            settle_kept(site, flow, tap, server.url)
            assert flow.count(Counter.ERRORS_TRANSFER) == 1


def test_a_server_that_stalls(site):
    tap, flow = site.tap(), site.run(lines="attempts 1\ntimeout 1")
    with StallingServer(SMALL) as server:
        announce(site, server, SMALL)
        settle_kept(site, flow, tap, server.url)


def test_a_server_that_is_not_there(site):
    with RecordingServer(SMALL) as server:
        pass
    tap, flow = site.tap(), site.run(lines="attempts 2")
    announce(site, server, SMALL)
    settle_kept(site, flow, tap, server.url)


def test_redirects_are_followed_but_not_for_ever_nor_elsewhere(site):
    site.put("target", SMALL)
    tap, flow = site.tap(), site.run(lines="attempts 1")
    with (
        RedirectServer(f"{site.docroot.url}target") as good,
        RedirectLoop() as loop,
        RedirectServer("file:///etc/passwd") as evil,
    ):
        announce(site, good, SMALL, "good")
        announce(site, loop, SMALL, "loop")
        announce(site, evil, SMALL, "evil")
        flow.until(lambda: len(flow.kept()) == 2, "two are kept")
        flow.until_settled(1)
    assert tap.paths() == ["good"]
    assert sorted(site.files()) == ["good"]


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["in one piece", "in segments"])
def test_another_size_than_announced(site, caplog, body):
    tap, flow = site.tap(), site.run(lines=IN_SEGMENTS)
    with RecordingServer(body + b"more") as server:
        announce(site, server, body)
        settle_rejected(site, flow, tap)
    assert f"source has {len(body) + 4} bytes, announced {len(body)}" in caplog.text
    assert flow.count(Counter.ERRORS_CHANGED) == 1


def test_a_file_that_changes_between_its_segments(site, caplog):
    tap, flow = site.tap(), site.run(lines=IN_SEGMENTS + "\nstreams 1")
    with EtagChangingServer(LARGE) as server:
        announce(site, server, LARGE)
        settle_rejected(site, flow, tap)
    assert 'source is of version "v2" now, was "v1"' in caplog.text
    assert flow.count(Counter.ERRORS_CHANGED) == 1


@pytest.mark.parametrize("server_type", [RangeIgnoringServer, LyingRangeServer])
def test_servers_without_ranges_are_asked_for_the_whole_file(site, server_type):
    tap, flow = site.tap(), site.run(lines=IN_SEGMENTS)
    with server_type(LARGE) as server:
        announce(site, server, LARGE)
        if server_type is LyingRangeServer:
            # Without a range it answers 206 as well: there is nothing to be had from it.
            settle_kept(site, flow, tap, "range")
            return
        flow.until_settled(1)
        assert tap.one()["relPath"] == "d/f"
        assert site.files()["d/f"] == LARGE
        assert flow.count(Counter.FILES_VERIFIED) == 1
        assert flow.count(Counter.ERRORS_RANGE) >= 1
        assert "range" not in server.requests[-1].headers
    site.assert_clean(flow)


def test_segments_cut_short_are_fetched_again(site):
    class ShortOnce(ShortReadServer):
        """Cuts the first answer short."""

        def answer(self, handler, headers):
            if len(self.requests) == 1:
                super().answer(handler, headers)
            else:
                StandIn.answer(self, handler, headers)

    tap, flow = site.tap(), site.run(lines=IN_SEGMENTS)
    with ShortOnce(LARGE) as server:
        announce(site, server, LARGE)
        flow.until_settled(1)
        assert len(server.requests) == 5
    assert tap.one()["relPath"] == "d/f"
    assert site.files()["d/f"] == LARGE
    assert flow.count(Counter.SEGMENTS_RETRIED) == 1
    site.assert_clean(flow)


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["in one piece", "in segments"])
def test_wrong_bytes_are_never_announced(site, caplog, body):
    # R105
    wrong = body[:-1] + b"?"
    tap, flow = site.tap(), site.run(lines=IN_SEGMENTS)
    with RecordingServer(wrong) as server:
        announce(site, server, body)
        settle_rejected(site, flow, tap)
        fetched = 1 if body is SMALL else 4
        assert len(server.requests) == 2 * fetched, "each attempt fetches all of it again"
    assert f"code=417: d/f: sha512 is {sha512(wrong)['value']}" in caplog.text
    assert flow.count(Counter.ERRORS_IDENTITY) == 2
    assert flow.count(Counter.FILES_VERIFIED) == 0


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["in one piece", "in segments"])
def test_bytes_that_are_right_the_second_time(site, body):
    class WrongOnce(StandIn):
        """Serves something else the first time round."""

        def answer(self, handler, headers):
            first = len(self.requests) <= requests
            StandIn.answer(wrong if first else self, handler, headers)

    wrong = StandIn(b"?" * len(body))
    requests = 1 if body is SMALL else 4
    tap, flow = site.tap(), site.run(lines=IN_SEGMENTS)
    with WrongOnce(body) as server:
        announce(site, server, body)
        flow.until_settled(1)
    assert tap.one()["identity"] == sha512(body)
    assert site.files()["d/f"] == body
    site.assert_clean(flow)


def test_good_files_go_on_beside_bad_servers(site):
    tap, flow = site.tap(), site.run(lines="attempts 2\ntimeout 1")
    with StatusServer(404) as gone, StallingServer(SMALL) as stalling, StatusServer(403) as denied:
        for number in range(5):
            announce(site, gone, SMALL, f"gone{number}")
            announce(site, stalling, SMALL, f"stalling{number}")
            announce(site, denied, SMALL, f"denied{number}")
            site.announce(f"good{number}", b"%d" % number)
        flow.until_settled(15)
        flow.until(lambda: len(flow.kept()) == 5, "what stalled is kept")
    assert tap.paths() == [f"good{number}" for number in range(5)]
    assert sorted(site.files()) == [f"good{number}" for number in range(5)]


def test_credentials_come_from_their_file(site):
    """Sent to the server they are for, with a request for each file, and to no other."""
    with RecordingServer(SMALL) as known, RecordingServer(SMALL) as other:
        text = (site.directory / "config/credentials.conf").read_text()
        site.credentials(f"{text}{known.url.replace('://', '://bob:s%40cret@')}\n")
        tap, flow = site.tap(), site.run()
        announce(site, known, SMALL, "f")
        announce(site, other, SMALL, "g")
        flow.until_settled(2)
        assert tap.paths() == ["f", "g"]
        sent = base64.b64encode(b"bob:s@cret").decode()
        assert [request.headers.get("authorization") for request in known.requests] == [f"Basic {sent}"]
        assert [request.headers.get("authorization") for request in other.requests] == [None]
        site.assert_clean(flow)


@pytest.mark.nginx
def test_https_with_a_certificate_that_is_trusted_and_without(site, tmp_path, caplog):
    with Nginx(tmp_path / "tls") as server:
        server.put("f", SMALL)
        tap, flow = site.tap(), site.run(lines=f"caFile {server.ca_file}")
        site.announce("f", SMALL, put=False, baseUrl=server.tls_url)
        flow.until_settled(1)
        assert tap.paths() == ["f"]
        flow.close()
        server.put("g", SMALL)
        doubting = site.run(lines="attempts 1")
        site.announce("g", SMALL, put=False, baseUrl=server.tls_url)
        doubting.until(doubting.kept, "kept")
        assert "certificate" in doubting.kept()[0].reason
        assert "g" not in site.files()

"""HTTP against a real nginx, and against servers that truncate, lie, stall, and lead in circles (R107)."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from standins import (
    EtagChangingServer,
    LyingRangeServer,
    OverlongServer,
    RangeIgnoringServer,
    RecordingServer,
    RedirectLoop,
    RedirectServer,
    ShortReadServer,
    SlowServer,
    StallingServer,
    StatusServer,
)
from webserver import PASSWORD, USER, Nginx

from sarrapipe.errors import (
    AccessDenied,
    IdentityMismatch,
    MessageError,
    RangeNotHonoured,
    SourceChanged,
    SourceGone,
    TransferError,
)
from sarrapipe.segment.sink import DirectSink, DiscardSink
from sarrapipe.transfer.base import Credentials, RangeDone, RangeRead
from sarrapipe.transfer.engine import TransferEngine, TransferSettings
from sarrapipe.transfer.settings import HttpSettings

BODY = bytes(range(256)) * 400
CREDENTIALS = Credentials(user=USER, password=PASSWORD)


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with Nginx(tmp_path_factory.mktemp("web")) as server:
        yield server


def engine_with(**http: object) -> TransferEngine:
    settings = HttpSettings(**{"connect_timeout_s": 5.0, **http})  # type: ignore[arg-type]
    return TransferEngine(TransferSettings(streams=4, http=settings)).open()


@pytest.fixture
def engine() -> Iterator[TransferEngine]:
    opened = engine_with()
    yield opened
    opened.close()


def fetch(engine: TransferEngine, url: str, **fields: object) -> RangeDone:
    sink = DiscardSink(fields.get("length"))  # type: ignore[arg-type]
    read = RangeRead(url=url, sink=sink, token=url, **fields)  # type: ignore[arg-type]
    assert engine.submit([read]) == 1
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for done in engine.poll(10):
            assert done.received == sink.written
            return done
    raise AssertionError(f"nothing came of {url}")


@pytest.mark.nginx
class TestNginx:
    def test_tells_what_it_knows_of_a_file(self, nginx: Nginx, engine: TransferEngine) -> None:
        url = nginx.put("f", BODY)
        os.utime(nginx.root / "f", (1_700_000_000, 1_700_000_000))
        done = fetch(engine, url, offset=10, length=10)
        assert (done.status, done.received, done.whole_size) == (206, 10, len(BODY))
        assert done.etag is not None
        assert done.validator == done.etag
        assert done.last_modified == "Tue, 14 Nov 2023 22:13:20 GMT"

    def test_compresses_nothing_on_the_way(self, nginx: Nginx, engine: TransferEngine) -> None:
        done = fetch(engine, nginx.put("text", b"a" * 10_000))
        assert (done.error, done.received, done.whole_size) == (None, 10_000, 10_000)

    def test_keeps_connections(self, nginx: Nginx) -> None:
        with RecordingServer(b"x" * 10) as server:
            engine = TransferEngine(TransferSettings(streams=1)).open()
            ports = set()
            original = server.answer
            server.answer = lambda handler, headers: (
                ports.add(handler.client_address[1]),
                original(handler, headers),
            )[1]  # type: ignore[method-assign]
            for n in range(10):
                assert fetch(engine, f"{server.url}{n}", length=10, whole_size=10).error is None
            engine.close()
        assert len(ports) == 1

    def test_password(self, nginx: Nginx, engine: TransferEngine) -> None:
        url = nginx.put("private/f", BODY)
        assert fetch(engine, url, credentials=CREDENTIALS).error is None
        refused = fetch(engine, url)
        assert isinstance(refused.error, AccessDenied)
        assert refused.status == 401
        wrong = fetch(engine, url, credentials=Credentials(user=USER, password="wrong-s3cret"))
        assert isinstance(wrong.error, AccessDenied)
        assert "s3cret" not in repr(wrong)
        assert fetch(engine, url, credentials=CREDENTIALS).error is None

    @pytest.mark.parametrize(
        ("path", "kind", "status"),
        [("forbidden/x", AccessDenied, 403), ("gone/x", SourceGone, 410), ("busy/x", TransferError, 503)],
    )
    def test_refusals(
        self, nginx: Nginx, engine: TransferEngine, path: str, kind: type[Exception], status: int
    ) -> None:
        done = fetch(engine, nginx.url + path)
        assert type(done.error) is kind
        assert (done.status, done.received) == (status, 0)
        assert done.retry_after_s == (7.0 if status == 503 else None)

    def test_follows_a_redirect(self, nginx: Nginx, engine: TransferEngine) -> None:
        nginx.put("f", BODY)
        done = fetch(engine, nginx.url + "moved/f", offset=5, length=5, whole_size=len(BODY))
        assert (done.error, done.status) == (None, 206)

    def test_tls_is_verified(self, nginx: Nginx, engine: TransferEngine) -> None:
        nginx.put("f", BODY)
        distrusted = fetch(engine, nginx.tls_url + "f")
        assert isinstance(distrusted.error, TransferError)
        assert "certificate" in str(distrusted.error)
        for http in ({"ca_file": nginx.ca_file}, {"tls_verify": False}):
            trusting = engine_with(**http)
            assert fetch(trusting, nginx.tls_url + "f").error is None
            trusting.close()

    def test_a_handle_forgets_the_last_read(self, nginx: Nginx) -> None:
        single = TransferEngine(TransferSettings(streams=1)).open()
        url = nginx.put("f", BODY)
        first = fetch(single, url, offset=5, length=5, credentials=CREDENTIALS, headers=["X-A: b"])
        assert (first.error, first.received) == (None, 5)
        second = fetch(single, url)
        assert (second.error, second.status, second.received) == (None, 200, len(BODY))
        single.close()

    def test_an_endless_number_of_files_takes_no_memory(self, nginx: Nginx, engine: TransferEngine) -> None:
        url = nginx.put("f", b"x" * 100)

        def some(count: int) -> None:
            left, done = count, 0
            while done < count:
                reads = [
                    RangeRead(url=url, sink=DiscardSink(), token=object(), length=100, whole_size=100)
                    for _ in range(min(left, 200))
                ]
                left -= engine.submit(reads)
                done += len(engine.poll(10))

        some(1000)
        before = _resident_kib()
        some(4000)
        assert _resident_kib() - before < 2000


def _resident_kib() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4


class TestLyingServers:
    def test_truncated(self, engine: TransferEngine) -> None:
        with ShortReadServer(BODY) as server:
            whole = fetch(engine, server.url, length=len(BODY), whole_size=len(BODY))
            part = fetch(engine, server.url, offset=100, length=1000, whole_size=len(BODY))
        assert isinstance(whole.error, TransferError)
        assert 0 < whole.received < len(BODY)
        assert isinstance(part.error, TransferError)
        assert 0 < part.received < 1000

    def test_over_long(self, engine: TransferEngine, tmp_path: Path) -> None:
        fd = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
        os.pwrite(fd, b"." * (2 * len(BODY)), 0)
        with OverlongServer(BODY) as server:
            for token, offset, length in ((1, 0, len(BODY)), (2, 1000, 500)):
                sink = DirectSink(fd, offset, length)
                read = RangeRead(url=server.url, sink=sink, token=token, offset=offset, length=length,
                                 whole_size=len(BODY))  # fmt: skip
                engine.submit([read])
                (done,) = engine.poll(10)
                assert isinstance(done.error, IdentityMismatch)
        assert os.pread(fd, 2 * len(BODY), 0)[len(BODY) :] == b"." * len(BODY)
        os.close(fd)

    def test_stalling(self) -> None:
        engine = engine_with(stall_s=1)
        with StallingServer(BODY[:1000]) as server:
            done = fetch(engine, server.url)
        engine.close()
        assert isinstance(done.error, TransferError)
        assert done.received == 500

    def test_a_stalled_read_holds_up_no_other(self, engine: TransferEngine) -> None:
        with StallingServer(BODY) as stalling, RecordingServer(BODY) as good:
            engine.submit([RangeRead(url=stalling.url, sink=DiscardSink(), token="stalled")])
            assert fetch(engine, good.url).error is None
            assert engine.running == 1
            assert engine.cancel("stalled")

    def test_slow_but_steady(self, engine: TransferEngine) -> None:
        with SlowServer(b"x" * 50, piece=10, pause_s=0.01) as server:
            assert fetch(engine, server.url).error is None

    def test_ignoring_ranges(self, engine: TransferEngine) -> None:
        with RangeIgnoringServer(BODY) as server:
            done = fetch(engine, server.url, offset=100, length=1000, whole_size=len(BODY))
            assert isinstance(done.error, RangeNotHonoured)
            assert done.received == 0
            assert fetch(engine, server.url, length=len(BODY)).error is None

    def test_another_range_than_asked(self, engine: TransferEngine) -> None:
        with LyingRangeServer(BODY) as server:
            done = fetch(engine, server.url, offset=100, length=1000, whole_size=len(BODY))
        assert isinstance(done.error, RangeNotHonoured)
        assert done.received == 0

    def test_another_version_each_time(self, engine: TransferEngine) -> None:
        with EtagChangingServer(BODY) as server:
            first = fetch(engine, server.url, offset=0, length=10, whole_size=len(BODY))
            second = fetch(
                engine, server.url, offset=10, length=10, whole_size=len(BODY), validator=first.validator
            )
            assert server.requests[1].headers["if-match"] == first.validator
        assert (first.error, first.etag) == (None, '"v1"')
        assert isinstance(second.error, SourceChanged)
        assert second.received == 0

    def test_an_error_page_does_not_reach_the_file(self, engine: TransferEngine) -> None:
        for page in (b"small", b"x" * 500_000):
            with StatusServer(404, page) as server:
                done = fetch(engine, server.url)
            assert isinstance(done.error, SourceGone)
            assert done.received == 0

    @pytest.mark.parametrize("status", [500, 429])
    def test_come_back_later(self, engine: TransferEngine, status: int) -> None:
        with StatusServer(status, Retry_After="11") as server:
            done = fetch(engine, server.url)
        assert type(done.error) is TransferError
        assert done.retry_after_s == 11.0

    def test_nobody_listens(self, engine: TransferEngine) -> None:
        with RecordingServer() as server:
            url = server.url
        done = fetch(engine, url)
        assert isinstance(done.error, TransferError)
        assert done.status == 0

    def test_no_such_host(self, engine: TransferEngine) -> None:
        assert isinstance(fetch(engine, "http://no-such-host.invalid/x").error, TransferError)

    @pytest.mark.parametrize("url", ["gopher://h/x", "http://", "no scheme"])
    def test_what_is_no_url_is_the_messages_fault(self, engine: TransferEngine, url: str) -> None:
        assert isinstance(fetch(engine, url).error, MessageError)


class TestRedirects:
    def test_in_circles(self, engine: TransferEngine) -> None:
        with RedirectLoop() as server:
            done = fetch(engine, server.url)
            assert len(server.requests) == 6
        assert isinstance(done.error, TransferError)
        assert "redirect" in str(done.error)

    @pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1:1/x"])
    def test_to_other_schemes_are_refused(self, engine: TransferEngine, place: str) -> None:
        with RedirectServer(place) as server:
            done = fetch(engine, server.url)
        assert isinstance(done.error, TransferError)
        assert (done.received, done.status) == (0, 302)

    def test_to_clear_text_may_be_refused(self, nginx: Nginx) -> None:
        strict = engine_with(redirect_to_http=False)
        with RecordingServer(BODY) as target, RedirectServer(target.url) as server:
            done = fetch(strict, server.url)
            assert target.requests == []
        strict.close()
        assert isinstance(done.error, TransferError)

    @pytest.mark.parametrize(
        "credentials", [Credentials(user="bob", password="s3cret"), Credentials(bearer="t0ken")]
    )
    def test_credentials_stay_with_their_host(self, engine: TransferEngine, credentials: Credentials) -> None:
        with RecordingServer(BODY) as target:
            elsewhere = target.url.replace("127.0.0.1", "localhost")
            with RedirectServer(elsewhere) as server:
                assert fetch(engine, server.url, credentials=credentials).error is None
                assert "authorization" in server.requests[0].headers
            assert "authorization" not in target.requests[0].headers


class TestRequests:
    def test_what_is_sent(self, engine: TransferEngine) -> None:
        with RecordingServer(BODY) as server:
            fetch(engine, server.url + "a b#c", offset=1, length=2, validator='"v1"', headers=["X-Extra: 1"])
            fetch(engine, server.url)
        ranged, plain = server.requests
        assert ranged.path == "/a%20b%23c"
        assert ranged.headers["range"] == "bytes=1-2"
        assert ranged.headers["if-match"] == '"v1"'
        assert ranged.headers["x-extra"] == "1"
        for request in (ranged, plain):
            assert request.headers["accept-encoding"] == "identity"
            assert request.headers["user-agent"] == "sarrapipe"
        assert not {"range", "if-match", "x-extra", "authorization"} & set(plain.headers)

    def test_authorization(self, engine: TransferEngine) -> None:
        with RecordingServer(BODY) as server:
            fetch(engine, server.url, credentials=CREDENTIALS)
            fetch(engine, server.url, credentials=Credentials(bearer="t0ken"))
            fetch(engine, server.url)
        basic, bearer, none = server.requests
        expected = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        assert basic.headers["authorization"] == f"Basic {expected}"
        assert bearer.headers["authorization"] == "Bearer t0ken"
        assert "authorization" not in none.headers

    def test_no_proxy_of_the_environment(
        self, engine: TransferEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with RecordingServer(BODY) as proxy, RecordingServer(BODY) as server:
            monkeypatch.setenv("http_proxy", proxy.url)
            monkeypatch.delenv("no_proxy", raising=False)
            assert fetch(engine, server.url).error is None
            assert proxy.requests == []
            asked = engine_with(proxy="environment")
            assert fetch(asked, server.url).error is None
            assert len(proxy.requests) == 1
            named = engine_with(proxy=proxy.url)
            assert fetch(named, server.url).error is None
            assert len(proxy.requests) == 2
            asked.close()
            named.close()

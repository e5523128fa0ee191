"""A relay of which a part fails: one range is fetched or sent again, from wherever it can be had."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter as Counts
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from flowkit import Running, Site, sha512
from killkit import segments_written
from loggingweb import LoggingNginx
from rangeservers import Ranges
from servers import DocRoot, Vhost, wait_until
from sshserver import Sshd
from standins import EtagChangingServer, StatusServer
from test_flow_relay import check_slots_free
from webserver import Nginx

from sarrapipe.shm.slots import Counter

pytestmark = [pytest.mark.broker, pytest.mark.nginx]

MIB = 1 << 20
SEGMENTS = 12
STREAMS = 4
SIZE = SEGMENTS * MIB - 5
LINES = f"segmentSize {MIB}\nstreams {STREAMS}\nstagingBytes 4Mi\ninflight .tmp"


@pytest.fixture
def site(tmp_path: Path, vhost: Vhost, docroot: DocRoot) -> Iterator[Site]:
    with Site(tmp_path, vhost, docroot) as made:
        yield made


@pytest.fixture(params=["in segments", "in one write"])
def far(request: pytest.FixtureRequest, site: Site, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server that takes parts of a file, and one that does not: its URL, and where its files are."""
    if request.param == "in segments":
        yield f"file://{site.dest}", site.dest
        return
    with Nginx(tmp_path / "far") as nginx:
        root = Path(nginx.root, "dav")
        root.mkdir()
        root.chmod(0o777)
        yield f"{nginx.url}dav", root


def relay(site: Site, to: str = "", lines: str = "", **place: object) -> Running:
    where = to or f"file://{site.dest}"
    return site.run("sender", f"sendTo {where}\ndownload stream\n{LINES}\n{lines}", **place)


def check_arrived(site: Site, flow: Running, body: bytes, root: Path | None = None) -> None:
    assert site.files(root or site.dest) == {"big": body}
    assert flow.count(Counter.FILES_VERIFIED) == 1
    assert flow.count(Counter.MESSAGES_FAILED) == 0
    check_slots_free(flow)
    site.assert_clean(flow)


class ShortRanges(Ranges):
    """Sends half of a bad range, and closes."""

    def misbehave(self, handler: BaseHTTPRequestHandler, headers: dict[str, str]) -> None:
        first, last = self.span(headers) or (0, 0)
        self.head(handler, 206, last + 1 - first, Content_Range=self.content_range(first, last), ETag='"v1"')
        handler.wfile.write(self.body[first : (first + last + 1) // 2])
        handler.close_connection = True


class TestSources:
    @pytest.mark.parametrize("bad", [0, 5, SEGMENTS - 1])
    def test_only_the_rest_of_a_range_is_fetched_again(
        self, site: Site, far: tuple[str, Path], bad: int
    ) -> None:
        body = os.urandom(SIZE)
        tap = site.tap()
        flow = relay(site, far[0])
        with ShortRanges(body, bad={bad * MIB: 1}) as server:
            site.announce("big", body, put=False, baseUrl=server.url)
            flow.until_settled(1)
        begin, end = bad * MIB, min((bad + 1) * MIB, SIZE)
        assert server.asked == Counts({**{n * MIB: 1 for n in range(SEGMENTS)}, (begin + end) // 2: 1})
        assert flow.count(Counter.BYTES_RECEIVED) == SIZE
        assert flow.count(Counter.SEGMENTS_RETRIED) == 1
        assert tap.one()["identity"] == sha512(body)
        check_arrived(site, flow, body, far[1])

    def test_when_many_fail_while_the_others_hold_every_stream_and_slot(
        self, site: Site, far: tuple[str, Path]
    ) -> None:
        body = os.urandom(SIZE)
        flow = relay(site, far[0], "stagingBytes 1Mi\nstreams 3\nstreamsPerHost 2\nattempts 4")
        with ShortRanges(body, bad={0: 2, MIB: 1, 2 * MIB: 1, 9 * MIB: 1}) as server:
            site.announce("big", body, put=False, baseUrl=server.url)
            flow.until_settled(1)
        assert flow.count(Counter.BYTES_RECEIVED) == SIZE
        check_arrived(site, flow, body, far[1])

    def test_one_that_never_comes_is_given_up_and_nothing_is_left(
        self, site: Site, far: tuple[str, Path]
    ) -> None:
        body = os.urandom(SIZE)
        tap = site.tap()
        flow = relay(site, far[0], "attempts 2")
        with StatusServer(503) as server:
            site.announce("big", body, put=False, baseUrl=server.url)
            flow.until(flow.kept, "kept for later")
        assert site.files(far[1]) == {}
        assert tap.take() == []
        check_slots_free(flow)

    def test_the_other_pump_goes_on_when_one_dies(
        self, site: Site, far: tuple[str, Path], tmp_path: Path
    ) -> None:
        body = os.urandom(SIZE)
        pumps = []
        for number in range(2):
            root = tmp_path / f"root{number}"
            root.mkdir()
            (root / "big").write_bytes(body)
            os.utime(root / "big", (1e9 + number, 1e9 + number))
            pumps.append(LoggingNginx(tmp_path / f"nginx{number}", root, 2 * MIB))
        tap = site.tap()
        flow = relay(site, far[0])
        with pumps[0] as first, pumps[1] as second:
            site.announce("big", body, put=False, baseUrl=first.url)
            flow.until(lambda: len(first.requests()) >= 2, "the first has sent something")
            site.announce("big", body, put=False, baseUrl=second.url)
            flow.until_counted(Counter.MESSAGES_RECEIVED, 2)
            flow.until(lambda: flow_knows(flow, 2), "the second is known as a source")
            kill(first)
            flow.until_settled(2, timeout_s=60)
            again = second.requests()
        assert again, "the second sent the rest"
        assert {one.status for one in again} == {206}
        assert flow.count(Counter.SOURCES_DROPPED) == 1
        assert flow.count(Counter.BYTES_RECEIVED) == SIZE, "nothing was fetched twice"
        assert tap.one()["identity"] == sha512(body)
        check_arrived(site, flow, body, far[1])

    def test_another_version_in_the_middle_is_not_put_together_with_the_first(
        self, site: Site, far: tuple[str, Path]
    ) -> None:
        body = os.urandom(SIZE)
        tap = site.tap()
        flow = relay(site, far[0], "attempts 1")
        with EtagChangingServer(body) as server:
            site.announce("big", body, put=False, baseUrl=server.url)
            flow.until_settled(1)
        assert flow.count(Counter.ERRORS_CHANGED) == 1
        assert site.files(far[1]) == {}
        assert tap.take() == []
        check_slots_free(flow)
        site.assert_clean(flow)


def flow_knows(flow: Running, count: int) -> bool:
    """Whether a relay has so many sources."""
    sends = flow.assembled.segments.downloads.sends
    return any(len(reads.sources) == count for reads in sends.relays)


def kill(server: LoggingNginx) -> None:
    """End nginx and its worker at once."""
    parent = server._process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    for pid in (parent, *map(int, children)):
        os.kill(pid, signal.SIGKILL)
    server._process.wait(10)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), 10, "its worker is gone")


@pytest.mark.sftp
@pytest.mark.parametrize("driver", ["openssh", "paramiko"])
class TestConnectionsThatBreak:
    def test_only_what_was_on_the_way_is_sent_again(self, site: Site, tmp_path: Path, driver: str) -> None:
        body = os.urandom(SIZE)
        tap = site.tap()
        with Sshd(tmp_path / "ssh") as far:
            root, flow = self.to(site, far, driver)
            site.announce("big", body)
            flow.until_counted(Counter.SEGMENTS_OK, 3)
            far.kill_sessions()
            flow.until_settled(1, timeout_s=60)
            assert site.files(root) == {"big": body}
        assert flow.count(Counter.SEGMENTS_OK) == SEGMENTS
        assert flow.count(Counter.SEGMENTS_RETRIED) >= 1
        assert flow.count(Counter.FILES_RESUMED) == 0, "it was mended, not begun again"
        assert flow.count(Counter.BYTES_SENT) <= SIZE + 2 * MIB
        assert flow.count(Counter.BYTES_RECEIVED) <= SIZE + 2 * MIB, "what was in slots is not fetched again"
        assert tap.one()["identity"] == sha512(body)
        assert flow.count(Counter.FILES_VERIFIED) == 1
        check_slots_free(flow)
        site.assert_clean(flow)

    def test_what_the_server_lost_is_sent_anew(self, site: Site, tmp_path: Path, driver: str) -> None:
        body = os.urandom(SIZE)
        with Sshd(tmp_path / "ssh") as far:
            root, flow = self.to(site, far, driver)
            site.announce("big", body)
            flow.until_counted(Counter.SEGMENTS_OK, 3)
            far.kill_sessions()
            [under_way] = root.iterdir()
            under_way.unlink()
            flow.until_settled(1, timeout_s=60)
            assert site.files(root) == {"big": body}
        assert flow.count(Counter.BYTES_SENT) >= SIZE + 3 * MIB
        check_slots_free(flow)
        site.assert_clean(flow)

    @staticmethod
    def to(site: Site, far: Sshd, driver: str) -> tuple[Path, Running]:
        root = Path(far.root, "in")
        root.mkdir()
        root.chmod(0o777)
        credentials = Path(site.home.credentials_file).read_text()
        site.credentials(f"{credentials}{far.url('/')} ssh_keyfile={far.key_file}\n")
        lines = f"sftpDriver {driver}\nsftpKnownHosts {far.known_hosts}\nbyteRateMax 12M"
        return root, relay(site, far.url(str(root)), lines, limiter=site.limiter(12_000_000))


class TestGoingOn:
    """After a stop or a kill, with the ledger's knowledge of what is at the server."""

    @pytest.mark.parametrize("stop", [True, False], ids=["stopped", "dropped"])
    def test_what_was_answered_is_not_sent_again(self, site: Site, *, stop: bool) -> None:
        body, written = interrupted(site, stop=stop)
        tap = site.tap()
        second = relay(site)
        second.until_settled(1)
        assert second.count(Counter.BYTES_SENT) == SIZE - written
        assert second.count(Counter.BYTES_RECEIVED) == SIZE, "the digest is over all of it"
        assert second.count(Counter.FILES_RESUMED) == 1
        assert tap.one()["identity"] == sha512(body)
        check_arrived(site, second, body)

    def test_with_nothing_to_hash_it_is_not_fetched_again_either(self, site: Site) -> None:
        body, written = interrupted(site, identity=None)
        second = relay(site)
        second.until_settled(1)
        assert second.count(Counter.BYTES_SENT) == SIZE - written
        assert second.count(Counter.BYTES_RECEIVED) == SIZE - written
        assert site.files() == {"big": body}
        site.assert_clean(second)

    @pytest.mark.parametrize("damage", ["removed", "cut"])
    def test_what_is_not_there_any_more_is_sent_anew(self, site: Site, damage: str) -> None:
        body, _ = interrupted(site)
        [path] = under_way(site)
        if damage == "removed":
            path.unlink()
        else:
            os.truncate(path, 1000)
        second = relay(site)
        second.until_settled(1)
        assert second.count(Counter.BYTES_SENT) == SIZE
        assert second.count(Counter.FILES_RESUMED) == 0
        assert second.count(Counter.ERRORS_STORAGE) == 1
        check_arrived(site, second, body)

    def test_of_another_version_of_the_source_it_is_sent_anew(self, site: Site) -> None:
        """The same bytes, by another name of theirs."""
        body, _ = interrupted(site)
        os.utime(site.docroot.path / "big", (1e9, 1e9))
        second = relay(site)
        second.until_settled(1)
        assert second.count(Counter.BYTES_SENT) == SIZE
        check_arrived(site, second, body)

    def test_other_bytes_under_the_same_version_are_found_and_never_announced(self, site: Site) -> None:
        """What is at the server and what is fetched now are two files, which the source does not say."""
        body, _ = interrupted(site)
        here = site.docroot.path / "big"
        found = here.stat()
        here.write_bytes(bytes([body[0] ^ 1]) + body[1:])
        os.utime(here, ns=(found.st_atime_ns, found.st_mtime_ns))
        tap = site.tap()
        second = relay(site, lines="attempts 1")
        second.until_settled(1)
        assert second.count(Counter.ERRORS_STORAGE) == 1, "what had been sent was of other bytes"
        assert second.count(Counter.ERRORS_IDENTITY) == 1
        assert site.files() == {}
        assert tap.take() == []
        site.assert_clean(second)

    def test_of_another_cut_it_is_sent_anew(self, site: Site) -> None:
        body, _ = interrupted(site)
        second = relay(site, lines=f"segmentSize {2 * MIB}")
        second.until_settled(1)
        assert second.count(Counter.BYTES_SENT) == SIZE
        check_arrived(site, second, body)

    def test_from_the_other_pump_where_the_first_is_gone(self, site: Site, tmp_path: Path) -> None:
        body, written = interrupted(site)
        root = tmp_path / "other"
        root.mkdir()
        shutil.copy(site.docroot.path / "big", root / "big")
        (site.docroot.path / "big").unlink()
        tap = site.tap()
        with LoggingNginx(tmp_path / "nginx", root, 100 * MIB) as other:
            second = relay(site)
            site.announce("big", body, put=False, baseUrl=other.url)
            second.until_settled(2, timeout_s=30)
        assert second.count(Counter.BYTES_SENT) == SIZE - written
        assert tap.one()["identity"] == sha512(body)
        assert site.files() == {"big": body}
        site.assert_clean(second)


def under_way(site: Site) -> list[Path]:
    return [path for path in site.dest.iterdir() if path.name.endswith(".tmp")]


def interrupted(site: Site, *, stop: bool = True, **changes: object) -> tuple[bytes, int]:
    """Relay a part of a file; return it, and how many bytes the ledger counts at the server."""
    body = os.urandom(SIZE)
    first = relay(site, lines="byteRateMax 8M", limiter=site.limiter(8_000_000))
    site.announce("big", body, **changes)
    first.until_counted(Counter.SEGMENTS_OK, 3)
    first.close(stop=stop)
    [numbers] = segments_written(first.config.state_dir).values()
    assert 0 < len(numbers) < SEGMENTS
    assert len(under_way(site)) == 1
    return body, sum(min(MIB, SIZE - n * MIB) for n in numbers)

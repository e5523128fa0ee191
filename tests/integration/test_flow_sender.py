"""The sender: files of this machine put into place at another server, and announced there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from flowkit import Running, Site, sha512
from servers import DocRoot, Vhost
from sshserver import Sshd
from webserver import Nginx

from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

DATA = b"some bytes\n" * 100


@pytest.fixture
def site(tmp_path: Path, vhost: Vhost, docroot: DocRoot) -> Iterator[Site]:
    with Site(tmp_path, vhost, docroot) as made:
        yield made


def sender(site: Site, lines: str = "", **place: object) -> Running:
    return site.run("sender", f"sendTo file://{site.dest}\n{lines}", **place)


class TestFiles:
    def test_a_file_arrives_and_is_announced(self, site: Site) -> None:
        tap = site.tap()
        flow = sender(site)
        site.announce("a/b/f", DATA)
        flow.until_settled(1)
        assert site.files() == {"a": None, "a/b": None, "a/b/f": DATA}
        announced = tap.one()
        assert (announced.base_url, announced.rel_path) == ("http://example.com/data/", "a/b/f")
        found = os.stat(site.dest / "a/b/f")
        assert (found.st_mode & 0o777, found.st_mtime) == (0o640, 1704164645.5)
        assert flow.count(Counter.FILES_VERIFIED) == 1
        assert flow.count(Counter.BYTES_SENT) == len(DATA)
        site.assert_clean(flow)

    def test_an_empty_file_and_odd_names(self, site: Site) -> None:
        tap = site.tap()
        flow = sender(site)
        names = ["empty", "with blank", "50%", "a%20b", "hash#query?x=1&y", "ünïcödé-日本語", "*"]
        for name in names:
            site.announce(name, b"" if name == "empty" else name.encode())
        flow.until_settled(len(names))
        assert site.files() == {name: b"" if name == "empty" else name.encode() for name in names}
        assert tap.paths() == sorted(names)
        site.assert_clean(flow)

    def test_many_files_in_directories_made_once(self, site: Site) -> None:
        flow = sender(site, "mirror on")
        for number in range(300):
            site.announce(f"d{number % 7}/f{number}", b"%d" % number)
        flow.until_settled(300)
        assert flow.count(Counter.FILES_OK) == 300
        assert sum(content is not None for content in site.files().values()) == 300
        site.assert_clean(flow)

    def test_a_large_file_goes_in_ranges(self, site: Site) -> None:
        body = os.urandom(5_000_000)
        tap = site.tap()
        flow = sender(site, "segmentSize 1Mi")
        site.announce("big", body)
        flow.until_settled(1)
        assert site.files() == {"big": body}
        assert tap.one().rel_path == "big"
        assert flow.count(Counter.FILES_VERIFIED) == 1
        site.assert_clean(flow)

    def test_bytes_that_are_sent_count_as_under_way(self, site: Site) -> None:
        """Until they are there, so that other instances take what comes after a large file."""
        flow = sender(site, "maxInflightBytes 1Mi\nbatch 1")
        site.announce("big", bytes(2 << 20))
        seen = 0

        def under_way() -> bool:
            nonlocal seen
            flow.advance(2, turns=1)  # a second's duties in each turn
            seen = max(seen, flow.count(Counter.GAUGE_INFLIGHT_BYTES))
            return flow.count(Counter.FILES_OK) == 1

        flow.until(under_way, "sent")
        assert seen == 2 << 20
        flow.until_settled(1)
        flow.advance(2)
        assert flow.count(Counter.GAUGE_INFLIGHT_BYTES) == 0
        site.assert_clean(flow)

    def test_a_newer_version_replaces_and_an_older_one_does_not(self, site: Site) -> None:
        flow = sender(site)
        site.announce("f", b"second", mtime="20240103T000000")
        flow.until_settled(1)
        site.announce("f", b"first!", mtime="20240102T000000")
        flow.until_settled(2)
        assert site.files() == {"f": b"second"}
        assert flow.count(Counter.MESSAGES_OVERTAKEN) == 1
        site.put("f", b"third")
        site.announce("f", b"third", mtime="20240104T000000")
        flow.until_settled(3)
        assert site.files() == {"f": b"third"}
        site.assert_clean(flow)

    @pytest.mark.parametrize("inflight", ["native", ".tmp", ".", "under/", "none"])
    def test_every_way_of_marking_what_is_under_way(self, site: Site, inflight: str) -> None:
        if inflight == "under/":
            (site.dest / "under").mkdir()
        flow = sender(site, f"inflight {inflight}")
        site.announce("f", DATA)
        flow.until_settled(1)
        assert {name: c for name, c in site.files().items() if c is not None} == {"f": DATA}
        site.assert_clean(flow)


class TestWhatIsRefused:
    def test_bytes_that_are_not_the_announced_ones(self, site: Site) -> None:
        tap = site.tap()
        flow = sender(site, "attempts 1")
        site.announce("f", DATA, identity=sha512(b"other"))
        flow.until_settled(1)
        assert site.files() == {}
        assert tap.take() == []
        assert flow.count(Counter.ERRORS_IDENTITY) == 1
        site.assert_clean(flow)

    def test_a_large_file_of_other_bytes(self, site: Site) -> None:
        flow = sender(site, "attempts 1\nsegmentSize 1Mi")
        site.announce("f", os.urandom(4_000_000), identity=sha512(b"other"))
        flow.until_settled(1)
        assert site.files() == {}
        site.assert_clean(flow)

    def test_a_file_of_another_size(self, site: Site) -> None:
        flow = sender(site, "attempts 1")
        site.announce("f", DATA, size=5)
        flow.until_settled(1)
        assert site.files() == {}
        site.assert_clean(flow)

    def test_a_file_that_is_not_here(self, site: Site) -> None:
        flow = sender(site, "attempts 2")
        site.announce("f", DATA, put=False)
        flow.until_settled(1)
        assert flow.count(Counter.ERRORS_GONE) == 2
        site.assert_clean(flow)

    def test_a_link_that_leads_out_of_base_dir(self, site: Site, tmp_path: Path) -> None:
        (tmp_path / "secret").write_bytes(DATA)
        (site.docroot.path / "f").symlink_to(tmp_path / "secret")
        flow = sender(site)
        site.announce("f", DATA, put=False)
        flow.until_settled(1)
        assert site.files() == {}
        assert flow.count(Counter.ERRORS_UNSAFE_PATH) == 1
        site.assert_clean(flow)

    def test_a_path_that_leads_out(self, site: Site) -> None:
        flow = sender(site)
        site.announce("../f", DATA, put=False)
        flow.until_settled(1)
        assert site.files() == {}
        site.assert_clean(flow)

    def test_a_block_of_a_file(self, site: Site, caplog: pytest.LogCaptureFixture) -> None:
        flow = sender(site)
        manifest = {"method": "inplace", "size": 500, "number": 1, "count": 3, "remainder": 100, "id": "x"}
        site.announce("f", DATA, blocks=manifest, size=500)
        flow.until_settled(1)
        assert site.files() == {}
        assert flow.count(Counter.MESSAGES_REJECTED) == 1
        assert "blocks cannot be sent" in caplog.text
        site.assert_clean(flow)

    def test_a_directory_in_the_way(self, site: Site) -> None:
        (site.dest / "f").mkdir()
        (site.dest / "f" / "x").write_bytes(b"x")
        flow = sender(site, "attempts 1")
        site.announce("f", DATA)
        flow.until(lambda: flow.kept(), "kept for later")
        assert site.files() == {"f": None, "f/x": b"x"}


class TestEvents:
    def test_directory_link_removal_rename(self, site: Site) -> None:
        tap = site.tap()
        flow = sender(site)
        site.event("d", directory="")
        site.announce("d/f", DATA)
        flow.until_settled(2)
        site.event("d/l", link="f")
        flow.until_settled(3)
        assert site.files() == {"d": None, "d/f": DATA, "d/l": "f"}
        site.publish(site.fields("d/g", DATA, fileOp={"rename": "d/f"}))
        flow.until_settled(4)
        assert site.files() == {"d": None, "d/g": DATA, "d/l": "f"}
        site.event("d/l", remove="")
        site.event("d/g", remove="")
        flow.until_settled(6)
        site.event("d", remove="", directory="")
        flow.until_settled(7)
        assert site.files() == {}
        assert tap.paths() == sorted(["d", "d/f", "d/l", "d/g", "d/l", "d/g", "d"])
        site.assert_clean(flow)

    def test_a_rename_of_what_is_not_there_is_sent(self, site: Site) -> None:
        flow = sender(site)
        site.put("new", DATA)
        site.publish(site.fields("new", DATA, fileOp={"rename": "old"}))
        flow.until_settled(1)
        assert site.files() == {"new": DATA}
        site.assert_clean(flow)

    def test_a_removal_of_what_is_not_there_is_announced(self, site: Site) -> None:
        tap = site.tap()
        flow = sender(site)
        site.event("none", remove="")
        flow.until_settled(1)
        assert tap.paths() == ["none"]
        site.assert_clean(flow)

    def test_a_link_that_leads_out_of_the_tree(self, site: Site) -> None:
        flow = sender(site)
        site.event("l", link="../../etc/passwd")
        flow.until_settled(1)
        assert site.files() == {}
        site.assert_clean(flow)


class TestDeaths:
    def test_dropped_before_the_commit_it_begins_anew(self, site: Site) -> None:
        first = sender(site, "attempts 1", wait=True)
        site.announce("f", DATA)
        first.until(lambda: first.flow.in_hand, "in hand")
        first.close(stop=False)
        second = sender(site)
        second.until_settled(1)
        assert site.files() == {"f": DATA}
        site.assert_clean(second)

    def test_stopped_in_the_middle_it_goes_on_after_the_restart(self, site: Site) -> None:
        first = sender(site)
        for number in range(50):
            site.announce(f"f{number}", os.urandom(1000))
        first.until(lambda: first.count(Counter.FILES_OK) >= 5, "some are sent")
        first.close()
        second = sender(site)
        second.until(lambda: first.count(Counter.FILES_OK) + second.count(Counter.FILES_OK) >= 50, "all are")
        second.until(lambda: not second.flow.in_hand, "settled")
        assert len(site.files()) == 50
        site.assert_clean(second)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Nginx]:
    with Nginx(tmp_path / "web") as server:
        os.mkdir(server.root / "dav")
        os.chmod(server.root / "dav", 0o777)
        yield server


@pytest.mark.nginx
class TestRefusals:
    """What a real web server says of a file's size, beside files that it takes."""

    def test_a_file_larger_than_the_server_takes_is_rejected_at_once(self, site: Site, web: Nginx) -> None:
        tap = site.tap()
        flow = site.run("sender", f"sendTo {web.url}dav")
        site.announce("small/large", bytes(500_000))
        site.announce("other", DATA)
        flow.until_settled(2)
        assert flow.count(Counter.ERRORS_TOO_LARGE) == 1
        assert flow.count(Counter.MESSAGES_REJECTED) == 1
        assert flow.kept() == []
        assert tap.paths() == ["other"]
        assert site.files(web.root / "dav") == {"other": DATA, "small": None}
        site.assert_clean(flow)

    def test_a_server_that_is_full_is_tried_again_and_holds_nothing_up(self, site: Site, web: Nginx) -> None:
        tap = site.tap()
        flow = site.run("sender", f"sendTo {web.url}dav\nattempts 1")
        site.announce("full/f", DATA)
        flow.until_counted(Counter.MESSAGES_KEPT)
        site.announce("other", DATA)
        flow.until_counted(Counter.FILES_OK)
        flow.until_counted(Counter.MESSAGES_RETRIED)
        assert flow.count(Counter.MESSAGES_REJECTED) == 0
        assert flow.count(Counter.ERRORS_NO_SPACE) > 0
        assert tap.paths() == ["other"]
        assert site.files(web.root / "dav") == {"other": DATA, "full": None}


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("ssh")) as server:
        yield server


@pytest.mark.sftp
@pytest.mark.parametrize("driver", ["openssh", "paramiko"])
class TestOverSftp:
    def start(self, site: Site, sshd: Sshd, driver: str, lines: str = "") -> tuple[Running, Path]:
        root = Path(sshd.root, site.directory.name)
        root.mkdir()
        root.chmod(0o777)
        credentials = Path(site.home.credentials_file).read_text()
        site.credentials(f"{credentials}{sshd.url('/')} ssh_keyfile={sshd.key_file}\n")
        settings = f"sftpDriver {driver}\nsftpKnownHosts {sshd.known_hosts}\n{lines}"
        flow = site.run("sender", f"sendTo {sshd.url(str(root))}\n{settings}")
        return flow, root

    def test_files_large_and_small(self, site: Site, sshd: Sshd, driver: str) -> None:
        tap = site.tap()
        flow, root = self.start(site, sshd, driver, "segmentSize 1Mi")
        bodies = {f"d{n % 3}/f{n}": os.urandom(n * 100) for n in range(40)} | {"big": os.urandom(5_000_000)}
        for name, body in bodies.items():
            site.announce(name, body)
        flow.until_settled(len(bodies))
        found = {name: content for name, content in site.files(root).items() if content is not None}
        assert found == bodies
        assert tap.paths() == sorted(bodies)
        assert flow.count(Counter.FILES_VERIFIED) == len(bodies)
        assert (root / "big").stat().st_mtime == 1704164645
        site.assert_clean(flow)

    def test_events(self, site: Site, sshd: Sshd, driver: str) -> None:
        flow, root = self.start(site, sshd, driver)
        site.event("d", directory="")
        site.announce("d/f", DATA)
        flow.until_settled(2)
        site.event("d/l", link="f")
        flow.until_settled(3)
        site.publish(site.fields("d/g", DATA, fileOp={"rename": "d/f"}))
        flow.until_settled(4)
        assert site.files(root) == {"d": None, "d/g": DATA, "d/l": "f"}
        site.event("d/g", remove="")
        site.event("d/l", remove="")
        flow.until_settled(6)
        site.event("d", remove="", directory="")
        flow.until_settled(7)
        assert site.files(root) == {}
        site.assert_clean(flow)

    def test_a_server_that_dies_in_the_middle(self, site: Site, sshd: Sshd, driver: str) -> None:
        limiter = site.limiter(8_000_000)
        root = Path(sshd.root, site.directory.name)
        root.mkdir()
        root.chmod(0o777)
        credentials = Path(site.home.credentials_file).read_text()
        site.credentials(f"{credentials}{sshd.url('/')} ssh_keyfile={sshd.key_file}\n")
        lines = f"sendTo {sshd.url(str(root))}\nsftpDriver {driver}\nsftpKnownHosts {sshd.known_hosts}\n"
        flow = site.run("sender", f"{lines}segmentSize 1Mi\nbyteRateMax 8M", limiter=limiter)
        body = os.urandom(6_000_000)
        site.announce("big", body)
        flow.until(lambda: any(root.iterdir()), "something is written")
        sshd.kill_sessions()
        flow.until_settled(1, timeout_s=40)
        assert site.files(root) == {"big": body}
        assert flow.count(Counter.ERRORS_TRANSFER) >= 1
        site.assert_clean(flow)

"""`download stream`: from server to server through the slots of shared memory, with no file in between."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from flowkit import Running, Site, sha512
from servers import DocRoot, Vhost
from sshserver import Sshd
from standins import EtagChangingServer, RangeIgnoringServer, ShortReadServer
from webserver import Nginx

from sarrapipe.config.problems import ConfigErrors
from sarrapipe.flow.staging import RING_FILE
from sarrapipe.shm.ring import slots_in_use
from sarrapipe.shm.slots import Counter

pytestmark = [pytest.mark.broker, pytest.mark.nginx]

DATA = b"some bytes\n" * 100
SEGMENTED = "segmentSize 1Mi\nstagingBytes 4Mi\nstreams 4"


@pytest.fixture
def site(tmp_path: Path, vhost: Vhost, docroot: DocRoot) -> Iterator[Site]:
    with Site(tmp_path, vhost, docroot) as made:
        yield made


def relay(site: Site, lines: str = "", to: str = "", **place: object) -> Running:
    where = to or f"file://{site.dest}"
    return site.run("sender", f"sendTo {where}\ndownload stream\n{lines}", **place)


def check_slots_free(flow: Running) -> None:
    """Nothing is held in the ring once all is settled."""
    assert slots_in_use(os.path.join(flow.config.state_dir, RING_FILE)) == 0


def test_small_files(site: Site) -> None:
    tap = site.tap()
    flow = relay(site)
    bodies = {f"d{n % 3}/f{n}": os.urandom(n * 300) for n in range(40)}
    for name, body in bodies.items():
        site.announce(name, body)
    flow.until_settled(40)
    assert {name: content for name, content in site.files().items() if content is not None} == bodies
    assert tap.paths() == sorted(bodies)
    assert flow.count(Counter.FILES_VERIFIED) == 40
    check_slots_free(flow)
    site.assert_clean(flow)


def test_a_file_larger_than_all_slots(site: Site) -> None:
    body = os.urandom(20_000_000)
    tap = site.tap()
    flow = relay(site, SEGMENTED)
    site.announce("big", body)
    flow.until_settled(1)
    assert site.files() == {"big": body}
    assert tap.one()["identity"] == sha512(body)
    assert flow.count(Counter.FILES_VERIFIED) == 1
    assert flow.count(Counter.BYTES_STAGED) == len(body)
    assert os.stat(os.path.join(flow.config.state_dir, RING_FILE)).st_blocks * 512 <= 5 << 20
    check_slots_free(flow)
    site.assert_clean(flow)


def test_several_large_files_at_a_time(site: Site) -> None:
    bodies = {f"big{n}": os.urandom(6_000_000 + n) for n in range(6)}
    flow = relay(site, SEGMENTED)
    for name, body in bodies.items():
        site.announce(name, body)
    flow.until_settled(6, timeout_s=60)
    assert site.files() == bodies
    check_slots_free(flow)
    site.assert_clean(flow)


def test_other_bytes_than_announced(site: Site) -> None:
    tap = site.tap()
    flow = relay(site, f"attempts 2\n{SEGMENTED}")
    site.announce("small", DATA, identity=sha512(b"other"))
    site.announce("big", os.urandom(5_000_000), identity=sha512(b"other"))
    flow.until_settled(2)
    assert site.files() == {}
    assert tap.take() == []
    assert flow.count(Counter.ERRORS_IDENTITY) == 4
    check_slots_free(flow)
    site.assert_clean(flow)


def test_a_source_without_ranges(site: Site) -> None:
    body = os.urandom(5_000_000)
    flow = relay(site, SEGMENTED)
    with RangeIgnoringServer(body) as server:
        site.announce("big", body, put=False, baseUrl=server.url)
        flow.until_settled(1)
    assert site.files() == {"big": body}
    check_slots_free(flow)
    site.assert_clean(flow)


def test_a_source_of_which_each_range_is_of_another_version(site: Site) -> None:
    body = os.urandom(5_000_000)
    flow = relay(site, f"attempts 1\n{SEGMENTED}")
    with EtagChangingServer(body) as server:
        site.announce("big", body, put=False, baseUrl=server.url)
        flow.until_settled(1)
    assert site.files() == {}
    check_slots_free(flow)
    site.assert_clean(flow)


def test_a_source_that_breaks_off(site: Site) -> None:
    body = os.urandom(5_000_000)
    flow = relay(site, f"attempts 1\n{SEGMENTED}")
    with ShortReadServer(body) as server:
        site.announce("big", body, put=False, baseUrl=server.url)
        flow.until(flow.kept, "kept for later")
    assert site.files() == {}
    check_slots_free(flow)


def test_without_a_size(site: Site) -> None:
    flow = relay(site)
    site.announce("f", DATA, size=None)
    flow.until_settled(1)
    assert site.files() == {}
    site.assert_clean(flow)


def test_to_a_web_server(site: Site, tmp_path: Path) -> None:
    bodies = {"d/big": os.urandom(9_000_000), "d/small": DATA, "empty": b""}
    with Nginx(tmp_path / "far") as far:
        root = Path(far.root, "dav")
        root.mkdir()
        root.chmod(0o777)
        flow = relay(site, SEGMENTED, f"{far.url}dav")
        for name, body in bodies.items():
            site.announce(name, body)
        flow.until_settled(3)
        found = {name: content for name, content in site.files(root).items() if content is not None}
        assert found == bodies
        check_slots_free(flow)
        site.assert_clean(flow)


def test_to_a_web_server_that_takes_no_file_of_that_size(site: Site, tmp_path: Path) -> None:
    """It answers while the rest is still being fetched."""
    tap = site.tap()
    with Nginx(tmp_path / "far") as far:
        root = Path(far.root, "dav")
        root.mkdir()
        root.chmod(0o777)
        flow = relay(site, f"{SEGMENTED}\nbyteRateMax 8M", f"{far.url}dav", limiter=site.limiter(8_000_000))
        site.announce("small/large", os.urandom(9_000_000))
        site.announce("other", DATA)
        flow.until_settled(2)
        assert flow.count(Counter.ERRORS_TOO_LARGE) == 1
        assert flow.count(Counter.MESSAGES_REJECTED) == 1
        assert tap.paths() == ["other"]
        assert site.files(root) == {"other": DATA, "small": None}
        check_slots_free(flow)
        site.assert_clean(flow)


@pytest.mark.sftp
def test_to_an_sftp_server(site: Site, tmp_path: Path) -> None:
    bodies = {"d/big": os.urandom(9_000_000), "d/small": DATA, "empty": b""}
    with Sshd(tmp_path / "ssh") as far:
        root = Path(far.root, "in")
        root.mkdir()
        root.chmod(0o777)
        credentials = Path(site.home.credentials_file).read_text()
        site.credentials(f"{credentials}{far.url('/')} ssh_keyfile={far.key_file}\n")
        flow = relay(site, f"{SEGMENTED}\nsftpKnownHosts {far.known_hosts}", far.url(str(root)))
        for name, body in bodies.items():
            site.announce(name, body)
        flow.until_settled(3)
        found = {name: content for name, content in site.files(root).items() if content is not None}
        assert found == bodies
        check_slots_free(flow)
        site.assert_clean(flow)


def test_what_a_relay_needs(site: Site) -> None:
    with pytest.raises(ConfigErrors, match="set sendTo"):
        site.config("sarra", "download stream")
    with pytest.raises(ConfigErrors, match="staging is none"):
        site.config("sender", f"sendTo file://{site.dest}\ndownload stream\nstaging none")

"""`sarra` with an SFTP source, end to end: small files, large ones in segments, siblings, trouble."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flowkit import Site, sha512
from sshserver import PASSWORD, Sshd
from test_flow_siblings import Sibling

from sarrapipe.shm.slots import Counter

pytestmark = [pytest.mark.broker, pytest.mark.sftp]

MIB = 1 << 20
LARGE = os.urandom(4096) * 256 * 24  # 24 MiB
SEGMENTED = "segmentSize 1MiB\nstreams 4\n"


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("ssh")) as server:
        yield server


@pytest.fixture(params=["openssh", "paramiko"])
def lines(request: pytest.FixtureRequest, sshd: Sshd) -> str:
    return f"sftpDriver {request.param}\nsftpKnownHosts {sshd.known_hosts}\n"


@pytest.fixture
def site(tmp_path, vhost, docroot, sshd):
    with Site(tmp_path, vhost, docroot) as made:
        log_in(made, sshd, f"{sshd.url('/')} ssh_keyfile={sshd.key_file}")
        yield made


def log_in(site: Site, sshd: Sshd, line: str) -> None:
    """Add a line to credentials.conf."""
    path = Path(site.home.credentials_file)
    amqp = [one for one in path.read_text().splitlines() if one.startswith("amqp")]
    site.credentials("\n".join([*amqp, line]) + "\n")


def announce(site: Site, sshd: Sshd, name: str, data: bytes, **changes: object) -> None:
    """Put a file where the server has it, and announce it."""
    sshd.put(name, data)
    site.announce(name, data, put=False, baseUrl=sshd.url(f"{sshd.root}/"), **changes)


def test_small_files_with_odd_names(site, sshd, lines):
    bodies = {f"d{n % 3}/file {n} %20#?.txt": os.urandom(n * 500) for n in range(40)}
    tap = site.tap()
    flow = site.run(lines=lines)
    for name, body in bodies.items():
        announce(site, sshd, name, body)
    flow.until_settled(len(bodies))
    assert tap.paths() == sorted(bodies)
    assert {name: body for name, body in site.files().items() if body is not None} == bodies
    assert flow.count(Counter.FILES_VERIFIED) == len(bodies)
    site.assert_clean(flow)


def test_a_large_file_moves_in_segments(site, sshd, lines):
    tap = site.tap()
    flow = site.run(lines=lines + SEGMENTED)
    announce(site, sshd, "large", LARGE)
    flow.until_settled(1)
    assert tap.one()["identity"] == sha512(LARGE)
    assert site.files() == {"large": LARGE}
    assert flow.count(Counter.SEGMENTS_OK) == 24
    site.assert_clean(flow)


def test_a_sibling_helps(site, sshd, lines):
    """The rate is limited here, not there: the sibling finds something left to do."""
    flow = site.run(lines=lines + SEGMENTED, limiter=site.limiter(8 * MIB))
    with Sibling(site) as sibling:
        announce(site, sshd, "large", LARGE)
        flow.until_counted(Counter.SEGMENTS_OK)
        sibling.work_announced()
        flow.until_settled(1)
        counters = sibling.stop()
    assert counters["SEGMENTS_HELPED"] >= 2
    assert flow.count(Counter.SEGMENTS_OK) + counters["SEGMENTS_HELPED"] == 24
    assert site.files() == {"large": LARGE}
    site.assert_clean(flow)


def test_a_file_that_another_replaces_in_between_is_not_mixed(site, sshd, lines):
    tap = site.tap()
    flow = site.run(lines=lines + SEGMENTED, limiter=site.limiter(4 * MIB))
    announce(site, sshd, "large", LARGE)
    flow.until_counted(Counter.SEGMENTS_OK)
    sshd.put("large.new", bytes(len(LARGE)))
    os.utime(sshd.root / "large.new", (time.time() + 60,) * 2)
    os.replace(sshd.root / "large.new", sshd.root / "large")
    flow.until_settled(1)
    assert tap.take() == []
    assert site.files() == {}
    site.assert_clean(flow)


def test_a_server_that_dies_costs_no_file(site, sshd, lines):
    tap = site.tap()
    flow = site.run(lines=lines + SEGMENTED + "attempts 10", limiter=site.limiter(20 * MIB))
    announce(site, sshd, "large", LARGE)
    flow.until_counted(Counter.SEGMENTS_OK)
    sshd.kill_sessions()
    flow.until_settled(1)
    assert tap.paths() == ["large"]
    assert site.files() == {"large": LARGE}
    site.assert_clean(flow)


def test_a_password_from_credentials_conf(site, sshd, lines):
    log_in(site, sshd, sshd.url("/", "alice").replace("@", f":{PASSWORD.replace(' ', '%20')}@"))
    tap = site.tap()
    flow = site.run(lines=lines)
    sshd.put("f", b"x")
    site.announce("f", b"x", put=False, baseUrl=sshd.url(f"{sshd.root}/", "alice"))
    flow.until_settled(1)
    assert tap.paths() == ["f"]


def test_an_unknown_host_keeps_the_file_for_later(site, sshd, lines, tmp_path):
    known = tmp_path / "known_hosts"
    known.write_text("")
    tap = site.tap()
    flow = site.run(lines=lines + f"sftpKnownHosts {known}\nattempts 1")
    announce(site, sshd, "f", b"x")
    flow.until(lambda: flow.kept(), "it is kept")
    assert tap.take() == []
    known.write_text(Path(sshd.known_hosts).read_text())
    flow.advance(600)
    flow.until(lambda: not flow.kept(), "it was tried again")
    flow.until_counted(Counter.FILES_VERIFIED)
    assert site.files() == {"f": b"x"}

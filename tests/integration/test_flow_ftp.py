"""FTP and FTPS, end to end: `sarra` fetches by it, a `sender` sends by it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from flowkit import Site, sha512
from ftpserver import PASSWORD, USER, Ftpd
from servers import DocRoot, Vhost

from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

DATA = b"some bytes\n" * 100
LOGIN = f"{USER}:{PASSWORD.replace(' ', '%20').replace(':', '%3A').replace('ü', '%C3%BC')}"


@pytest.fixture(params=[False, True], ids=["ftp", "ftps"])
def ftpd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ftpd]:
    with Ftpd(tmp_path / "far", tls=request.param) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, vhost: Vhost, docroot: DocRoot, ftpd: Ftpd) -> Iterator[Site]:
    with Site(tmp_path, vhost, docroot) as made:
        text = Path(made.home.credentials_file).read_text()
        made.credentials(f"{text}{ftpd.url('/').replace('://', f'://{LOGIN}@')}\n")
        yield made


def trust(ftpd: Ftpd) -> str:
    return f"caFile {ftpd.ca_file}" if ftpd.tls else ""


def test_files_are_fetched(site: Site, ftpd: Ftpd) -> None:
    tap = site.tap()
    flow = site.run(lines=f"acceptSchemes +ftp,ftps\nsegmentSize 1Mi\nstreams 4\n{trust(ftpd)}")
    bodies = {f"d/f {n}": os.urandom(n * 400) for n in range(10)} | {"big": os.urandom(5_000_000)}
    for name, body in bodies.items():
        ftpd.put(name, body)
        site.announce(name, body, put=False, baseUrl=ftpd.url("/"))
    flow.until_settled(len(bodies))
    assert {name: content for name, content in site.files().items() if content is not None} == bodies
    assert tap.paths() == sorted(bodies)
    assert flow.count(Counter.FILES_VERIFIED) == len(bodies)
    assert flow.count(Counter.SEGMENTS_OK) == 5
    site.assert_clean(flow)


def test_what_is_not_as_announced(site: Site, ftpd: Ftpd) -> None:
    tap = site.tap()
    flow = site.run(lines=f"acceptSchemes +ftp,ftps\nattempts 1\n{trust(ftpd)}")
    ftpd.put("other", DATA)
    ftpd.put("longer", DATA + b"x")
    site.announce("other", DATA, put=False, baseUrl=ftpd.url("/"), identity=sha512(b"other"))
    site.announce("longer", DATA, put=False, baseUrl=ftpd.url("/"))
    site.announce("none", DATA, put=False, baseUrl=ftpd.url("/"))
    flow.until_settled(3)
    assert site.files() == {}
    assert tap.take() == []
    counted = (Counter.ERRORS_IDENTITY, Counter.ERRORS_CHANGED, Counter.ERRORS_GONE)
    assert [flow.count(counter) for counter in counted] == [1, 1, 1]
    site.assert_clean(flow)


def test_files_are_sent(site: Site, ftpd: Ftpd) -> None:
    flow = site.run("sender", f"sendTo {ftpd.url('/in')}\n{trust(ftpd)}")
    bodies = {f"d{n % 2}/f{n}": os.urandom(n * 400) for n in range(10)}
    for name, body in bodies.items():
        site.announce(name, body)
    flow.until_settled(len(bodies))
    root = ftpd.root / "in"
    assert {name: content for name, content in site.files(root).items() if content is not None} == bodies
    assert (root / "d1/f1").stat().st_mtime == 1704164645
    site.publish(site.fields("d1/g", bodies["d1/f1"], fileOp={"rename": "d1/f1"}))
    site.event("d0/f2", remove="")
    flow.until_settled(len(bodies) + 2)
    assert (root / "d1/g").read_bytes() == bodies["d1/f1"]
    assert not (root / "d1/f1").exists()
    assert not (root / "d0/f2").exists()
    site.assert_clean(flow)

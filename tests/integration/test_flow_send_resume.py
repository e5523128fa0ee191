"""A large file that is partly sent: what the server has answered is not sent again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from flowkit import Running, Site
from killkit import segments_written
from servers import DocRoot, Vhost
from sshserver import Sshd

from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

SEGMENT = 1 << 20
SEGMENTS = 12
STREAMS = 2
LINES = f"segmentSize {SEGMENT}\nstreams {STREAMS}\ninflight .tmp"


@pytest.fixture
def site(tmp_path: Path, vhost: Vhost, docroot: DocRoot) -> Iterator[Site]:
    with Site(tmp_path, vhost, docroot) as made:
        yield made


def body_of(segments: int = SEGMENTS) -> bytes:
    return os.urandom(segments * SEGMENT - 5)


def sender(site: Site, lines: str = "", to: str = "", **place: object) -> Running:
    where = to or f"file://{site.dest}"
    return site.run("sender", f"sendTo {where}\n{LINES}\n{lines}", **place)


def under_way(site: Site) -> list[Path]:
    return [path for path in site.dest.iterdir() if path.name.endswith(".tmp")]


def interrupted(site: Site, *, stop: bool = True) -> int:
    """Send a part of a file; return how many of its bytes the ledger counts."""
    first = sender(site, "byteRateMax 4M", limiter=site.limiter(4_000_000))
    site.announce("big", body := body_of())
    first.until_counted(Counter.SEGMENTS_OK, 3)
    first.close(stop=stop)
    [numbers] = segments_written(first.config.state_dir).values()
    assert 0 < len(numbers) < SEGMENTS
    assert len(under_way(site)) == 1
    return sum(len(body[n * SEGMENT : (n + 1) * SEGMENT]) for n in numbers)


def check_arrived(site: Site, flow: Running) -> None:
    body = (site.docroot.path / "big").read_bytes()
    assert site.files() == {"big": body}
    assert flow.count(Counter.FILES_VERIFIED) == 1
    site.assert_clean(flow)


@pytest.mark.parametrize("stop", [True, False], ids=["stopped", "dropped"])
def test_what_was_answered_is_not_sent_again(site: Site, *, stop: bool) -> None:
    written = interrupted(site, stop=stop)
    tap = site.tap()
    second = sender(site)
    second.until_settled(1)
    assert second.count(Counter.BYTES_SENT) == SEGMENTS * SEGMENT - 5 - written
    assert second.count(Counter.FILES_RESUMED) == 1
    assert tap.paths() == ["big"]
    check_arrived(site, second)


@pytest.mark.parametrize("damage", ["removed", "cut"])
def test_what_is_not_there_any_more_is_sent_anew(
    site: Site, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    interrupted(site)
    [path] = under_way(site)
    if damage == "removed":
        path.unlink()
    else:
        os.truncate(path, 1000)
    second = sender(site)
    second.until_settled(1)
    assert second.count(Counter.BYTES_SENT) == SEGMENTS * SEGMENT - 5
    assert second.count(Counter.FILES_RESUMED) == 0
    assert second.count(Counter.ERRORS_STORAGE) == 1
    assert "it is sent anew" in caplog.text
    check_arrived(site, second)


def test_another_file_here_is_sent_anew(site: Site) -> None:
    """Bytes of two files are never put together, though both have the announced size."""
    interrupted(site)
    here = site.docroot.path / "big"
    shutil.copy(here, here.with_name("copy"))
    here.with_name("copy").rename(here)
    second = sender(site)
    second.until_settled(1)
    assert second.count(Counter.BYTES_SENT) == SEGMENTS * SEGMENT - 5
    check_arrived(site, second)


def test_of_another_cut_it_is_sent_anew(site: Site) -> None:
    interrupted(site)
    second = sender(site, f"segmentSize {2 * SEGMENT}")
    second.until_settled(1)
    assert second.count(Counter.BYTES_SENT) == SEGMENTS * SEGMENT - 5
    check_arrived(site, second)


def test_another_size_than_announced_where_that_does_not_matter(site: Site) -> None:
    flow = sender(site, "acceptSizeWrong on")
    body = body_of()
    site.put("big", body)
    site.publish(site.fields("big", body, size=len(body) - SEGMENT))
    flow.until_settled(1)
    check_arrived(site, flow)


@pytest.mark.sftp
@pytest.mark.parametrize("driver", ["openssh", "paramiko"])
def test_a_connection_that_breaks(site: Site, tmp_path: Path, driver: str) -> None:
    body = body_of()
    with Sshd(tmp_path / "ssh") as far:
        root = Path(far.root, "in")
        root.mkdir()
        root.chmod(0o777)
        credentials = Path(site.home.credentials_file).read_text()
        site.credentials(f"{credentials}{far.url('/')} ssh_keyfile={far.key_file}\n")
        lines = f"sftpDriver {driver}\nsftpKnownHosts {far.known_hosts}\nbyteRateMax 6M"
        flow = sender(site, lines, far.url(str(root)), limiter=site.limiter(6_000_000))
        site.announce("big", body)
        flow.until_counted(Counter.SEGMENTS_OK, 3)
        far.kill_sessions()
        flow.until_settled(1, timeout_s=60)
        assert site.files(root) == {"big": body}
    # What was under way at that moment is sent twice, by each stream one segment.
    assert flow.count(Counter.BYTES_SENT) <= len(body) + STREAMS * SEGMENT
    assert flow.count(Counter.SEGMENTS_OK) == SEGMENTS
    assert flow.count(Counter.FILES_RESUMED) == 1
    site.assert_clean(flow)

"""Files under way that somebody cuts, replaces or plants: noticed, counted, fetched anew."""

from __future__ import annotations

import os

import pytest
from blockkit import Posted
from flowkit import Site, sha512
from standins import StandIn

from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

MIB = 1 << 20
LARGE = os.urandom(4096) * 256 * 6  # 6 MiB
BLOCKS = os.urandom(3 * MIB - 100)
SEGMENTED = "segmentSize 1MiB\nstreams 2\nattempts 3"


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


class Gated(StandIn):
    """Answers so many requests; the others when the gate is opened."""

    def __init__(self, body: bytes, free: int) -> None:
        super().__init__(body)
        self._free = free
        self.opened = False

    def answer(self, handler, headers):
        number = len(self.requests)
        while not self.opened and number > self._free and not self.ending.wait(0.01):
            pass
        super().answer(handler, headers)


def under_way(site):
    """The one file under way."""
    (path,) = [path for path in (site.dest / ".sarrapipe").rglob("*") if not path.is_dir()]
    return path


def cut(path):
    os.truncate(path, 0)


def cut_and_stretched(path):
    size = path.stat().st_size
    os.truncate(path, 10)
    os.truncate(path, size)


def replaced(path):
    size = path.stat().st_size
    path.unlink()
    path.write_bytes(b"x" * size)


def link(path):
    path.unlink()
    path.symlink_to("/etc/passwd")


def directory(path):
    path.unlink()
    path.mkdir()
    (path / "inside").write_bytes(b"x")


def removed(path):
    path.unlink()


DAMAGE = [cut, cut_and_stretched, replaced, link, directory, removed]


def assert_whole(site, tap, flow, path, data):
    message = tap.one()
    assert message.rel_path == path
    assert message["identity"] == sha512(data)
    assert site.files()[path] == data
    assert sorted(site.files()) == [path]
    assert (site.dest / path).is_symlink() is False
    site.assert_clean(flow)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_in_segments(site, damage):
    """The digest of the whole is not checked: only what was written tells."""
    tap, flow = site.tap(), site.run(lines=SEGMENTED + "\nvalidation headers")
    with Gated(LARGE, 3) as server:
        site.announce("big", LARGE, put=False, baseUrl=server.url)
        flow.until_counted(Counter.SEGMENTS_OK, 3)
        damage(under_way(site))
        server.opened = True
        flow.until_settled(1)
    assert flow.count(Counter.ERRORS_STORAGE) == 1
    assert flow.count(Counter.SEGMENTS_OK) == 12, "all of it is fetched anew"
    assert_whole(site, tap, flow, "big", LARGE)


@pytest.mark.parametrize("damage", [cut, cut_and_stretched, replaced, directory])
def test_a_file_in_blocks(site, damage):
    tap, flow = site.tap(), site.run(lines="identity sha512")
    posted = Posted(site, "big", BLOCKS, MIB)
    site.publish_all(posted.messages((0, 2)))
    flow.until_counted(Counter.SEGMENTS_OK, 2)
    damage(under_way(site))
    site.publish(posted.message(1))
    flow.until_settled(3)
    assert flow.count(Counter.ERRORS_STORAGE) >= 1
    assert_whole(site, tap, flow, "big", BLOCKS)


@pytest.mark.parametrize("damage", [cut_and_stretched, replaced, link])
def test_a_file_in_blocks_that_rest_while_the_flow_is_stopped(site, damage):
    first = site.run(lines="identity sha512")
    posted = Posted(site, "big", BLOCKS, MIB)
    site.publish_all(posted.messages((0, 2)))
    first.until_counted(Counter.SEGMENTS_OK, 2)
    first.close()
    damage(under_way(site))
    tap, again = site.tap(), site.run(lines="identity sha512")
    site.publish(posted.message(1))
    again.until(lambda: again.count(Counter.FILES_ASSEMBLED), "it is whole")
    again.until(lambda: not again.flow.in_hand and not again.kept(), "all is settled")
    assert again.count(Counter.ERRORS_STORAGE) >= 1
    assert_whole(site, tap, again, "big", BLOCKS)


@pytest.mark.parametrize("make", [link, directory])
def test_a_destination_that_becomes_a_link_or_a_directory(site, make):
    """A link is replaced, never followed. A directory stays: the file waits until it is gone."""
    tap, flow = site.tap(), site.run(lines="identity sha512\nattempts 1")
    posted = Posted(site, "big", BLOCKS, MIB)
    (site.dest / "big").write_bytes(b"an older one")
    os.utime(site.dest / "big", (1, 1))
    site.publish_all(posted.messages((0, 2)))
    flow.until_counted(Counter.SEGMENTS_OK, 2)
    make(site.dest / "big")
    site.publish(posted.message(1))
    if make is directory:
        flow.until(lambda: flow.kept(), "it waits")
        assert flow.count(Counter.ERRORS_STORAGE) == 1
        assert tap.take() == []
        assert (site.dest / "big/inside").read_bytes() == b"x"
        (site.dest / "big/inside").unlink()
        (site.dest / "big").rmdir()
        flow.advance(60)
    flow.until(lambda: flow.count(Counter.MESSAGES_PUBLISHED), "it is announced")
    flow.until(lambda: not flow.flow.in_hand and not flow.kept(), "all is settled")
    assert_whole(site, tap, flow, "big", BLOCKS)


def test_a_directory_of_the_destination_that_becomes_a_link(site, tmp_path):
    """Refused: nothing is written outside, nothing is left."""
    tap, flow = site.tap(), site.run(lines="identity sha512\nattempts 1")
    posted = Posted(site, "d/big", BLOCKS, MIB)
    (site.dest / "d").mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    site.publish_all(posted.messages((0, 2)))
    flow.until_counted(Counter.SEGMENTS_OK, 2)
    (site.dest / "d").rmdir()
    (site.dest / "d").symlink_to(outside)
    site.publish(posted.message(1))
    flow.until_counted(Counter.ERRORS_UNSAFE_PATH)
    flow.until_counted(Counter.MESSAGES_REJECTED)
    assert tap.take() == []
    assert list(outside.iterdir()) == []
    flow.close()

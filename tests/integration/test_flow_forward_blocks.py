"""`reassemble off`: blocks are fetched, kept and announced as blocks, each a file of its own (R143)."""

from __future__ import annotations

import os

import pytest
from blockkit import Posted
from flowkit import Site, sha512, turn_all

from sarrapipe.message.blocknames import block_name
from sarrapipe.message.model import Blocks
from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

DATA = os.urandom(2560)
OFF = "reassemble off"


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


def check_forwarded(site, tap, posted, *, mark):
    """Each block has its file, and an announcement that says all the next hop needs."""
    found = {m.blocks.number: m for m in tap.take()}
    assert sorted(found) == list(range(posted.count))
    for number, message in found.items():
        name = block_name(posted.path, number, posted.block_bytes)
        assert message.rel_path == name
        assert message.base_url == "http://example.com/data/"
        assert message.size == len(posted.bytes_of(number))
        assert message["identity"] == sha512(posted.bytes_of(number))
        blocks = message.blocks
        assert isinstance(blocks, Blocks)
        assert (blocks.method, blocks.id, blocks.file_size) == ("separate", mark, len(posted.data))
        assert site.files()[name] == posted.bytes_of(number)


def test_ranges_become_files(site):
    tap, flow = site.tap(), site.run(lines=OFF)
    posted = Posted(site, "d/big", DATA, 1000)
    site.publish_all(posted.messages((2, 0, 1)))
    flow.until_settled(3)
    check_forwarded(site, tap, posted, mark="mark")
    assert flow.count(Counter.BYTES_RECEIVED) == len(DATA)
    site.assert_clean(flow)


def test_files_with_blocks_go_on_as_they_are(site):
    tap, flow = site.tap(), site.run(lines=OFF)
    posted = Posted(site, "d/big", DATA, 1000, put=False)
    for number in range(3):
        posted.put_block(number)
    site.publish_all(posted.message(n, "separate") for n in range(3))
    flow.until_settled(3)
    check_forwarded(site, tap, posted, mark="mark")
    site.assert_clean(flow)


def test_advisory_digests_are_replaced_by_the_true_ones(site):
    tap, flow = site.tap(), site.run(lines=OFF)
    posted = Posted(site, "d/big", DATA, 1000, mark=None)
    site.publish_all(posted.sr3_message(n) for n in range(3))
    flow.until_settled(3)
    check_forwarded(site, tap, posted, mark=None)
    assert flow.count(Counter.BLOCKS_UNCONFIRMED) == 2
    site.assert_clean(flow)


def test_a_wrong_block_with_a_mark_is_not_forwarded(site):
    tap, flow = site.tap(), site.run(lines=OFF + "\nattempts 1")
    posted = Posted(site, "d/big", DATA, 1000)
    site.publish(posted.message(1, identity=sha512(b"another")))
    flow.until_settled(1)
    assert tap.take() == []
    assert flow.count(Counter.ERRORS_IDENTITY) == 1
    site.assert_clean(flow)


def test_equal_blocks_and_an_unchanged_block_of_the_next_version(site):
    tap, flow = site.tap(), site.run(lines=OFF + "\nnodupe_ttl 300")
    data = bytes(2500)
    first = Posted(site, "d/big", data, 1000, mark="1")
    site.publish_all(first.messages())
    flow.until_settled(3)
    check_forwarded(site, tap, first, mark="1")
    second = Posted(site, "d/big", data[:-1], 1000, mark="2", mtime="20240102T040405")
    site.publish_all(second.messages())
    flow.until_settled(6)
    check_forwarded(site, tap, second, mark="2")
    site.assert_clean(flow)


def test_two_hops_end_in_one_file(site):
    """Two movers that share a queue and no disk, and an end point that fetches from both."""
    movers = [
        site.start(site.config("sarra", f"{OFF}\ndirectory {place}\npost_baseDir {place}\n"
                               f"post_baseUrl {site.docroot.url}{name}/\nprefetch 1\nbatch 1\n"
                               "queueName q_feeder.movers", name))
        for name in ("one", "two")
        for place in (site.docroot.path / name,)
    ]  # fmt: skip
    end = site.start(site.config("subscribe", "", "end", "xpublic"))
    posted = Posted(site, "d/big", DATA, 100)
    site.publish_all(posted.messages())
    turn_all([*movers, end], lambda: end.count(Counter.FILES_OK), "it is whole")
    assert site.files()["d/big"] == DATA
    assert all(mover.count(Counter.FILES_OK) for mover in movers), "both movers carry some"

"""A new version of a file in blocks: what the older one in place holds is copied, not fetched (R153)."""

from __future__ import annotations

import os

import pytest
from blockkit import Posted
from flowkit import Site, leftovers, sha512
from rangeservers import Ranges
from test_flow_siblings import Sibling

from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

BLOCK = 10_000
OLD = os.urandom(20 * BLOCK + 321)
LINES = "identity sha512"
LATER = "20240102T040405"


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


def changed(data, *numbers, block=BLOCK):
    """The same data with other bytes in some blocks."""
    new = bytearray(data)
    for number in numbers:
        new[number * block] ^= 255
    return bytes(new)


def put_in_place(site, data=OLD, path="d/big"):
    """An older version, put there by whomever."""
    target = site.dest / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    os.utime(target, (1e9, 1e9))
    return target


def update(site, flow, data, server, order=None, *, mark="mark", block=BLOCK, **changes):
    """Announce a version in blocks that `server` serves; return when it is settled."""
    posted = Posted(site, "d/big", data, block, mark=mark, mtime=LATER, put=False)
    site.publish_all(posted.messages(order, baseUrl=server.url, **changes))
    flow.until_settled(posted.count)
    return posted


def check_arrived(site, flow, tap, data):
    message = tap.one()
    assert message["identity"] == sha512(data)
    assert message["size"] == len(data)
    assert site.files() == {"d": None, "d/big": data}
    site.assert_clean(flow)


def test_only_changed_blocks_are_fetched(site):
    put_in_place(site)
    tap, flow = site.tap(), site.run(lines=LINES)
    new = changed(OLD, 3, 17)
    with Ranges(new) as server:
        update(site, flow, new, server)
    assert server.asked == {3 * BLOCK: 1, 17 * BLOCK: 1}
    assert flow.count(Counter.BYTES_RECEIVED) == 2 * BLOCK
    assert flow.count(Counter.BLOCKS_KEPT) == 19
    assert flow.count(Counter.BYTES_KEPT) == len(OLD) - 2 * BLOCK
    assert flow.count(Counter.BYTES_VERIFIED) == len(OLD)
    assert flow.count(Counter.SEGMENTS_OK) == 21
    check_arrived(site, flow, tap, new)


def test_after_a_version_that_this_flow_put_there(site):
    tap, flow = site.tap(), site.run(lines=LINES)
    with Ranges(OLD) as server:
        posted = Posted(site, "d/big", OLD, BLOCK, mark="1", put=False)
        site.publish_all(posted.messages(baseUrl=server.url))
        flow.until_settled(21)
    assert flow.count(Counter.BLOCKS_KEPT) == 0
    tap.take()
    new = changed(OLD, 20)
    posted = Posted(site, "d/big", new, BLOCK, mark="2", mtime=LATER, put=False)
    with Ranges(new) as server:
        site.publish_all(posted.messages(baseUrl=server.url))
        flow.until_settled(42)
    assert server.asked == {20 * BLOCK: 1}
    check_arrived(site, flow, tap, new)


@pytest.mark.parametrize(
    ("new", "fetched"),
    [
        (OLD[: 12 * BLOCK], []),
        (OLD[: 12 * BLOCK + 5], []),
        (OLD[: 12 * BLOCK] + b"other", [12 * BLOCK]),
        (OLD + b"more", [20 * BLOCK]),
        (OLD + os.urandom(2 * BLOCK), [20 * BLOCK, 21 * BLOCK, 22 * BLOCK]),
        (OLD, []),
    ],
    ids=["shorter", "shorter within a block", "shorter, another end", "a longer end", "longer", "equal"],
)
def test_other_sizes(site, new, fetched):
    """A shorter end of a block is equal to what stands there where its bytes are: its own digest tells."""
    put_in_place(site)
    tap, flow = site.tap(), site.run(lines=LINES)
    with Ranges(new) as server:
        update(site, flow, new, server)
    assert sorted(server.asked) == fetched
    check_arrived(site, flow, tap, new)


def test_blocks_whose_digest_cannot_be_relied_on_are_fetched(site):
    """sr3's covers too many bytes (wire.md 2.6)."""
    put_in_place(site)
    tap, flow = site.tap(), site.run(lines=LINES)
    with Ranges(OLD) as server:
        update(site, flow, OLD, server, mark=None)
    assert len(server.asked) == 21
    assert flow.count(Counter.BLOCKS_KEPT) == 0
    check_arrived(site, flow, tap, OLD)


def stands_as_link(target):
    target.parent.mkdir(parents=True)
    (target.parent.parent / "elsewhere").write_bytes(OLD)
    target.symlink_to("../elsewhere")


def stands_as_fifo(target):
    target.parent.mkdir(parents=True)
    os.mkfifo(target)


@pytest.mark.parametrize("make", [stands_as_link, stands_as_fifo])
def test_what_is_no_regular_file_is_not_compared(site, make):
    """It is replaced, as ever; a link is not followed."""
    make(site.dest / "d/big")
    tap, flow = site.tap(), site.run(lines=LINES)
    with Ranges(OLD) as server:
        update(site, flow, OLD, server)
    assert len(server.asked) == 21
    assert flow.count(Counter.BLOCKS_KEPT) == 0
    assert tap.one()["identity"] == sha512(OLD)
    assert (site.dest / "d/big").read_bytes() == OLD
    assert not (site.dest / "d/big").is_symlink()
    site.assert_clean(flow)


def test_a_directory_of_that_name_is_not_compared(site):
    """The rename fails; when the directory is gone the kept blocks are fetched and put in place."""
    (site.dest / "d/big").mkdir(parents=True)
    tap, flow = site.tap(), site.run(lines=LINES + "\nattempts 1")
    posted = Posted(site, "d/big", OLD, BLOCK, put=False)
    with Ranges(OLD) as server:
        site.publish_all(posted.messages(baseUrl=server.url))
        flow.until_counted(Counter.ERRORS_STORAGE)
        flow.until(lambda: len(flow.kept()) == 21 or flow.advance(6), "all blocks are kept", 40)
        (site.dest / "d/big").rmdir()
        flow.until(lambda: site.dest.joinpath("d/big").is_file() or flow.advance(60), "it is in place", 40)
        flow.until(lambda: not flow.kept() and not flow.flow.in_hand, "all is settled")
    check_arrived(site, flow, tap, OLD)


def test_the_file_in_place_changes_while_it_is_compared(site):
    """It is cut off after its first blocks were kept: the others are fetched, what was kept stays right."""
    target = put_in_place(site)
    tap, flow = site.tap(), site.run(lines=LINES)
    posted = Posted(site, "d/big", OLD, BLOCK, mtime=LATER, put=False)
    with Ranges(OLD) as server:
        site.publish_all(posted.messages(range(5), baseUrl=server.url))
        flow.until_counted(Counter.SEGMENTS_OK, 5)
        with open(target, "r+b") as file:
            file.write(bytes(10 * BLOCK))
            file.truncate(10 * BLOCK)
        os.utime(target, (1e9, 1e9))
        site.publish_all(posted.messages(range(5, 21), baseUrl=server.url))
        flow.until_settled(21)
    assert sorted(server.asked) == [number * BLOCK for number in range(5, 21)]
    check_arrived(site, flow, tap, OLD)


def test_blocks_that_wait_for_others_are_kept_across_a_restart(site):
    """Half of them come, the process dies; the rest comes to another, which compares anew."""
    put_in_place(site)
    first = site.run(lines=LINES)
    new = changed(OLD, 3, 17)
    posted = Posted(site, "d/big", new, BLOCK, mtime=LATER, put=False)
    with Ranges(new) as server:
        site.publish_all(posted.messages(range(10), baseUrl=server.url))
        first.until_counted(Counter.SEGMENTS_OK, 10)
        first.close(stop=False)
        tap, again = site.tap(), site.run(lines=LINES)
        site.publish_all(posted.messages(range(10, 21), baseUrl=server.url))
        again.until_settled(21)
        assert server.asked == {3 * BLOCK: 1, 17 * BLOCK: 1}
    assert again.count(Counter.BLOCKS_KEPT) == 10
    check_arrived(site, again, tap, new)


def test_two_instances_keep_what_each_has_the_messages_of(site):
    """Both compare; no block is fetched twice, and each changed one once."""
    put_in_place(site)
    tap = site.tap()
    new = changed(OLD, *range(1, 21, 2))
    flow = site.run(lines=LINES + "\nprefetch 6\nbatch 6")
    posted = Posted(site, "d/big", new, BLOCK, mtime=LATER, put=False)
    with Ranges(new, pause_s=0.02) as server, Sibling(site, "consume") as sibling:
        site.publish_all(posted.messages(baseUrl=server.url))
        flow.until(lambda: (site.dest / "d/big").read_bytes() == new, "it is in place")
        flow.until(lambda: not flow.flow.in_hand, "all is settled here")
        counters = sibling.stop()
    assert server.asked == dict.fromkeys((n * BLOCK for n in range(1, 21, 2)), 1)
    kept = flow.count(Counter.BLOCKS_KEPT) + counters.get("BLOCKS_KEPT", 0)
    assert kept == 11
    assert tap.one()["identity"] == sha512(new)
    assert site.files() == {"d": None, "d/big": new}
    flow.close()
    assert "rows" not in leftovers(flow.config)

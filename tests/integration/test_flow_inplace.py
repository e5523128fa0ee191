"""`inplace on`: a new version is written into the file in place, and what that promises (R153)."""

from __future__ import annotations

import os

import pytest
from blockkit import Posted
from flowkit import Site, leftovers, sha512
from rangeservers import Ranges
from test_flow_delta import BLOCK, LATER, OLD, changed, check_arrived, put_in_place, update
from test_flow_siblings import Sibling

from sarrapipe.segment.assembly import GENERATION_XATTR
from sarrapipe.segment.inplace import WRITING_XATTR
from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

LINES = "identity sha512\ninplace on"
MUCH_LATER = "20240103T040405"


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


@pytest.fixture
def target(site):
    """The older version, in place."""
    return put_in_place(site)


def marks(path):
    return {name for name in os.listxattr(path) if name.startswith("user.sarrapipe.")}


def posted_by(site, server, data, numbers=None, *, mark="mark", mtime=LATER):
    posted = Posted(site, "d/big", data, BLOCK, mark=mark, mtime=mtime, put=False)
    site.publish_all(posted.messages(numbers, baseUrl=server.url))
    return posted


def test_only_changed_blocks_are_written(site, target):
    inode = target.stat().st_ino
    tap, flow = site.tap(), site.run(lines=LINES)
    new = changed(OLD, 3, 17)
    with Ranges(new) as server:
        update(site, flow, new, server)
    assert server.asked == {3 * BLOCK: 1, 17 * BLOCK: 1}
    assert flow.count(Counter.BYTES_KEPT) == len(OLD) - 2 * BLOCK
    assert target.stat().st_ino == inode
    assert target.stat().st_mtime == 1704168245
    assert target.stat().st_mode & 0o777 == 0o640
    assert GENERATION_XATTR in marks(target)
    assert WRITING_XATTR not in marks(target)
    check_arrived(site, flow, tap, new)


@pytest.mark.parametrize(
    "new",
    [OLD[: 12 * BLOCK + 5], OLD[: 12 * BLOCK] + b"other", OLD + b"more", OLD + os.urandom(2 * BLOCK), OLD],
    ids=["shorter", "another end", "a longer end", "longer", "equal"],
)
def test_other_sizes(site, target, new):
    inode = target.stat().st_ino
    tap, flow = site.tap(), site.run(lines=LINES)
    with Ranges(new) as server:
        update(site, flow, new, server)
    assert target.stat().st_ino == inode
    check_arrived(site, flow, tap, new)


def test_one_version_after_the_other(site, target):
    tap, flow = site.tap(), site.run(lines=LINES)
    inode = target.stat().st_ino
    for count, mtime in ((1, LATER), (2, MUCH_LATER)):
        new = changed(OLD, count)
        with Ranges(new) as server:
            posted_by(site, server, new, mark=str(count), mtime=mtime)
            flow.until_settled(21 * count)
        assert tap.one()["identity"] == sha512(new)
        assert target.read_bytes() == new
        assert target.stat().st_ino == inode
    site.assert_clean(flow)


def test_readers_see_each_block_old_or_new_and_the_old_size_until_the_end(site, target):
    tap, flow = site.tap(), site.run(lines=LINES)
    new = changed(OLD, *range(20))[: 15 * BLOCK]
    with Ranges(new) as server:
        posted = posted_by(site, server, new, (3, 7))
        flow.until_counted(Counter.SEGMENTS_OK, 2)
        seen = target.read_bytes()
        assert len(seen) == len(OLD)
        for number in range(21):
            wanted = new if number in (3, 7) else OLD
            at = slice(number * BLOCK, (number + 1) * BLOCK)
            assert seen[at] == wanted[at], f"block {number}"
        assert WRITING_XATTR in marks(target)
        assert tap.take() == []
        rest = [number for number in range(posted.count) if number not in (3, 7)]
        posted_by(site, server, new, rest)
        flow.until_settled(posted.count)
    check_arrived(site, flow, tap, new)


def without_a_file(target):
    target.unlink()


def with_another_name(target):
    os.link(target, target.parent.parent / "name")


def left_half_done(target):
    os.setxattr(target, WRITING_XATTR, b"somebody")


def a_link(target):
    target.rename(target.parent.parent / "name")
    target.symlink_to("../name")


@pytest.mark.parametrize("make", [without_a_file, with_another_name, left_half_done, a_link])
def test_what_is_not_to_be_written_is_replaced(site, target, make):
    make(target)
    other = site.dest / "name"
    tap, flow = site.tap(), site.run(lines=LINES)
    new = changed(OLD, 3)
    with Ranges(new) as server:
        update(site, flow, new, server)
    assert tap.one()["identity"] == sha512(new)
    assert target.read_bytes() == new
    assert not target.is_symlink()
    assert not other.exists() or other.read_bytes() == OLD
    assert WRITING_XATTR not in marks(target)
    site.assert_clean(flow)


def test_blocks_whose_digest_cannot_be_relied_on_are_not_written_in_place(site, target):
    inode = target.stat().st_ino
    tap, flow = site.tap(), site.run(lines=LINES)
    new = changed(OLD, 3)
    with Ranges(new) as server:
        update(site, flow, new, server, mark=None)
    assert target.stat().st_ino != inode
    check_arrived(site, flow, tap, new)


def test_a_newer_version_meanwhile_is_put_together_beside_it(site, target):
    """It replaces the file; what still comes of the older one is of no use."""
    inode = target.stat().st_ino
    tap, flow = site.tap(), site.run(lines=LINES)
    older, newer = changed(OLD, 3), changed(OLD, 3, 5)
    with Ranges(older) as one, Ranges(newer) as two:
        posted_by(site, one, older, range(10), mark="1")
        flow.until_counted(Counter.SEGMENTS_OK, 10)
        posted_by(site, two, newer, mark="2", mtime=MUCH_LATER)
        flow.until_counted(Counter.FILES_ASSEMBLED)
        posted_by(site, one, older, range(10, 21), mark="1")
        flow.until_settled(42)
    assert target.stat().st_ino != inode
    assert flow.count(Counter.MESSAGES_OVERTAKEN) == 21
    check_arrived(site, flow, tap, newer)


def test_an_older_version_meanwhile_is_replaced_in_its_turn(site, target):
    """It is put in place whole and announced; then the newer one, which has to begin anew."""
    tap, flow = site.tap(), site.run(lines=LINES)
    older, newer = changed(OLD, 3), changed(OLD, 3, 5)
    with Ranges(older) as one, Ranges(newer) as two:
        posted_by(site, two, newer, range(10), mark="2", mtime=MUCH_LATER)
        flow.until_counted(Counter.SEGMENTS_OK, 10)
        posted_by(site, one, older, mark="1")
        flow.until_counted(Counter.FILES_ASSEMBLED)
        posted_by(site, two, newer, range(10, 21), mark="2", mtime=MUCH_LATER)
        flow.until(lambda: target.read_bytes() == newer or flow.advance(1), "the newer one is in place", 40)
        flow.until(
            lambda: (not flow.flow.in_hand and not flow.kept()) or flow.advance(10), "all is settled", 40
        )
    assert [message["identity"] for message in tap.take()] == [sha512(older), sha512(newer)]
    assert site.files() == {"d": None, "d/big": newer}
    site.assert_clean(flow)


def test_what_somebody_else_changes_meanwhile_is_found(site, target):
    """A block that was written already: seen before the finish, and all is put together beside it."""
    tap, flow = site.tap(), site.run(lines=LINES)
    new = changed(OLD, 3)
    with Ranges(new) as server:
        posted = posted_by(site, server, new, range(10))
        flow.until_counted(Counter.SEGMENTS_OK, 10)
        with open(target, "r+b") as file:
            file.write(b"somebody else's")
        posted_by(site, server, new, range(10, 21))
        flow.until_counted(Counter.ERRORS_STORAGE)
        flow.until(lambda: target.read_bytes() == new or flow.advance(10), "it is in place", 40)
        flow.until(
            lambda: (not flow.flow.in_hand and not flow.kept()) or flow.advance(10), "all is settled", 40
        )
    assert posted.count == 21
    check_arrived(site, flow, tap, new)


def test_a_file_that_is_replaced_meanwhile_is_put_together_anew(site, target):
    tap, flow = site.tap(), site.run(lines=LINES)
    new = changed(OLD, 3)
    with Ranges(new) as server:
        posted_by(site, server, new, range(10))
        flow.until_counted(Counter.SEGMENTS_OK, 10)
        another = target.with_name("another")
        another.write_bytes(b"a person's")
        os.utime(another, (1e9, 1e9))
        another.rename(target)
        posted_by(site, server, new, range(10, 21))
        flow.until(lambda: target.read_bytes() == new or flow.advance(1), "it is in place", 40)
        flow.until(
            lambda: (not flow.flow.in_hand and not flow.kept()) or flow.advance(10), "all is settled", 40
        )
    check_arrived(site, flow, tap, new)


def test_a_link_that_takes_the_place_of_its_directory_meanwhile(site, target):
    """Nothing more is written through it; the error has a name, and nothing is announced."""
    tap, flow = site.tap(), site.run(lines=LINES + "\nattempts 1")
    new = changed(OLD, 3)
    with Ranges(new) as server:
        posted_by(site, server, new, range(10))
        flow.until_counted(Counter.SEGMENTS_OK, 10)
        seen = target.read_bytes()
        target.parent.rename(site.dest / "e")
        target.parent.symlink_to("e")
        posted_by(site, server, new, range(10, 21))
        flow.until_counted(Counter.ERRORS_UNSAFE_PATH)
    assert tap.take() == []
    assert len(seen) == len(OLD)


def test_a_file_that_is_removed_meanwhile(site, target):
    """By a later event: the version is overtaken, and nothing is left of it."""
    tap, flow = site.tap(), site.run(lines=LINES)
    new = changed(OLD, 3)
    with Ranges(new) as server:
        posted_by(site, server, new, range(10))
        flow.until_counted(Counter.SEGMENTS_OK, 10)
        site.event("d/big", remove="")
        flow.until_counted(Counter.FILES_REMOVED)
        posted = Posted(site, "d/big", new, BLOCK, mtime=LATER, put=False)
        posted.pub_time = "20240102T050405"
        site.publish_all(posted.messages(range(10, 21), baseUrl=server.url))
        flow.until(
            lambda: (not flow.flow.in_hand and not flow.kept()) or flow.advance(10), "all is settled", 40
        )
    assert [message["fileOp"] for message in tap.take()] == [{"remove": ""}]
    assert site.files() == {"d": None}
    site.assert_clean(flow)


def test_a_rename_does_not_move_what_is_being_written(site, target):
    """The new name is fetched; the old one goes, and with it what was written."""
    tap, flow = site.tap(), site.run(lines=LINES)
    size = len(OLD)
    new = changed(OLD, 3)
    with Ranges(new) as server:
        posted_by(site, server, new, range(10))
        flow.until_counted(Counter.SEGMENTS_OK, 10)
        os.utime(target, (1e9, 1e9))  # it looks like what the rename means
        moved = {"fileOp": {"rename": "d/big"}, "mtime": "20010909T014640"}
        site.announce("e/moved", OLD, **moved)
        flow.until_counted(Counter.MESSAGES_PUBLISHED)
    assert (site.dest / "e/moved").read_bytes() == OLD
    assert size == len(OLD)
    assert tap.one().rel_path == "e/moved"
    assert not target.exists()


def test_what_a_killed_instance_wrote_is_not_fetched_again(site, target):
    inode = target.stat().st_ino
    first = site.run(lines=LINES)
    new = changed(OLD, 3, 17)
    with Ranges(new) as server:
        posted_by(site, server, new, range(10))
        first.until_counted(Counter.SEGMENTS_OK, 10)
        first.close(stop=False)
        tap, again = site.tap(), site.run(lines=LINES)
        posted_by(site, server, new, range(10, 21))
        again.until_settled(21)
        assert server.asked == {3 * BLOCK: 1, 17 * BLOCK: 1}
    assert again.count(Counter.SEGMENTS_OK) == 11
    assert target.stat().st_ino == inode
    check_arrived(site, again, tap, new)


def test_two_instances_write_into_one_file(site, target):
    inode = target.stat().st_ino
    tap = site.tap()
    new = changed(OLD, *range(1, 21, 2))
    flow = site.run(lines=LINES + "\nprefetch 6\nbatch 6")
    with Ranges(new, pause_s=0.02) as server, Sibling(site, "consume") as sibling:
        posted_by(site, server, new)
        flow.until(lambda: target.read_bytes() == new and WRITING_XATTR not in marks(target), "in place")
        flow.until(lambda: not flow.flow.in_hand, "all is settled here")
        sibling.stop()
    assert server.asked == dict.fromkeys((n * BLOCK for n in range(1, 21, 2)), 1)
    assert target.stat().st_ino == inode
    assert tap.one()["identity"] == sha512(new)
    flow.close()
    assert "rows" not in leftovers(flow.config)

"""`reassemble on`: blocks in any order become one whole file, announced once (R17, R143, R144)."""

from __future__ import annotations

import os
import random

import pytest
from blockkit import Posted
from flowkit import Site, leftovers, sha512
from standins import RecordingServer

from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

DATA = os.urandom(2560)
LINES = "identity sha512"


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


def assert_whole(site, tap, flow, data, path="d/big"):
    """One file, one announcement of it as a whole, and nothing left behind."""
    message = tap.one()
    assert site.files()[path] == data
    assert message.rel_path == path
    assert message["size"] == len(data)
    assert message["identity"] == sha512(data)
    assert "blocks" not in message
    site.assert_clean(flow)
    assert sorted(site.files()) == sorted({path, path.rpartition("/")[0]} - {""})


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_blocks_in_any_order_make_one_file(site, order):
    tap, flow = site.tap(), site.run(lines=LINES)
    posted = Posted(site, "d/big", DATA, 1000)
    site.publish_all(posted.messages(order))
    flow.until_settled(3)
    assert flow.count(Counter.FILES_ASSEMBLED) == 1
    assert flow.count(Counter.BYTES_RECEIVED) == len(DATA)
    assert os.stat(site.dest / "d/big").st_mtime == 1704164645.5
    assert os.stat(site.dest / "d/big").st_mode & 0o777 == 0o640
    assert_whole(site, tap, flow, DATA)


def test_nothing_is_announced_or_visible_before_the_last_block(site):
    tap, flow = site.tap(), site.run(lines=LINES)
    posted = Posted(site, "d/big", DATA, 1000)
    site.publish_all(posted.messages((0, 2)))
    flow.until_counted(Counter.SEGMENTS_OK, 2)
    flow.advance(1)
    assert tap.take() == []
    assert "d/big" not in site.files()
    site.publish(posted.message(1))
    flow.until_settled(3)
    assert_whole(site, tap, flow, DATA)


def test_equal_blocks_are_not_duplicates(site):
    """Runs of zeros: sr3 drops the second of two equal blocks (wire.md 2.6)."""
    data = bytes(5000)
    tap, flow = site.tap(), site.run(lines=LINES + "\nnodupe_ttl 300")
    site.publish_all(Posted(site, "d/big", data, 1000).messages())
    flow.until_settled(5)
    assert_whole(site, tap, flow, data)


def test_many_blocks_more_than_are_held_at_a_time(site):
    """Written blocks rest in the kept store, so that others find room."""
    data = os.urandom(100) * 600
    tap, flow = site.tap(), site.run(lines=LINES + "\nprefetch 4\nbatch 4")
    numbers = list(range(60))
    random.Random(3).shuffle(numbers)
    site.publish_all(Posted(site, "d/big", data, 1000).messages(numbers))
    flow.until(lambda: flow.count(Counter.FILES_ASSEMBLED), "it is whole")
    flow.until(lambda: not flow.flow.in_hand, "all is settled")
    assert flow.count(Counter.BYTES_RECEIVED) == len(data), "no block is fetched twice"
    assert_whole(site, tap, flow, data)


def test_blocks_that_come_much_later(site):
    """The file is parked, its first block's message kept; the next one takes it up again."""
    tap, flow = site.tap(), site.run(lines=LINES)
    posted = Posted(site, "d/big", DATA, 1000)
    for number in (1, 0):
        site.publish(posted.message(number))
        flow.until_counted(Counter.SEGMENTS_OK, 2 - number)
        flow.advance(10, turns=4)
        assert len(flow.kept()) == 2 - number
        assert not flow.flow.in_hand, "what waits for others is not held"
    site.publish(posted.message(2))
    flow.until(lambda: not flow.kept(), "all are answered")
    assert flow.count(Counter.BYTES_RECEIVED) == len(DATA)
    assert_whole(site, tap, flow, DATA)


def test_repeated_blocks_are_answered(site):
    """Announced twice before, and once more after the file is whole; nothing is fetched twice."""
    tap, flow = site.tap(), site.run(lines=LINES)
    posted = Posted(site, "d/big", DATA, 1000)
    later = {"pubTime": "20990102T030405"}
    site.publish_all(posted.messages((0, 0)))
    site.publish(posted.message(0, **later))
    site.publish_all(posted.messages((1, 2)))
    flow.until_settled(5)
    site.publish(posted.message(1, **later))
    site.publish(posted.message(1))
    flow.until_settled(7)
    assert flow.count(Counter.BYTES_RECEIVED) == len(DATA)
    assert_whole(site, tap, flow, DATA)


def test_blocks_from_several_hosts(site):
    """Movers hold different blocks, each in its own file; one serves ranges of the whole (R143, R153)."""
    tap, flow = site.tap(), site.run(lines=LINES)
    posted = Posted(site, "d/big", DATA, 1000, put=False)
    posted.put_block(0)
    with RecordingServer(posted.bytes_of(1)) as one, RecordingServer(DATA) as two:
        site.publish(posted.message(1, "separate", baseUrl=one.url))
        site.publish(posted.message(2, baseUrl=two.url))
        site.publish(posted.message(0, "separate"))
        flow.until_settled(3)
    assert_whole(site, tap, flow, DATA)


def test_two_versions_in_flight(site):
    """The second is shorter; block 0 is the same in both."""
    tap, flow = site.tap(), site.run(lines=LINES)
    old = Posted(site, "d/big", DATA, 1000, mark="1")
    site.publish_all(old.messages((0, 1)))
    flow.until_counted(Counter.SEGMENTS_OK, 2)
    new = Posted(site, "d/big", DATA[:1500], 1000, mark="2", mtime="20240102T040405")
    site.publish_all(new.messages())
    flow.until_counted(Counter.FILES_ASSEMBLED)
    site.publish(old.message(2))
    flow.until_settled(5)
    assert flow.count(Counter.MESSAGES_OVERTAKEN) == 3
    assert_whole(site, tap, flow, DATA[:1500])


def test_a_file_that_grows(site):
    tap, flow = site.tap(), site.run(lines=LINES)
    site.publish_all(Posted(site, "d/big", DATA, 1000, mark="1").messages())
    flow.until_settled(3)
    tap.take()
    longer = DATA + b"more"
    new = Posted(site, "d/big", longer, 1000, mark="2", mtime="20240102T040405")
    site.publish_all(new.messages((2, 0, 1)))
    flow.until_settled(6)
    assert_whole(site, tap, flow, longer)


def test_a_wrong_block_with_a_mark_is_not_believed(site):
    """Fetched again as often as `attempts` says, then rejected; the file is not announced."""
    tap, flow = site.tap(), site.run(lines=LINES + "\nattempts 2")
    posted = Posted(site, "d/big", DATA, 1000)
    site.publish_all(posted.messages((0, 2)))
    site.publish(posted.message(1, identity=sha512(b"another")))
    flow.until_counted(Counter.MESSAGES_REJECTED)
    assert flow.count(Counter.ERRORS_IDENTITY) == 2
    assert tap.take() == []
    assert "d/big" not in site.files()
    site.publish(posted.message(1, pubTime="20990101T000000"))
    flow.until_counted(Counter.FILES_ASSEMBLED)
    flow.until(lambda: not flow.flow.in_hand and not flow.kept(), "all is settled")
    assert_whole(site, tap, flow, DATA)


def test_sr3s_wrong_digests_are_a_warning(site):
    tap, flow = site.tap(), site.run(lines=LINES)
    posted = Posted(site, "d/big", DATA, 1000, mark=None)
    site.publish_all(posted.sr3_message(n) for n in (1, 0, 2))
    flow.until_settled(3)
    assert flow.count(Counter.BLOCKS_UNCONFIRMED) == 2
    assert_whole(site, tap, flow, DATA)


def test_v02_ranges_of_a_whole_file(site):
    tap, flow = site.tap(), site.run(lines=LINES)
    posted = Posted(site, "d/big", DATA, 1000, mark=None)
    for number in (2, 0, 1):
        posted.publish_v02("i", number)
    flow.until_settled(3)
    assert_whole(site, tap, flow, DATA)


def test_v02_ranges_as_sr3_writes_them(site):
    """Its middle blocks do not tell how long the file is (wire.md 2.1)."""
    tap, flow = site.tap(), site.run(lines=LINES)
    posted = Posted(site, "d/big", DATA, 1000, mark=None)
    for number in (0, 1, 2):
        posted.publish_v02("i", number, sr3=True)
    flow.until_settled(3)
    assert_whole(site, tap, flow, DATA)


def test_v02_parts_in_files_of_their_own(site):
    tap, flow = site.tap(), site.run(lines=LINES)
    posted = Posted(site, "d/big", DATA, 1000, mark=None, put=False)
    for number in (1, 2, 0):
        name = f"d/big.1000.3.560.{number}.s.Part"
        posted.put_block(number, name)
        posted.publish_v02("p", number, name)
    flow.until_settled(3)
    assert_whole(site, tap, flow, DATA)


def test_v02_whole_file(site):
    tap, flow = site.tap(), site.run(lines=LINES)
    Posted(site, "d/big", DATA, len(DATA), mark=None).publish_v02("1", 0)
    flow.until_settled(1)
    assert_whole(site, tap, flow, DATA)


def test_without_modification_time(site):
    """The mark, or the pubTime that sr3 gives all blocks of a file, is the version."""
    tap, flow = site.tap(), site.run(lines=LINES)
    site.publish_all(Posted(site, "d/big", DATA, 1000, mark=None, mtime=None).messages())
    flow.until_settled(3)
    assert_whole(site, tap, flow, DATA)


def test_blocks_that_never_come_are_asked_of_the_source(site):
    """After `blockTimeout`, as ranges of the whole file."""
    tap, flow = site.tap(), site.run(lines=LINES + "\nblockTimeout 1h\nhousekeeping 10m")
    posted = Posted(site, "d/big", DATA, 1000)
    site.publish(posted.message(1))
    flow.until_counted(Counter.SEGMENTS_OK)
    for _ in range(8):
        flow.advance(600, turns=3)
    flow.until(lambda: flow.count(Counter.FILES_ASSEMBLED), "it is whole")
    flow.until(lambda: not flow.flow.in_hand and not flow.kept(), "all is settled")
    assert_whole(site, tap, flow, DATA)


def test_blocks_that_nobody_has_are_given_up(site):
    """Sources of single blocks cannot be asked for others: reported, and nothing is left."""
    tap, flow = site.tap(), site.run(lines=LINES + "\nblockTimeout 1h\nhousekeeping 10m")
    posted = Posted(site, "d/big", DATA, 1000, put=False)
    posted.put_block(1)
    site.publish(posted.message(1, "separate"))
    flow.until_counted(Counter.SEGMENTS_OK)
    for _ in range(8):
        flow.advance(600, turns=4)
    assert flow.count(Counter.MESSAGES_EXPIRED) == 1
    flow.until(lambda: not flow.flow.in_hand and not flow.kept(), "all is settled")
    assert tap.take() == []
    flow.close()
    assert leftovers(flow.config) == {}
    assert "d/big" not in site.files()


def test_what_a_killed_instance_fetched_is_not_fetched_again(site):
    posted = Posted(site, "d/big", DATA, 1000)
    first = site.run(lines=LINES)
    site.publish_all(posted.messages((0, 1)))
    first.until_counted(Counter.SEGMENTS_OK, 2)
    first.close(stop=False)
    tap, again = site.tap(), site.run(lines=LINES)
    site.publish(posted.message(2))
    again.until_settled(3)
    assert again.count(Counter.SEGMENTS_OK) == 1
    assert_whole(site, tap, again, DATA)


def test_stopped_in_the_middle(site):
    posted = Posted(site, "d/big", DATA, 1000)
    first = site.run(lines=LINES)
    site.publish_all(posted.messages((0, 1)))
    first.until_counted(Counter.SEGMENTS_OK, 2)
    first.close()
    tap, again = site.tap(), site.run(lines=LINES)
    site.publish(posted.message(2))
    again.until(lambda: again.count(Counter.FILES_ASSEMBLED), "it is whole")
    again.until(lambda: not again.flow.in_hand and not again.kept(), "all is settled")
    assert again.count(Counter.SEGMENTS_OK) == 1
    assert_whole(site, tap, again, DATA)


def test_a_subscriber_computes_nothing_over_the_whole(site):
    flow = site.run("subscribe")
    site.publish_all(Posted(site, "d/big", DATA, 1000).messages((1, 0, 2)))
    flow.until_settled(3)
    assert site.files()["d/big"] == DATA
    assert flow.count(Counter.BYTES_VERIFIED) == len(DATA)
    site.assert_clean(flow)


@pytest.mark.parametrize(
    "changes",
    [
        {"number": 3},
        {"size": -1},
        {"size": 2**63},
        {"count": 0},
        {"remainder": 2000},
        {"manifest": {"1": {"size": 7}}},
    ],
)
def test_blocks_that_make_no_sense_are_refused(site, changes):
    flow = site.run(lines=LINES)
    posted = Posted(site, "d/big", DATA, 1000)
    message = posted.message(1)
    message["blocks"] = {**posted.blocks(1).to_wire(), **changes}
    site.publish(message)
    flow.until_settled(1)
    assert flow.count(Counter.MESSAGES_MALFORMED) == 1
    assert site.files() == {}
    site.assert_clean(flow)


def test_limits_of_blocks_and_files(site):
    """R87: a block larger than this pump takes; and a file that would be too large when it is whole."""
    flow = site.run(lines=LINES + "\nblockSizeMax 999")
    site.publish_all(Posted(site, "d/big", DATA, 1000).messages())
    flow.until_settled(2)
    assert flow.count(Counter.ERRORS_TOO_LARGE) == 2
    flow.close()
    other = site.run(lines=LINES + "\nfileSizeMax 2000", name="u")
    site.publish_all(Posted(site, "d/big", DATA, 1000).messages())
    other.until_counted(Counter.ERRORS_TOO_LARGE, 3)

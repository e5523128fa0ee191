"""Messages about blocks that contradict themselves or each other: refused, and the file is not harmed."""

from __future__ import annotations

import os

import pytest
from blockkit import Posted
from flowkit import Site, sha512

from sarrapipe.message.blocks import Blocks
from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

DATA = os.urandom(2560)
LINES = "identity sha512\nattempts 2\nblockTimeout 1h\nhousekeeping 10m"


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


def refused(site, flow, posted, message, field, caplog):
    """A message is refused, in the middle of a file that arrives all the same."""
    tap = site.tap()
    site.publish_all(posted.messages((0,)))
    flow.until_counted(Counter.SEGMENTS_OK)
    site.publish(message)
    flow.until_counted(Counter.MESSAGES_MALFORMED)
    (record,) = [r for r in caplog.records if r.levelname == "WARNING" and field in r.getMessage()]
    assert "d/big" in record.getMessage()
    site.publish_all(posted.messages((1, 2)))
    flow.until_settled(4)
    assert tap.one()["identity"] == sha512(posted.data)
    assert site.files()["d/big"] == posted.data
    assert flow.count(Counter.MESSAGES_MALFORMED) == 1
    site.assert_clean(flow)


CUT = {  # number, size, count, remainder; and the field that is named
    "size": ((1, 900, 3, 760), "blocks.size: 900 bytes, another block said 1000"),
    "count": ((3, 1000, 4, 0), "blocks: a file of 4000 bytes, another block said 2560"),
    "whole size": ((2, 1000, 3, 561), "blocks: a file of 2561 bytes, another block said 2560"),
    "number beyond the count": ((5, 1000, 6, 0), "another block said 2560"),
    "overlapping": ((1, 1500, 2, 1060), "blocks.size: 1500 bytes, another block said 1000"),
}


@pytest.mark.parametrize("name", CUT)
def test_another_cut_of_the_same_version(site, caplog, name):
    (number, size, count, remainder), field = CUT[name]
    posted = Posted(site, "d/big", DATA, 1000)
    blocks = Blocks("inplace", size, count, remainder, number, None, posted.mark)
    message = posted.message(min(number, 2), blocks=blocks.to_wire(), size=blocks.length)
    refused(site, site.run(lines=LINES), posted, message, field, caplog)


ITSELF = {
    "manifest against remainder": {"remainder": 100, "manifest": {"2": {"size": 560}}},
    "number beyond the count": {"number": 3},
    "block larger than its size": {"manifest": {"1": {"size": 1001}}},
    "middle block too short": {"manifest": {"1": {"size": 999}}},
    "beyond the manifest": {"manifest": {"7": {"size": 1000}}},
    "one number twice": {"manifest": {"1": {"size": 1000}, "01": {"size": 1000}}},
}


@pytest.mark.parametrize("name", ITSELF)
def test_a_message_that_contradicts_itself(site, caplog, name):
    posted = Posted(site, "d/big", DATA, 1000)
    message = posted.message(1)
    message["blocks"] = {**posted.blocks(1).to_wire(), **ITSELF[name]}
    refused(site, site.run(lines=LINES), posted, message, "blocks", caplog)


def test_a_size_that_is_not_the_blocks(site, caplog):
    posted = Posted(site, "d/big", DATA, 1000)
    refused(
        site,
        site.run(lines=LINES),
        posted,
        posted.message(1, size=900),
        "size: 900 contradicts blocks",
        caplog,
    )


def test_a_message_that_is_wrong_and_comes_first(site):
    """Its source does not confirm it; the others waited for that, and make the file."""
    tap, flow = site.tap(), site.run(lines=LINES)
    posted = Posted(site, "d/big", DATA, 1000)
    blocks = Blocks("inplace", 1000, 3, 561, 2, None, posted.mark)
    site.publish(posted.message(2, blocks=blocks.to_wire(), size=561))
    site.publish_all(posted.messages())
    flow.until_counted(Counter.FILES_ASSEMBLED)
    flow.until_settled(4)
    assert flow.count(Counter.MESSAGES_REJECTED) == 1
    assert tap.one()["identity"] == sha512(DATA)
    site.assert_clean(flow)


def test_a_file_announced_once_more_in_other_blocks(site):
    """Later, and cut otherwise, before the first posting was complete: the first that is whole counts."""
    tap, flow = site.tap(), site.run(lines=LINES)
    first = Posted(site, "d/big", DATA, 1000)
    site.publish_all(first.messages((0, 1)))
    flow.until_counted(Counter.SEGMENTS_OK, 2)
    second = Posted(site, "d/big", DATA, 700)
    site.publish_all(second.messages())
    flow.until_counted(Counter.FILES_ASSEMBLED)
    flow.until(lambda: not flow.flow.in_hand and not flow.kept(), "all is settled")
    assert flow.count(Counter.MESSAGES_MALFORMED) == 0
    assert tap.one()["identity"] == sha512(DATA)
    assert site.files()["d/big"] == DATA
    site.assert_clean(flow)


def test_a_digest_that_is_right_for_another_range(site):
    """Equal in length, and of the same file: fetched as often as `attempts` says, then rejected."""
    tap, flow = site.tap(), site.run(lines=LINES)
    posted = Posted(site, "d/big", DATA, 1000)
    site.publish_all(posted.messages((0, 2)))
    flow.until_counted(Counter.SEGMENTS_OK, 2)
    site.publish(posted.message(1, identity=sha512(posted.bytes_of(0))))
    flow.until_counted(Counter.MESSAGES_REJECTED)
    assert flow.count(Counter.ERRORS_IDENTITY) == 2
    assert flow.count(Counter.SEGMENTS_OK) == 2
    site.publish(posted.message(1, pubTime="20990101T000000"))
    flow.until_counted(Counter.FILES_ASSEMBLED)
    flow.until(lambda: not flow.flow.in_hand and not flow.kept(), "all is settled")
    assert tap.one()["identity"] == sha512(DATA)
    site.assert_clean(flow)

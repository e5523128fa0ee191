"""What is told of large transfers: parts of several instances put together, time left, lines."""

from __future__ import annotations

import logging

import pytest

from sarrapipe.shm.moving import MOST_ROWS, Moving
from sarrapipe.supervisor.progress import ProgressLog
from sarrapipe.supervisor.transfers import describe, lasting, line

MIB = 1 << 20


def moving(**changes):
    plain = Moving("/d/big", "http://pump:8080", 100 * MIB, 24 * MIB, MIB, 50, 12, 4, 5 * MIB)
    return plain._replace(**changes)


def test_one_instance_alone():
    (one,) = describe([moving()])
    assert (one.done, one.size, one.share) == (25 * MIB, 100 * MIB, 0.25)
    assert one.left_s == 15.0


def test_parts_of_several_instances_are_one_transfer():
    """Whoever heard of the ledger last knows most of it; what each has under way adds up."""
    rows = [moving(), moving(done=20 * MIB, segments_done=10, partial=2 * MIB, streams=2, bytes_per_s=MIB)]
    for order in (rows, rows[::-1]):
        (one,) = describe(order)
        assert one.done == (24 + 1 + 2) * MIB
        assert (one.segments_done, one.streams, one.bytes_per_s) == (12, 6, 6 * MIB)


def test_no_more_is_done_than_there_is():
    (one,) = describe([moving(done=100 * MIB, segments_done=50), moving(done=98 * MIB, partial=2 * MIB)])
    assert (one.done, one.left_s) == (100 * MIB, 0.0)


def test_the_largest_come_first_and_no_more_than_a_page_has():
    rows = [moving(target=f"/d/{size}", size=size * MIB) for size in range(1, MOST_ROWS + 3)]
    found = [one.size // MIB for one in describe(rows)]
    assert found == list(range(MOST_ROWS + 2, 2, -1))


def test_what_stands_still_or_has_no_size_has_no_time_left():
    (still,) = describe([moving(streams=0, bytes_per_s=0)])
    assert still.left_s is None
    (unknown,) = describe([moving(size=-1)])
    assert unknown.left_s is None
    assert unknown.share == 12 / 50
    assert "an unknown size" in line(unknown)


def test_nothing_of_a_name_reaches_a_terminal_as_it_is():
    (one,) = describe([moving(target="/d/\x1b[2J", source="http://h\x1b[2J")])
    assert "\x1b" not in one.target + one.source


def test_a_line_says_everything():
    (one,) = describe([moving()])
    assert (
        line(one) == "/d/big: 26.2 MB of 104.9 MB (25%), 5.2 MB/s, 4 streams, 12 of 50 segments, 15.0 s left"
    )


def test_only_what_lasts_is_told_of():
    first = describe([moving()])
    both = describe([moving(), moving(target="/d/new")])
    assert [one.target for one in lasting(first, both)] == ["/d/big"]


@pytest.mark.parametrize(("terminal", "every_s"), [(True, 5.0), (False, 30.0)])
def test_lines_come_at_intervals_and_not_for_short_transfers(caplog, terminal, every_s):
    found = describe([moving()])
    caplog.set_level(logging.INFO, "progress")
    log = ProgressLog(logging.getLogger("progress"), lambda: found, terminal=terminal)
    log.tick(100.0)
    assert log.deadline == 100.0 + every_s
    log.tick(100.0 + every_s - 0.1)
    assert caplog.messages == []
    log.tick(100.0 + every_s)
    assert len(caplog.messages) == 1

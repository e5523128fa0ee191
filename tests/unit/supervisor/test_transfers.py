"""What is told of large transfers: shares, rates, time left, lines."""

from __future__ import annotations

import logging

import pytest

from sarrapipe.ledger.progress import Transfer
from sarrapipe.supervisor.progress import ProgressLog
from sarrapipe.supervisor.transfers import describe, lasting, line

MIB = 1 << 20


def transfer(**changes):
    plain = Transfer("/d/big", "http://user:secret@pump:8080/big", 100 * MIB, 25 * MIB, 50, 12, 4)
    return plain._replace(**changes)


def test_a_lone_transfer_has_the_rate_of_the_flow():
    (one,) = describe([transfer()], bytes_per_s=5 * MIB, streams=4)
    assert one.bytes_per_s == 5 * MIB
    assert one.left_s == 15.0
    assert one.share == 0.25
    assert one.source == "http://pump:8080", "no credentials"


def test_rates_are_shared_by_streams_with_small_files_too():
    both = [transfer(streams=4), transfer(target="/d/other", streams=2)]
    assert [one.bytes_per_s for one in describe(both, bytes_per_s=800.0, streams=8)] == [400.0, 200.0]
    # The gauge is a second old and knows of fewer.
    assert [one.bytes_per_s for one in describe(both, bytes_per_s=600.0, streams=1)] == [400.0, 200.0]


def test_what_stands_still_or_has_no_size_has_no_time_left():
    (still,) = describe([transfer(streams=0)], bytes_per_s=100.0, streams=0)
    assert still.left_s is None
    (unknown,) = describe([transfer(size=-1)], bytes_per_s=100.0, streams=4)
    assert unknown.left_s is None
    assert unknown.share == 12 / 50
    assert "an unknown size" in line(unknown)


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("sftp://[::1]:22/x", "sftp://[::1]:22"),
        ("file:/x", "file:"),
        ("/x", ""),
        ("http://h:port/", ""),
        ("http://h\x1b[2J/x", ""),
    ],
)
def test_where_it_comes_from(url, source):
    assert describe([transfer(url=url)], bytes_per_s=0.0, streams=0)[0].source == source


def test_a_line_says_everything():
    (one,) = describe([transfer()], bytes_per_s=5 * MIB, streams=4)
    assert (
        line(one) == "/d/big: 26.2 MB of 104.9 MB (25%), 5.2 MB/s, 4 streams, 12 of 50 segments, 15.0 s left"
    )


def test_only_what_lasts_is_told_of():
    first = describe([transfer()], bytes_per_s=1.0, streams=1)
    both = describe([transfer(), transfer(target="/d/new")], bytes_per_s=1.0, streams=1)
    assert [one.target for one in lasting(first, both)] == ["/d/big"]


@pytest.mark.parametrize(("terminal", "every_s"), [(True, 5.0), (False, 30.0)])
def test_lines_come_at_intervals_and_not_for_short_transfers(caplog, terminal, every_s):
    found = describe([transfer()], bytes_per_s=1.0, streams=1)
    caplog.set_level(logging.INFO, "progress")
    log = ProgressLog(logging.getLogger("progress"), lambda: found, terminal=terminal)
    log.tick(100.0)
    assert log.deadline == 100.0 + every_s
    log.tick(100.0 + every_s - 0.1)
    assert caplog.messages == []
    log.tick(100.0 + every_s)
    assert len(caplog.messages) == 1

from __future__ import annotations

import pytest

from sarrapipe.flow.remotes import Remotes
from sarrapipe.segment.sink import DiscardSink
from sarrapipe.transfer.base import RangeDone, RangeRead

MIB = 1 << 20
URL = "http://far/f"


def segment(remotes: Remotes, took_s: float, wait_s: float, received: int = 8 * MIB, url: str = URL) -> None:
    read = RangeRead(url=url, sink=DiscardSink(), token=1)
    done = RangeDone(read=read, received=received, status=206, wait_s=wait_s)
    remotes.of("http://far").ended(done, took_s)


def test_an_unknown_remote_has_segments_by_size_alone():
    assert Remotes(4, 16).segment_size(1 << 30, URL) == 8 * MIB


def test_a_near_one_too():
    remotes = Remotes(4, 16)
    segment(remotes, took_s=0.01, wait_s=0.001)
    assert remotes.segment_size(1 << 30, URL) == 8 * MIB


def test_far_away_a_segment_takes_ten_round_trips_of_a_stream():
    remotes = Remotes(4, 16)
    segment(remotes, took_s=0.5, wait_s=0.1)  # 16 MiB/s, so 1.6 MiB a round trip
    assert remotes.segment_size(4 << 30, URL) == 16 * MIB
    assert remotes.segment_size(4 << 30, "http://elsewhere/f") == 8 * MIB


def test_the_shortest_round_trip_counts():
    """What took longer was the server thinking."""
    remotes = Remotes(4, 16)
    segment(remotes, took_s=0.5, wait_s=0.1)
    segment(remotes, took_s=0.5, wait_s=3.0)
    assert remotes.segment_size(4 << 30, URL) == 16 * MIB


def test_there_are_always_enough_for_all_streams():
    remotes = Remotes(4, 16)
    segment(remotes, took_s=0.08, wait_s=1.0)  # 100 MiB a round trip
    assert remotes.segment_size(4 << 30, URL) == 128 * MIB


def test_what_is_remembered_is_bounded():
    remotes = Remotes(4, 16)
    first = remotes.of("http://0")
    first.received = 1
    for number in range(1, 65):
        remotes.of(f"http://{number}")
    assert remotes.of("http://0").received == 0, "it was forgotten"


@pytest.mark.parametrize("took_s", [0.0, -1.0])
def test_a_segment_that_took_no_time_teaches_nothing(took_s):
    remotes = Remotes(4, 16)
    segment(remotes, took_s, wait_s=0.1)
    assert remotes.of("http://far").stream_bytes == 0

"""What an instance tells of its large files: bytes, segments, rates."""

from __future__ import annotations

import pytest
from handclock import HandClock

from sarrapipe.flow.movements import Movement, Movements, host_of, in_one_piece, in_segments
from sarrapipe.segment.plan import SegmentPlan
from sarrapipe.shm.moving import BOARD_SIZE, MOST_ROWS, Board

MIB = 1 << 20


class Told:
    """Movements of which the test says what is under way."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.board = Board(memoryview(bytearray(BOARD_SIZE)))
        self.found: list[Movement] = []
        self.looks = 0
        self.movements = Movements(self.board, self._look, self.clock)

    def _look(self) -> list[Movement]:
        self.looks += 1
        return self.found

    def after(self, seconds: float, *found: Movement) -> list:
        self.clock.sleep(seconds)
        self.found = list(found)
        self.movements.tick()
        return self.board.read()


def movement(moved: int, target: str = "/d/big", size: int = 100 * MIB) -> Movement:
    return in_one_piece(target, "http://u:p@pump/big", size, came=moved)


def test_a_rate_follows_what_moves():
    told = Told()
    assert told.after(0.0) == []
    assert [row.bytes_per_s for row in told.after(2.0, movement(8 * MIB))] == [4 * MIB]
    assert [row.bytes_per_s for row in told.after(2.0, movement(24 * MIB))] == [6 * MIB]
    assert [row.bytes_per_s for row in told.after(2.0, movement(24 * MIB))] == [3 * MIB]
    assert told.after(1.0) == []


def test_a_file_that_is_taken_up_anew_has_no_negative_rate():
    told = Told()
    told.after(1.0, movement(50 * MIB))
    (row,) = told.after(1.0, movement(0))
    assert row.bytes_per_s >= 0


def test_looks_are_a_second_apart():
    told = Told()
    for _ in range(10):
        told.after(0.25)
    assert told.looks == 3


def test_small_files_have_no_row_and_the_largest_come_first():
    told = Told()
    large = [movement(0, f"/d/{n}", n * MIB) for n in range(1, MOST_ROWS + 4)]
    rows = told.after(1.0, movement(5, "/d/small", MIB - 1), *large)
    assert [row.size // MIB for row in rows] == list(range(MOST_ROWS + 3, 3, -1))
    (row,) = told.after(1.0, movement(7, "/d/unknown", -1))
    assert row.size == -1


def test_segments_that_are_written_and_bytes_on_the_way():
    plan = SegmentPlan(10 * MIB + 5, MIB)
    one = in_segments("/t", "http://h/", plan, missing=9, running=[5, 7], moved=2 * MIB)
    assert (one.row.done, one.row.partial, one.moved) == (2 * MIB, 12, 2 * MIB + 12)
    assert (one.row.segments, one.row.segments_done, one.row.streams) == (11, 2, 2)
    whole = in_segments("/t", "http://h/", plan, missing=0, running=[], moved=0)
    assert whole.row.done == plan.size


def test_a_file_in_one_piece_has_no_more_than_its_size() -> None:
    for came, done, told in [(5, 0, (0, 5)), (12, 4, (4, 6)), (10, 12, (10, 0))]:
        one = in_one_piece("/t", "http://h/", 10, came=came, done=done)
        assert (one.row.done, one.row.partial, one.moved) == (*told, came)
    assert in_one_piece("/t", "http://h/", -1, came=7).row.partial == 7


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://user:secret@pump:8080/big", "http://pump:8080"),
        ("sftp://[::1]:22/x", "sftp://[::1]:22"),
        ("file:/x", "file:"),
        ("/x", ""),
        ("http://h:port/", ""),
    ],
)
def test_where_it_comes_from(url, host):
    assert host_of(url) == host

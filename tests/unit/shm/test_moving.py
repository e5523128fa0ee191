"""A page of shared memory that tells of large files: read by others at any instant, whole or not at all."""

from __future__ import annotations

import os

import pytest

from sarrapipe.shm.arena import Arena, read_boards
from sarrapipe.shm.moving import BOARD_SIZE, MOST_ROWS, Board, Moving, read_board

ROW = Moving("/d/big", "http://pump:8080", 100, 24, 1, 50, 12, 4, 5)


@pytest.fixture
def page():
    return memoryview(bytearray(BOARD_SIZE))


def test_what_is_written_is_read(page):
    board = Board(page)
    assert board.read() == []
    for rows in ([ROW, ROW._replace(target="/d/other", size=-1)], [ROW], []):
        board.write(rows)
        assert board.read() == rows


def test_a_page_caught_half_written_is_nothing(page):
    """Whatever prefix of the new page has replaced the old one."""
    Board(page).write([ROW])
    old = bytes(page)
    Board(page).write([ROW._replace(target="/d/another", done=77)])
    new = bytes(page)
    length = max(index for index in range(BOARD_SIZE) if old[index] or new[index]) + 1
    seen = {tuple(read_board(new[:cut] + old[cut:])) for cut in range(length + 1)}
    assert seen <= {(), tuple(read_board(old)), tuple(read_board(new))}
    assert len(seen) == 3


def test_noise_is_nothing():
    for seed in range(50):
        assert read_board(os.urandom(BOARD_SIZE - seed)) == []
    assert read_board(b"") == []


def test_the_longest_names_fit_and_show_their_end(page):
    name = "/d/" + "\N{SNOWMAN}" * 2000 + ".bin"
    long = ROW._replace(target=name, source="http://" + "h" * 500, size=1 << 62)
    long = long._replace(done=1 << 62, partial=1 << 62, segments=1 << 40, segments_done=1 << 40)
    Board(page).write([long] * (MOST_ROWS + 1))
    rows = Board(page).read()
    assert len(rows) == MOST_ROWS
    assert rows[0].target.startswith("...")
    assert rows[0].target.endswith("\N{SNOWMAN}.bin")


def test_boards_of_an_arena_are_read_without_mapping_it(tmp_path):
    path = str(tmp_path / "arena")
    with Arena.create(path, "sarra/x", created_wall_ns=1) as arena:
        arena.board(0).write([ROW])
        arena.board(511).write([ROW._replace(target="/last")])
        assert read_boards(path, [0, 1]) == [ROW]
        assert [row.target for row in read_boards(path, [511])] == ["/last"]
    assert read_boards(str(tmp_path / "none"), [0]) == []

"""Files under way that were cut, found by their size, their holes and the digests of their segments."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash

from sarrapipe.errors import InflightDamaged
from sarrapipe.segment.assembly import InflightFile, create, discard, mark_under_way, publish, reopen
from sarrapipe.segment.damage import check_intact, holes
from sarrapipe.segment.destination import Destination
from sarrapipe.segment.plan import SegmentPlan

KIB = 1024
PLAN = SegmentPlan(10 * 64 * KIB - 7, 64 * KIB)
DATA = os.urandom(PLAN.size)
NONCE = "5f3c"


@pytest.fixture(params=["", "/dev/shm"], ids=["disk", "memory"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[InflightFile]:
    root = Path(request.param or tmp_path) / f"damage-{os.getpid()}-{tmp_path.name}"
    destination = Destination(str(root)).open()
    made = create(destination, "a", NONCE)
    os.pwrite(made.fd, DATA, 0)
    yield made
    made.close()
    discard(destination, "a", NONCE)
    destination.close()
    for directory, _, files in os.walk(root, topdown=False):
        for name in files:
            os.unlink(f"{directory}/{name}")
        os.rmdir(directory)


def digests() -> dict[int, bytes]:
    return {s.number: xxhash.xxh3_128_digest(DATA[s.offset : s.end]) for s in PLAN}


def unasked() -> dict[int, bytes]:
    raise AssertionError("nothing is suspect")


def test_a_whole_file_is_not_read_again(file: InflightFile) -> None:
    check_intact(file, PLAN, unasked)
    assert holes(file.fd, PLAN.size) == []


@pytest.mark.parametrize("left", [0, 1, PLAN.size - 1])
def test_shorter_than_it_was(file: InflightFile, left: int) -> None:
    os.truncate(file.fd, left)
    with pytest.raises(InflightDamaged, match=f"{left} bytes of"):
        check_intact(file, PLAN, unasked)


def test_cut_and_written_to_further_along(file: InflightFile) -> None:
    os.truncate(file.fd, 2 * 64 * KIB)
    last = PLAN[9]
    os.pwrite(file.fd, DATA[last.offset :], last.offset)
    assert holes(file.fd, PLAN.size) == [(2 * 64 * KIB, last.offset)]
    with pytest.raises(InflightDamaged, match="segment 2 is not what was written"):
        check_intact(file, PLAN, digests)


def test_a_hole_where_zeros_were_written_is_no_damage(file: InflightFile) -> None:
    """Some file systems make holes of zeros."""
    third = PLAN[3]
    os.truncate(file.fd, third.offset)
    os.pwrite(file.fd, DATA[third.end :], third.end)
    zeros = {3: xxhash.xxh3_128_digest(bytes(third.length))}
    check_intact(file, PLAN, lambda: digests() | zeros)


def test_what_gets_the_inode_of_a_marked_file_is_not_it(file: InflightFile) -> None:
    destination, inode = file.destination, file.inode
    mark_under_way(file)
    again = reopen(destination, "a", NONCE, inode, b"g" * 16)
    assert again is not None
    again.finish(generation=b"g" * 16)
    again.close()
    finished = reopen(destination, "a", NONCE, inode, b"g" * 16)
    assert finished is not None
    finished.close()
    os.removexattr(file.fd, "user.sarrapipe.generation")
    assert reopen(destination, "a", NONCE, inode, b"g" * 16) is None
    by_inode = reopen(destination, "a", NONCE, inode)
    assert by_inode is not None
    by_inode.close()


def test_a_file_that_was_cut_after_it_was_finished_is_not_put_in_place(file: InflightFile) -> None:
    file.finish(whole=PLAN.size)
    os.truncate(file.fd, 5)
    with pytest.raises(InflightDamaged, match="replaced, cut or removed"):
        publish(file)
    with pytest.raises(InflightDamaged, match="5 bytes of"):
        file.finish(size=PLAN.size, whole=PLAN.size)
    assert not os.path.exists(file.target)

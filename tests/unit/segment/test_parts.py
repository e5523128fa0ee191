"""A line cut into parts: each is read in its turn, what was sent before is only hashed, and compared."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import xxhash

from sarrapipe.errors import IdentityMismatch
from sarrapipe.segment.parts import CheckedRange, LinePart, PartedLine
from sarrapipe.segment.staged import StagedLine, StagedRange, Staging
from sarrapipe.shm.ring import SLAB_BYTES, Ring, slots_in_use

LENGTH = 40_000
BODY = os.urandom(5 * LENGTH)


def piece(number: int) -> bytes:
    return BODY[number * LENGTH : (number + 1) * LENGTH]


def digest(data: bytes) -> bytes:
    return xxhash.xxh3_128(data).digest()


class Heard:
    """Keeps what it is told, and calls later what is to be called soon."""

    def __init__(self) -> None:
        self.turns: list[int] = []
        self.passes = 0
        self.different: list[int] = []
        self.later: list[Callable[[], None]] = []

    def turn_of(self, part: LinePart) -> None:
        self.turns.append(part.number)

    def passed(self) -> None:
        self.passes += 1

    def differs(self, part: LinePart) -> None:
        self.different.append(part.number)

    def soon(self, call: Callable[[], None]) -> None:
        self.later.append(call)

    def come_back(self) -> None:
        while self.later:
            self.later.pop(0)()


@pytest.fixture
def staging(tmp_path: Path) -> Iterator[Staging]:
    path = str(tmp_path / "ring")
    with Ring.open(path, 8 * SLAB_BYTES, 1) as ring:
        yield Staging(ring, lambda: None)
        assert slots_in_use(path) == 0


@pytest.fixture
def line(staging: Staging) -> StagedLine:
    opened = StagedLine.open(staging)
    assert opened is not None
    return opened


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def feed(line: StagedLine, heard: Heard) -> Iterator[PartedLine]:
    made = PartedLine(line, heard, digests=True)
    yield made
    made.close()


def read_all(part: LinePart, count: int = 1 << 20) -> bytes:
    out = bytearray()
    while data := part.read(count):
        out += data
    return bytes(out)


def arrive(line: StagedLine, feed: PartedLine, *numbers: int, data: bytes | None = None) -> None:
    """Let ranges come whole, in the line's order."""
    for number in numbers:
        line.add(LENGTH, feed.came).write(piece(number) if data is None else data)


def test_each_part_is_read_in_its_turn(line: StagedLine, feed: PartedLine, heard: Heard) -> None:
    parts = [feed.add(number, LENGTH) for number in range(3)]
    assert parts[0].read(10) is None, "nothing has come"
    arrive(line, feed, 0, 1, 2)
    assert parts[1].read(10) is None, "not its turn"
    assert read_all(parts[0], 1000) == piece(0)
    assert not parts[0].read(10)
    assert parts[0].read(10) is not None, "its end, not a pause"
    heard.turns.clear()
    assert read_all(parts[1]) == piece(1)
    assert heard.turns == [], "whoever reads is still using what it got"
    heard.come_back()
    assert heard.turns == [2]
    assert read_all(parts[2]) == piece(2)
    assert [part.digest() for part in parts] == [digest(piece(number)) for number in range(3)]
    heard.come_back()
    assert heard.passes == 0, "more may be added"
    feed.end()
    heard.come_back()
    assert heard.passes == 1


def test_a_part_goes_on_where_a_broken_write_stopped(line: StagedLine, feed: PartedLine) -> None:
    part = feed.add(0, LENGTH)
    arrive(line, feed, 0)
    first = part.read(1000)
    assert first == piece(0)[:1000]
    assert (part.taken, part.digest()) == (1000, digest(piece(0)[:1000]))
    assert read_all(part) == piece(0)[1000:]


def test_ranges_that_are_added_later_are_waited_for(line: StagedLine, feed: PartedLine, heard: Heard) -> None:
    first, second = feed.add(0, LENGTH), feed.add(1, LENGTH)
    arrive(line, feed, 0)
    assert read_all(first) == piece(0)
    assert second.read(10) is None, "the line is empty, and not at its end"
    heard.come_back()
    arrive(line, feed, 1)
    assert heard.turns[-1] == 1
    assert read_all(second) == piece(1)


def test_what_was_sent_before_passes_by_itself(line: StagedLine, feed: PartedLine, heard: Heard) -> None:
    feed.add(0, LENGTH, digest(piece(0)))
    feed.add(1, LENGTH, digest(piece(1)))
    written = feed.add(2, LENGTH)
    feed.add(3, LENGTH, digest(piece(3)))
    feed.end()
    assert [part.number for part in feed.next_to_write(2)] == [2]
    arrive(line, feed, 0, 1, 2, 3)
    assert written.read(10) is None
    heard.come_back()
    assert read_all(written) == piece(2)
    assert heard.passes == 0
    heard.come_back()
    assert heard.passes == 1
    assert heard.different == []


def test_other_bytes_than_were_sent_are_told(line: StagedLine, feed: PartedLine, heard: Heard) -> None:
    feed.add(0, LENGTH, digest(piece(1)))
    written = feed.add(1, LENGTH)
    arrive(line, feed, 0, 1)
    heard.come_back()
    assert heard.different == [0]
    assert heard.turns == []
    assert heard.passes == 0
    assert written.taken == 0


def test_nothing_is_told_after_the_end(line: StagedLine, feed: PartedLine, heard: Heard) -> None:
    part = feed.add(0, LENGTH)
    arrive(line, feed, 0)
    read_all(part)
    feed.end()
    feed.close()
    heard.turns.clear()
    heard.come_back()
    assert (heard.turns, heard.passes) == ([], 0)


def test_without_digests_of_their_own(line: StagedLine, heard: Heard) -> None:
    feed = PartedLine(line, heard, digests=False)
    part = feed.add(0, LENGTH)
    arrive(line, feed, 0)
    assert read_all(part) == piece(0)
    assert part.digest() == b""
    feed.close()


class TestCheckedRange:
    def test_the_same_bytes(self, staging: Staging) -> None:
        staged = StagedRange(staging, LENGTH)
        source = CheckedRange(staged, digest(piece(0)), "f")
        assert source.read(100) is None
        staged.write(piece(0))
        out = bytearray()
        while data := source.read(999):
            out += data
        assert out == piece(0)
        staged.close()

    def test_other_bytes_are_never_handed_out_whole(self, staging: Staging) -> None:
        staged = StagedRange(staging, LENGTH)
        source = CheckedRange(staged, digest(piece(0)), "f")
        staged.write(piece(1))
        given = 0
        with pytest.raises(IdentityMismatch, match="other bytes"):
            while data := source.read(999):
                given += len(data)
        assert given < LENGTH
        staged.close()

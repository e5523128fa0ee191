"""Ranges through slots: what is written comes out, room is waited for, and no line of ranges stands still."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from sarrapipe.errors import IdentityMismatch, StorageError
from sarrapipe.segment.staged import StagedLine, StagedRange, Staging
from sarrapipe.shm.ring import SLAB_BYTES, Ring

PIECE = 16 << 10


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[Ring]:
    with Ring.open(str(tmp_path / "ring"), 4 * SLAB_BYTES, 1) as opened:
        yield opened


class Wakes:
    """Counts how often those who wait should be looked at."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def wakes() -> Wakes:
    return Wakes()


@pytest.fixture
def staging(ring: Ring, wakes: Wakes) -> Staging:
    return Staging(ring, wakes)


def fill(staged: StagedRange, data: bytes, piece: int = PIECE) -> int:
    """Write until there is no room; return how many bytes were taken."""
    at = 0
    while at < len(data) and staged.room(len(data[at : at + piece])):
        staged.write(data[at : at + piece])
        at += len(data[at : at + piece])
    return at


def drained(staged: StagedRange, count: int = 100_000) -> bytes:
    out = bytearray()
    while piece := staged.read(count):
        out += piece
    return bytes(out)


@pytest.mark.parametrize("length", [1, PIECE, SLAB_BYTES, SLAB_BYTES + 1, 3 * SLAB_BYTES + 5])
@pytest.mark.parametrize("piece", [PIECE, 100_001, SLAB_BYTES])
def test_what_is_written_comes_out(ring: Ring, staging: Staging, length: int, piece: int) -> None:
    data = random.Random(length).randbytes(length)
    staged = StagedRange(staging, length)
    out = bytearray()
    at = 0
    while not staged.finished:
        at += fill(staged, data[at:], piece)
        out += drained(staged)
    assert (bytes(out), staged.written, staged.taken) == (data, length, length)
    assert staged.read(10) == b""
    assert ring.in_use == 0


def test_nothing_yet_is_not_the_end(ring: Ring, staging: Staging) -> None:
    staged = StagedRange(staging, 3 * PIECE)
    assert staged.read(10) is None
    assert fill(staged, bytes(PIECE)) == PIECE
    assert staged.read(10) is None  # what is half full is not handed over
    assert fill(staged, bytes(2 * PIECE)) == 2 * PIECE
    assert len(staged.read(1 << 20) or b"") == 3 * PIECE
    assert staged.read(10) == b""
    assert StagedRange(staging, 0).read(1) == b""


def test_too_much_is_refused_and_without_room_as_well(staging: Staging) -> None:
    staged = StagedRange(staging, 10, name="a/b")
    with pytest.raises(IdentityMismatch, match="10 bytes of the range came a/b"):
        staged.write(bytes(11))
    staged.write(bytes(10))
    hog = StagedRange(staging, 100 * SLAB_BYTES)
    assert fill(hog, bytes(100 * SLAB_BYTES), SLAB_BYTES) == 3 * SLAB_BYTES
    with pytest.raises(StorageError, match="without room"):
        hog.write(b"x")
    assert (staged.fileno(), staged.position()) == (-1, 10)


def test_who_waits_longest_goes_on_first_and_newcomers_queue_up(
    ring: Ring, staging: Staging, wakes: Wakes
) -> None:
    hog = StagedRange(staging, 4 * SLAB_BYTES)
    fill(hog, bytes(4 * SLAB_BYTES), SLAB_BYTES)
    order: list[str] = []
    waiting = {name: StagedRange(staging, SLAB_BYTES) for name in "abc"}

    def look(name: str) -> None:
        if waiting[name].room(PIECE):
            order.append(name)
        else:
            waiting[name].call_when_room(lambda: look(name))

    look("a")
    look("b")
    staging.resume()
    assert order == []
    hog.read(SLAB_BYTES)
    hog.release()
    assert wakes.count == 1
    look("c")  # there is a slot, but others have waited for longer
    assert order == []
    staging.resume()
    assert order == ["a"]
    drained(hog)
    staging.resume()
    assert order == ["a", "b", "c"]
    assert staging.waiting == 0
    for staged in (hog, *waiting.values()):
        staged.close()
    assert ring.in_use == 0


def test_a_slot_that_comes_free_between_looking_and_waiting_is_told(staging: Staging, wakes: Wakes) -> None:
    hog = StagedRange(staging, 4 * SLAB_BYTES)
    fill(hog, bytes(4 * SLAB_BYTES), SLAB_BYTES)
    late = StagedRange(staging, 10)
    assert not late.room(1)
    drained(hog)
    assert wakes.count == 0
    late.call_when_room(lambda: None)
    assert wakes.count == 1


def test_nobody_is_woken_while_others_have_every_slot(ring: Ring, staging: Staging, wakes: Wakes) -> None:
    """Waiting for another process's slots must not keep this one busy."""
    with Ring.open(ring.path, 4 * SLAB_BYTES, 2) as other:
        theirs = [other.take() for _ in range(4)]
        staged = StagedRange(staging, 10)
        looked = []

        def look() -> None:
            looked.append(1)
            if not staged.room(1):
                staged.call_when_room(look)

        look()
        staging.resume()  # as once a second
        assert (wakes.count, len(looked), staging.waiting) == (0, 2, 1)
        theirs.pop().give_back()
        staging.resume()  # as when the other has announced it
        assert (len(looked), staging.waiting) == (3, 0)
        staged.close()


def test_closing_gives_everything_back_wherever_it_is(ring: Ring, staging: Staging) -> None:
    staged = StagedRange(staging, 10 * SLAB_BYTES)
    fill(staged, bytes(3 * SLAB_BYTES + 5), PIECE)
    staged.read(10)
    assert ring.in_use == 4
    staged.room(SLAB_BYTES)
    staged.call_when_room(lambda: pytest.fail("it is closed"))
    staged.close()
    staged.close()
    staging.resume()
    assert (ring.in_use, staging.waiting) == (0, 0)


class Feeder:
    """Brings the bytes of a range as a backend does: pauses where there is no room, goes on when called."""

    def __init__(self, staged: StagedRange, data: bytes) -> None:
        self.staged = staged
        self._data = data
        self._waits = False

    @property
    def may_go_on(self) -> bool:
        return not self._waits and self.staged.written < len(self._data)

    def bring(self) -> None:
        at = self.staged.written
        piece = self._data[at : at + PIECE]
        if self.staged.room(len(piece)):
            self.staged.write(piece)
        else:
            self._waits = True
            self.staged.call_when_room(self._again)

    def _again(self) -> None:
        self._waits = False
        self.bring()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("hurry", ["the last first", "at random"])
def test_a_line_goes_on_though_later_ranges_hold_every_slot(ring: Ring, seed: int, hurry: str) -> None:
    """Two lines of two processes share four slots; all but the first ranges bring their bytes first."""
    chance = random.Random(seed)
    woken: deque[Staging] = deque()
    rings = [ring, Ring.open(ring.path, 4 * SLAB_BYTES, 2, lambda: woken.append(stagings[0]))]
    stagings = [Staging(one, lambda n=n: woken.append(stagings[n])) for n, one in enumerate(rings)]
    lines = [StagedLine.open(staging) for staging in stagings]
    datas = [[chance.randbytes(2 * SLAB_BYTES + 77) for _ in range(5)] for _ in lines]
    feeders = [
        Feeder(line.add(len(data)), data)
        for line, parts in zip(lines, datas, strict=True)
        for data in parts
    ]  # fmt: skip
    out = [bytearray() for _ in lines]
    wanted = sum(len(data) for parts in datas for data in parts)
    while sum(map(len, out)) < wanted:
        ready = [feeder for feeder in feeders if feeder.may_go_on]
        before = sum(map(len, out)), sum(feeder.staged.written for feeder in feeders)
        if ready:
            (ready[-1] if hurry == "the last first" else chance.choice(ready)).bring()
        elif woken:
            woken.popleft().resume()
        for line, got in zip(lines, out, strict=True):
            if not ready or chance.random() < 0.3:
                got += line.read(chance.randrange(1, SLAB_BYTES)) or b""
        after = sum(map(len, out)), sum(feeder.staged.written for feeder in feeders)
        assert ready or woken or after != before, "everything waits"
    assert [bytes(got) for got in out] == [b"".join(parts) for parts in datas]
    for line in lines:
        assert line.read(1) == b""
        line.close()
        line.close()
    assert ring.in_use == 0
    rings[1].close()


def test_without_a_slot_of_its_own_a_line_would_stand_still(ring: Ring, staging: Staging) -> None:
    """What the line's slot is for: the same ranges without it."""
    ranges = [StagedRange(staging, 2 * SLAB_BYTES) for _ in range(3)]
    for staged in reversed(ranges):
        fill(staged, bytes(2 * SLAB_BYTES))
    assert ranges[0].read(1) is None
    assert not ranges[0].room(1)
    assert ring.in_use == 4


def test_a_line_is_not_begun_without_a_slot(ring: Ring, staging: Staging) -> None:
    hog = StagedRange(staging, 4 * SLAB_BYTES)
    fill(hog, bytes(4 * SLAB_BYTES), SLAB_BYTES)
    assert StagedLine.open(staging) is None
    assert ring.in_use == 4
    drained(hog)
    line = StagedLine.open(staging)
    assert line is not None
    line.add(5).write(b"hello")
    line.close()
    assert ring.in_use == 0

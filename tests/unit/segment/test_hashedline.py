"""A line that is hashed on another thread before it is read."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import MS

from sarrapipe.segment.hashedline import HashedLine, LineHasher
from sarrapipe.segment.staged import StagedLine, StagedRange, Staging
from sarrapipe.shm.ring import SLAB_BYTES, Ring

SLOTS = 6


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[Ring]:
    made = Ring.open(str(tmp_path / "ring"), SLOTS * SLAB_BYTES, 1, lambda: None)
    yield made
    made.close()


class Flow:
    """What the flow's thread does: it is woken, and lets those who wait go on."""

    def __init__(self, ring: Ring) -> None:
        self.woken = threading.Event()
        self.staging = Staging(ring, self.woken.set)
        self.hasher = LineHasher(self.woken.set)

    def turn(self) -> None:
        """Wait for a wake-up and act upon it."""
        assert self.woken.wait(20 * MS), "nobody is woken"
        self.woken.clear()
        self.staging.resume()
        self.hasher.resume()


@pytest.fixture
def flow(ring: Ring) -> Iterator[Flow]:
    made = Flow(ring)
    yield made
    made.hasher.close()


class Relay:
    """Ranges that bring their bytes in any order, and the writer behind them."""

    def __init__(self, flow: Flow, parts: list[bytes]) -> None:
        line = StagedLine.open(flow.staging)
        assert line is not None
        self.digest = hashlib.sha512()
        self.source = HashedLine(flow.hasher, line, self.digest, self.write)
        self.out = bytearray()
        self.ended = False
        self.left = [(line.add(len(part), self.source.came), memoryview(part)) for part in parts]

    def bring(self, staged: StagedRange, chance: random.Random) -> None:
        """Bring one more piece of a range, or have it called when there is room."""
        number, (_, part) = next((n, one) for n, one in enumerate(self.left) if one[0] is staged)
        piece = part[: chance.randrange(1, SLAB_BYTES)]
        if not staged.room(len(piece)):
            staged.call_when_room(lambda: self.bring(staged, chance))
            return
        staged.write(piece)
        self.left[number] = (staged, part[len(piece) :])

    def write(self) -> None:
        """Send on what there is."""
        while piece := self.source.read(70_000):
            self.out += piece
        self.ended = piece is not None


@pytest.mark.parametrize("seed", range(8))
def test_everything_is_hashed_and_read_in_order(ring: Ring, flow: Flow, seed: int) -> None:
    """Two relays share six slots; ranges bring their bytes in an order of chance, the last ones as well."""
    chance = random.Random(seed)
    datas = [[chance.randbytes(2 * SLAB_BYTES + 77) for _ in range(5)] for _ in range(2)]
    relays = [Relay(flow, parts) for parts in datas]
    while not all(relay.ended for relay in relays):
        waiting = {id(one.staged) for one in flow.staging._waiting}
        ready = [
            (relay, staged)
            for relay in relays
            for staged, left in relay.left
            if left and id(staged) not in waiting
        ]
        if ready:
            relay, staged = chance.choice(ready)
            relay.bring(staged, chance)
            if chance.random() < 0.2:
                chance.choice(relays).write()
            continue
        for relay in relays:
            relay.write()
        if not all(relay.ended for relay in relays):
            flow.turn()
    for relay, parts in zip(relays, datas, strict=True):
        assert bytes(relay.out) == b"".join(parts)
        assert relay.digest.digest() == hashlib.sha512(b"".join(parts)).digest()
        relay.source.close()
    assert ring.in_use == 0


def test_an_empty_line_ends_at_once(flow: Flow) -> None:
    relay = Relay(flow, [])
    relay.write()
    assert relay.ended
    relay.source.close()


class Held:
    """A digest that is being computed until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()

    def update(self, data: bytes | memoryview, /) -> None:
        self.begun.set()
        assert self.go.wait(20 * MS)


def test_the_end_is_not_told_before_the_last_slot_is_hashed(ring: Ring, flow: Flow) -> None:
    line = StagedLine.open(flow.staging)
    assert line is not None
    held = Held()
    source = HashedLine(flow.hasher, line, held, lambda: None)
    line.add(5, source.came).write(b"hello")
    assert held.begun.wait(20 * MS)
    assert source.read(10) is None
    held.go.set()
    flow.turn()
    assert bytes(source.read(10) or b"") == b"hello"
    assert source.read(10) == b""
    source.close()
    assert ring.in_use == 0


def test_given_up_while_it_is_hashed(ring: Ring, flow: Flow) -> None:
    """What is being hashed is waited for; everything else goes back unhashed."""
    line = StagedLine.open(flow.staging)
    assert line is not None
    held = Held()
    source = HashedLine(flow.hasher, line, held, lambda: None)
    for number in range(3):
        line.add(SLAB_BYTES, source.came).write(bytes([number]) * SLAB_BYTES)
    line.add(SLAB_BYTES, source.came).write(b"half")
    assert held.begun.wait(20 * MS)
    closing = threading.Thread(target=source.close)
    closing.start()
    held.go.set()
    closing.join(20 * MS)
    assert not closing.is_alive()
    assert ring.in_use == 0

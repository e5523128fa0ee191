"""Processes that move bytes through one ring and are killed at random, for a short test and a long one."""

from __future__ import annotations

import glob
import itertools
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess

import xxhash
from servers import MS

from sarrapipe.segment.staged import Staging
from sarrapipe.segment.stager import StagedSink, Stager
from sarrapipe.shm.ring import SLAB_BYTES, Ring

SLOTS = 6
WORKERS = 3
MIXED_UP = 3
"""Exit status of a worker that read what it had not written, or lost a lease."""


def work(path: str, incarnation: int) -> None:
    """Take, fill, hand on, read and give back, several slots at a time, until killed."""
    status = MIXED_UP
    try:
        chance = random.Random(incarnation)
        ring = Ring.open(path, SLOTS * SLAB_BYTES, incarnation)
        held = []
        moved = 0
        while True:
            if len(held) < 4 and (slab := ring.take()) is not None:
                moved += 1
                tag = f"{incarnation:016x}{moved:016x}".encode()
                slab.view[: len(tag)] = tag
                slab.view[-len(tag) :] = tag
                slab.full()
                held.append((slab, tag))
            elif held:
                slab, tag = held.pop(chance.randrange(len(held)))
                slab.drain()
                if slab.view[: len(tag)] != tag or slab.view[-len(tag) :] != tag:
                    break
                if chance.random() < 0.3:
                    slab.refill()
                slab.give_back()
            else:
                ring.want()
            if chance.random() < 0.01:
                ring.trim()
    finally:
        os._exit(status)


def stage(path: str, incarnation: int) -> None:
    """Write ranges of a file of one's own through slots, and note each that is settled, until killed."""
    status = MIXED_UP
    try:
        ring = Ring.open(path, SLOTS * SLAB_BYTES, incarnation)
        room, done = threading.Event(), threading.Event()
        staging = Staging(ring, room.set)
        stager = Stager(staging, done.set)
        fd = os.open(f"{path}.{incarnation}", os.O_WRONLY | os.O_CREAT)
        notes = os.open(f"{path}.{incarnation}.notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        at = 0
        for number in itertools.count():
            data = content(incarnation, number)
            sink = stager.sink(fd, at, len(data), xxhash.xxh3_128())
            bring(staging, room, sink, data)
            while not sink.settled:
                done.wait(1.0)
            if sink.hasher.digest() != xxhash.xxh3_128_digest(data):
                break
            stager.written()
            os.write(notes, f"{at} {number}\n".encode())
            at += len(data)
    finally:
        os._exit(status)


def content(incarnation: int, number: int) -> bytes:
    """What a worker's range holds."""
    chance = random.Random(incarnation << 32 | number)
    return chance.randbytes(chance.randrange(1, 3 * SLAB_BYTES))


def bring(staging: Staging, room: threading.Event, sink: StagedSink, data: bytes) -> None:
    """Write all of it, waiting for room as a transfer does; other processes' slots are looked for in time."""
    at = 0
    while at < len(data):
        piece = data[at : at + (16 << 10)]
        if sink.room(len(piece)):
            sink.write(piece)
            at += len(piece)
        else:
            sink.call_when_room(room.set)
            room.wait(0.02)
            room.clear()
            staging.resume()


def check_files(path: str) -> int:
    """Fail if a range that was noted as settled is not what its worker was to write; return how many."""
    checked = 0
    for notes in glob.glob(f"{path}.*.notes"):
        name = notes.removesuffix(".notes")
        incarnation = int(name.rpartition(".")[2])
        with open(name, "rb") as file, open(notes) as lines:
            for line in lines:
                at, number = map(int, line.split())
                wanted = content(incarnation, number)
                file.seek(at)
                assert file.read(len(wanted)) == wanted, f"range {number} of {name}"
                checked += 1
        os.unlink(name)
        os.unlink(notes)
    return checked


class Crew:
    """Workers on one ring.

    Args:
        path: Of the ring.
        seed: Of who is killed, and when.
        work: What each of them does.
    """

    def __init__(self, path: str, seed: int, work: Callable[[str, int], None]) -> None:
        self._work = work
        self.ring = Ring.open(path, SLOTS * SLAB_BYTES, 1)
        self._path = path
        self._chance = random.Random(seed)
        self._context = multiprocessing.get_context("fork")
        self._born = 1
        self._workers: dict[int, BaseProcess] = {}
        self.reclaimed = 0

    def start(self) -> None:
        """Start one more."""
        self._born += 1
        worker = self._context.Process(target=self._work, args=(self._path, self._born), daemon=True)
        worker.start()
        self._workers[self._born] = worker

    def kill(self) -> None:
        """Kill one, take from the dead what they had, as housekeeping does, and start another."""
        time.sleep(self._chance.random() * 0.02)
        incarnation = self._chance.choice(list(self._workers))
        self._end(incarnation)
        # In this order: who owns has been alive before.
        owners = self.ring.owners()
        self.reclaimed += self.ring.reclaim(owners - self._workers.keys())
        self.start()

    def _end(self, incarnation: int) -> None:
        worker = self._workers.pop(incarnation)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        worker.join(10 * MS)
        assert worker.exitcode == -signal.SIGKILL, f"a worker ended with {worker.exitcode}"

    def end(self) -> None:
        """Kill all that are left."""
        for incarnation in list(self._workers):
            self._end(incarnation)
        self.reclaimed += self.ring.reclaim(self.ring.owners())


def check_kills(path: str, kills: int, seed: int, work: Callable[[str, int], None] = work) -> int:
    """Fail if a worker reads another's bytes or loses a lease, or if a slot is left.

    Returns:
        How many slots were reclaimed from the dead.
    """
    crew = Crew(path, seed, work)
    try:
        for _ in range(WORKERS):
            crew.start()
        for _ in range(kills):
            crew.kill()
    finally:
        crew.end()
    assert crew.ring.in_use == 0
    crew.ring.trim()
    # A slot whose owner died before it had memory is empty like those that were reclaimed.
    slabs = [crew.ring.take() for _ in range(SLOTS)]
    assert None not in slabs
    assert crew.ring.take() is None
    for slab in slabs:
        assert slab is not None
        slab.give_back()
    crew.ring.trim()
    held = os.stat(path).st_blocks * 512
    assert held < SLAB_BYTES, f"{held} bytes are held by nobody"
    del slabs, slab
    crew.ring.close()
    return crew.reclaimed

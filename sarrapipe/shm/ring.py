"""The slab ring: slots of shared memory through which bytes are staged, bounded for a whole flow.

One sparse file in the flow's state directory, mapped by the instances that stage: a page of facts, the
words of the slots (`slotstates`), and page-aligned slots of 256 KiB. All instances take from the same
slots, so the bytes in memory have one bound, however many instances there are.

    ring = Ring.open(path, size_bytes=64 << 20, incarnation=place.incarnation)
    slab = ring.take()                  # None: all are taken
    slab.view[:4] = b"abcd"
    slab.full(); slab.drain(); slab.give_back()
    ring.reclaim(ring.owners() - alive)     # in this order, see `owners`

What a kill leaves, at each instant:

- while the file is made: a file without the magic number, which comes last; the next who opens it begins
  anew. Its maker holds `flock`, which ends with it.
- between taking a slot and giving it back: a word with the dead owner, whose slot `reclaim` empties.
- while memory is given back (TRIMMING): the same; giving back twice does no harm.
- between giving back and telling those who wait: they look again once a second.

The file stays when the flow ends, like the arena, without memory: `trim` gives it back. A flow that asks
for another size makes a new file; instances that still run keep the old one, which vanishes with the last
of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
from collections import deque
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Final

from sarrapipe import native
from sarrapipe.errors import NoSpace, StorageError
from sarrapipe.shm import slotstates
from sarrapipe.shm.slotstates import NOBODY, SlotState

__all__ = ["MIN_SLOTS", "SLAB_BYTES", "Ring", "Slab", "slots_in_use"]

SLAB_BYTES: Final = 256 << 10
"""What is written to a file at once at the least CPU (docs/explanation/pipeline.md); a multiple of the
page."""

MIN_SLOTS: Final = 4

_MAGIC: Final = b"SARRRING"
_VERSION: Final = 1
_PREFIX: Final = struct.Struct("<8sIII")  # magic, version, bytes of a slot, slots
_HEADER_BYTES: Final = 4096
_WAITER: Final = 64  # byte offset: who waits for a slot
_WORD_BYTES: Final = 8
_MODE: Final = 0o600


class Slab:
    """A lease of one slot.

    Attributes:
        view: Its `SLAB_BYTES` bytes; of no use after `give_back`.
    """

    __slots__ = ("_index", "_ring", "_word", "view")

    def __init__(self, ring: Ring, index: int, word: int, view: memoryview) -> None:
        self._ring = ring
        self._index = index
        self._word = word
        self.view = view

    def full(self) -> None:
        """Say that its bytes are there.

        Raises:
            StorageError: This lease is over; so for the others.
        """
        self._change(slotstates.fill(self._word))

    def drain(self) -> None:
        """Say that its bytes are being taken."""
        self._change(slotstates.drain(self._word))

    def refill(self) -> None:
        """Keep the slot for other bytes."""
        self._change(slotstates.refill(self._word))

    def give_back(self) -> None:
        """End the lease."""
        self._change(slotstates.give_back(self._word))
        self._ring.given_back(self._index)

    def _change(self, word: int | None) -> None:
        if word is None or not self._ring.swap(self._index, self._word, word):
            # The next owner's bytes may be in it: what this lease had is lost.
            raise StorageError(f"slot {self._index} of {self._ring.path}: this lease is over")
        self._word = word


class Ring:
    """The slots, as one process sees them. `take` is for one thread, giving back for any.

    Args:
        path: Of the file.
        fd: Its descriptor; owned by the ring from now on.
        mapping: Of the whole file.
        slots: How many there are.
        incarnation: Of this process.
        announce: Called when a slot came free that another process waits for, from any thread.
    """

    def __init__(
        self,
        path: str,
        fd: int,
        mapping: mmap.mmap,
        slots: int,
        incarnation: int,
        announce: Callable[[], None],
    ) -> None:
        self.path = path
        self.slots = slots
        self.slab_bytes = SLAB_BYTES
        self._fd = fd
        self._mapping = mapping
        self._bytes = memoryview(mapping)
        self._words = self._bytes[_HEADER_BYTES : _HEADER_BYTES + slots * _WORD_BYTES].cast("Q")
        self._data = _data_offset(slots)
        self._owner = slotstates.owner_of(incarnation)
        self._announce = announce
        # Given back by this process and still warm in its caches, last first; tried before looking at all.
        self._recent: deque[int] = deque(maxlen=slots)

    @classmethod
    def open(
        cls, path: str, size_bytes: int, incarnation: int, announce: Callable[[], None] = lambda: None
    ) -> Ring:
        """Map the ring of a flow; make it where there is none of this size.

        Args:
            path: Of its file; the directory exists.
            size_bytes: Of all slots together; rounded up to whole slots, at least `MIN_SLOTS`.
            incarnation: Of this process.
            announce: Called when a slot came free that another process waits for, from any thread.

        Raises:
            StorageError: The file cannot be made or mapped.
        """
        slots = max(-(-size_bytes // SLAB_BYTES), MIN_SLOTS)
        try:
            while True:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX)
                    if _prepare(fd, path, slots):
                        mapping = mmap.mmap(fd, _data_offset(slots) + slots * SLAB_BYTES)
                        fcntl.flock(fd, fcntl.LOCK_UN)
                        return cls(path, fd, mapping, slots, incarnation, announce)
                except BaseException:
                    os.close(fd)
                    raise
                os.close(fd)
        except (OSError, ValueError) as error:
            raise StorageError(f"{path}: cannot make the slots of shared memory: {error}") from error

    def close(self) -> None:
        """Unmap; leases that were not given back are reclaimed by others. May be repeated."""
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        self._words.release()
        self._bytes.release()
        with contextlib.suppress(BufferError):  # a lease still has a view; the map ends with the process
            self._mapping.close()

    def __enter__(self) -> Ring:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- leases

    def take(self) -> Slab | None:
        """Lease a slot; None if all are taken.

        Raises:
            NoSpace: There is no memory for it: the file system of the state directory is full.
        """
        while self._recent:
            slab = self._try(self._recent.pop())
            if slab is not None:
                return slab
        states = [slotstates.state_of(word) for word in self._words.tolist()]
        # Those with memory first: what is not needed at the same time needs no memory.
        for wanted in (SlotState.FREE, SlotState.EMPTY):
            index = -1
            while wanted in states[index + 1 :]:
                index = states.index(wanted, index + 1)
                slab = self._try(index)
                if slab is not None:
                    return slab
        return None

    def want(self) -> None:
        """Say that this process waits for a slot; `take` has to be tried once more after this."""
        while True:
            seen = native.atomic_load(self._bytes, _WAITER)
            joined = slotstates.waiters_with(seen, self._owner)
            if native.compare_and_swap(self._bytes, _WAITER, seen, joined):
                return

    def swap(self, index: int, expected: int, word: int) -> bool:
        """Change a slot's word; for its lease."""
        return native.compare_and_swap(self._bytes, _offset(index), expected, word)

    def given_back(self, index: int) -> None:
        """Take note that a slot of this process came free; for its lease."""
        self._recent.append(index)
        self._tell_waiters()

    def _try(self, index: int) -> Slab | None:
        seen = native.atomic_load(self._bytes, _offset(index))
        word = slotstates.take(seen, self._owner)
        if word is None or not self.swap(index, seen, word):
            return None
        if slotstates.unpack(seen).state is SlotState.EMPTY:
            self._ask_for_memory(index, word)
        start = self._data + index * SLAB_BYTES
        return Slab(self, index, word, self._bytes[start : start + SLAB_BYTES])

    def _ask_for_memory(self, index: int, word: int) -> None:
        """Without this, a full file system would be told by SIGBUS at the first byte."""
        try:
            _reserve(self._fd, self._data + index * SLAB_BYTES, SLAB_BYTES)
        except OSError as error:
            self._empty(index, word)
            raise NoSpace(f"{self.path}: no memory for a slot: {error.strerror}") from error

    def _tell_waiters(self) -> None:
        waiter = native.atomic_load(self._bytes, _WAITER)
        if waiter and native.compare_and_swap(self._bytes, _WAITER, waiter, 0) and waiter != self._owner:
            self._announce()

    # ---- looking after it

    @property
    def in_use(self) -> int:
        """How many slots are somebody's."""
        return sum(slotstates.unpack(word).owner != NOBODY for word in self._words.tolist())

    def owners(self) -> set[int]:
        """Return who has slots, as `slotstates.owner_of` names them.

        Whoever is found here has been alive before. So ask who is alive *after* this: the other way round,
        one that was started in between would be taken for dead.
        """
        return {slotstates.unpack(word).owner for word in self._words.tolist()} - {NOBODY}

    def reclaim(self, dead: Collection[int]) -> int:
        """Take their slots from dead owners, and give the memory back.

        Args:
            dead: As `owners` names them.

        Returns:
            How many slots.
        """
        return sum(
            self._emptied(index, slotstates.reclaim(word, dead, self._owner), word)
            for index, word in enumerate(self._words.tolist())
        )

    def trim(self) -> int:
        """Give back the memory of every slot that is nobody's now.

        Returns:
            How many slots.
        """
        return sum(
            self._emptied(index, slotstates.trim(word, self._owner), word)
            for index, word in enumerate(self._words.tolist())
        )

    def _emptied(self, index: int, word: int | None, seen: int) -> bool:
        if word is None or not self.swap(index, seen, word):
            return False
        if hasattr(mmap, "MADV_REMOVE"):
            with contextlib.suppress(OSError):  # a file system that cannot: the memory is used again later
                self._mapping.madvise(mmap.MADV_REMOVE, self._data + index * SLAB_BYTES, SLAB_BYTES)
        self._empty(index, word)
        return True

    def _empty(self, index: int, word: int) -> None:
        after = slotstates.empty(word)
        if after is not None and self.swap(index, word, after):
            self._tell_waiters()


def slots_in_use(path: str) -> int:
    """Return how many slots of a ring are somebody's, without mapping it; 0 where there is none."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEADER_BYTES)
            if len(head) < _HEADER_BYTES or not head.startswith(_MAGIC):
                return 0
            slots = _PREFIX.unpack_from(head)[3]
            words = struct.unpack(f"={slots}Q", file.read(slots * _WORD_BYTES))
    except FileNotFoundError:
        return 0
    return sum(slotstates.unpack(word).owner != NOBODY for word in words)


def _offset(index: int) -> int:
    return _HEADER_BYTES + index * _WORD_BYTES


def _data_offset(slots: int) -> int:
    """Where the first slot begins: on a page."""
    return -(-_offset(slots) // mmap.PAGESIZE) * mmap.PAGESIZE


def _reserve(fd: int, offset: int, count: int) -> None:
    """Have memory or disk behind a part of the file that holds nothing yet."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, offset, count)
    else:
        os.pwrite(fd, bytes(count), offset)


def _prepare(fd: int, path: str, slots: int) -> bool:
    """Make an empty file a ring, under its lock; return whether the file of that name is one of ours now.

    Raises:
        OSError: As the system says.
    """
    wanted = _PREFIX.pack(_MAGIC, _VERSION, SLAB_BYTES, slots)
    here = os.fstat(fd)
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
        return False  # replaced before we had the lock
    size = _data_offset(slots) + slots * SLAB_BYTES
    if here.st_size == 0:
        os.ftruncate(fd, size)
        _reserve(fd, 0, _data_offset(slots))
        os.pwrite(fd, wanted, 0)
        return True
    if here.st_size == size and os.pread(fd, len(wanted), 0) == wanted:
        return True
    os.unlink(path)  # of another size or version, or its maker was killed
    return False

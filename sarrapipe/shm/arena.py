"""The arena: one memory-mapped file in a flow's state directory that all its processes share.

Header (one page), slots, and for each slot a page that tells of large files (`moving`). The parent makes a
new file under a temporary name and renames it into place, so a reader sees a whole arena or the one before.
It stays behind when the parent ends: `status` says from it what was.

    arena = Arena.create(path, flow="sarra/ddsr")
    slot = arena.slot(arena.free_slot())

Readers that only want to look use `read_arena`, which copies the used part with one read and maps nothing.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import zlib
from collections.abc import Collection, Iterable
from types import TracebackType
from typing import Final

from sarrapipe import native
from sarrapipe.errors import SupervisorError
from sarrapipe.shm import host
from sarrapipe.shm.moving import BOARD_SIZE, Board, Moving, read_board
from sarrapipe.shm.slots import COUNTER_WORDS, MAXIMA, SLOT_SIZE, Counter, Slot, is_gauge

__all__ = ["SLOT_COUNT", "Arena", "read_arena", "read_boards"]

SLOT_COUNT: Final = 512
"""Slots of an arena: a rolling restart needs two for each instance. The file is sparse."""

_MAGIC: Final = b"SARRARNA"
_VERSION: Final = 2
_HEADER_SIZE: Final = 4096
# magic, version, size of header and slot, slots, layout, time made, boot id
_PREFIX: Final = struct.Struct("<8sIIIIQQ16s")
_LAYOUT: Final = zlib.crc32(",".join(f"{c.name}={c.value}" for c in Counter).encode())

_BOARDS: Final = _HEADER_SIZE + SLOT_COUNT * SLOT_SIZE

# Words of the header, after the 56 bytes of the prefix.
_PARENT_PID: Final = 7
_PARENT_TICKS: Final = 8
_PARENT_STATE: Final = 9
_WANTED: Final = 10
_USED: Final = 11  # slots used so far: readers look no further
_DEATHS: Final = 12
_WORK_WORD: Final = 13
_STARTED_WALL: Final = 14
_FOREGROUND: Final = 15
_LIMITS: Final = 16  # words 16..31: the rate limiter's
_HUNG: Final = 96
_FLOW: Final = 256  # byte offsets: two bytes length, then UTF-8
_NOTE: Final = 512
_TEXT_BYTES: Final = 254
_RETIRED: Final = 128  # words 128..255: what ended instances had counted


class Arena:
    """The shared memory of one flow on one host.

    Args:
        buffer: The whole arena, or for a reader the used part of it.
        mapping: The memory map to close at the end, if the buffer is one.
    """

    def __init__(self, buffer: memoryview, mapping: mmap.mmap | None = None) -> None:
        self._bytes = buffer
        self._mapping = mapping
        self._words = buffer[:_HEADER_SIZE].cast("Q")
        self._slots: dict[int, Slot] = {}

    @classmethod
    def create(cls, path: str, flow: str, *, created_wall_ns: int) -> Arena:
        """Make a new arena at `path` in place of what is there, and map it.

        Args:
            path: File name; its directory exists.
            flow: `component/name`, for readers.
            created_wall_ns: Wall clock of now.

        Raises:
            SupervisorError: The file cannot be made.
        """
        temporary = f"{path}.{os.getpid()}"
        try:
            fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(fd, _BOARDS + SLOT_COUNT * BOARD_SIZE)
                mapping = mmap.mmap(fd, 0)
            finally:
                os.close(fd)
            arena = cls(memoryview(mapping), mapping)
            arena._write_header(flow, created_wall_ns)
            os.rename(temporary, path)
        except OSError as error:
            raise SupervisorError(
                f"{path}: cannot make the shared memory of {flow}: {error.strerror}"
            ) from error
        return arena

    @classmethod
    def open(cls, path: str) -> Arena:
        """Map an existing arena for reading and writing.

        Raises:
            SupervisorError: It is not there, or of another version.
        """
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                mapping = mmap.mmap(fd, 0)
            finally:
                os.close(fd)
        except (OSError, ValueError) as error:
            raise SupervisorError(f"{path}: no shared memory to open: {error}") from error
        buffer = memoryview(mapping)
        problem = _problem(buffer)
        if problem:
            buffer.release()
            mapping.close()
            raise SupervisorError(f"{path}: {problem}")
        return cls(buffer, mapping)

    def close(self) -> None:
        """Unmap; slots taken from this arena are of no use afterwards."""
        for slot in self._slots.values():
            slot.release()
        self._slots.clear()
        self._words.release()
        self._bytes.release()
        if self._mapping is not None:
            with contextlib.suppress(
                BufferError
            ):  # somebody still holds a view; the map ends with the process
                self._mapping.close()

    def __enter__(self) -> Arena:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- slots

    def slot(self, index: int) -> Slot:
        """Return the slot at `index`, 0 .. `SLOT_COUNT` - 1."""
        slot = self._slots.get(index)
        if slot is None:
            start = _HEADER_SIZE + index * SLOT_SIZE
            slot = self._slots[index] = Slot(index, self._bytes[start : start + SLOT_SIZE])
        return slot

    def slots(self) -> list[Slot]:
        """Return the slots that were ever used, by index."""
        return [self.slot(index) for index in range(self._words[_USED])]

    def board(self, index: int) -> Board:
        """Return where the instance of a slot tells of the large files it moves."""
        start = _BOARDS + index * BOARD_SIZE
        return Board(self._bytes[start : start + BOARD_SIZE])

    def free_slot(self, taken: Collection[int] = ()) -> int:
        """Return the index of a slot whose instance is dead or that was never used; for the parent only.

        Args:
            taken: Indexes that are spoken for though nobody lives there now.

        Raises:
            SupervisorError: All are taken.
        """
        for slot in self.slots():
            if not slot.alive and slot.index not in taken:
                return slot.index
        used = self._words[_USED]
        if used == SLOT_COUNT:
            raise SupervisorError(f"{self.flow}: no room for more than {SLOT_COUNT} instances")
        self._words[_USED] = used + 1
        return used

    def retire(self, slot: Slot) -> None:
        """Record the death of a slot's instance, and keep what it had counted; for the parent only."""
        for counter in Counter:
            if not is_gauge(counter):
                self._retire_value(counter, slot.get(counter))
        slot.vacate()
        self._words[_DEATHS] += 1

    def alive(self) -> frozenset[int]:
        """Return the incarnations that may still run: every other one is dead for certain.

        An incarnation is in this set from before its process exists until the parent has reaped it.
        """
        return frozenset(slot.incarnation for slot in self.slots() if slot.alive)

    def totals(self) -> dict[Counter, int]:
        """Return each counter over all instances, ended ones included (gauges: those alive)."""
        rows = [slot.counters() for slot in self.slots() if slot.alive]
        retired = self._words[_RETIRED : _RETIRED + COUNTER_WORDS].tolist()
        sums = [sum(column) for column in zip(retired, *rows, strict=True)]
        totals = {counter: sums[counter] for counter in Counter}
        for counter in MAXIMA:
            totals[counter] = max(retired[counter], *(row[counter] for row in rows), 0)
        return totals

    # ---- words of the whole flow

    @property
    def deaths(self) -> int:
        """How many instances have ended; when it changes, look at `alive`."""
        return self._words[_DEATHS]

    @property
    def work_word(self) -> int:
        """Changes whenever an instance has segments that its siblings may take."""
        return self._words[_WORK_WORD]

    def announce_work(self) -> int:
        """Change the wake-up word and return it."""
        return native.atomic_add(self._bytes, 8 * _WORK_WORD, 1)

    @property
    def limit_words(self) -> tuple[memoryview, int]:
        """The buffer and byte offset of the 16 words that belong to the rate limiter."""
        return self._bytes, 8 * _LIMITS

    @property
    def flow(self) -> str:
        """`component/name`."""
        return self._text(_FLOW)

    @property
    def wanted(self) -> int:
        """How many instances there should be."""
        return self._words[_WANTED]

    @wanted.setter
    def wanted(self, count: int) -> None:
        self._words[_WANTED] = count

    @property
    def hung_s(self) -> float:
        """Silence after which an instance is taken to hang, s; 0 never."""
        return self._words[_HUNG] / 1e9

    @hung_s.setter
    def hung_s(self, seconds: float) -> None:
        self._words[_HUNG] = int(seconds * 1e9)

    @property
    def note(self) -> str:
        """The parent's last sentence for `status`: why an instance died, why a reload was refused."""
        return self._text(_NOTE)

    @note.setter
    def note(self, text: str) -> None:
        self._set_text(_NOTE, text)

    @property
    def parent_pid(self) -> int:
        """The parent's process id; it stays here when the parent ends."""
        return self._words[_PARENT_PID]

    @property
    def parent_alive(self) -> bool:
        """Whether that parent runs, asked of the system."""
        return self.same_boot and host.is_alive(self.parent_pid, self._words[_PARENT_TICKS])

    @property
    def parent_state(self) -> int:
        """The parent's own state, a `supervisor.states.State`."""
        return self._words[_PARENT_STATE]

    @parent_state.setter
    def parent_state(self, state: int) -> None:
        self._words[_PARENT_STATE] = state

    @property
    def foreground(self) -> bool:
        """Whether the flow runs under a terminal or container rather than as a daemon."""
        return self._words[_FOREGROUND] == 1

    @property
    def started_wall_ns(self) -> int:
        """Wall clock when the parent started."""
        return self._words[_STARTED_WALL]

    @property
    def same_boot(self) -> bool:
        """Whether the arena was made since the machine started: else its pids and heartbeats mean nothing."""
        return bytes(self._bytes[40:56]) == host.boot_id()

    def set_parent(self, pid: int, *, foreground: bool) -> None:
        """Record the parent."""
        self._words[_PARENT_PID] = pid
        self._words[_PARENT_TICKS] = host.start_ticks(pid)
        self._words[_FOREGROUND] = int(foreground)

    def _write_header(self, flow: str, created_wall_ns: int) -> None:
        sizes = (_HEADER_SIZE, SLOT_SIZE, SLOT_COUNT)
        _PREFIX.pack_into(self._bytes, 0, _MAGIC, _VERSION, *sizes, _LAYOUT, created_wall_ns, host.boot_id())
        self._words[_STARTED_WALL] = created_wall_ns
        self._set_text(_FLOW, flow)

    def _retire_value(self, counter: Counter, value: int) -> None:
        kept = self._words[_RETIRED + counter]
        self._words[_RETIRED + counter] = max(kept, value) if counter in MAXIMA else kept + value

    def _text(self, offset: int) -> str:
        length = min(int.from_bytes(self._bytes[offset : offset + 2], "little"), _TEXT_BYTES)
        return bytes(self._bytes[offset + 2 : offset + 2 + length]).decode("utf-8", "replace")

    def _set_text(self, offset: int, text: str) -> None:
        data = text.encode("utf-8", "replace")[:_TEXT_BYTES]
        self._bytes[offset + 2 : offset + 2 + len(data)] = data
        self._bytes[offset : offset + 2] = len(data).to_bytes(2, "little")


def read_arena(path: str) -> Arena | None:
    """Return a copy of the used part of an arena; None if there is none or it is of another version.

    Two system calls for each flow: `status` of a hundred flows must answer in 0.3 s.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        header = os.read(fd, _HEADER_SIZE)
        if _problem(header):
            return None
        used = struct.unpack_from("<Q", header, 8 * _USED)[0]
        data = header + os.pread(fd, min(used, SLOT_COUNT) * SLOT_SIZE, _HEADER_SIZE)
    finally:
        os.close(fd)
    return Arena(memoryview(data))


def read_boards(path: str, slots: Iterable[int]) -> list[Moving]:
    """Return what the instances of some slots say of the large files they move.

    Args:
        path: Of an arena that `read_arena` could read.
        slots: Indexes of slots whose instances are alive.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        pages = [os.pread(fd, BOARD_SIZE, _BOARDS + index * BOARD_SIZE) for index in slots]
    finally:
        os.close(fd)
    return [row for page in pages for row in read_board(page)]


def _problem(data: bytes | memoryview) -> str:
    """Return why these bytes are no arena of ours, or nothing."""
    if len(data) < _HEADER_SIZE:
        return "too short for an arena"
    magic, version, header_size, slot_size, slots, layout, _created, _boot = _PREFIX.unpack_from(data)
    if magic != _MAGIC:
        return "not an arena"
    made_by = (version, header_size, slot_size, slots, layout)
    if made_by != (_VERSION, _HEADER_SIZE, SLOT_SIZE, SLOT_COUNT, _LAYOUT):
        return "an arena of another version: stop the flow with the version that started it"
    return ""

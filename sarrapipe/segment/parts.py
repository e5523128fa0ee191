"""A line of staged ranges cut into the sources of several writes, one behind the other.

    feed = PartedLine(source, listener)
    first, second = feed.add(8 << 20), feed.add(8 << 20)
    # each is the source of one write; `first` has bytes at once, `second` when all of `first` was read

The bytes pass in their order, so that one digest can be computed over all of them, and each part can be
written, answered and tried again by itself. A part that was sent before is not sent again: it is *only
hashed*, and its own digest has to be what it was then.

What a part's reader is handed may be used until the line is read again. So the next part is not told of its
turn before the engine has come back (`Listener.soon`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import xxhash

from sarrapipe.errors import IdentityMismatch
from sarrapipe.segment.staged import StagedRange

__all__ = ["CheckedRange", "LinePart", "Listener", "PartedLine", "Sequential"]

_NO_MORE: Final = memoryview(b"")
_PIECE_BYTES: Final = 1 << 20
"""Taken at once of what is only hashed; a slot holds less."""


class Sequential(Protocol):
    """All bytes in order, hashed on the way (`hashedline.HashedLine`)."""

    def read(self, count: int) -> memoryview | None:
        """As `transfer.writing.Source.read`."""

    def close(self) -> None:
        """Give back every slot."""


class Listener(Protocol):
    """Whoever writes the parts."""

    def turn_of(self, part: LinePart) -> None:
        """There may be bytes for this part."""

    def passed(self) -> None:
        """Every byte has passed, and is hashed (`PartedLine.end`)."""

    def differs(self, part: LinePart) -> None:
        """A part that is only hashed has other bytes than when it was sent: nothing more is said."""

    def soon(self, call: Callable[[], None]) -> None:
        """Call once, when whoever is at work has come back."""


class _FromMemory:
    """What a source says whose bytes were never in a file; see `transfer.writing.Source`."""

    __slots__ = ()

    def fileno(self) -> int:
        """No descriptor."""
        return -1

    def position(self) -> int:
        """Of no descriptor."""
        return 0

    def advance(self, count: int) -> None:
        """Nothing is copied past `read`."""
        raise NotImplementedError


class LinePart(_FromMemory):
    """One part: the source of a write that may be begun again behind what was read of it.

    Args:
        feed: The line.
        number: Of its segment.
        length: Bytes of it.
        expected: Its digest, where it is only hashed.
        digests: Whether it has a digest of its own.

    Attributes:
        number: The same.
        length: The same.
        taken: How many of them were read.
    """

    __slots__ = ("_feed", "_hasher", "expected", "length", "number", "taken")

    def __init__(
        self, feed: PartedLine, number: int, length: int, expected: bytes | None, *, digests: bool
    ) -> None:
        self._feed = feed
        self._hasher = xxhash.xxh3_128() if digests else None
        self.number = number
        self.length = length
        self.expected = expected
        self.taken = 0

    def digest(self) -> bytes:
        """Return the xxh3_128 of what was read so far; nothing if it has none."""
        return b"" if self._hasher is None else self._hasher.digest()

    def took(self, piece: memoryview) -> None:
        """Account for bytes that were read; from the line alone."""
        self.taken += len(piece)
        if self._hasher is not None:
            self._hasher.update(piece)

    def read(self, count: int) -> memoryview | None:
        """Return the next bytes; None too while it is not this part's turn. See `transfer.writing.Source`."""
        return self._feed.read(self, count)

    def position(self) -> int:
        """How many bytes were read."""
        return self.taken


class PartedLine:
    """The parts of one file, in their order.

    Args:
        line: All bytes, in the same order.
        listener: Writes them.
        digests: Whether each has a digest of its own.
    """

    def __init__(self, line: Sequential, listener: Listener, *, digests: bool) -> None:
        self._line = line
        self._digests = digests
        self._listener = listener
        self._parts: deque[LinePart] = deque()
        self._expected_soon = False
        self._ends = False
        self._closed = False

    def add(self, number: int, length: int, expected: bytes | None = None) -> LinePart:
        """Add a part behind the others.

        Args:
            number: Of its segment.
            length: Bytes of it.
            expected: Its digest, if it is not to be written but only hashed.
        """
        part = LinePart(self, number, length, expected, digests=self._digests)
        self._parts.append(part)
        if self._parts[0] is part:
            self._soon()
        return part

    def end(self) -> None:
        """Have it said when all that was added has passed: there will be no more."""
        self._ends = True
        if not self._parts:
            self._soon()

    def next_to_write(self, count: int) -> Sequence[LinePart]:
        """Return the parts that are to be read next by writes, at most so many."""
        found = []
        for part in self._parts:
            if part.expected is None:
                found.append(part)
                if len(found) == count:
                    break
        return found

    def came(self) -> None:
        """There may be bytes to be read."""
        if not self._parts:
            return
        if self._parts[0].expected is None:
            self._listener.turn_of(self._parts[0])
        else:
            self._soon()  # not from within the write that fills the slot

    def read(self, part: LinePart, count: int) -> memoryview | None:
        """Return the next bytes of a part."""
        if part.taken == part.length:
            return _NO_MORE
        if self._parts[0] is not part:
            return None
        return self._read(part, count) or None  # nothing: the ranges that follow are not in the line yet

    def close(self) -> None:
        """Give back every slot; with no transfer at work. May be repeated."""
        self._closed = True
        self._parts.clear()
        self._line.close()

    def _read(self, part: LinePart, count: int) -> memoryview | None:
        piece = self._line.read(min(count, part.length - part.taken))
        if piece:
            part.took(piece)
            if part.taken == part.length:
                self._parts.popleft()
                self._soon()
        return piece

    def _soon(self) -> None:
        if not self._expected_soon:
            self._expected_soon = True
            self._listener.soon(self._look)

    def _look(self) -> None:
        """Read what is only hashed, and say whose turn it is then."""
        self._expected_soon = False
        if self._closed:
            return
        while self._parts and (part := self._parts[0]).expected is not None:
            if not self._read(part, _PIECE_BYTES):
                return
            if part.taken == part.length and part.digest() != part.expected:
                self._closed = True
                self._listener.differs(part)
                return
        if self._parts:
            self._listener.turn_of(self._parts[0])
        elif self._ends:
            self._ends = False
            self._listener.passed()


class CheckedRange(_FromMemory):
    """A range that is read once more, as the source of a write: it has to be what it was before.

    Args:
        staged: Its bytes.
        expected: The xxh3_128 of all of them.
        name: For error messages.
    """

    def __init__(self, staged: StagedRange, expected: bytes, name: str) -> None:
        self.staged = staged
        self._expected = expected
        self._name = name
        self._hasher = xxhash.xxh3_128()

    def read(self, count: int) -> memoryview | None:
        """Return the next bytes; see `transfer.writing.Source`.

        Raises:
            IdentityMismatch: They are others than before; the last of them are not handed out.
        """
        piece = self.staged.read(count)
        if piece:
            self._hasher.update(piece)
            if self.staged.finished and self._hasher.digest() != self._expected:
                raise IdentityMismatch(f"{self._name}: the source has other bytes than a moment ago")
        return piece

"""What may become of a slot of the ring: every decision as a pure function from word to word.

A slot is one 64-bit word, changed by compare-and-swap alone. Whoever wants to change it reads the word,
asks a function of this module what it becomes, and swaps; None means that it may not be changed so. A
process that is killed between two swaps leaves a word that names it, and `reclaim` takes the slot from it.

    EMPTY ──take──► FILLING ──fill──► FULL ──drain──► DRAINING ──give_back──► FREE ──take──► FILLING ...
      ▲                └───────────give_back─┴───────────┴─refill─► FILLING      │
      └──empty── TRIMMING ◄──reclaim── (owner dead)                              │
                     ▲───────────────────────trim────────────────────────────────┘

Bits 0-2 are the state, 3-15 a sequence number that grows with every new lease, 16-63 the owner. A lease is
known by its word: the sequence tells it from an earlier lease of the same owner, so that giving back twice
is noticed rather than taking the slot from whoever has it now.

The functions are searched exhaustively, with kills at every step, in tests/unit/shm/test_ring_model.py.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from typing import Final, NamedTuple

__all__ = [
    "NOBODY",
    "SlotState",
    "SlotWord",
    "drain",
    "empty",
    "fill",
    "give_back",
    "owner_of",
    "pack",
    "reclaim",
    "refill",
    "state_of",
    "take",
    "trim",
    "unpack",
    "waiters_with",
]

NOBODY: Final = 0
"""Owner of a slot that nobody has."""

_STATE_BITS: Final = 3
_SEQUENCE_BITS: Final = 13
_OWNER_BITS: Final = 48
_STATE_MASK: Final = (1 << _STATE_BITS) - 1
_SEQUENCE_MASK: Final = (1 << _SEQUENCE_BITS) - 1
_OWNER_SHIFT: Final = _STATE_BITS + _SEQUENCE_BITS


class SlotState(enum.IntEnum):
    """What a slot is doing."""

    EMPTY = 0
    """Nobody's, and memory has to be asked for before it is used."""
    FREE = 1
    """Nobody's, with memory behind it."""
    FILLING = 2
    """Its owner writes bytes into it."""
    FULL = 3
    """Its bytes wait to be taken by its owner."""
    DRAINING = 4
    """Its owner takes the bytes out."""
    TRIMMING = 5
    """Its owner gives the memory back to the system."""


class SlotWord(NamedTuple):
    """A word, taken apart."""

    state: SlotState
    sequence: int
    owner: int


_EVERYBODY: Final = (1 << 64) - 1
"""Several wait; no owner is this."""

_OWNED: Final = frozenset({SlotState.FILLING, SlotState.FULL, SlotState.DRAINING, SlotState.TRIMMING})
_LEASED: Final = _OWNED - {SlotState.TRIMMING}


def owner_of(incarnation: int) -> int:
    """Return what stands for an incarnation in a word: itself up to 2^48 - 1, which a parent never reaches.

    The incarnation of a flow without parent is a random number of 62 bits; that two of them fall together
    (1 in 2^48) would keep a dead one's slots until the other ends, and harm nothing else.
    """
    return (incarnation - 1) % ((1 << _OWNER_BITS) - 1) + 1


def pack(state: SlotState, sequence: int, owner: int) -> int:
    """Return the word."""
    return owner << _OWNER_SHIFT | (sequence & _SEQUENCE_MASK) << _STATE_BITS | state


def unpack(word: int) -> SlotWord:
    """Return the parts of a word."""
    return SlotWord(SlotState(word & _STATE_MASK), word >> _STATE_BITS & _SEQUENCE_MASK, word >> _OWNER_SHIFT)


def state_of(word: int) -> int:
    """Return the state alone, as a number: with `unpack` a look over all slots took 28 % of a relay."""
    return word & _STATE_MASK


def take(word: int, owner: int) -> int | None:
    """Lease a slot that is nobody's; a new lease has a new sequence number."""
    state, sequence, _ = unpack(word)
    return None if state in _OWNED else pack(SlotState.FILLING, sequence + 1, owner)


def fill(word: int) -> int | None:
    """End the filling of one's slot."""
    return _moved(word, SlotState.FILLING, SlotState.FULL)


def drain(word: int) -> int | None:
    """Begin to take the bytes out of one's slot."""
    return _moved(word, SlotState.FULL, SlotState.DRAINING)


def refill(word: int) -> int | None:
    """Keep one's slot after its bytes were taken, and fill it again; a new lease of the same owner."""
    state, sequence, owner = unpack(word)
    return pack(SlotState.FILLING, sequence + 1, owner) if state in _LEASED else None


def give_back(word: int) -> int | None:
    """End a lease, wherever it stands."""
    state, sequence, _ = unpack(word)
    return pack(SlotState.FREE, sequence, NOBODY) if state in _LEASED else None


def empty(word: int) -> int | None:
    """End a lease of a slot that has no memory, or whose memory was given back."""
    state, sequence, _ = unpack(word)
    return pack(SlotState.EMPTY, sequence, NOBODY) if state in _OWNED else None


def trim(word: int, owner: int) -> int | None:
    """Take a slot that is nobody's, to give its memory back."""
    state, sequence, _ = unpack(word)
    return pack(SlotState.TRIMMING, sequence + 1, owner) if state is SlotState.FREE else None


def reclaim(word: int, dead: Collection[int], owner: int) -> int | None:
    """Take the slot of a dead owner, to give its memory back: what is in it is of no use to anybody.

    Args:
        word: The slot's.
        dead: Owners of which it is certain that they run no more.
        owner: Who takes it.
    """
    state, sequence, holder = unpack(word)
    if state not in _OWNED or holder not in dead:
        return None
    return pack(SlotState.TRIMMING, sequence + 1, owner)


def waiters_with(waiter: int, owner: int) -> int:
    """Return the word of those who wait for a slot, after `owner` has joined them.

    Whoever gives a slot back sets it to 0 and tells the others, unless it names nobody but himself.
    """
    return owner if waiter in (0, owner) else _EVERYBODY


def _moved(word: int, before: SlotState, after: SlotState) -> int | None:
    state, sequence, owner = unpack(word)
    return pack(after, sequence, owner) if state is before else None

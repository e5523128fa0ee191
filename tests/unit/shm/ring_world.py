"""The world in which the protocol of the slots is searched: a few processes, each at some step.

One step is one access to shared memory: a load, a swap, a write or read of the bytes, or one look at who is
alive. Between any two of them any other process may make its own, or be killed. The decisions are those of
`sarrapipe.shm.slotstates`, called as `sarrapipe.shm.ring` calls them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from sarrapipe.shm import slotstates
from sarrapipe.shm.slotstates import NOBODY, SlotState


class Violation(AssertionError):
    """A guarantee does not hold."""


class Process(NamedTuple):
    """One process: who it is, where it stands, and what it still has to move."""

    incarnation: int
    at: tuple[Any, ...]
    """Name of the step that comes next, and what it remembers; ("unborn",) before it exists."""
    rounds: int


class State(NamedTuple):
    words: tuple[int, ...]
    contents: tuple[Any, ...]
    """What was written into each slot last: (incarnation, round); None once the memory was given back."""
    waiter: int
    processes: tuple[Process, ...]
    alive: frozenset[int]
    kills: int
    """How many may still happen."""
    killed: bool
    born: int


class Scenario(NamedTuple):
    name: str
    slots: int
    processes: int
    rounds: int
    kills: int
    trims: bool = False
    states: int = 0
    """There are at least so many."""


Step = tuple[str, bool, State]
"""Its name, whether it is a fault, and what is after it."""

IDLE = ("idle",)


class World:
    """All that may happen next.

    Args:
        scenario: How much of everything.
        rules: Decides; `slotstates`, or something broken that the search has to find out.
        alive_first: Housekeeping asks in the wrong order.
    """

    def __init__(self, scenario: Scenario, rules: Any = slotstates, *, alive_first: bool = False) -> None:
        self.scenario = scenario
        self.rules = rules
        self.alive_first = alive_first

    def first(self) -> State:
        processes = tuple(Process(n + 1, IDLE, self.scenario.rounds) for n in range(self.scenario.processes))
        alive = frozenset(process.incarnation for process in processes)
        slots = self.scenario.slots
        return State(
            (0,) * slots, (None,) * slots, 0, processes, alive, self.scenario.kills, False, slots + 9
        )

    def steps(self, s: State) -> Iterator[Step]:
        for number, process in enumerate(s.processes):
            if process.at == ("unborn",):
                # The parent counts it as alive before it exists.
                incarnation = s.born + 1
                newborn = self._put(s, number, Process(incarnation, IDLE, process.rounds))
                yield "birth", False, newborn._replace(born=incarnation, alive=s.alive | {incarnation})
                continue
            step = getattr(self, f"_{process.at[0]}")
            for name, after in step(s, number, process, *process.at[1:]):
                yield f"{process.incarnation}: {name}", False, after
            if s.kills:
                dead = self._put(s, number, process._replace(at=("unborn",)))
                yield (
                    f"{process.incarnation}: killed",
                    True,
                    dead._replace(alive=s.alive - {process.incarnation}, kills=s.kills - 1, killed=True),
                )

    # ---- moving bytes through a slot

    def _idle(self, s: State, n: int, p: Process) -> Iterator[tuple[str, State]]:
        if p.rounds:
            free = [i for i, word in enumerate(s.words) if slotstates.unpack(word).owner == NOBODY]
            for i in free:
                yield f"sees {i} free", self._go(s, n, "taking", i, s.words[i])
            if not free:
                yield "sees none free", self._go(s, n, "wanting")
        owners = frozenset(slotstates.unpack(word).owner for word in s.words) - {NOBODY}
        if self.alive_first:
            yield "asks who is alive", self._go(s, n, "looking", s.alive)
        elif owners - s.alive:
            yield "sees owners", self._go(s, n, "asking", owners)
        if self.scenario.trims:
            for i, word in enumerate(s.words):
                if self.rules.trim(word, p.incarnation) is not None:
                    yield f"sees {i} to trim", self._go(s, n, "trimming", i, word)

    def _taking(self, s: State, n: int, p: Process, i: int, seen: int) -> Iterator[tuple[str, State]]:
        word = self.rules.take(seen, p.incarnation)
        after = self._swap(s, i, seen, word)
        if after is None:
            yield f"{i} was taken", self._go(s, n, *IDLE)
            return
        if slotstates.unpack(seen).state is SlotState.EMPTY:
            after = self._write(after, i, None)
        yield f"takes {i}", self._go(after, n, "filling", i, word)

    def _filling(self, s: State, n: int, p: Process, i: int, word: int) -> Iterator[tuple[str, State]]:
        written = self._write(s, i, (p.incarnation, p.rounds))
        yield f"writes {i}", self._go(written, n, "written", i, word)

    def _written(self, s: State, n: int, p: Process, i: int, word: int) -> Iterator[tuple[str, State]]:
        yield from self._change(s, n, i, word, self.rules.fill(word), "full")

    def _full(self, s: State, n: int, p: Process, i: int, word: int) -> Iterator[tuple[str, State]]:
        yield from self._change(s, n, i, word, self.rules.drain(word), "draining")

    def _draining(self, s: State, n: int, p: Process, i: int, word: int) -> Iterator[tuple[str, State]]:
        if s.contents[i] != (p.incarnation, p.rounds):
            raise Violation(f"{p} reads {s.contents[i]} from slot {i}")
        yield f"reads {i}", self._go(s, n, "read", i, word)

    def _read(self, s: State, n: int, p: Process, i: int, word: int) -> Iterator[tuple[str, State]]:
        moved = self._put(s, n, p._replace(rounds=p.rounds - 1))
        yield from self._change(moved, n, i, word, self.rules.give_back(word), "telling")
        if p.rounds > 1:
            yield from self._change(moved, n, i, word, self.rules.refill(word), "filling")

    # ---- waiting for a slot

    def _telling(self, s: State, n: int, p: Process, *_: int) -> Iterator[tuple[str, State]]:
        if not s.waiter:
            yield "nobody waits", self._go(s, n, *IDLE)
        else:
            yield "sees a waiter", self._go(s, n, "clearing", s.waiter)

    def _clearing(self, s: State, n: int, p: Process, seen: int) -> Iterator[tuple[str, State]]:
        if s.waiter != seen:
            yield "others told", self._go(s, n, *IDLE)
        elif seen == p.incarnation:
            yield "nobody else waits", self._go(s._replace(waiter=0), n, *IDLE)
        else:
            yield "takes over telling", self._go(s._replace(waiter=0), n, "announcing")

    def _announcing(self, s: State, n: int, p: Process) -> Iterator[tuple[str, State]]:
        for other, process in enumerate(s.processes):
            if process.at == ("asleep",):
                s = self._go(s, other, *IDLE)
            elif process.at[0] == "again":
                s = self._go(s, other, "again", True)  # the wake-up stays until it is looked at
        yield "tells those who wait", self._go(s, n, *IDLE)

    def _wanting(self, s: State, n: int, p: Process) -> Iterator[tuple[str, State]]:
        yield "sees who waits", self._go(s, n, "joining", s.waiter)

    def _joining(self, s: State, n: int, p: Process, seen: int) -> Iterator[tuple[str, State]]:
        if s.waiter != seen:
            yield "others joined", self._go(s, n, "wanting")
            return
        joined = s._replace(waiter=self.rules.waiters_with(seen, p.incarnation))
        yield "waits", self._go(joined, n, "again", False)

    def _again(self, s: State, n: int, p: Process, told: bool) -> Iterator[tuple[str, State]]:
        free = any(slotstates.unpack(word).owner == NOBODY for word in s.words)
        yield "looks once more", self._go(s, n, *(IDLE if free or told else ("asleep",)))

    def _asleep(self, s: State, n: int, p: Process) -> Iterator[tuple[str, State]]:
        # Once a second it looks again: needed only where somebody was killed before he told.
        if s.killed:
            yield "a second passes", self._go(s, n, *IDLE)

    # ---- housekeeping

    def _asking(self, s: State, n: int, p: Process, owners: frozenset[int]) -> Iterator[tuple[str, State]]:
        yield "asks who is alive", self._go(s, n, "burying", owners - s.alive)

    def _looking(self, s: State, n: int, p: Process, alive: frozenset[int]) -> Iterator[tuple[str, State]]:
        owners = frozenset(slotstates.unpack(word).owner for word in s.words) - {NOBODY}
        yield "sees owners", self._go(s, n, "burying", owners - alive)

    def _burying(self, s: State, n: int, p: Process, dead: frozenset[int]) -> Iterator[tuple[str, State]]:
        left = [i for i, w in enumerate(s.words) if self.rules.reclaim(w, dead, p.incarnation) is not None]
        if not left:
            yield "has buried", self._go(s, n, *IDLE)
        for i in left:
            yield f"sees {i} of the dead", self._go(s, n, "reclaiming", i, s.words[i], dead)

    def _reclaiming(
        self, s: State, n: int, p: Process, i: int, seen: int, dead: frozenset[int]
    ) -> Iterator[tuple[str, State]]:
        word = self.rules.reclaim(seen, dead, p.incarnation)
        after = self._swap(s, i, seen, word)
        if after is None:
            yield f"{i} was reclaimed", self._go(s, n, "burying", dead)
        else:
            yield f"reclaims {i}", self._go(after, n, "punching", i, word)

    def _trimming(self, s: State, n: int, p: Process, i: int, seen: int) -> Iterator[tuple[str, State]]:
        word = self.rules.trim(seen, p.incarnation)
        after = self._swap(s, i, seen, word)
        if after is None:
            yield f"{i} was taken", self._go(s, n, *IDLE)
        else:
            yield f"trims {i}", self._go(after, n, "punching", i, word)

    def _punching(self, s: State, n: int, p: Process, i: int, word: int) -> Iterator[tuple[str, State]]:
        yield f"gives back the memory of {i}", self._go(self._write(s, i, None), n, "emptying", i, word)

    def _emptying(self, s: State, n: int, p: Process, i: int, word: int) -> Iterator[tuple[str, State]]:
        yield from self._change(s, n, i, word, self.rules.empty(word), "telling")

    # ---- how a step changes the state

    def _change(
        self, s: State, n: int, i: int, seen: int, word: int | None, then: str
    ) -> Iterator[tuple[str, State]]:
        after = self._swap(s, i, seen, word)
        if after is None:
            raise Violation(f"{s.processes[n]} lost its lease of slot {i}: {s.words[i]:x}, not {seen:x}")
        yield f"{then} {i}", self._go(after, n, then, i, word)

    @staticmethod
    def _swap(s: State, i: int, seen: int, word: int | None) -> State | None:
        if word is None or s.words[i] != seen:
            return None
        return s._replace(words=(*s.words[:i], word, *s.words[i + 1 :]))

    @staticmethod
    def _write(s: State, i: int, what: object) -> State:
        return s._replace(contents=(*s.contents[:i], what, *s.contents[i + 1 :]))

    @staticmethod
    def _put(s: State, n: int, process: Process) -> State:
        return s._replace(processes=(*s.processes[:n], process, *s.processes[n + 1 :]))

    def _go(self, s: State, n: int, *at: object) -> State:
        return self._put(s, n, s.processes[n]._replace(at=at))


def search(world: World, limit: int = 2_000_000) -> int:
    """Visit every state; return how many there are.

    Raises:
        Violation: A guarantee does not hold; the shortest way there is in the text.
    """
    start = world.first()
    number = {start: 0}
    parents: list[tuple[int, str]] = [(-1, "start")]
    backwards: list[list[int]] = [[]]
    ends = []
    todo = deque([start])
    here = -1
    while todo:
        state = todo.popleft()
        here += 1
        quiet = True
        try:
            _check_leases(state)
            for name, fault, after in world.steps(state):
                there = number.setdefault(after, len(parents))
                if there == len(parents):
                    parents.append((here, name))
                    backwards.append([])
                    todo.append(after)
                if not fault and after != state:
                    backwards[there].append(here)
                    quiet = quiet and _is_trim(name)
            if quiet and not _unfinished(state):
                ends.append(here)
        except Violation as violation:
            raise Violation(f"{violation}\n" + "\n".join(_way(parents, here))) from None
        assert len(parents) <= limit, f"{world.scenario.name}: more than {limit} states"
    _check_all_end(parents, backwards, ends)
    return len(parents)


def _is_trim(name: str) -> bool:
    """Trimming may go on for ever, as nobody has anything else to do."""
    return name.endswith("to trim")


def _unfinished(s: State) -> bool:
    """Whether a process has bytes to move, or a slot is somebody's."""
    owned = any(slotstates.unpack(word).owner != NOBODY for word in s.words)
    return owned or any(process.rounds or process.at != IDLE for process in s.processes)


def _check_leases(s: State) -> None:
    """Each lease that a living process believes in is the slot's word: so a slot has one owner."""
    for process in s.processes:
        if process.at[0] in ("filling", "written", "full", "draining", "read", "punching", "emptying"):
            index, word = process.at[1:3]
            if s.words[index] != word:
                raise Violation(f"{process} does not have slot {index} any more: {s.words[index]:x}")


def _way(parents: list[tuple[int, str]], here: int) -> list[str]:
    way = []
    while here >= 0:
        here, name = parents[here]
        way.append(name)
    return way[::-1]


def _check_all_end(parents: list[tuple[int, str]], backwards: list[list[int]], ends: list[int]) -> None:
    """From every state all ends well without a further fault: nothing waits for ever, nothing is left."""
    good = bytearray(len(parents))
    todo = deque(ends)
    for end in ends:
        good[end] = 1
    while todo:
        for before in backwards[todo.popleft()]:
            if not good[before]:
                good[before] = 1
                todo.append(before)
    if not all(good):
        raise Violation("it does not end any more\n" + "\n".join(_way(parents, good.index(0))))

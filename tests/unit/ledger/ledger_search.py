"""The exhaustive search itself: breadth first over every state, guarantees checked in each."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from ledger_steps import Steps, Violation
from ledger_world import Scenario, State, World, first_state, is_later

from sarrapipe.ledger.records import CLAIMED, COMMITTED, MISSING

__all__ = ["Searched", "Violation", "search"]


class Searched(NamedTuple):
    """What was found."""

    states: int
    steps: int
    ends: int
    """States in which all is done."""


def search(scenario: Scenario, steps_of: Steps | None = None, limit: int = 2_000_000) -> Searched:
    """Visit every reachable state.

    Args:
        scenario: What happens, and how much may go wrong.
        steps_of: The programs, if they are not the right ones.
        limit: States to give up at.

    Raises:
        Violation: A guarantee does not hold; the shortest way there is in the text.
    """
    start = first_state(scenario)
    number = {start: 0}
    parents: list[tuple[int, str]] = [(-1, "start")]
    backwards: list[list[int]] = [[]]
    """For each state, where one comes from without a fault."""
    ends: list[int] = []
    todo = deque([start])
    steps = 0
    here = -1
    programs = steps_of or Steps()
    while todo:
        state = todo.popleft()
        here += 1
        quiet = True
        try:
            check_state(scenario, state)
            for name, fault, after in programs.successors(lambda state=state: World(scenario, state)):
                if after == state:
                    continue
                steps += 1
                there = number.get(after)
                if there is None:
                    there = number[after] = len(parents)
                    parents.append((here, name))
                    backwards.append([])
                    todo.append(after)
                if not fault:
                    quiet = False
                    backwards[there].append(here)
            if quiet:
                check_end(scenario, state)
                ends.append(here)
        except Violation as violation:
            raise Violation(f"{violation}\n" + "\n".join(_way(parents, here))) from None
        if len(parents) > limit:
            raise AssertionError(f"{scenario.name}: more than {limit} states")
    _check_all_end(parents, backwards, ends)
    return Searched(len(parents), steps, len(ends))


def _way(parents: list[tuple[int, str]], here: int) -> list[str]:
    way = []
    while here >= 0:
        here, name = parents[here]
        way.append(name)
    return way[::-1]


def _check_all_end(parents: list[tuple[int, str]], backwards: list[list[int]], ends: list[int]) -> None:
    """From every state an end can be reached without a further fault."""
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
        raise Violation("nothing settles any more\n" + "\n".join(_way(parents, good.index(0))))


def check_state(scenario: Scenario, s: State) -> None:
    """The tables agree with each other and with the file system."""
    names = {(row.target, row.nonce) for row in s.t_files.values()}
    for name in s.inflight:
        if name not in names:
            raise Violation(f"litter: {name}")
    for generation, row in s.t_files.items():
        record = s.t_paths.get(row.target)
        if row.phase == COMMITTED and (record is None or record.generation != generation):
            raise Violation(f"{row.target}: committed, and its path does not know")
    for fingerprint, entry in s.t_seen.items():
        if entry.state == CLAIMED and entry.generation not in s.t_files:
            raise Violation(f"{fingerprint}: claimed by nothing")
    for generation, row in s.t_files.items():
        if row.segment_count > 1:
            rows = [r for k, r in s.t_segments.items() if k[0] == generation]
            if row.missing != row.segment_count - sum(r.state != MISSING for r in rows):
                raise Violation(f"{generation}: {row.missing} missing, but the segments say otherwise")
    del scenario


def check_end(scenario: Scenario, s: State) -> None:
    """Everything is done, and what is there is what the source has."""
    left = {
        "rows": s.t_files, "segments": s.t_segments, "messages": s.t_messages, "inflight": s.inflight,
        "queue": s.queue, "kept": s.kept, "threads": s.threads,
    }  # fmt: skip
    for what, there in left.items():
        if there:
            raise Violation(f"it ends with {what} left: {there}")
    for path, record in s.t_paths.items():
        # A dead one's holds nobody up and is swept: its message may have been answered by another process.
        if record.pending and record.incarnation in s.alive:
            raise Violation(f"it ends with {path} pending")
    for path, versions in scenario.final.items():
        entry = s.final.get(path)
        version = None if entry is None else "foreign" if entry[0] < 0 else s.content[entry[0]][0]
        if version not in versions:
            raise Violation(f"it ends with {path} = {version}, not {versions}")
    for version in scenario.heard:
        if not any(e.version == version for e in s.heard):
            raise Violation(f"{version or 'the removal'} was never announced")
    if not scenario.contradiction:
        check_next_hop(scenario, s)


def check_next_hop(scenario: Scenario, s: State) -> None:
    """Whoever heard all announcements, in any order, ends with the same files."""
    for path, versions in scenario.final.items():
        removing = [e for e in s.heard if path in (e.old, e.path) and (e.kind == "remove" or e.old)]
        removed = max((e.pub for e in removing), default=0)
        files = [e for e in s.heard if e.kind == "put" and e.path == path and e.pub >= removed]
        newest = [e for e in files if not any(is_later(other, e) for other in files)]
        version = newest[0].version if newest else None
        if version not in versions and "foreign" not in versions:
            raise Violation(f"the next hop ends with {path} = {version}, not {versions}: {dict(s.heard)}")

"""The world of the exhaustive search: what may happen (scenarios), and one state of everything.

A state is made of dictionaries that are never changed, so that states share what they have in common and are
compared by remembered hashes. `World` is a state in use: the tables of the ledger (`records.Tables`), the
file system, the broker's queue, the kept store.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

from sarrapipe.ledger.admission import Announcement
from sarrapipe.ledger.records import Claim, FileRow, MessageRow, PathRecord, SeenEntry, SegmentRow
from sarrapipe.ledger.removal import Removal, Rename


class Put(NamedTuple):
    """A message that announces a file, or a block of one."""

    path: str
    version: str
    """What the content is called; messages of one version announce the same content."""
    pub: int
    mtime: int
    segments: int = 1
    first: int = 0
    block: int = 0
    """Number of segments announced, if it is a block."""
    gone: bool = False
    """Its source answers 404."""
    alone: bool = False
    """Its file is fetched from its own source only."""


class Remove(NamedTuple):
    """A message that removes a file."""

    path: str
    pub: int


class Move(NamedTuple):
    """A message that renames `old` to `path`, whose content is `version`."""

    old: str
    path: str
    version: str
    pub: int
    mtime: int


class Scenario(NamedTuple):
    """What happens, how much may go wrong, and what must be there in the end."""

    name: str
    messages: tuple[Put | Remove | Move, ...]
    final: dict[str, tuple[str | None, ...]]
    """Path to the versions that may be in place when all is settled (None: no file)."""
    heard: tuple[str, ...] = ()
    """Versions that must have been announced in the end; "" for a removal."""
    kills: int = 0
    restarts: int = 0
    """Of the broker."""
    power: int = 0
    """Losses of power: the ledger is gone, the kept store is not."""
    early: int = 0
    """Messages that may be kept and acknowledged early."""
    fails: int = 0
    """Transfers that may fail for a while."""
    refusals: int = 0
    """Renames that the file system may refuse for a while."""
    rests: int = 0
    """Blocks that are written and kept until the others have come; an owner parks the file with its own."""
    helpers: int = 0
    """Times that an idle process may join another's file."""
    outsider: int = 0
    """Times that a person may meddle with the first path: remove it, or put something newer there."""
    false_deaths: int = 0
    """Processes that may be taken for dead while they live."""
    elsewhere: int = 0
    """Messages that another host may take from the shared queue; it has its own disk and ledger."""
    nodupe: bool = True
    contradiction: bool = False
    """Modification times and pubTimes contradict each other: the next hop may decide otherwise."""
    crossed: bool = False
    """Duplicate suppression across paths (`nodupe_basis data`)."""
    before: str = ""
    """Version that stands under the first path at the beginning."""


class Event(NamedTuple):
    """One announcement to the next hop."""

    kind: str
    path: str
    version: str
    epoch: int
    """After how many removals of the path: the same version is rightly announced again after one."""
    pub: int
    mtime: int
    old: str = ""
    """Of a rename: it stays one on the wire, whether it was renamed here or fetched."""


def is_later(one: Any, other: Any) -> bool:
    """Of two files by what announced them: by modification time, then pubTime; links have only the latter."""
    if not one.mtime or not other.mtime:
        return one.pub > other.pub
    return (one.mtime, one.pub) > (other.mtime, other.pub)


class Frozen(dict):  # type: ignore[type-arg]
    """A dictionary that is never changed, with its hash remembered."""

    __slots__ = ("_hash", "_mirrored")

    def __hash__(self) -> int:  # type: ignore[override]
        try:
            return self._hash
        except AttributeError:
            self._hash = hash(frozenset(self.items()))
            return self._hash

    def put(self, key: Any, value: Any) -> Frozen:
        new = Frozen(self)
        new[key] = value
        return new

    def without(self, key: Any) -> Frozen:
        if key not in self:
            return self
        new = Frozen(self)
        del new[key]
        return new

    def mirrored(self, field: str) -> Frozen:
        """The same with the two processes exchanged in that field of its values ("": the value itself)."""
        try:
            return self._mirrored
        except AttributeError:
            new = Frozen(self)
            for key, value in self.items():
                other = OTHER.get(getattr(value, field) if field else value)
                if other:
                    new[key] = value._replace(**{field: other}) if field else other
            self._mirrored = new
            new._mirrored = self
            return new


class Thread(NamedTuple):
    """One thing that one process is doing."""

    process: int
    """Incarnation."""
    message: int
    """Index into the scenario's messages; -1 for a helper."""
    at: str
    claim: Claim | None = None
    tag: bool = False
    """It holds a delivery tag that the broker still knows."""
    kept: bool = False
    """It holds the lease of a kept entry."""
    extra: Any = None
    rejected: bool = False


class State(NamedTuple):
    """Everything there is."""

    t_paths: Frozen
    t_files: Frozen
    t_seen: Frozen
    t_segments: Frozen
    t_messages: Frozen
    alive: frozenset[int]
    """Incarnations that are not buried."""
    running: tuple[int, ...]
    """Incarnation in each process slot; 0 if it is down."""
    threads: frozenset[Thread]
    queue: frozenset[int]
    kept: Frozen
    """Message to lease."""
    final: Frozen
    """Path to (inode, generation in the xattr, mtime)."""
    inflight: Frozen
    """(path, nonce) to inode."""
    content: Frozen
    """Inode to its segments."""
    heard: Frozen
    """Event to number of announcements."""
    excused: Frozen
    """(path, version) to number of repetitions that faults excuse."""
    budget: tuple[int, ...]
    """What is left, in the order of BUDGET."""


BUDGET = (
    "kills", "restarts", "power", "early", "fails", "rests",
    "helpers", "outsider", "false_deaths", "elsewhere", "refusals",
)  # fmt: skip
PROCESSES = 2
DEAD = 90
"""What a buried incarnation is called: all of them are one to the decisions, so their states are one too."""
NODUPE_NS = 10**12
OLD_INODE = 200
"""Of the file that stands there at the beginning."""
FOREIGN = -1
"""Inode of a file that a person put there."""


OTHER = {1: 2, 2: 1, 0: 0}


def canonical(s: State) -> State:
    """The two processes are alike: of a state and its mirror image only one is looked at."""
    mirror = State(
        s[0].mirrored("incarnation"), s[1].mirrored("owner"), s[2], s[3].mirrored("claim"), s[4],
        frozenset(map(OTHER.get, s.alive)), tuple(map(OTHER.get, s.running[::-1])),  # type: ignore[arg-type]
        frozenset(map(_other_thread, s.threads)), s[8], s[9].mirrored(""), *s[10:],
    )  # fmt: skip
    return s if hash(s) <= hash(mirror) else mirror


@functools.lru_cache(100_000)
def _other_thread(t: Thread) -> Thread:
    return t._replace(process=OTHER[t.process])


def first_state(scenario: Scenario) -> State:
    """Return the beginning: two processes alive, all messages in the queue, nothing else."""
    empty = Frozen()
    budget = tuple(getattr(scenario, name) for name in BUDGET)
    lives = tuple(range(1, PROCESSES + 1))
    final = content = empty
    if scenario.before:
        first = scenario.messages[0]
        final = Frozen({first.path: (OLD_INODE, b"old", 0)})
        content = Frozen({OLD_INODE: (scenario.before,) * getattr(first, "segments", 1)})
    return State(
        empty, empty, empty, empty, empty, frozenset(lives), lives, frozenset(),
        frozenset(range(len(scenario.messages))), empty, final, empty, content, empty, empty, budget,
    )  # fmt: skip


class World:
    """One state in use."""

    __slots__ = (*State._fields, "scenario")

    def __init__(self, scenario: Scenario, state: State) -> None:
        self.scenario = scenario
        (
            self.t_paths, self.t_files, self.t_seen, self.t_segments, self.t_messages, self.alive,
            self.running, self.threads, self.queue, self.kept, self.final, self.inflight, self.content,
            self.heard, self.excused, self.budget,
        ) = state  # fmt: skip

    def frozen(self) -> State:
        state = State(
            self.t_paths, self.t_files, self.t_seen, self.t_segments, self.t_messages, self.alive,
            self.running, self.threads, self.queue, self.kept, self.final, self.inflight, self.content,
            self.heard, self.excused, self.budget,
        )  # fmt: skip
        return canonical(state)

    # records.Tables

    def get_path(self, target: str) -> PathRecord | None:
        return self.t_paths.get(target)

    def put_path(self, target: str, record: PathRecord) -> None:
        self.t_paths = self.t_paths.put(target, record)

    def get_file(self, generation: bytes) -> FileRow | None:
        return self.t_files.get(generation)

    def put_file(self, generation: bytes, row: FileRow) -> None:
        self.t_files = self.t_files.put(generation, row)

    def delete_file(self, generation: bytes) -> None:
        self.t_files = self.t_files.without(generation)

    def files(self) -> Iterator[tuple[bytes, FileRow]]:
        return iter(self.t_files.items())

    def get_seen(self, fingerprint: bytes) -> SeenEntry | None:
        return self.t_seen.get(fingerprint)

    def put_seen(self, fingerprint: bytes, entry: SeenEntry) -> None:
        self.t_seen = self.t_seen.put(fingerprint, entry)

    def delete_seen(self, fingerprint: bytes) -> None:
        self.t_seen = self.t_seen.without(fingerprint)

    def get_segment(self, generation: bytes, number: int) -> SegmentRow | None:
        return self.t_segments.get((generation, number))

    def put_segment(self, generation: bytes, number: int, row: SegmentRow) -> None:
        self.t_segments = self.t_segments.put((generation, number), row)

    def segments(self, generation: bytes, first: int = 0) -> Iterator[tuple[int, SegmentRow]]:
        rows = [(key[1], row) for key, row in self.t_segments.items() if key[0] == generation]
        return iter(sorted(item for item in rows if item[0] >= first))

    def delete_segments(self, generation: bytes) -> None:
        self.t_segments = Frozen({k: v for k, v in self.t_segments.items() if k[0] != generation})

    def get_message(self, generation: bytes, message_id: bytes) -> MessageRow | None:
        return self.t_messages.get((generation, message_id))

    def put_message(self, generation: bytes, message_id: bytes, row: MessageRow) -> None:
        row = row._replace(holder=0)  # only tells whom to wake, and here everybody asks at any time
        self.t_messages = self.t_messages.put((generation, message_id), row)

    def delete_message(self, generation: bytes, message_id: bytes) -> None:
        self.t_messages = self.t_messages.without((generation, message_id))

    def messages(self, generation: bytes) -> Iterator[tuple[bytes, MessageRow]]:
        return iter(sorted((k[1], row) for k, row in self.t_messages.items() if k[0] == generation))

    def delete_messages(self, generation: bytes) -> None:
        self.t_messages = Frozen({k: v for k, v in self.t_messages.items() if k[0] != generation})

    def is_alive(self, incarnation: int) -> bool:
        return incarnation in self.alive

    # threads and budgets

    def swap(self, old: Thread | None, new: Thread | None) -> None:
        threads = self.threads - {old} if old is not None else self.threads
        self.threads = threads | {new} if new is not None else threads

    def has(self, what: str) -> bool:
        return self.budget[BUDGET.index(what)] > 0

    def spend(self, what: str) -> None:
        index = BUDGET.index(what)
        self.budget = (*self.budget[:index], self.budget[index] - 1, *self.budget[index + 1 :])

    def bury(self, incarnation: int) -> None:
        """Forget which dead process it was."""
        self.alive -= {incarnation}
        for generation, row in self.t_files.items():
            if row.owner == incarnation:
                self.t_files = self.t_files.put(generation, row._replace(owner=DEAD))
        for path, record in self.t_paths.items():
            if record.incarnation == incarnation:
                self.t_paths = self.t_paths.put(path, record._replace(incarnation=DEAD))
        for key, segment in self.t_segments.items():
            if segment.claim == incarnation:
                self.t_segments = self.t_segments.put(key, segment._replace(claim=DEAD))
        for message, lease in self.kept.items():
            if lease == incarnation:
                self.kept = self.kept.put(message, DEAD)

    def new_nonce(self) -> bytes:
        """The smallest number nobody refers to: histories that differ only in numbers are one state."""
        used = {row.nonce[0] for row in self.t_files.values()}
        used.update(self.content)
        used.update(mark[1] for _, mark, _ in self.final.values() if mark.startswith(b"*"))
        used.update(t.claim.nonce[0] for t in self.threads if t.claim is not None)
        return bytes([next(n for n in range(1, 256) if n not in used)])

    # the file system

    def collect(self) -> None:
        """Forget the content of files that have no name any more."""
        named = {inode for inode, *_ in self.final.values()} | set(self.inflight.values())
        if len(named) != len(self.content):
            self.content = Frozen({i: c for i, c in self.content.items() if i in named})

    # messages as the ledger sees them

    def event(self, index: int, pub: int = 0) -> Event:
        """What is announced for a message; with the pubTime of its row, if that is larger."""
        message = self.scenario.messages[index]
        pub = max(pub, message.pub)
        if isinstance(message, Remove):
            return Event("remove", message.path, "", 1, pub, 0)
        removals = [m.pub for m in self.scenario.messages if isinstance(m, Remove) and m.path == message.path]
        epoch = sum(removal < pub for removal in removals)
        old = message.old if isinstance(message, Move) else ""
        return Event("put", message.path, message.version, epoch, pub, message.mtime, old)

    def announcement(self, index: int) -> Announcement:
        message = self.scenario.messages[index]
        assert not isinstance(message, Remove)
        whole = isinstance(message, Move) or not message.block
        count = message.segments if isinstance(message, Put) else 1
        path = "" if self.scenario.crossed else message.path
        content = message.version if whole else f"{message.version}[{message.first}]"
        return Announcement(
            target=message.path,
            generation=f"{message.path}={message.version}@{message.mtime}".encode(),
            fingerprint=f"{path}:{content}".encode(),
            message_id=bytes([index]),
            pub_ns=message.pub,
            mtime_ns=message.mtime,
            size=count,
            segment_size=1 if count > 1 else 0,
            url=str(index),
            first_segment=0 if whole else message.first,
            segment_count=0 if whole else message.block,
            alone=isinstance(message, Put) and message.alone,
        )

    def removal(self, index: int) -> Removal | Rename:
        message = self.scenario.messages[index]
        if isinstance(message, Remove):
            return Removal(bytes([index]), message.path, message.pub)
        assert isinstance(message, Move)
        generation = self.announcement(index).generation
        fingerprint = self.announcement(index).fingerprint
        return Rename(
            bytes([index]), message.old, message.path, message.pub, message.mtime, generation, fingerprint
        )  # fmt: skip

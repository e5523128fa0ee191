"""The ledger as an instance uses it: transactions of many decisions over the LMDB environment.

    ledger = Ledger.open(directory, incarnation=new_incarnation(), instance=3)
    with ledger.transaction() as decide:              # one turn of the loop, one write transaction
        for item in incoming:
            admissions.append(decide.admit(item.announcement))
    ...fetch, verify...
    with ledger.transaction() as decide:
        outcomes = [decide.commit(claim, inode, standing) for ...]
    ...rename, publish, wait for the confirm...
    with ledger.transaction() as decide:
        closed = [decide.settle(claim) for ...]

The rules are in the pure functions of `admission`, `segments`, `completion`, `removal` and `recovery`, which
the exhaustive search runs over dictionaries; here they are bound to a transaction, an incarnation and a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Self

from sarrapipe.clock import SYSTEM_CLOCK, Clock
from sarrapipe.errors import LedgerError
from sarrapipe.ledger import admission, blocks, completion, inplace, recovery, removal, segments
from sarrapipe.ledger.admission import Admission, Announcement
from sarrapipe.ledger.completion import Closed, Commit, Committed, Misplaced, Standing
from sarrapipe.ledger.environment import DEFAULT_MAP_SIZE, Environment, open_environment
from sarrapipe.ledger.inplace import InPlace
from sarrapipe.ledger.keys import Nonces
from sarrapipe.ledger.records import Claim, FileRow, Pending, Tables
from sarrapipe.ledger.recovery import Abandoned
from sarrapipe.ledger.removal import Adopted, Removal, RemovalBegun, Rename
from sarrapipe.ledger.segments import Marked, Segments, Work
from sarrapipe.ledger.tables import DATABASES, LmdbTables

__all__ = ["Decisions", "Ledger", "View"]

_SWEEP_LIMIT: Final = 2000
"""Rows looked at in one call of `Decisions.sweep`: about 2 ms with the write lock held."""
# struct flock of Linux (x86-64, arm64): l_type, l_whence, l_start, l_len, l_pid, padded to 32 bytes.
_FLOCK: Final = struct.Struct("@hhqqi4x")


class View:
    """What may be read from one consistent state of the ledger."""

    __slots__ = ("_me", "tables")

    def __init__(self, tables: LmdbTables, me: int) -> None:
        self.tables = tables
        self._me = me

    def row(self, claim: Claim) -> FileRow | None:
        """Return the row under this claim, None if it is gone or another."""
        row = self.tables.get_file(claim.generation)
        return row if row is not None and row.nonce == claim.nonce else None

    def open_work(self, limit: int) -> list[Work]:
        """Return files of siblings with segments left to fetch, most missing first."""
        return segments.open_work(self.tables, self._me, limit)

    def whole_sources(self, claim: Claim) -> list[tuple[str, str]]:
        """Return URL and pinned version of every source of a whole file that is being assembled."""
        return segments.sources(self.tables, claim)

    def incomplete(self, before_ns: int) -> list[Work]:
        """Return files in blocks that no sibling owns, of which no new block came since."""
        return blocks.incomplete(self.tables, before_ns, self._me)

    def sources(self, claim: Claim) -> list[tuple[bytes, str]]:
        """Return message id and URL of every source recorded for a row, the first message's first."""
        row = self.row(claim)
        if row is None:
            return []
        found = [(row.message_id, row.url)]
        if row.further:
            rows = self.tables.messages(claim.generation)
            found += [(i, m.url) for i, m in rows if i != row.message_id]
        return found


class Decisions(View):
    """The decisions of one write transaction; everything is committed together at its end."""

    __slots__ = ("_new_nonce", "_nodupe_ns", "now_ns")

    def __init__(
        self, tables: LmdbTables, me: int, now_ns: int, nodupe_ns: int, new_nonce: Callable[[], bytes]
    ) -> None:
        super().__init__(tables, me)
        self.now_ns = now_ns
        self._nodupe_ns = nodupe_ns
        self._new_nonce = new_nonce

    # files

    def admit(self, announcement: Announcement) -> Admission:
        """Decide what becomes of a message that announces a file. See `admission.Admit`."""
        return admission.admit(self.tables, announcement, self._new_nonce(), self._me, self.now_ns)

    def claim(
        self, claim: Claim, limit: int, *, first: int = 0, count: int = 0, inode: int = 0
    ) -> Segments | None:
        """Claim up to `limit` missing segments; None if the file is not being assembled any more."""
        return segments.claim(self.tables, claim, limit, self._me, first, count, inode)

    def pin(self, claim: Claim, etag: str, url: str | None = None) -> bool:
        """Pin a source's etag; False if another one is pinned. Without a URL it is the row's own source."""
        return segments.pin(self.tables, claim, etag, url)

    def written(self, claim: Claim) -> list[int] | None:
        """See `segments.written`."""
        return segments.written(self.tables, claim)

    def pinned(self, claim: Claim, url: str) -> str:
        """Return the etag that is pinned for a source, "" if none is."""
        return segments.pinned(self.tables, claim, url)

    def mark(self, claim: Claim, done: Iterable[tuple[int, bytes]]) -> Marked:
        """Record segments written and verified, each with its digest."""
        return segments.mark(self.tables, claim, done, self._me)

    def unclaim(self, claim: Claim, numbers: Iterable[int]) -> None:
        """Give segments back after a transfer error."""
        segments.unclaim(self.tables, claim, numbers, self._me)

    def make_durable(self, claim: Claim, numbers: Iterable[int]) -> None:
        """Record that written segments are synced."""
        segments.make_durable(self.tables, claim, numbers)

    def commit(
        self,
        claim: Claim,
        inode: int,
        standing: Standing | None,
        look_again: Callable[[], Standing | None] | None = None,
    ) -> Committed:
        """Decide whether a verified inflight file may take its place.

        Args:
            claim: The row.
            inode: Of the inflight file.
            standing: What was found at the target path before the transaction; None: nothing, or the flow
                does not compare with what others write (times not preserved).
            look_again: Looks once more, called inside the transaction in the rare case where the answer
                would be to give up in favour of what stands there.
        """
        outcome = completion.commit(self.tables, claim, inode, standing, self._me, self.now_ns)
        if outcome.outcome is Commit.STANDING_NEWER and look_again is not None:
            again = look_again()
            outcome = completion.commit(self.tables, claim, inode, again, self._me, self.now_ns, sure=True)
        return outcome

    def may_write(self, claim: Claim, *, is_there: bool) -> InPlace:
        """Decide whether a version may be written into the file in place. See `inplace.may_write`."""
        return inplace.may_write(self.tables, claim, is_there=is_there)

    def settle(self, claim: Claim) -> Closed:
        """Close a row whose announcement was confirmed."""
        return completion.settle(self.tables, claim, self._me, self.now_ns, self._nodupe_ns)

    def drop(self, claim: Claim) -> Closed:
        """Close a row unannounced; its inflight file is unlinked already."""
        return completion.drop(self.tables, claim, self._me)

    def park(self, claim: Claim) -> Closed:
        """Give up for now, keeping what is written for the next admission."""
        return completion.park(self.tables, claim, self._me, self.now_ns)

    def misplaced(self, claim: Claim) -> tuple[Misplaced, Claim]:
        """A committed file is neither inflight nor in place: what to do, and the claim to go on with."""
        nonce = self._new_nonce()
        outcome = completion.misplaced(self.tables, claim, nonce, self._me, self.now_ns)
        return outcome, Claim(claim.generation, nonce) if outcome is Misplaced.RESTART else claim

    # blocks that do not come

    def open_rest(self, claim: Claim) -> bool:
        """Let blocks that nobody announced be fetched; False if that would not help."""
        return blocks.open_rest(self.tables, claim, self.now_ns)

    def give_up(self, claim: Claim) -> tuple[Abandoned, tuple[bytes, ...]] | None:
        """Take over a file that will not be completed, only to drop it."""
        return blocks.give_up(self.tables, claim, self._me, self.now_ns)

    # removals and renames

    def begin_removal(self, r: Removal) -> RemovalBegun:
        """Decide a removal. See `removal.Remove`."""
        return removal.begin_removal(self.tables, r, self._me, self.now_ns)

    def begin_rename(self, r: Rename) -> RemovalBegun:
        """Decide a rename. See `removal.Remove`."""
        return removal.begin_rename(self.tables, r, self._me, self.now_ns)

    def not_moved(self, r: Rename) -> bool:
        """The old name did not hold what the rename means: the new one is to be fetched."""
        return removal.not_moved(self.tables, r, self._me, self.now_ns)

    def settle_removal(self, r: Removal | Rename) -> bool:
        """Close a removal or rename whose announcement was confirmed."""
        return removal.settle_removal(self.tables, r, self._me, self.now_ns)

    # what the dead leave

    def abandon(self, generation: bytes) -> Abandoned | None:
        """Take over a dead row to drop it: unlink its inflight file, then `drop`."""
        return recovery.abandon(self.tables, generation, self._me, self.now_ns)

    def adopt(self, path: str) -> Adopted | None:
        """Take over a dead process's removal: unlink what it says, then `end_adopted`."""
        return removal.adopt(self.tables, path, self._me, self.now_ns)

    def end_adopted(self, path: str, message_id: bytes) -> None:
        """Release the names of an adopted removal, or of one's own that could not be carried out."""
        removal.end_adopted(self.tables, path, message_id, self._me, self.now_ns)

    def orphans(self, before_ns: int) -> list[Work]:
        """Return rows without a live owner that nobody touched since; `abandon` each."""
        return recovery.orphans(self.tables, before_ns)

    def sweep(
        self, files_before_ns: int, removals_before_ns: int, limit: int = _SWEEP_LIMIT
    ) -> recovery.Swept:
        """Forget what is old in `paths` and `seen`, looking at `limit` rows of each from where it stopped.

        Args:
            files_before_ns: Records of files in place last changed before that are forgotten.
            removals_before_ns: The same for tombstones.
            limit: Rows to look at.
        """
        tables = self.tables
        dead: list[str] = []

        def old_paths() -> Iterator[tuple[bytes, bool]]:
            for key, path, record in tables.paths(tables.sweep_position("paths")):
                old = record.touched_ns < files_before_ns
                if old and record.pending == Pending.REMOVAL and not tables.is_alive(record.incarnation):
                    dead.append(path)
                yield key, recovery.may_forget_path(record, files_before_ns, removals_before_ns)

        def old_seen() -> Iterator[tuple[bytes, bool]]:
            for key, entry in tables.seen(tables.sweep_position("seen")):
                yield key, recovery.may_forget_seen(entry, self.now_ns)

        forgotten = self._sweep("paths", old_paths(), limit) + self._sweep("seen", old_seen(), limit)
        return recovery.Swept(forgotten, tuple(dead))

    def _sweep(self, table: str, rows: Iterator[tuple[bytes, bool]], limit: int) -> int:
        forgotten: list[bytes] = []
        last = b""
        for looked_at, (key, old) in enumerate(rows, start=1):
            if old:
                forgotten.append(key)
            if looked_at >= limit:
                last = key
                break
        for key in forgotten:
            self.tables.delete_key(table, key)
        self.tables.set_sweep_position(table, last)
        return len(forgotten)


class Ledger:
    """One instance's access to the ledger of its flow. Use it from one thread; open it after the fork."""

    def __init__(
        self, environment: Environment, incarnation: int, locks: int, nodupe_ns: int, clock: Clock
    ) -> None:
        self.environment = environment
        self.incarnation = incarnation
        self._locks = locks
        self._nodupe_ns = nodupe_ns
        self._clock = clock
        self._packing = LmdbTables.packing()
        self._nonces = Nonces()

    @classmethod
    def open(
        cls,
        directory: str,
        *,
        incarnation: int,
        instance: int,
        durability: str = "process",
        nodupe_ttl_s: float = 0.0,
        map_size: int = DEFAULT_MAP_SIZE,
        clock: Clock = SYSTEM_CLOCK,
        boot: str | None = None,
    ) -> Ledger:
        """Open the ledger and register this life of this instance; its former life is buried.

        After a restart of the machine a ledger of durability `process` is thrown away: what was not
        acknowledged and what was kept comes again. With `host` it is kept, less the segments not synced.

        Args:
            directory: Of the ledger, in the flow's state directory; made if it is not there.
            incarnation: Of the caller (`keys.new_incarnation`).
            instance: Number of the instance; no other live process has it.
            durability: `process` or `host`.
            nodupe_ttl_s: For so long a settled fingerprint suppresses duplicates. 0: off.
            map_size: Bytes of address space to begin with.
            clock: Gives the time written into the records.
            boot: This boot's id; None asks the kernel.

        Raises:
            LedgerError: Damaged, foreign, of another format, or the instance number is taken.
            NoSpace: The disk is full.
        """
        environment = open_environment(
            directory,
            "ledger",
            DATABASES,
            durability=durability,
            keep_over_boot=True,
            map_size=map_size,
            boot=boot,
        )
        locks = os.open(os.path.join(directory, "alive"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        ledger = cls(environment, incarnation, locks, int(nodupe_ttl_s * 1e9), clock)
        try:
            ledger._register(instance)
        except BaseException:
            ledger.close()
            raise
        return ledger

    def _register(self, instance: int) -> None:
        """Take this instance's byte of the lock file; the kernel lets go of it whatever kills the process."""
        try:
            # A process lock, not one of the open file: a child that somebody forks must not keep it.
            fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, instance)
        except OSError as error:
            raise LedgerError(
                f"{self.environment.directory}: instance {instance} of this flow is running already; "
                "stop it first (sarrapipe status shows it)"
            ) from error
        with self.environment.write() as txn:
            tables = self._tables(txn)
            for former, number in tables.alive().items():
                if number == instance:
                    tables.bury(former)
            tables.set_alive(self.incarnation, instance)
            if self.environment.rebooted:
                recovery.distrust_unsynced(tables)
        self.environment.rebooted = False

    def close(self) -> None:
        """Let go of the files. Rows still owned become free for whoever admits their messages next."""
        with contextlib.suppress(LedgerError), self.environment.write() as txn:
            self._tables(txn).bury(self.incarnation)
        self.environment.close()
        os.close(self._locks)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Decisions]:
        """One write transaction of many decisions.

        Everything decided in the block is committed together at its end, or not at all if it raises. Siblings
        wait meanwhile: no I/O inside (a `stat` of the target excepted).

        Raises:
            LedgerError: This process was declared dead: it must end without touching any file.
            NoSpace: Nothing was written; try again when there is room.
        """
        with self.environment.write() as txn:
            tables = self._tables(txn)
            if not tables.is_alive(self.incarnation):
                raise LedgerError("this instance was declared dead; it must end without touching a file")
            yield Decisions(
                tables, self.incarnation, self._clock.wall_ns(), self._nodupe_ns, self._nonces.new
            )

    @contextlib.contextmanager
    def view(self) -> Iterator[View]:
        """Read one consistent state; writers are not held up."""
        with self.environment.read() as txn:
            yield View(self._tables(txn), self.incarnation)

    def digests(self, generation: bytes) -> dict[int, bytes]:
        """Return the digests of the segments of a file, as they were written."""
        with self.view() as view:
            return {number: row.digest for number, row in view.tables.segments(generation)}

    def bury_dead(self) -> list[int]:
        """Find processes that have ended, by the locks they no longer hold, and record it.

        Call it when the Parent reports a death, on start, and with housekeeping. Their rows are then taken
        over by the admission of their messages, and their segments are free.

        Returns:
            The incarnations buried now; give them to `KeptStore.reclaim` too.
        """
        with self.environment.read() as txn:
            known = self._tables(txn).alive()
        dead = [i for i, number in known.items() if i != self.incarnation and not self._is_locked(number)]
        if dead:
            with self.environment.write() as txn:
                tables = self._tables(txn)
                for incarnation in dead:
                    tables.bury(incarnation)
        return dead

    def _is_locked(self, instance: int) -> bool:
        query = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, instance, 1, 0)
        answer = _FLOCK.unpack(fcntl.fcntl(self._locks, fcntl.F_GETLK, query))
        return bool(answer[0] != fcntl.F_UNLCK)

    def sync(self) -> None:
        """With `durability host`: wait until every decision so far survives a loss of power."""
        self.environment.sync()

    def _tables(self, txn: object) -> LmdbTables:
        return LmdbTables(txn, self.environment.databases, self._packing)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _protocol_is_met(tables: LmdbTables) -> Tables:
    """Never called: lets the type checker compare the two."""
    return tables

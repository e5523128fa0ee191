"""The kept store: notification messages acknowledged before their outcome was durable.

A second LMDB environment in the flow's state directory, always synced. A message goes in here, then is
acknowledged at the broker, and comes out when it is settled, answered, overtaken or rejected. One store for
the flow, not for the instance: nothing is lost when there are fewer instances tomorrow.

Each entry is *leased* by the incarnation that works on it. A lease of a dead incarnation is free again
(`reclaim`), and a lease not taken is given out when it is due (`lease_due`).

    kept.put_many([KeptMessage(...)])     # one transaction, one sync: only then acknowledge
    ...
    for entry in kept.lease_due(limit=100): ...admit it like a delivery...
    kept.release_many([(entry.key, "timed out")])      # try again later
    kept.delete_many([entry.key])                      # it is settled

Tables: `entries` message id -> KeptMessage; `due` due time (8 bytes, big-endian), message id -> "" for what
is not leased; `leases` incarnation (8 bytes), message id -> "".
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple, Self

import msgpack  # type: ignore[import-untyped]  # ships no types

from sarrapipe.clock import SYSTEM_CLOCK, Clock
from sarrapipe.errors import LedgerError
from sarrapipe.ledger.environment import DEFAULT_MAP_SIZE, Environment, open_environment, open_for_reading
from sarrapipe.ledger.records import NOBODY

__all__ = ["BACKOFF_FIRST_S", "BACKOFF_LAST_S", "KeptMessage", "KeptStore", "backoff_s"]

BACKOFF_FIRST_S: Final = 1.0
BACKOFF_LAST_S: Final = 600.0
_DATABASES: Final = ("entries", "due", "leases")


class KeptMessage(NamedTuple):
    """One delivery as it came, with what its retries need."""

    key: bytes
    """The message id (`keys.message_id_of`): the same message is kept once."""
    body: bytes
    headers: dict[str, Any]
    content_type: str | None
    exchange: str
    routing_key: str
    attempts: int = 0
    """Tries that failed so far."""
    due_ns: int = 0
    lease: int = NOBODY
    """Incarnation that works on it."""
    first_ns: int = 0
    """When it was kept first: `retry_ttl` counts from here."""
    reason: str = ""
    """Why it is here, for `sarrapipe ledger show` and the log."""


def backoff_s(attempts: int, rand: Callable[[], float]) -> float:
    """Return how long to wait before the next try: 1, 2, 4 ... 600 s, less up to half at random.

    The jitter keeps the instances of a flow from returning to a server in step.

    Args:
        attempts: Tries that failed, from 1.
        rand: Gives numbers in [0, 1).
    """
    full = min(BACKOFF_FIRST_S * 2.0 ** min(attempts - 1, 30), BACKOFF_LAST_S) if attempts > 0 else 0.0
    return full * (1.0 - 0.5 * rand())


class KeptStore:
    """One process's access to the kept store of its flow. Use it from one thread; open it after the fork."""

    def __init__(
        self, environment: Environment, incarnation: int, clock: Clock, rand: Callable[[], float]
    ) -> None:
        self._environment = environment
        self._incarnation = incarnation
        self._clock = clock
        self._rand = rand
        self._pack: Callable[[object], bytes] = msgpack.Packer(
            use_bin_type=True,
            unicode_errors="surrogateescape",
            default=str,  # header values that msgpack does not know (timestamps, decimals) are kept as text
        ).pack

    @classmethod
    def open(
        cls,
        directory: str,
        *,
        incarnation: int,
        map_size: int = DEFAULT_MAP_SIZE,
        clock: Clock = SYSTEM_CLOCK,
        rand: Callable[[], float] = random.random,
    ) -> KeptStore:
        """Open the store, making it if it is not there.

        Args:
            directory: Of the store, in the flow's state directory.
            incarnation: Of the caller; its leases carry it.
            map_size: Bytes of address space to begin with.
            clock: Gives due times.
            rand: Source of the jitter, in [0, 1).

        Raises:
            LedgerError: Damaged, foreign or of another format.
            NoSpace: The disk is full.
        """
        environment = open_environment(
            directory, "kept", _DATABASES, durability="host", keep_over_boot=True, map_size=map_size
        )
        return cls(environment, incarnation, clock, rand)

    @classmethod
    def open_for_reading(cls, directory: str) -> KeptStore:
        """Open a store to look at it, changing nothing.

        Raises:
            LedgerError: There is none, or it is damaged, foreign or of another format.
        """
        environment = open_for_reading(directory, "kept", _DATABASES)
        return cls(environment, NOBODY, SYSTEM_CLOCK, random.random)

    def close(self) -> None:
        """Let go of the files; leases stay until their incarnation is reclaimed."""
        self._environment.close()

    def put_many(self, messages: Iterable[KeptMessage], *, lease: bool = True) -> None:
        """Keep messages; they are on the disk when this returns, and may be acknowledged.

        A message that is kept already stays as it is if a live worker has its lease (it was redelivered
        while that worker had it, and is safe).

        Args:
            messages: To be kept. `first_ns` 0 means now.
            lease: True: the caller goes on working on them. False: they wait until `due_ns`.

        Raises:
            NoSpace: Nothing was kept: do not acknowledge.
        """
        now_ns = self._clock.wall_ns()
        with self._write() as store:
            for message in messages:
                held = store.get(message.key)
                if held is not None and held.lease not in (NOBODY, self._incarnation):
                    continue
                first_ns = held.first_ns if held is not None else message.first_ns or now_ns
                owner = self._incarnation if lease else NOBODY
                store.put(message._replace(lease=owner, first_ns=first_ns), held)
        self._environment.sync()

    def lease_due(self, limit: int) -> list[KeptMessage]:
        """Lease up to `limit` messages that are due, the longest due first.

        One that is due later than the longest back-off allows was kept before the wall clock was set back: it
        is due, and not only when that day comes again.

        A lease lost in a loss of power is only a message leased again, so this is not synced by itself.
        """
        now_ns = self._clock.wall_ns()
        now, latest = (ns.to_bytes(8, "big") for ns in (now_ns, now_ns + int(BACKOFF_LAST_S * 1e9)))
        with self._environment.read() as txn, txn.cursor(self._environment.databases["due"]) as cursor:
            if not cursor.first():
                return []
            soonest = cursor.key()[:8]
            cursor.last()
            if soonest > now and cursor.key()[:8] <= latest:
                return []  # the usual case: no write lock taken
        leased: list[KeptMessage] = []
        with self._write() as store:
            keys = store.due(now, limit)
            for key in keys + store.due_after(latest, limit - len(keys)):
                message = store.get(key)
                if message is not None:
                    taken = message._replace(lease=self._incarnation)
                    store.put(taken, message)
                    leased.append(taken)
        return leased

    def release_many(
        self, failed: Iterable[tuple[bytes, str]], *, tried: bool = True, wait_s: float | None = None
    ) -> None:
        """Give leases back after a failed try; each is due again after its back-off.

        Args:
            failed: Keys, each with what went wrong.
            tried: False: the try does not count and the message is due at once (a graceful stop).
            wait_s: The try does not count, and the message is due after so long.
        """
        now_ns = self._clock.wall_ns()
        with self._write() as store:
            for key, reason in failed:
                message = store.get(key)
                if message is None or message.lease != self._incarnation:
                    continue
                attempts = message.attempts + (tried and wait_s is None)
                pause_s = backoff_s(attempts, self._rand) if tried else 0.0
                due_ns = now_ns + int((pause_s if wait_s is None else wait_s) * 1e9)
                new = message._replace(attempts=attempts, due_ns=due_ns, lease=NOBODY, reason=reason)
                store.put(new, message)
        self._environment.sync()

    def delete_many(self, keys: Iterable[bytes]) -> None:
        """Forget messages that are settled, answered, overtaken or rejected. Unknown keys are ignored.

        Not synced by itself: after a loss of power a deleted message may come back, and is answered again.
        """
        with self._write() as store:
            for key in keys:
                message = store.get(key)
                if message is not None:
                    store.delete(message)

    def reclaim(self, dead: Iterable[int]) -> int:
        """Free the leases of dead incarnations; their messages are due at once.

        Returns:
            How many were freed.
        """
        now_ns = self._clock.wall_ns()
        freed = 0
        with self._write() as store:
            for incarnation in dead:
                for key in store.leased_by(incarnation):
                    message = store.get(key)
                    if message is not None:
                        store.put(message._replace(lease=NOBODY, due_ns=min(message.due_ns, now_ns)), message)
                        freed += 1
        return freed

    def holders(self) -> set[int]:
        """Return who has leases. Those of them that are not alive by the time this has returned are dead."""
        with self._environment.read() as txn:
            return _Store(txn, self._environment, self._pack).lease_holders()

    def expired(self, retry_ttl_s: float, limit: int) -> list[KeptMessage]:
        """Lease up to `limit` messages kept for longer than `retry_ttl_s`, to be rejected and deleted.

        Messages under a live lease are left to their worker. Reads the whole store: for housekeeping.
        """
        before_ns = self._clock.wall_ns() - int(retry_ttl_s * 1e9)
        with self._environment.read() as txn:
            store = _Store(txn, self._environment, self._pack)
            old = [m.key for m in store.all() if m.first_ns < before_ns and m.lease == NOBODY][:limit]
        leased = []
        if old:
            with self._write() as store:
                for key in old:
                    message = store.get(key)
                    if message is not None and message.lease == NOBODY:
                        store.put(message._replace(lease=self._incarnation), message)
                        leased.append(message._replace(lease=self._incarnation))
        return leased

    def next_due_ns(self) -> int | None:
        """Return when the next message is due; None if none waits."""
        with self._environment.read() as txn, txn.cursor(self._environment.databases["due"]) as cursor:
            return int.from_bytes(cursor.key()[:8], "big") if cursor.first() else None

    def count(self) -> int:
        """Return how many messages are kept."""
        with self._environment.read() as txn:
            entries: int = txn.stat(self._environment.databases["entries"])["entries"]
            return entries

    def messages(self) -> list[KeptMessage]:
        """Return every message kept, for inspection."""
        with self._environment.read() as txn:
            return list(_Store(txn, self._environment, self._pack).all())

    @contextlib.contextmanager
    def _write(self) -> Iterator[_Store]:
        with self._environment.write() as txn:
            yield _Store(txn, self._environment, self._pack)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Store:
    """The three tables within one transaction, kept true to each other."""

    def __init__(self, txn: Any, environment: Environment, pack: Callable[[object], bytes]) -> None:  # noqa: ANN401 - lmdb has no stable types
        self._txn = txn
        self._entries = environment.databases["entries"]
        self._due = environment.databases["due"]
        self._leases = environment.databases["leases"]
        self._pack = pack

    def get(self, key: bytes) -> KeptMessage | None:
        data = self._txn.get(key, db=self._entries)
        return None if data is None else self._unpack(key, data)

    def _unpack(self, key: bytes, data: bytes) -> KeptMessage:
        try:
            return KeptMessage(key, *msgpack.unpackb(data, unicode_errors="surrogateescape"))
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise LedgerError(f"kept message {key.hex()} cannot be read: move the kept store away") from error

    def put(self, message: KeptMessage, former: KeptMessage | None) -> None:
        if former is not None:
            self._unindex(former)
        self._txn.put(message.key, self._pack(message[1:]), db=self._entries)
        key, table = self._index(message)
        self._txn.put(key, b"", db=table)

    def delete(self, message: KeptMessage) -> None:
        self._unindex(message)
        self._txn.delete(message.key, db=self._entries)

    def _index(self, message: KeptMessage) -> tuple[bytes, Any]:
        if message.lease == NOBODY:
            return message.due_ns.to_bytes(8, "big") + message.key, self._due
        return message.lease.to_bytes(8, "big") + message.key, self._leases

    def _unindex(self, message: KeptMessage) -> None:
        key, table = self._index(message)
        self._txn.delete(key, db=table)

    def due(self, now: bytes, limit: int) -> list[bytes]:
        keys: list[bytes] = []
        with self._txn.cursor(self._due) as cursor:
            for key, _ in cursor:
                if key[:8] > now or len(keys) >= limit:
                    break
                keys.append(key[8:])
        return keys

    def due_after(self, latest: bytes, limit: int) -> list[bytes]:
        keys: list[bytes] = []
        with self._txn.cursor(self._due) as cursor:
            found = cursor.last()
            while found and cursor.key()[:8] > latest and len(keys) < limit:
                keys.append(cursor.key()[8:])
                found = cursor.prev()
        return keys

    def leased_by(self, incarnation: int) -> list[bytes]:
        prefix = incarnation.to_bytes(8, "big")
        keys: list[bytes] = []
        with self._txn.cursor(self._leases) as cursor:
            if cursor.set_range(prefix):
                for key, _ in cursor:
                    if not key.startswith(prefix):
                        break
                    keys.append(key[8:])
        return keys

    def lease_holders(self) -> set[int]:
        with self._txn.cursor(self._leases) as cursor:
            return {int.from_bytes(key[:8], "big") for key, _ in cursor}

    def all(self) -> Iterator[KeptMessage]:
        with self._txn.cursor(self._entries) as cursor:
            for key, data in cursor:
                yield self._unpack(key, data)

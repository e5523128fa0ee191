"""The LMDB files of a ledger or kept store: who may open them, when they are thrown away, how they grow.

A directory holds `data.mdb` and `lock.mdb` (LMDB's), `store.json` (what wrote it, and during which boot) and
`guard` (locked while a process opens the store). `store.json` is read before LMDB touches `data.mdb`: after a
loss of power an environment that was not synced may be damaged in ways that LMDB does not survive.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import lmdb

from sarrapipe.errors import LedgerError, NoSpace

__all__ = [
    "DEFAULT_MAP_SIZE",
    "MAX_MAP_SIZE",
    "Environment",
    "boot_id",
    "open_environment",
    "open_for_reading",
]

FORMAT: Final = 3
"""Of the records; raised when an older sarrapipe could not read them."""

DEFAULT_MAP_SIZE: Final = 64 * 2**20
"""Bytes of address space to begin with; the file is sparse and the map doubles as it fills."""
MAX_MAP_SIZE: Final = 64 * 2**30
"""The map does not grow beyond: a ledger that large has lost its housekeeping."""
_GROW_AT: Final = 0.5
_CHECK_EVERY: Final = 16
"""Transactions between two looks at how full the map is: half of 64 MiB is far more than they can write."""
_MAX_READERS: Final = 1024
_FULL_BELOW: Final = 2**20
"""Free bytes below which a write that was cut short is put down to a full disk; a commit may need as much."""
_BOOT_ID_PATH: Final = "/proc/sys/kernel/random/boot_id"


class _Found(NamedTuple):
    """What `store.json` says."""

    kind: str
    format: int
    boot: str
    durability: str


def boot_id() -> str:
    """Return what tells this boot of the machine from every other; "" where the system does not say."""
    try:
        with open(_BOOT_ID_PATH) as file:
            return file.read().strip()
    except OSError:
        return ""


class Environment:
    """An open LMDB environment that grows, with the handles of its named databases.

    Not to be shared with a forked child: open it after the fork.
    """

    def __init__(  # - lmdb has no stable types
        self,
        directory: str,
        env: Any,  # noqa: ANN401
        databases: dict[str, Any],
        *,
        rebooted: bool = False,
    ) -> None:
        self.directory = directory
        self.databases = databases
        self.rebooted = rebooted
        """The store outlived a restart of the machine (only where it is synced)."""
        self._env = env
        self._until_check = 0

    def close(self) -> None:
        """Close the files."""
        self._env.close()

    def sync(self) -> None:
        """Wait until everything committed is on the disk."""
        with _translated(self.directory):
            self._env.sync(force=True)

    @contextlib.contextmanager
    def write(self) -> Iterator[Any]:
        """One write transaction: committed at the end, or not at all if the block raises.

        Raises:
            NoSpace: The disk or the largest map is full; nothing was written.
            LedgerError: The files are damaged.
        """
        with _translated(self.directory):
            txn = self._begin(write=True)
            try:
                yield txn
            except BaseException:
                txn.abort()
                raise
            txn.commit()

    @contextlib.contextmanager
    def read(self) -> Iterator[Any]:
        """One read transaction over a consistent snapshot. Keep it short: it holds pages back."""
        with _translated(self.directory):
            txn = self._begin(write=False)
            try:
                yield txn
            finally:
                txn.abort()

    def last_transaction(self) -> int:
        """Return the number of the last write transaction committed."""
        number: int = self._env.info()["last_txnid"]
        return number

    def usage(self) -> tuple[int, int]:
        """Return bytes used at most so far, and the size of the map."""
        info = self._env.info()
        return (info["last_pgno"] + 1) * self._env.stat()["psize"], info["map_size"]

    def _begin(self, *, write: bool) -> Any:  # noqa: ANN401 - lmdb has no stable types
        if write:
            self._until_check -= 1
            if self._until_check < 0:
                self._until_check = _CHECK_EVERY
                self._grow()
        try:
            return self._env.begin(write=write)
        except lmdb.MapResizedError:
            self._env.set_mapsize(0)  # a sibling enlarged it: take its size over
            return self._env.begin(write=write)

    def _grow(self) -> None:
        used, size = self.usage()
        if used > size * _GROW_AT and size < MAX_MAP_SIZE:
            larger = min(size * 2, MAX_MAP_SIZE)
            self._env.set_mapsize(larger)
            # Where the file may not be that large, the writes that need it will say so.
            with contextlib.suppress(OSError), _guarded(self.directory):
                _extend(self.directory, larger)


@contextlib.contextmanager
def _translated(directory: str) -> Iterator[None]:
    """Turn LMDB's errors into ours, naming the directory and what to do."""
    try:
        yield
    except lmdb.MapFullError as error:
        raise NoSpace(
            f"{directory}: the store has reached {MAX_MAP_SIZE // 2**30} GiB; shorten nodupe_ttl"
        ) from error
    except lmdb.DiskError as error:
        raise NoSpace(f"{directory}: {error}; make room on its file system") from error
    except lmdb.Error as error:
        if _is_full(directory, str(error)):
            raise NoSpace(f"{directory}: {error}; make room on its file system") from error
        raise LedgerError(_advice(directory, str(error))) from error


def _is_full(directory: str, what: str) -> bool:
    """Whether an error means that the disk is full: LMDB calls a write that was cut short an I/O error."""
    if "No space left" in what or "quota" in what.lower():
        return True
    if "Input/output error" not in what:
        return False
    there = os.statvfs(directory)
    return there.f_bavail * there.f_frsize < _FULL_BELOW


def _advice(directory: str, what: str) -> str:
    return (
        f"{directory}: {what}. Stop the flow, move this directory away and start again: whatever was not "
        "acknowledged, and what is in the kept store, is fetched anew"
    )


def open_environment(
    directory: str,
    kind: str,
    databases: Sequence[str],
    *,
    durability: str,
    keep_over_boot: bool,
    map_size: int = DEFAULT_MAP_SIZE,
    boot: str | None = None,
) -> Environment:
    """Open a store, making it if it is not there.

    Args:
        directory: Of the store's files; made with mode 700.
        kind: `ledger` or `kept`, so that one is not taken for the other.
        databases: Names of the tables.
        durability: `process`: commits are not synced. `host`: commits are ordered on the disk, and `sync`
            makes the last one certain.
        keep_over_boot: False: after a restart of the machine an unsynced store is thrown away.
        map_size: Bytes of address space to begin with.
        boot: This boot's id; None asks the kernel.

    Raises:
        LedgerError: Damaged, of another format or kind, or another user's.
        NoSpace: The disk is full.
    """
    boot = boot_id() if boot is None else boot
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        with _guarded(directory):
            found = _inspect(directory, kind)
            rebooted = found is not None and found.boot != boot
            if rebooted and not (keep_over_boot and found is not None and found.durability == "host"):
                _throw_away(directory)
                found, rebooted = None, False
            if found is None or durability != "host":
                _describe(directory, _Found(kind, FORMAT, boot, "process"), found)
            env = _open(directory, databases, map_size, synced=durability == "host")
            if durability == "host":
                env[0].sync(force=True)  # what was written before, unsynced, is trusted from here on
                _describe(directory, _Found(kind, FORMAT, boot, "host"), found)
    except OSError as error:
        raise LedgerError(
            f"{directory}: {error.strerror}; the flow's user must own this directory"
        ) from error
    return Environment(directory, *env, rebooted=rebooted)


def open_for_reading(
    directory: str, kind: str, databases: Sequence[str], boot: str | None = None
) -> Environment:
    """Open a store to look at it, changing nothing; a running flow is not disturbed.

    Raises:
        LedgerError: There is none, or it is damaged, foreign, of another format, or of an earlier boot.
    """
    boot = boot_id() if boot is None else boot
    if not os.path.exists(os.path.join(directory, "data.mdb")):
        raise LedgerError(f"{directory}: no {kind} store here; a flow makes one when it first starts")
    found = _inspect(directory, kind, reading=True)
    if found is not None and found.boot != boot and found.durability != "host":
        raise LedgerError(
            f"{directory} was written before this machine was restarted, and was not synced: the flow throws "
            "it away at its next start and fetches what was under way anew"
        )
    with _translated(directory):
        env = lmdb.open(directory, max_dbs=len(databases), readonly=True, readahead=False)
        _check_length(directory, env)
        return Environment(directory, env, {n: env.open_db(n.encode(), create=False) for n in databases})


def _check_length(directory: str, env: Any) -> None:  # noqa: ANN401 - lmdb has no stable types
    """Refuse a file shorter than its own index says: touching the missing pages would be a SIGBUS."""
    length = os.path.getsize(_data(directory))
    if (env.info()["last_pgno"] + 1) * env.stat()["psize"] > length:
        env.close()
        raise LedgerError(_advice(directory, "data.mdb is cut off"))


def _extend(directory: str, size: int) -> None:
    """Make the file as long as its map, without taking room on the disk; under the guard.

    LMDB does not write pages that a transaction took from the end of the file and gave back again, so that
    the file may be shorter than its index says and yet whole (of random loads one in eight comes to that).
    With this a file that is shorter was cut off.
    """
    if os.path.getsize(_data(directory)) < size:
        os.truncate(_data(directory), size)


def _data(directory: str) -> str:
    return os.path.join(directory, "data.mdb")


def _open(
    directory: str, databases: Sequence[str], map_size: int, *, synced: bool
) -> tuple[Any, dict[str, Any]]:
    data = os.path.join(directory, "data.mdb")
    if os.path.exists(data) and 0 < os.path.getsize(data) < 2 * os.sysconf("SC_PAGE_SIZE"):
        raise LedgerError(_advice(directory, "data.mdb is cut off"))
    with _translated(directory):
        env = lmdb.open(
            directory,
            map_size=map_size,
            max_dbs=len(databases),
            max_readers=_MAX_READERS,
            # Without writemap a full disk is an error; with it, it would be a SIGBUS in every instance.
            writemap=False,
            sync=synced,
            metasync=False,
            mode=0o600,
            readahead=False,
        )
        _check_length(directory, env)
        _extend(directory, env.info()["map_size"])
        env.reader_check()
        with env.begin(write=True) as txn:
            return env, {name: env.open_db(name.encode(), txn=txn) for name in databases}


@contextlib.contextmanager
def _guarded(directory: str) -> Iterator[None]:
    """One process at a time looks at the files before LMDB does."""
    fd = os.open(os.path.join(directory, "guard"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _inspect(directory: str, kind: str, *, reading: bool = False) -> _Found | None:
    """Return what `store.json` says; None for an empty directory.

    Raises:
        LedgerError: Not this user's, not this kind, not this format, or not readable.
    """
    path = os.path.join(directory, "store.json")
    data = os.path.join(directory, "data.mdb")
    owner = os.stat(directory).st_uid
    if owner != os.geteuid() and not (reading and os.geteuid() == 0):
        raise LedgerError(
            f"{directory} belongs to user {owner}, this process runs as {os.geteuid()}: "
            "run the flow as the user who owns its state, or give the directory to this one"
        )
    try:
        with open(path) as file:
            record = json.load(file)
        found = _Found(record["kind"], record["format"], record["boot"], record["durability"])
    except FileNotFoundError:
        if os.path.exists(data):
            raise LedgerError(_advice(directory, "data.mdb without store.json")) from None
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(_advice(directory, f"store.json cannot be read ({error})")) from error
    if found.kind != kind:
        raise LedgerError(
            f"{directory} is a {found.kind} store, not a {kind}: give the flow its own directory"
        )
    if found.format != FORMAT:
        raise LedgerError(
            f"{directory}: format {found.format}, this sarrapipe writes format {FORMAT}. Let the version "
            "that wrote it finish what is under way (drain and stop), then move the directory away"
        )
    return found


def _throw_away(directory: str) -> None:
    for name in ("data.mdb", "lock.mdb", "store.json"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(directory, name))


def _describe(directory: str, new: _Found, found: _Found | None) -> None:
    """Write `store.json`, whole or not at all."""
    if found == new:
        return
    path = os.path.join(directory, "store.json")
    with open(path + ".new", "w") as file:
        json.dump(new._asdict(), file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".new", path)

"""The tables over one LMDB transaction: keys, packing, and nothing else.

Layout, one named database each:

    paths      target path, UTF-8 -> PathRecord; a key over 511 bytes is hashed and the path kept in the value
    files      generation -> FileRow
    claims     fingerprint -> SeenEntry CLAIMED     small and hot: bounded by what is in flight
    seen       fingerprint -> SeenEntry DONE        large: one write a file, none while it is under way
    segments   generation, number (4 bytes, big-endian) -> SegmentRow
    messages   generation, message id -> MessageRow
    alive      incarnation (8 bytes, big-endian) -> instance number
    meta       b"sweep" + table name -> where the last housekeeping sweep stopped

Values are msgpack arrays in the order of the record's fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, TypeVar

import msgpack  # type: ignore[import-untyped]  # ships no types
import xxhash

from sarrapipe.errors import LedgerError
from sarrapipe.ledger.records import (
    CLAIMED,
    FileRow,
    MessageRow,
    PathRecord,
    SeenEntry,
    SegmentRow,
)

__all__ = ["DATABASES", "MAX_KEY", "LmdbTables", "path_key"]

DATABASES: Final = ("paths", "files", "claims", "seen", "segments", "messages", "alive", "meta")

MAX_KEY: Final = 511
"""Bytes; compiled into LMDB (MDB_MAXKEYSIZE)."""
_KEPT_PREFIX: Final = 400  # of a hashed key: keeps the paths of one directory together

_T = TypeVar("_T")


class _Packing(NamedTuple):
    pack: Callable[[object], bytes]
    unpack: Callable[[bytes], tuple[Any, ...]]  # Any: the fields of whichever record it is


def _packing() -> _Packing:
    packer = msgpack.Packer(use_bin_type=True, unicode_errors="surrogateescape", autoreset=True)

    def unpack(data: bytes) -> tuple[Any, ...]:
        try:
            value: tuple[Any, ...] = msgpack.unpackb(data, use_list=False, unicode_errors="surrogateescape")
        except (ValueError, msgpack.UnpackException) as error:
            raise LedgerError("a record of the ledger cannot be read: " + _ADVICE) from error
        return value

    return _Packing(packer.pack, unpack)


_ADVICE: Final = (
    "stop the flow, move its ledger directory away and start again; whatever was not acknowledged comes again"
)


def path_key(target: str) -> bytes:
    """Return the key of a path: itself, or a hash where it is too long; then the value holds the path."""
    key = target.encode("utf-8", "surrogateescape")
    if len(key) <= MAX_KEY:
        return key
    return key[:_KEPT_PREFIX] + b"\0" + xxhash.xxh3_128_digest(key)


class LmdbTables:
    """`records.Tables` over one transaction; also what housekeeping and inspection read.

    Args:
        txn: An open LMDB transaction.
        databases: Handles by name.
        packing: From `LmdbTables.packing()`, one for each process.
    """

    __slots__ = ("_claims", "_db", "_files", "_get", "_pack", "_paths", "_put", "_seen", "_txn", "_unpack")

    packing = staticmethod(_packing)

    def __init__(self, txn: Any, databases: dict[str, Any], packing: _Packing) -> None:  # noqa: ANN401 - lmdb has no stable types
        self._txn = txn
        self._get = txn.get
        self._put = txn.put
        self._db = databases
        self._paths = databases["paths"]
        self._files = databases["files"]
        self._claims = databases["claims"]
        self._seen = databases["seen"]
        self._pack, self._unpack = packing

    # paths

    def get_path(self, target: str) -> PathRecord | None:
        """Return a row of `paths`."""
        key = target.encode("utf-8", "surrogateescape")
        if len(key) > MAX_KEY:
            return self._get_long_path(target)
        data = self._get(key, None, self._paths)
        return None if data is None else PathRecord._make(self._unpack(data))

    def _get_long_path(self, target: str) -> PathRecord | None:
        data = self._get(path_key(target), None, self._paths)
        if data is None:
            return None
        *fields, path = self._unpack(data)
        if path != target:
            raise LedgerError(f"two paths with one hash in the ledger: {target!r} and {path!r}")
        return PathRecord._make(fields)

    def put_path(self, target: str, record: PathRecord) -> None:
        """Insert or replace a row of `paths`."""
        key = target.encode("utf-8", "surrogateescape")
        if len(key) > MAX_KEY:
            self._put(path_key(target), self._pack((*record, target)), db=self._paths)
        else:
            self._put(key, self._pack(record), db=self._paths)

    def delete_path(self, target: str) -> None:
        """Delete a row of `paths`, if it is there."""
        self._txn.delete(path_key(target), db=self._paths)

    def paths(self, after: bytes = b"") -> Iterator[tuple[bytes, str, PathRecord]]:
        """Rows of `paths` with a key after `after`: key, path, record."""
        for key, fields in self._scan("paths", after):
            if len(fields) > len(PathRecord._fields):
                yield key, fields[-1], PathRecord._make(fields[:-1])
            else:
                yield key, key.decode("utf-8", "surrogateescape"), PathRecord._make(fields)

    # files

    def get_file(self, generation: bytes) -> FileRow | None:
        """Return a row of `files`."""
        data = self._get(generation, None, self._files)
        return None if data is None else FileRow(*self._unpack(data))  # fields added later have defaults

    def put_file(self, generation: bytes, row: FileRow) -> None:
        """Insert or replace a row of `files`."""
        self._put(generation, self._pack(row), db=self._files)

    def delete_file(self, generation: bytes) -> None:
        """Delete a row of `files`, if it is there."""
        self._txn.delete(generation, db=self._files)

    def files(self) -> Iterator[tuple[bytes, FileRow]]:
        """Every row of `files`."""
        for key, fields in self._scan("files"):
            yield key, FileRow(*fields)

    # seen

    def get_seen(self, fingerprint: bytes) -> SeenEntry | None:
        """Return an entry of `seen`; a claim hides what was settled before."""
        data = self._get(fingerprint, None, self._claims)
        if data is None:
            data = self._get(fingerprint, None, self._seen)
            if data is None:
                return None
        return SeenEntry._make(self._unpack(data))

    def put_seen(self, fingerprint: bytes, entry: SeenEntry) -> None:
        """Insert or replace an entry of `seen`."""
        if entry.state == CLAIMED:
            self._put(fingerprint, self._pack(entry), db=self._claims)
        else:
            self._txn.delete(fingerprint, db=self._claims)
            self._put(fingerprint, self._pack(entry), db=self._seen)

    def delete_seen(self, fingerprint: bytes) -> None:
        """Delete an entry of `seen`, if it is there."""
        self._txn.delete(fingerprint, db=self._claims)
        self._txn.delete(fingerprint, db=self._seen)

    def seen(self, after: bytes = b"") -> Iterator[tuple[bytes, SeenEntry]]:
        """Settled entries with a key after `after`."""
        for key, fields in self._scan("seen", after):
            yield key, SeenEntry._make(fields)

    def claims(self) -> Iterator[tuple[bytes, SeenEntry]]:
        """Claimed entries."""
        for key, fields in self._scan("claims"):
            yield key, SeenEntry._make(fields)

    # segments

    def get_segment(self, generation: bytes, number: int) -> SegmentRow | None:
        """Return a row of `segments`."""
        data = self._get(generation + number.to_bytes(4, "big"), None, self._db["segments"])
        return None if data is None else SegmentRow._make(self._unpack(data))

    def put_segment(self, generation: bytes, number: int, row: SegmentRow) -> None:
        """Insert or replace a row of `segments`."""
        self._put(generation + number.to_bytes(4, "big"), self._pack(row), db=self._db["segments"])

    def segments(self, generation: bytes, first: int = 0) -> Iterator[tuple[int, SegmentRow]]:
        """Rows of a generation by number, from `first`."""
        for key, fields in self._prefix("segments", generation, first.to_bytes(4, "big")):
            yield int.from_bytes(key[16:], "big"), SegmentRow._make(fields)

    def delete_segments(self, generation: bytes) -> None:
        """Delete all segments of a generation."""
        self._delete_prefix("segments", generation)

    def all_segments(self) -> Iterator[tuple[bytes, int, SegmentRow]]:
        """Every row of `segments`: generation, number, row."""
        for key, fields in self._scan("segments"):
            yield key[:16], int.from_bytes(key[16:], "big"), SegmentRow._make(fields)

    # messages

    def get_message(self, generation: bytes, message_id: bytes) -> MessageRow | None:
        """Return a row of `messages`."""
        data = self._get(generation + message_id, None, self._db["messages"])
        return None if data is None else MessageRow(*self._unpack(data))

    def put_message(self, generation: bytes, message_id: bytes, row: MessageRow) -> None:
        """Insert or replace a row of `messages`."""
        self._put(generation + message_id, self._pack(row), db=self._db["messages"])

    def delete_message(self, generation: bytes, message_id: bytes) -> None:
        """Delete a row of `messages`, if it is there."""
        self._txn.delete(generation + message_id, db=self._db["messages"])

    def messages(self, generation: bytes) -> Iterator[tuple[bytes, MessageRow]]:
        """Rows of a generation by message id."""
        for key, fields in self._prefix("messages", generation):
            yield key[16:], MessageRow(*fields)

    def delete_messages(self, generation: bytes) -> None:
        """Delete all messages of a generation."""
        self._delete_prefix("messages", generation)

    def all_messages(self) -> Iterator[tuple[bytes, bytes, MessageRow]]:
        """Every row of `messages`: generation, message id, row."""
        for key, fields in self._scan("messages"):
            yield key[:16], key[16:], MessageRow(*fields)

    # processes

    def is_alive(self, incarnation: int) -> bool:
        """Whether that process is known and not buried."""
        return (
            incarnation > 0 and self._get(incarnation.to_bytes(8, "big"), None, self._db["alive"]) is not None
        )

    def set_alive(self, incarnation: int, instance: int) -> None:
        """Record that a process lives."""
        self._put(incarnation.to_bytes(8, "big"), self._pack(instance), db=self._db["alive"])

    def bury(self, incarnation: int) -> None:
        """Record that a process is dead."""
        self._txn.delete(incarnation.to_bytes(8, "big"), db=self._db["alive"])

    def alive(self) -> dict[int, int]:
        """Incarnations that are not buried, each with its instance number."""
        with self._txn.cursor(self._db["alive"]) as cursor:
            return {int.from_bytes(key, "big"): msgpack.unpackb(value) for key, value in cursor}

    # housekeeping

    def sweep_position(self, table: str) -> bytes:
        """Return the key at which the last sweep of a table stopped, b"" for its beginning."""
        data: bytes | None = self._get(b"sweep" + table.encode(), None, self._db["meta"])
        return data or b""

    def set_sweep_position(self, table: str, key: bytes) -> None:
        """Remember where a sweep stopped."""
        self._put(b"sweep" + table.encode(), key, db=self._db["meta"])

    def delete_key(self, table: str, key: bytes) -> None:
        """Delete a row by its key as a scan gave it."""
        self._txn.delete(key, db=self._db[table])

    def _scan(self, table: str, after: bytes = b"") -> Iterator[tuple[bytes, tuple[Any, ...]]]:
        with self._txn.cursor(self._db[table]) as cursor:
            if not (cursor.set_range(after + b"\0") if after else cursor.first()):
                return
            for key, value in cursor:
                yield key, self._unpack(value)

    def _prefix(
        self, table: str, prefix: bytes, start: bytes = b""
    ) -> Iterator[tuple[bytes, tuple[Any, ...]]]:
        with self._txn.cursor(self._db[table]) as cursor:
            if not cursor.set_range(prefix + start):
                return
            for key, value in cursor:
                if not key.startswith(prefix):
                    return
                yield key, self._unpack(value)

    def _delete_prefix(self, table: str, prefix: bytes) -> None:
        with self._txn.cursor(self._db[table]) as cursor:
            found = cursor.set_range(prefix)
            while found and cursor.key().startswith(prefix):
                cursor.delete()  # moves to the next row
                found = bool(cursor.key())

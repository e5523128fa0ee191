"""What the ledger's tables hold, and the protocol through which the decisions reach them.

Records are named tuples: hashable, so that the exhaustive search in `tests/unit/ledger` can compare whole
states; packed by msgpack as they are, so that a small file costs microseconds. A record is never changed,
only replaced.

An *incarnation* is one life of one instance process: a number above 0 that is never used again. 0 is nobody.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

__all__ = [
    "ASSEMBLING",
    "CLAIMED",
    "COMMITTED",
    "DISCARDED",
    "DONE",
    "DURABLE",
    "MISSING",
    "NOBODY",
    "PHASE_NAMES",
    "WRITTEN",
    "Claim",
    "FileRow",
    "MessageRow",
    "PathRecord",
    "Pending",
    "SeenEntry",
    "SegmentRow",
    "Tables",
]

NOBODY: Final = 0
"""The incarnation of no process: never alive."""

# Phases of a row in `files`. Plain integers: they are packed and compared on the small-file path.
ASSEMBLING: Final = 1
COMMITTED: Final = 2
DISCARDED: Final = 3
PHASE_NAMES: Final = {ASSEMBLING: "assembling", COMMITTED: "committed", DISCARDED: "discarded"}

# States of an entry in `seen`.
CLAIMED: Final = 1
DONE: Final = 2

# States of a segment.
MISSING: Final = 0
WRITTEN: Final = 1
DURABLE: Final = 2


class Pending(enum.IntEnum):
    """What has been decided about a path and is not settled yet."""

    NONE = 0
    COMMIT = 1
    """The generation recorded for the path has a row that is COMMITTED: its rename or its announcement may
    still be due. Never stored: the row says so, and when it goes nothing can be left over."""
    REMOVAL = 2
    """A removal or a rename: its file system call or its announcement may still be due."""


class Claim(NamedTuple):
    """What the holder of a row shows at every later decision about it.

    A row that was dropped and made again has another nonce, so a late answer to the old one is refused.
    """

    generation: bytes
    nonce: bytes


class PathRecord(NamedTuple):
    """`paths`: what was last decided for a target path."""

    mtime_ns: int
    """Of the version last applied."""
    pub_ns: int
    """Largest pubTime of that version, or of the removal if there is none."""
    known_ns: int
    """Largest pubTime of any file announced here: the source had one then. A removal before it is overtaken,
    even if that announcement was refused for its older modification time."""
    generation: bytes
    """Last applied here; kept through a removal, so that the file it leaves behind is known as ours."""
    removed_ns: int
    """Largest pubTime of a removal or rename here: every file announced before it is overtaken. 0: none."""
    present: bool
    """False: a tombstone."""
    pending: int
    """`Pending.REMOVAL` or `Pending.NONE`."""
    holder: bytes
    """Message id of the pending removal."""
    incarnation: int
    """Who began it."""
    twin: str
    """The other name of a pending rename, else empty."""
    touched_ns: int
    """Wall time of the last change, for housekeeping."""


class FileRow(NamedTuple):
    """`files`: one generation under way, from its admission to its settling.

    The owner holds the message, does the finishing and publishes; others may fetch segments.
    """

    target: str
    phase: int
    owner: int
    nonce: bytes
    inode: int
    """Of the inflight file; 0 until it is known."""
    size: int
    segment_size: int
    segment_count: int
    """A file of one has no rows in `segments`."""
    missing: int
    """Segments not yet WRITTEN (stays 1 for a file of one segment until it is settled)."""
    fresh: int
    """Segments from here on were never claimed (whole-file announcements only)."""
    blocks: bool
    """Announced block by block: only announced segments have rows, and only they can be claimed."""
    mtime_ns: int
    pub_ns: int
    """Version: the largest (mtime, pubTime) of the messages this row answers for."""
    fingerprint: bytes
    message_id: bytes
    url: str
    """Of the first message, as announced."""
    source: str
    etag: str
    """Pinned by the first response, so that every range comes from one version."""
    further: int
    """Number of rows in `messages` for this generation."""
    touched_ns: int
    announced_ns: int = 0
    """Wall time of the last new message about a file announced in blocks: `blockTimeout` counts from here."""
    opened: bool = False
    """Blocks that nobody announced may be fetched from the sources that hold the whole file."""
    alone: bool = False
    """Fetched from its own source only: with others the bytes were not what was announced."""
    version: bytes = b""
    """What all blocks of one version of a file share, however it is cut; empty for other files."""


class MessageRow(NamedTuple):
    """`messages`: one more message a row answers for: a further source, or an announced block."""

    fingerprint: bytes
    url: str
    first_segment: int
    segment_count: int
    """A block announces so many from `first_segment`; 0 for a whole file."""
    holder: int
    """Incarnation that waits with its delivery, to be woken when the row is settled."""
    ranged: bool = False
    """A block whose source holds the whole file under `url`, and serves any range of it."""
    etag: str = ""
    """Pinned by the first response of this source of a whole file; servers name one version differently."""


class SegmentRow(NamedTuple):
    """`segments`: one byte range of a file of several segments."""

    state: int
    claim: int
    """Incarnation that fetches it, or NOBODY."""
    digest: bytes
    """xxh3_128 of the segment, 16 bytes, once WRITTEN."""


class SeenEntry(NamedTuple):
    """`seen`: a fingerprint that is being worked on (CLAIMED) or was settled (DONE)."""

    state: int
    generation: bytes
    target: str
    pub_ns: int
    suppress_until_ns: int
    """DONE: other messages with this fingerprint are duplicates until then (`nodupe_ttl`)."""
    forget_after_ns: int
    """DONE: the entry may be deleted after that."""
    messages: tuple[bytes, ...]
    """DONE: the messages answered, whose own redelivery is told from a duplicate."""


class Tables(Protocol):
    """The tables within one transaction: LMDB in production, dictionaries in the exhaustive search."""

    def get_path(self, target: str) -> PathRecord | None:
        """Return a row of `paths`."""

    def put_path(self, target: str, record: PathRecord) -> None:
        """Insert or replace a row of `paths`."""

    def get_file(self, generation: bytes) -> FileRow | None:
        """Return a row of `files`."""

    def put_file(self, generation: bytes, row: FileRow) -> None:
        """Insert or replace a row of `files`."""

    def delete_file(self, generation: bytes) -> None:
        """Delete a row of `files`, if it is there."""

    def files(self) -> Iterator[tuple[bytes, FileRow]]:
        """Every row; bounded by what is in flight."""

    def get_seen(self, fingerprint: bytes) -> SeenEntry | None:
        """Return an entry of `seen`."""

    def put_seen(self, fingerprint: bytes, entry: SeenEntry) -> None:
        """Insert or replace an entry of `seen`."""

    def delete_seen(self, fingerprint: bytes) -> None:
        """Delete an entry of `seen`, if it is there."""

    def get_segment(self, generation: bytes, number: int) -> SegmentRow | None:
        """Return a row of `segments`."""

    def put_segment(self, generation: bytes, number: int, row: SegmentRow) -> None:
        """Insert or replace a row of `segments`."""

    def segments(self, generation: bytes, first: int = 0) -> Iterator[tuple[int, SegmentRow]]:
        """Rows of a generation by number, from `first`. Do not write while iterating."""

    def delete_segments(self, generation: bytes) -> None:
        """Delete all rows of a generation."""

    def get_message(self, generation: bytes, message_id: bytes) -> MessageRow | None:
        """Return a row of `messages`."""

    def put_message(self, generation: bytes, message_id: bytes, row: MessageRow) -> None:
        """Insert or replace a row of `messages`."""

    def delete_message(self, generation: bytes, message_id: bytes) -> None:
        """Delete a row of `messages`, if it is there."""

    def messages(self, generation: bytes) -> Iterator[tuple[bytes, MessageRow]]:
        """Rows of a generation by message id. Do not write while iterating."""

    def delete_messages(self, generation: bytes) -> None:
        """Delete all rows of a generation."""

    def is_alive(self, incarnation: int) -> bool:
        """Whether that process is known and not buried; False for NOBODY."""

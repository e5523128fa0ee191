"""A task: one name under way in this instance, from its admission to its settling.

The ledger holds the truth; a task holds what this process needs to go on: the item, the claim it was given,
open descriptors. Losing a task (a kill) loses nothing, and every step of it may be repeated.

    admitted ─► begin ─► [transfers] ─► ready ─► commit ─► place ─► published ─► settle
                                          └──── discard ◄── a newer version, or a failure

Files (`download.DownloadTask`), links and directories (`entries`) differ in `begin` and `place` only.
"""

from __future__ import annotations

import enum
import os
import stat
from abc import ABC, abstractmethod
from typing import Final

from sarrapipe.config.model import FlowConfig
from sarrapipe.errors import SarrapipeError
from sarrapipe.flow.blocks import version_of
from sarrapipe.flow.messageids import message_id
from sarrapipe.flow.places import flow_mark
from sarrapipe.ledger.admission import Admission, Announcement
from sarrapipe.ledger.completion import Standing
from sarrapipe.ledger.keys import generation_of, seen_key
from sarrapipe.ledger.records import Claim
from sarrapipe.message import identity
from sarrapipe.message.worklist import WorkItem
from sarrapipe.segment.assembly import GENERATION_XATTR
from sarrapipe.segment.inplace import is_being_written
from sarrapipe.units import format_time

__all__ = ["ALONE", "Placed", "Task", "announce", "look_again", "look_at", "raise_pub_time"]


ALONE: Final = "_alone"
"""Local field of an item: with further sources the bytes were not what was announced."""


class Task(ABC):
    """One name under way.

    Args:
        item: The item that began it.
        announcement: What the ledger was told.
        admission: What the ledger answered; the claim counts from here on.

    Attributes:
        attached: Redeliveries of the item's message, acknowledged together with it.
        error: What went wrong, if it did.
        inode: Of what will be put in place, once there is such a thing.
        is_ready: `begin` did all there was to do: commit it.
        is_committed: The ledger decided for it: it may be put in place.
        is_placed: `place` did all there was to do; False while a server is asked to do it.
        is_lost: What a former owner wrote is gone: the ledger has to forget it first.
        given_back: Segments claimed here that `release` left unfetched.
    """

    __slots__ = (
        "__weakref__",
        "announcement",
        "attached",
        "claim",
        "error",
        "given_back",
        "inode",
        "is_committed",
        "is_lost",
        "is_placed",
        "is_ready",
        "item",
    )

    def __init__(self, item: WorkItem, announcement: Announcement, admission: Admission) -> None:
        assert admission.claim is not None
        self.item = item
        self.announcement = announcement
        self.claim: Claim = admission.claim
        self.attached: list[WorkItem] = []
        self.error: SarrapipeError | None = None
        self.inode = admission.inode
        self.is_ready = False
        self.is_committed = False
        self.is_lost = False
        self.is_placed = True
        self.given_back: list[int] = []

    @property
    def target(self) -> str:
        """Absolute path of the final name."""
        return self.item.target

    @property
    def targets(self) -> tuple[str, ...]:
        """Absolute paths of the names of this machine that it changes."""
        return (self.item.target,)

    @property
    def items(self) -> list[WorkItem]:
        """Every item this task answers in this process."""
        return [self.item, *self.attached]

    @property
    def keeps_progress(self) -> bool:
        """Whether what is written is worth keeping for another attempt."""
        return False

    @property
    def in_segments(self) -> bool:
        """Whether it is fetched in several segments."""
        return False

    @property
    def wants_one_piece(self) -> bool:
        """Whether its error says that it cannot be fetched in segments."""
        return False

    @abstractmethod
    def begin(self) -> None:
        """Make what will be put in place, or start to fetch it. Follows the admission.

        Raises:
            StorageError: The file system refused.
        """

    @abstractmethod
    def place(self) -> None:
        """Put what was committed under its final name, or have it put there. May be repeated.

        Raises:
            StorageError: The file system refused.
        """

    @abstractmethod
    def discard(self) -> None:
        """Remove what is inflight; the row in the ledger is dropped after that. May be repeated."""

    def release(self) -> None:  # noqa: B027 - most tasks hold nothing open
        """Close what is open here; what is inflight stays, for whoever goes on with it."""

    @abstractmethod
    def placed(self) -> Placed:
        """Find out how far a task came that another process had committed before it died."""


class Placed(enum.Enum):
    """How far a committed task came."""

    DONE = "done"
    """The final name holds it: announce it."""
    INFLIGHT = "inflight"
    """It is still under its inflight name: put it in place."""
    GONE = "gone"
    """Neither: somebody took or replaced it."""


def announce(item: WorkItem, config: FlowConfig, segment_bytes: int) -> Announcement:
    """Return what the ledger needs to know of an item that announces a name.

    Args:
        item: Filtered; its target is known.
        config: The flow's configuration.
        segment_bytes: Size of its segments; 0 if it moves as one.
    """
    message = item.message
    pub_ns = message.pub_time_ns
    mtime_ns = message.mtime_ns or 0
    content = identity.fingerprint(message)
    exchange = item.delivery.exchange if item.delivery is not None else ""
    wire_identity = message.identity
    whole = f"{wire_identity.method},{wire_identity.value}" if wire_identity is not None else content.hex()
    source = message.source or ""
    size = message.size
    compared = _compared_path(item, config.nodupe_basis)
    if "blocks" in message.fields and (blocks := message.blocks) is not None:
        # A block that is the same in the next version of its file has to be announced for that one too.
        compared = f"{compared}\0{version_of(message, blocks)}\0{blocks.count}"
    return Announcement(
        target=item.target,
        generation=generation_of(item.target, source, size, mtime_ns or pub_ns, segment_bytes, whole),
        fingerprint=seen_key(content, compared),
        message_id=message_id(message, exchange),
        pub_ns=pub_ns,
        mtime_ns=mtime_ns,
        size=-1 if size is None else size,
        segment_size=segment_bytes,
        # A sibling could not tell an escaped URL from a plain one, so it does not help with those.
        url=message.url if message.retrieve_path is None else "",
        source=source,
        alone=bool(item.local and item.local.get(ALONE)),
    )


def _compared_path(item: WorkItem, basis: str) -> str:
    """Return what must be equal besides the content for two messages to be duplicates (wire.md 3.4)."""
    if basis == "data":
        return ""
    if basis == "name":
        return item.message.rel_path.rpartition("/")[2]
    return item.message.rel_path


def look_at(target: str, config: FlowConfig, own_inode: int = 0) -> Standing | None:
    """Return the file that is at a target path now; None where there is none to be compared with.

    One that is brought up to date in place (`own_inode`) is not compared with itself.

    Directories are not replaced by files. The time of a symbolic link is when it was made here, which says
    nothing of its age. Where times are not copied, those of files say nothing either.
    """
    if not config.time_copy:
        return None
    try:
        status = os.lstat(target)
    except OSError:
        return None  # nothing there; or a path that cannot be walked, as whoever opens it will find
    if not stat.S_ISREG(status.st_mode) or status.st_ino == own_inode:
        return None
    return Standing(status.st_mtime_ns, _generation_of(target, flow_mark(config.state_dir)))


def look_again(target: str, config: FlowConfig, own_inode: int = 0) -> Standing | None:
    """The same once more, where what stands there seems to be newer.

    A file that is being written in place, or was left half done, has a late time and holds no version.
    """
    return None if is_being_written(target) else look_at(target, config, own_inode)


def raise_pub_time(item: WorkItem, pub_ns: int) -> None:
    """Let an announcement carry the largest pubTime of the messages it stands for.

    With its own, a removal announced in between would be the newer event for the next hop.
    """
    if pub_ns > item.message.pub_time_ns:
        item.message = item.message.replace(pubTime=format_time(pub_ns))


def _generation_of(path: str, mark: bytes) -> bytes:
    """Return the generation of a file that this flow put in place, b"" for everything else."""
    try:
        value = os.getxattr(path, GENERATION_XATTR, follow_symlinks=False)
    except OSError:
        return b""  # a file of somebody else, or a file system without extended attributes
    generation = value.removesuffix(mark)
    return generation if len(generation) < len(value) else b""

"""What a file announced in blocks is in one instance: its blocks, who asked for them, how far each is.

A `BlockFetch` is one such file, the owner's or that of a process that holds other blocks of it; a `Part` is
one of its blocks. `blockfetch` brings them on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import xxhash

from sarrapipe.errors import SarrapipeError
from sarrapipe.flow.blockkeep import Standing
from sarrapipe.flow.blocks import BlockSource
from sarrapipe.flow.closing import End
from sarrapipe.flow.comparer import Comparison
from sarrapipe.flow.movements import Movement, in_segments
from sarrapipe.ledger.records import Claim
from sarrapipe.message import identity
from sarrapipe.message.worklist import Report, WorkItem
from sarrapipe.segment import assembly
from sarrapipe.segment.plan import SegmentPlan
from sarrapipe.transfer.base import Sink

if TYPE_CHECKING:
    from sarrapipe.flow.blocktask import BlockedFile

__all__ = ["BlockFetch", "BlockToken", "Digests", "Ended", "Part"]


@dataclass(eq=False, slots=True)
class Part:
    """One block in this process.

    Attributes:
        number: Of the segment.
        source: Where its bytes are, the present one of those that have them.
        item: The message; None for a block nobody announced, fetched from a source of the whole file.
        message_id: Of the message.
        attached: Redeliveries of the message.
        running: It is being fetched, or compared with what is in place.
        look_again_s: Monotonic time before which nothing is to be done about it.
        attempts: Failures at its present source.
        tried: URLs of sources that it could not be had from.
        failure: Why its present source is not asked again; None while it is.
        keeps: One of the sources may do better at another time.
        digests: While it is fetched: what is announced, the ledger's own.
        comparison: While it is compared.
    """

    number: int
    source: BlockSource
    item: WorkItem | None
    message_id: bytes
    attached: list[WorkItem] = field(default_factory=list)
    running: bool = False
    look_again_s: float = 0.0
    attempts: int = 0
    tried: set[str] = field(default_factory=set)
    failure: SarrapipeError | None = None
    keeps: bool = False
    digests: Digests | None = None
    token: BlockToken | None = None
    comparison: Comparison | None = None

    @property
    def items(self) -> list[WorkItem]:
        """Every item that ends with it."""
        return [] if self.item is None else [self.item, *self.attached]


class Digests:
    """The announced digest of a block, and the one the ledger keeps, over the same bytes."""

    __slots__ = ("announced", "own")

    def __init__(self, announced: identity.Hasher | None) -> None:
        self.announced = announced
        self.own = xxhash.xxh3_128()

    def update(self, data: bytes | memoryview, /) -> None:
        """Take more data."""
        self.own.update(data)
        if self.announced is not None:
            self.announced.update(data)


class BlockToken:
    """What the engine hands back: which block of which file, and where its bytes go."""

    __slots__ = ("fetch", "part", "sink")

    def __init__(self, fetch: BlockFetch, part: Part, sink: Sink) -> None:
        self.fetch = fetch
        self.part = part
        self.sink = sink


class Ended(NamedTuple):
    """Items whose block is written, or cannot be had."""

    items: list[WorkItem]
    end: End | None
    """None: it is written."""
    report: Report | None = None


class BlockFetch:
    """One file in blocks in this instance.

    Args:
        claim: The row in the ledger.
        plan: Where each block belongs; its size may be too large while it is not known.
        file: The inflight file, open; owned by this object unless a task owns it.
        task: The owner's task; None where the file is another process's.
        now_s: Monotonic time.

    Attributes:
        missing: Blocks that nobody has written yet, as the ledger said last.
        moved: Bytes of the transfers that have ended here.
    """

    def __init__(
        self,
        claim: Claim,
        plan: SegmentPlan,
        file: assembly.InflightFile,
        task: BlockedFile | None,
        now_s: float,
    ) -> None:
        self.claim = claim
        self.plan = plan
        self.file = file
        self.task = task
        self.standing = Standing()
        self.may_write = False
        self.ranges: list[tuple[int, int, bytes]] = []
        self.parts: dict[bytes, Part] = {}
        self.validators: dict[str, str] = {}
        self.asked_versions: set[str] = set()
        self.pinned: set[str] = set()
        self.claimed: list[Part] = []
        self.done: list[tuple[Part, bytes]] = []
        self.returned: list[int] = []
        self.complete = False
        self.size = plan.size
        self.missing = len(plan)
        self.moved = 0
        self.is_over = False
        self.quiet_since_s = now_s
        self.look_again_s = now_s
        self.asked_sources = False
        self.warned = False

    def others(self, part: Part) -> list[WorkItem]:
        """Return the items of a block without the task's own."""
        return [item for item in part.items if self.task is None or item is not self.task.item]

    @property
    def running(self) -> list[Part]:
        """Blocks being fetched."""
        return [part for part in self.parts.values() if part.running]

    def movement(self) -> Movement:
        """Return how far it is."""
        running = [part.token.sink.written for part in self.running if part.token is not None]
        url = next((part.source.url for part in self.parts.values()), "")
        return in_segments(
            self.file.target, url, self.plan, missing=self.missing, running=running, moved=self.moved
        )

    def close(self) -> None:
        """Close the file in place, and the inflight file where no task does."""
        self.standing.close()
        if self.task is None:
            self.file.close()

"""The transfers of one file's segments in one instance: what runs, what waits, where the bytes come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sarrapipe.errors import SarrapipeError, SourceChanged
from sarrapipe.flow.sources import Source, Sources
from sarrapipe.flow.straggling import Pace
from sarrapipe.flow.task import ALONE
from sarrapipe.ledger.records import Claim
from sarrapipe.segment import assembly
from sarrapipe.segment.plan import SegmentPlan
from sarrapipe.transfer.base import RangeDone, Sink

if TYPE_CHECKING:
    from sarrapipe.flow.segmented import SegmentedDownload

__all__ = ["Fetch", "Token", "changed_version"]


class Token:
    """What the engine hands back: which segment of which file, and from where."""

    __slots__ = ("began_s", "fetch", "number", "sink", "source")

    def __init__(self, fetch: Fetch, number: int, source: Source, sink: Sink, began_s: float) -> None:
        self.fetch = fetch
        self.number = number
        self.source = source
        self.sink = sink
        self.began_s = began_s


class Fetch:
    """The transfers of one file's segments in this instance.

    Args:
        claim: The row in the ledger.
        plan: How the file is cut.
        file: The inflight file, open.
        sources: Where the bytes are.
        task: The owner's task; None for a helper.

    Attributes:
        running: The transfer of each segment.
        second: The second transfers of those that straggle.
        resting: Segments that failed, each with the time at which it is tried again; still claimed.
        tries: How often each of those failed.
        avoid: Where each of those came from.
        exhausted: No segment is left to be claimed.
        further: Number of further messages when the ledger was asked for sources last.
        ask_sources: There may be more.
        missing: Segments that nobody has written yet, as the ledger said last.
        moved: Bytes of the transfers that have ended here.
    """

    def __init__(
        self,
        claim: Claim,
        plan: SegmentPlan,
        file: assembly.InflightFile,
        sources: Sources,
        task: SegmentedDownload | None,
    ) -> None:
        self.claim = claim
        self.plan = plan
        self.file = file
        self.sources = sources
        self.task = task
        self.running: dict[int, Token] = {}
        self.second: dict[int, Token] = {}
        self.resting: dict[int, float] = {}
        self.tries: dict[int, int] = {}
        self.avoid: dict[int, Source] = {}
        self.pace = Pace()
        self.exhausted = False
        self.further = 0
        self.missing = len(plan)
        self.moved = 0
        self.ask_sources = False
        self.claimed: list[int] = []
        self.done: list[tuple[int, bytes]] = []
        self.returned: list[int] = []
        self.complete = False
        self.look_again_s = 0.0
        self.error: SarrapipeError | None = None

    @property
    def undecided(self) -> bool:
        """Whether the ledger has to be told something."""
        return bool(self.done or self.returned or (self.error is not None and self.resting))

    @property
    def transfers(self) -> list[Token]:
        """All that is under way."""
        return [*self.running.values(), *self.second.values()]

    @property
    def may_mix(self) -> bool:
        """Whether segments may come from further sources."""
        return self.task is None or not (self.task.item.local and self.task.item.local.get(ALONE))


def changed_version(source: Source, done: RangeDone) -> SourceChanged | None:
    """Return an error if a response is of another version than the first one was."""
    if source.validator is None or done.validator is None or source.validator == done.validator:
        return None
    return SourceChanged(f"{source.url}: another version answers than for other segments")

"""Looks at the segments under way in one instance, some times a second: rates, failed segments, stragglers.

It needs no decision of the ledger: the segments it begins are claimed already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Final

import xxhash

from sarrapipe.clock import Clock
from sarrapipe.crashpoints import passing
from sarrapipe.flow.fetch import Fetch, Token
from sarrapipe.flow.remotes import Remotes
from sarrapipe.flow.straggling import MOST_SCRATCH_BYTES, Scratch
from sarrapipe.shm.slots import Counter
from sarrapipe.transfer.base import RangeRead

if TYPE_CHECKING:
    from sarrapipe.flow.download import Downloads

__all__ = ["Watch"]

_LOOK_EVERY_S: Final = 0.05
"""How often rates are measured and stragglers looked for."""


class Watch:
    """What is done about transfers under way.

    Args:
        downloads: The transfers of this instance.
        fetches: The files; the list is its owner's, who changes it.
        clock: Source of time.
        read: Begins to fetch a segment.

    Attributes:
        remotes: What was measured of the remotes.
    """

    def __init__(
        self,
        downloads: Downloads,
        fetches: Sequence[Fetch],
        clock: Clock,
        read: Callable[[Fetch, int], RangeRead],
    ) -> None:
        settings = downloads.engine.settings
        self._most = settings.streams_per_remote
        self.remotes = Remotes(downloads.config.streams_start, self._most)
        self._downloads = downloads
        self._fetches = fetches
        self._clock = clock
        self._read = read
        self._looked_s = 0.0

    def room(self, remote: str) -> int:
        """Return how many more segments may come from a remote at a time."""
        return self.remotes.of(remote).control.limit - self._busy(remote)

    def _busy(self, remote: str) -> int:
        return sum(token.source.remote == remote for fetch in self._fetches for token in fetch.transfers)

    def range_of(self, token: Token) -> RangeRead:
        """Return the request of a transfer."""
        segment, source = token.fetch.plan[token.number], token.source
        return RangeRead(
            url=source.url,
            sink=token.sink,
            token=token,
            offset=segment.offset,
            length=segment.length,
            whole_size=token.fetch.plan.size,
            validator=source.validator,
            url_is_escaped=source.is_escaped,
            credentials=self._downloads.credentials(source.url),
        )

    def look(self) -> None:
        """Measure rates, try failed segments again, help stragglers."""
        if not self._fetches:
            return
        now_s = self._clock.monotonic_s()
        for fetch in self._fetches:
            due = [number for number, due_s in fetch.resting.items() if due_s <= now_s]
            if due and fetch.error is None:
                for number in due:
                    del fetch.resting[number]
                self._downloads.start([self._read(fetch, number) for number in due])
        if now_s >= self._looked_s + _LOOK_EVERY_S:
            self._looked_s = now_s
            self._measure(now_s)
            for fetch in self._fetches:
                if fetch.exhausted and fetch.error is None:
                    self._help_stragglers(fetch, now_s)

    @property
    def next_look_s(self) -> float:
        """Monotonic time of the next look; infinite if nothing asks for one."""
        due_s = float("inf")
        looks_s = self._looked_s + _LOOK_EVERY_S
        for fetch in self._fetches:
            if fetch.error is not None:
                continue
            due_s = min(due_s, *fetch.resting.values(), float("inf"))
            if fetch.exhausted:
                due_s = min(due_s, max(self._late_s(fetch), looks_s))
            else:
                tries_s = (self.remotes.of(source.remote).control.next_due_s for source in fetch.sources)
                due_s = min(due_s, max(min(tries_s), looks_s))
        return due_s

    def _measure(self, now_s: float) -> None:
        """Let each remote's number of streams follow its rate."""
        remotes = {source.remote for fetch in self._fetches for source in fetch.sources}
        wanting = {s.remote for f in self._fetches if not f.exhausted and f.error is None for s in f.sources}
        transfers = list(chain.from_iterable(fetch.transfers for fetch in self._fetches))
        for name in remotes:
            written = [token.sink.written for token in transfers if token.source.remote == name]
            remote = self.remotes.of(name)
            flowing = sum(count > 0 for count in written)
            remote.control.update(now_s, remote.received + sum(written), flowing, wanted=name in wanting)

    def _late_s(self, fetch: Fetch) -> float:
        """Return when the first segment of a file is late that has no second transfer yet."""
        return min(
            (
                token.began_s + fetch.pace.late_after_s(fetch.plan[number].length)
                for number, token in fetch.running.items()
                if number not in fetch.second and not isinstance(token.sink, Scratch)
            ),
            default=float("inf"),
        )

    def _help_stragglers(self, fetch: Fetch, now_s: float) -> None:
        for number, token in list(fetch.running.items()):
            length = fetch.plan[number].length
            if number in fetch.second or now_s - token.began_s < fetch.pace.late_after_s(length):
                continue
            seconds = chain.from_iterable(one.transfers for one in self._fetches)
            held = sum(one.fetch.plan[one.number].length for one in seconds if isinstance(one.sink, Scratch))
            if isinstance(token.sink, Scratch) or held + length > MOST_SCRATCH_BYTES:
                continue
            source = fetch.sources.pick(self.room, avoid=token.source)
            # What the operator allows is the bound here, not what gains: those that straggle gain nothing.
            if not self._downloads.free_streams or self._busy(source.remote) >= self._most:
                continue
            second = Token(fetch, number, source, Scratch(length, xxhash.xxh3_128()), now_s)
            fetch.second[number] = second
            self._downloads.slot.add(Counter.SEGMENTS_HEDGED)
            self._downloads.start([self.range_of(second)])
            passing("hedge_started")

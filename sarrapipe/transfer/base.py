"""What every way of moving bytes has in common: the request, the answer, and what a backend can do.

A backend knows no flows, no messages and no ledger: it is asked for a range of bytes, puts them into a sink
as they come, and says how it went. Those that can send take ranges to be written as well (`writing`), and
names to be changed at the other side (`remotecall`). It never blocks: `start` begins, `step` goes on with
what is ready, and the answers come out of `step`. The engine (`sarrapipe.transfer.engine`) decides what runs
when.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from sarrapipe.errors import SarrapipeError
from sarrapipe.transfer.credentials import Credentials
from sarrapipe.transfer.remotecall import CallDone, Operation, RemoteCall
from sarrapipe.transfer.writing import RangeWrite, WriteDone

__all__ = [
    "Capabilities",
    "Credentials",
    "Done",
    "RangeDone",
    "RangeRead",
    "RateLimiter",
    "Request",
    "Sink",
    "StagingSink",
    "TransferBackend",
    "failed",
    "staging",
]


class Sink(Protocol):
    """Where the bytes of one range go (`sarrapipe.segment.sink` has the implementations)."""

    @property
    def written(self) -> int:
        """Bytes taken so far."""

    def write(self, data: memoryview | bytes) -> None:
        """Take the next bytes; `data` is only valid during the call.

        Raises:
            StorageError: The local file system refused them.
            IdentityMismatch: There are more of them than the range holds.
        """

    def fileno(self) -> int:
        """The descriptor a backend may copy into directly, or -1 if every byte has to pass `write`."""

    def position(self) -> int:
        """Offset in that descriptor where the next byte belongs."""

    def advance(self, count: int) -> None:
        """Account for `count` bytes that were copied into the descriptor without `write`."""


class StagingSink(Sink, Protocol):
    """A sink that may be full for a while (`sarrapipe.segment.staged`).

    It gathers by itself, so pieces are best handed over as they come.
    """

    def room(self, count: int) -> bool:
        """Return whether `write` would take `count` bytes now; asked before each piece, of 256 KiB at most.

        Raises:
            StorageError: What came before could not be written.
        """

    def call_when_room(self, call: Callable[[], None]) -> None:
        """Call once, on this thread, when `room` should be asked again. The read may have ended by then."""


def staging(sink: Sink) -> StagingSink | None:
    """Return a sink as one that may be full for a while, if it is one."""
    return sink if hasattr(sink, "call_when_room") else None  # type: ignore[return-value]


@dataclass(slots=True, kw_only=True)
class RangeRead:
    """One range of bytes to be fetched; not changed after it was submitted.

    Not frozen, because creating a frozen record costs 1 µs more and there is one for every small file.
    """

    url: str
    """Where it is: scheme, host, and the path as announced."""
    sink: Sink
    token: object
    """Anything; handed back in `RangeDone`, and what `cancel` takes. Unique among those under way."""
    offset: int = 0
    """First byte of the range."""
    length: int | None = None
    """Bytes in the range; None is everything from `offset` on."""
    whole_size: int | None = None
    """Announced size of the whole file; an answer of another size is `SourceChanged`. None: not checked."""
    validator: str | None = None
    """A strong entity tag with its quotes, or an HTTP date: the version the bytes have to be of."""
    url_is_escaped: bool = False
    """The path is a URL reference (`retrievePath`), so `%`, `?` and `#` mean what they mean in a URL.
    Otherwise it is a file name, and they are characters of that name."""
    credentials: Credentials | None = None
    headers: Sequence[str] = ()
    """Further request header lines, `Name: value`."""
    rides_along: bool = False
    """Others that hold a stream wait for its bytes: it needs none, and does not wait behind them."""

    @property
    def whole(self) -> bool:
        """Whether all of the file is asked for, so that no range has to be requested."""
        return self.offset == 0 and (self.length is None or self.length == self.whole_size)


@dataclass(slots=True, kw_only=True)
class RangeDone:
    """How a range read ended."""

    read: RangeRead
    received: int
    """Bytes that reached the sink."""
    status: int
    """Status of the last response in the protocol's own numbers; 0 if there was none."""
    etag: str | None = None
    """Entity tag as the server wrote it."""
    last_modified: str | None = None
    """HTTP date as the server wrote it."""
    whole_size: int | None = None
    """Size of the whole file, where the server told it."""
    retry_after_s: float | None = None
    """How long the server asked to be left alone (429, 503)."""
    wait_s: float = 0.0
    """From the request to the first byte of the answer: a round trip and a little; 0 where not measured."""
    error: SarrapipeError | None = None
    """Of the source or of the sink if the range did not arrive whole; None if it did."""

    @property
    def token(self) -> object:
        """The token of the read."""
        return self.read.token

    @property
    def validator(self) -> str | None:
        """What pins this version in further reads: a strong entity tag (RFC 9110 8.8.3), else the date."""
        if self.etag is not None and self.etag.startswith('"'):
            return self.etag
        return self.last_modified


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a backend can do; asked once, when a read is planned."""

    ranges: bool
    """Any range can be asked for."""
    parallel: bool
    """Several ranges of one file at a time gain something."""
    validators: bool
    """`RangeRead.validator` is checked by the other side."""
    local: bool
    """The bytes are on this machine: no connection to wait for."""
    pauses: bool = False
    """A read is held up while its sink has no room (`StagingSink`)."""
    writes: bool = False
    """Whole files can be written (`RangeWrite`)."""
    positioned_writes: bool = False
    """Several ranges of one file can be written at a time, each at its place."""
    operations: frozenset[Operation] = frozenset()
    """What can be done to names (`RemoteCall`)."""


Request: TypeAlias = RangeRead | RangeWrite | RemoteCall
Done: TypeAlias = RangeDone | WriteDone | CallDone


def failed(request: Request, error: SarrapipeError) -> Done:
    """Return the end of a request of which nothing was done."""
    if isinstance(request, RangeWrite):
        return WriteDone(write=request, sent=0, error=error)
    if isinstance(request, RemoteCall):
        return CallDone(call=request, error=error)
    return RangeDone(read=request, received=0, status=0, error=error)


class RateLimiter(Protocol):
    """The byte rate all instances of a flow share (`sarrapipe.shm.limiter` keeps it in the arena)."""

    def take(self, amount: float, now_ns: int) -> float:
        """Account for bytes that were just received.

        Args:
            amount: Bytes.
            now_ns: Monotonic time, nanoseconds.

        Returns:
            Seconds to receive nothing more; 0 if the rate is not used up.
        """


class TransferBackend(Protocol):
    """One way of moving bytes. One instance serves all hosts; used from one thread.

    It is given nothing that its capabilities say it cannot do.
    """

    capabilities: Capabilities

    def start(self, request: Request) -> None:
        """Begin `request`. Never blocks and never raises: what goes wrong comes out of `step`."""

    def step(self) -> Sequence[Done]:
        """Do what can be done without waiting, at most a few milliseconds; return what ended."""

    def busy(self) -> bool:
        """Whether `step` has something to do now, without any descriptor becoming ready."""

    def go_on(self, token: object) -> None:
        """The source of a write has bytes again, or its end. Nothing happens if none has this token."""

    def cancel(self, token: object) -> bool:
        """Stop a request at once: nothing more reaches its sink, or is taken from its source.

        Returns:
            False if there is none with this token.
        """

    def close(self) -> None:
        """End everything under way and free what is held. May be repeated."""

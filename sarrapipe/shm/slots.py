"""One instance's part of the arena: who it is, whether it lives, and what it counted.

Every word is eight aligned bytes with one writer, so a store is whole for every reader and needs no lock: the
parent writes who occupies the slot and in which state; the instance writes its phase, heartbeat, counters and
note. An increment costs about 0.1 us.

    slot.add(Counter.MESSAGES_RECEIVED, 25)
    slot.set(Counter.INFLIGHT_BYTES, 1 << 20)
    slot.heartbeat(clock_ns)
"""

from __future__ import annotations

import enum
from typing import Final

from sarrapipe import errors

__all__ = [
    "COUNTER_WORDS",
    "MAXIMA",
    "RATED",
    "SLOT_SIZE",
    "Counter",
    "Phase",
    "Slot",
    "counter_for",
    "is_gauge",
]

SLOT_SIZE: Final = 2048
"""Bytes of a slot: 256 words."""

COUNTER_WORDS: Final = 112
"""Room for counters: a `Counter` is below this."""

_RATE_INTERVAL_NS: Final = 5_000_000_000  # rates are means over at least this long

# Words of a slot. P: written by the parent only; I: by the instance only.
_PID: Final = 0  # P
_START_TICKS: Final = 1  # P
_INCARNATION: Final = 2  # P
_ALIVE: Final = 3  # P: 1 from before the process exists until it was reaped
_NUMBER: Final = 4  # P
_STATE: Final = 5  # P: supervisor.states.State
_PHASE: Final = 6  # I
_HEARTBEAT: Final = 7  # I (and P before the process exists)
_STARTED_WALL: Final = 8  # P
_CPU: Final = 9  # P: CPU number + 1, 0 when not pinned
_GENERATION: Final = 10  # P: of the configuration
_FAILURES: Final = 11  # P: deaths in a row
_RATES_AT: Final = 13  # I: monotonic ns of the last rate calculation
_COUNTERS: Final = 16
_RATES: Final = 128  # micro-units per second
_SNAPSHOT: Final = 144  # values when the rates were calculated last
_MAX_RATES: Final = 16
_NOTE: Final = 1280  # byte offset: two bytes length, then UTF-8
_NOTE_BYTES: Final = 510


class Phase(enum.IntEnum):
    """What an instance says it is doing."""

    STARTING = 0
    CONNECTING = 1
    """Broker or file system is not there yet, or away again."""
    RUNNING = 2
    PAUSED = 3
    """Takes no work until something comes back: disk space, vip, Hold. The note says what."""
    STOPPING = 4


class Counter(enum.IntEnum):
    """Everything that is counted, once: the name is that of `status --json`, the order is the layout.

    New ones go at the end. Names that start with `GAUGE_` are values of now, `MAX_` are maxima; all others
    only grow. Times are nanoseconds.
    """

    MESSAGES_RECEIVED = 0
    MESSAGE_BYTES_RECEIVED = 1
    MESSAGES_ACCEPTED = 2
    MESSAGES_REJECTED = 3  # by masks, filters or rules
    MESSAGES_FAILED = 4  # a try that did not succeed and will be repeated
    MESSAGES_MALFORMED = 5
    MESSAGES_DUPLICATE = 6  # 304
    MESSAGES_OVERTAKEN = 7  # 406: a newer state of the path is there
    MESSAGES_PUBLISHED = 8  # confirmed by the broker
    MESSAGES_UNCONFIRMED = 10  # nacked, or the channel closed before the confirm
    MESSAGES_ACKNOWLEDGED = 11
    MESSAGES_REQUEUED = 12
    MESSAGES_RETRIED = 13
    MESSAGES_EXPIRED = 14  # given up after attempts or TTL
    MESSAGES_KEPT = 15  # written to the kept store
    FILES_OK = 16
    FILES_RESUMED = 17
    FILES_DISCARDED = 18  # fetched whole and superseded before the rename
    FILES_REMOVED = 19
    FILES_RENAMED = 20
    FILES_LINKED = 21
    DIRECTORIES_OK = 22
    BYTES_RECEIVED = 23
    BYTES_SENT = 24
    BYTES_VERIFIED = 25
    SEGMENTS_OK = 26
    SEGMENTS_HELPED = 27  # of files that another instance admitted
    SEGMENTS_RETRIED = 28
    FILES_VERIFIED = 29  # the announced identity matched
    FILES_UNVERIFIED = 30  # nothing announced to check against, or validation relaxed
    BROKER_CONNECTS = 31
    BROKER_BLOCKED = 32
    LAG_SUM = 34  # publication to delivery, of the last item of each batch
    BUSY_TIME = 35  # main loop not waiting
    BLOCKS_UNCONFIRMED = 36  # whose announced digest was another, and is not believed (no blocks.id)
    FILES_ASSEMBLED = 37  # from announced blocks
    BYTES_STAGED = 38  # that reached their file through slots of shared memory
    ERRORS_CONFIG = 40
    ERRORS_BROKER = 41
    ERRORS_TOPOLOGY = 42
    ERRORS_TRANSFER = 43
    ERRORS_ACCESS = 44
    ERRORS_GONE = 45
    ERRORS_CHANGED = 46
    ERRORS_RANGE = 47
    ERRORS_IDENTITY = 48
    ERRORS_STORAGE = 49
    ERRORS_NO_SPACE = 50
    ERRORS_TOO_LARGE = 51
    ERRORS_UNSAFE_PATH = 52
    ERRORS_LEDGER = 53
    ERRORS_CALLBACK = 54
    ERRORS_OTHER = 55
    BLOCKS_KEPT = 60  # that the file in place had already: copied here, not fetched
    BYTES_KEPT = 61  # of them
    SEGMENTS_HEDGED = 62  # fetched a second time because the first took several times as long as others
    SOURCES_DROPPED = 63  # left out of a file that another source serves too: failing, or another version
    GAUGE_LAG = 64  # of the last message
    GAUGE_INFLIGHT_MESSAGES = 65
    GAUGE_INFLIGHT_BYTES = 66
    GAUGE_STREAMS = 67
    GAUGE_RETRY_WAITING = 68
    GAUGE_LAST_MESSAGE = 70  # wall clock
    GAUGE_LAST_TRANSFER = 71  # wall clock
    GAUGE_BROKERS_CONNECTED = 72
    GAUGE_BROKERS_WANTED = 73
    MAX_LAG = 80
    MAX_RSS_BYTES = 81


RATED: Final = (
    Counter.MESSAGES_RECEIVED,
    Counter.MESSAGE_BYTES_RECEIVED,
    Counter.MESSAGES_ACCEPTED,
    Counter.MESSAGES_REJECTED,
    Counter.MESSAGES_FAILED,
    Counter.MESSAGES_PUBLISHED,
    Counter.FILES_OK,
    Counter.BYTES_RECEIVED,
    Counter.BYTES_SENT,
    Counter.BUSY_TIME,
)
"""Counters whose rate the slot shows."""

_BY_ERROR: Final[dict[type, Counter]] = {
    errors.ConfigError: Counter.ERRORS_CONFIG,
    errors.UsageError: Counter.ERRORS_CONFIG,
    errors.MessageError: Counter.MESSAGES_MALFORMED,
    errors.TopologyError: Counter.ERRORS_TOPOLOGY,
    errors.BrokerError: Counter.ERRORS_BROKER,
    errors.AccessDenied: Counter.ERRORS_ACCESS,
    errors.SourceGone: Counter.ERRORS_GONE,
    errors.SourceChanged: Counter.ERRORS_CHANGED,
    errors.RangeNotHonoured: Counter.ERRORS_RANGE,
    errors.IdentityMismatch: Counter.ERRORS_IDENTITY,
    errors.TooLargeThere: Counter.ERRORS_TOO_LARGE,
    errors.NoSpaceThere: Counter.ERRORS_NO_SPACE,
    errors.TransferError: Counter.ERRORS_TRANSFER,
    errors.NoSpace: Counter.ERRORS_NO_SPACE,
    errors.TooLarge: Counter.ERRORS_TOO_LARGE,
    errors.StorageError: Counter.ERRORS_STORAGE,
    errors.UnsafePath: Counter.ERRORS_UNSAFE_PATH,
    errors.LedgerError: Counter.ERRORS_LEDGER,
    errors.CallbackError: Counter.ERRORS_CALLBACK,
}


def counter_for(error: BaseException) -> Counter:
    """Return the counter of an error's kind: that of its class or of the nearest base that has one."""
    for kind in type(error).__mro__:
        if kind in _BY_ERROR:
            return _BY_ERROR[kind]
    return Counter.ERRORS_OTHER


def is_gauge(counter: Counter) -> bool:
    """Return whether a counter is a value of now, which ends with its process."""
    return counter.name.startswith("GAUGE_")


MAXIMA: Final = frozenset(counter for counter in Counter if counter.name.startswith("MAX_"))
"""Counters that are maxima: over several instances the largest counts, not the sum."""


class Slot:
    """A view of one slot; writes go straight to shared memory.

    Args:
        index: Position in the arena, from 0.
        data: The `SLOT_SIZE` bytes of the slot; read-only for a reader of a snapshot.
    """

    __slots__ = ("_bytes", "_words", "index")

    def __init__(self, index: int, data: memoryview) -> None:
        self.index = index
        self._bytes = data
        self._words = data.cast("Q")

    def release(self) -> None:
        """Let go of the memory; the slot is of no use afterwards."""
        self._words.release()
        self._bytes.release()

    # ---- written by the instance

    def heartbeat(self, now_ns: int) -> None:
        """Say "my main loop turns", and calculate the rates when their interval is over.

        Args:
            now_ns: `time.monotonic_ns()`, the same clock in all processes of a host.
        """
        words = self._words
        words[_HEARTBEAT] = now_ns
        if now_ns - words[_RATES_AT] >= _RATE_INTERVAL_NS:
            self._calculate_rates(now_ns)

    def add(self, counter: int, amount: int = 1) -> None:
        """Add to a counter that grows."""
        self._words[_COUNTERS + counter] += amount

    def set(self, counter: int, value: int) -> None:
        """Set a gauge."""
        self._words[_COUNTERS + counter] = value

    def raise_to(self, counter: int, value: int) -> None:
        """Raise a maximum."""
        if value > self._words[_COUNTERS + counter]:
            self._words[_COUNTERS + counter] = value

    def count_error(self, error: BaseException) -> None:
        """Count an error under its kind."""
        self.add(counter_for(error))

    def set_phase(self, phase: Phase, note: str = "") -> None:
        """Say what this instance is doing.

        Args:
            phase: What it is.
            note: Shown by `status`, such as what it waits for; cut at 510 bytes.
        """
        self._words[_PHASE] = phase
        self.set_note(note)

    def set_note(self, note: str) -> None:
        """Replace the sentence that `status` shows for this instance."""
        data = note.encode("utf-8", "replace")[:_NOTE_BYTES]
        self._bytes[_NOTE + 2 : _NOTE + 2 + len(data)] = data
        self._bytes[_NOTE : _NOTE + 2] = len(data).to_bytes(2, "little")

    # ---- written by the parent

    def occupy(
        self,
        *,
        number: int,
        incarnation: int,
        generation: int,
        failures: int,
        cpu: int | None,
        now_ns: int,
        wall_ns: int,
    ) -> None:
        """Clear the slot and give it to an instance that is about to be started.

        From here on the incarnation counts as alive, since the process may exist at any time now.
        """
        words = self._words
        self._bytes[:] = bytes(SLOT_SIZE)
        words[_NUMBER] = number
        words[_INCARNATION] = incarnation
        words[_GENERATION] = generation
        words[_FAILURES] = failures
        words[_CPU] = 0 if cpu is None else cpu + 1
        words[_HEARTBEAT] = now_ns
        words[_RATES_AT] = now_ns
        words[_STARTED_WALL] = wall_ns
        words[_ALIVE] = 1

    def set_process(self, pid: int, started_ticks: int) -> None:
        """Record the process once it exists."""
        self._words[_START_TICKS] = started_ticks
        self._words[_PID] = pid

    def set_state(self, state: int) -> None:
        """Record the supervisor's state of this instance."""
        self._words[_STATE] = state

    def vacate(self) -> None:
        """Record that the process was reaped, or never came to be: its incarnation is dead."""
        self._words[_PID] = 0
        self._words[_ALIVE] = 0

    # ---- read by anyone

    @property
    def pid(self) -> int:
        """Process id, 0 when there is none."""
        return self._words[_PID]

    @property
    def started_ticks(self) -> int:
        """Start time of the process, as `host.start_ticks` gives it."""
        return self._words[_START_TICKS]

    @property
    def incarnation(self) -> int:
        """The number of this start, never used twice in a flow's state directory."""
        return self._words[_INCARNATION]

    @property
    def alive(self) -> bool:
        """Whether the process may still run: False only once the parent has reaped it."""
        return self._words[_ALIVE] == 1

    @property
    def number(self) -> int:
        """Instance number, from 1; 0 when the slot was never used."""
        return self._words[_NUMBER]

    @property
    def state(self) -> int:
        """The supervisor's state, a `supervisor.states.State`."""
        return self._words[_STATE]

    @property
    def phase(self) -> Phase:
        """What the instance says it does."""
        value = self._words[_PHASE]
        return Phase(value) if value <= Phase.STOPPING else Phase.STARTING

    @property
    def heartbeat_ns(self) -> int:
        """Monotonic time of the last heartbeat."""
        return self._words[_HEARTBEAT]

    @property
    def started_wall_ns(self) -> int:
        """Wall clock of the start."""
        return self._words[_STARTED_WALL]

    @property
    def cpu(self) -> int | None:
        """The CPU this instance is pinned to."""
        value = self._words[_CPU]
        return value - 1 if value else None

    @property
    def generation(self) -> int:
        """Which reading of the configuration this instance runs with, from 1."""
        return self._words[_GENERATION]

    @property
    def failures(self) -> int:
        """Deaths in a row before this start."""
        return self._words[_FAILURES]

    @property
    def note(self) -> str:
        """The sentence for `status`."""
        length = min(int.from_bytes(self._bytes[_NOTE : _NOTE + 2], "little"), _NOTE_BYTES)
        return bytes(self._bytes[_NOTE + 2 : _NOTE + 2 + length]).decode("utf-8", "replace")

    def get(self, counter: int) -> int:
        """Return one counter."""
        return self._words[_COUNTERS + counter]

    def counters(self) -> list[int]:
        """Return all counters, by value of `Counter`."""
        return self._words[_COUNTERS : _COUNTERS + COUNTER_WORDS].tolist()

    def rate(self, counter: Counter, now_ns: int) -> float:
        """Return a rate per second over the last 5 s or more; 0 once the instance has fallen silent.

        Args:
            counter: One of `RATED`.
            now_ns: `time.monotonic_ns()`.
        """
        if now_ns - self._words[_RATES_AT] > 12 * _RATE_INTERVAL_NS:
            return 0.0
        return self._words[_RATES + RATED.index(counter)] / 1e6

    def _calculate_rates(self, now_ns: int) -> None:
        words = self._words
        seconds = (now_ns - words[_RATES_AT]) / 1e9
        for position, counter in enumerate(RATED):
            value = words[_COUNTERS + counter]
            words[_RATES + position] = int((value - words[_SNAPSHOT + position]) * 1e6 / seconds)
            words[_SNAPSHOT + position] = value
        words[_RATES_AT] = now_ns


assert max(Counter) < COUNTER_WORDS  # the layout has room for every counter
assert len(RATED) <= _MAX_RATES

"""One SFTP connection: requests go out ahead of their answers, and answers find who asked.

The link knows no files. It speaks the protocol over two descriptors, whatever is behind them (an `ssh`
process or paramiko's threads), and keeps a window of asked-for bytes full: who came first asks first, to its
end. In turns, segments that began together would end together, and nothing would be asked for until the next
ones were claimed. It never blocks.

    link = SftpLink(loop, pipe, settings, pacer, clock, on_ready=begin, on_end=lost).open()
    link.request(sftpwire.OPEN, body, answered)     # answered(kind, body) is called from CurlLoop.run_once
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from sarrapipe.clock import Clock
from sarrapipe.errors import TransferError
from sarrapipe.transfer import sftpwire
from sarrapipe.transfer.curlloop import CurlLoop
from sarrapipe.transfer.pacing import Pacer
from sarrapipe.transfer.settings import SftpSettings

__all__ = ["Answered", "Asker", "NotTakenIn", "SftpLink", "SftpPipe"]

_FIRST_READ_BYTES: Final = 32_768
"""Every server answers a request of this size whole (draft-ietf-secsh-filexfer-02, section 3)."""
_WINDOW_BYTES: Final = 4 << 20
"""Asked for and not received, or written and not answered, a connection; twice the window of OpenSSH's own
channel, so that the server always has the next requests at hand."""
_BUFFER_BYTES: Final = 1 << 20
"""Read at once: what the pipe from `ssh` holds. Allocated while something is under way."""
_LOOKS: Final = 4
"""How often it is looked for a stall within the time that makes one."""

Answered = Callable[[int, memoryview], None]
"""Gets type and body of the answer; the body begins after the request's number, and is valid in the call."""


class NotTakenIn(TransferError):
    """The server closed before it said who it is: it has too many that log in at the moment."""


class SftpPipe(Protocol):
    """The way to an SFTP server: two descriptors, opened without waiting for the connection."""

    reader: int
    writer: int

    def established(self) -> None:
        """The server has answered: secrets for logging in are not needed any more."""

    def problem(self) -> TransferError:
        """Say why the other end closed; asked once, after `reader` came to its end."""

    def close(self) -> None:
        """End the connection without waiting. May be repeated."""

    def gone(self) -> bool:
        """Whether everything that `close` ended is gone; asked now and then until it is."""

    def wait(self) -> None:
        """Wait, not for long, until it is gone; for the end of the flow."""


class Asker(Protocol):
    """Whoever has ranges to ask for, or to write."""

    def ask(self) -> bool:
        """Send one request; return whether there is more to ask for."""


class SftpLink:
    """One connection.

    Args:
        loop: Watches the descriptors.
        pipe: The way to the server; closed with the link.
        settings: Time limits.
        pacer: Holds up the server when the flow's byte rate is used up; None if there is no limit.
        clock: Monotonic time.
        on_ready: Told once when the server has greeted and answered a first request; what is to be asked for
            has to wait for it.
        on_end: Told once when the connection is lost, with the reason; not after `close`.
    """

    def __init__(
        self,
        loop: CurlLoop,
        pipe: SftpPipe,
        settings: SftpSettings,
        pacer: Pacer | None,
        clock: Clock,
        *,
        on_ready: Callable[[], None],
        on_end: Callable[[TransferError], None],
    ) -> None:
        self._loop = loop
        self.pipe = pipe
        self._settings = settings
        self._pacer = pacer
        self._clock = clock
        self._on_ready = on_ready
        self._on_end = on_end
        self._answers: dict[int, tuple[Answered, int]] = {}
        self._askers: deque[Asker] = deque()
        self._number = 0
        self._out = bytearray()
        self._buffer: memoryview | None = None
        self._from = self._to = 0
        self._wants_to_write = False
        self._held = False
        self._looking = False
        self._interval_s = min(settings.stall_s, settings.connect_timeout_s) / _LOOKS
        self._mark_s = 0.0
        self._mark_bytes = 0
        self._answered = False
        self._received = 0
        self._outstanding = 0
        self.read_bytes = _FIRST_READ_BYTES
        """What to ask for in one request."""
        self.write_bytes = _FIRST_READ_BYTES
        """What to write in one request."""
        self.extensions: frozenset[bytes] = frozenset()
        """What the server offers beyond the protocol."""
        self.round_trip_s = 0.0
        """How long the server took to answer its first request."""
        self._asked_s = 0.0
        self.ready = False
        """The server speaks SFTP."""
        self.closed = False
        self.used_s = clock.monotonic_s()
        """When something was under way last."""

    def open(self) -> SftpLink:
        """Greet the server and watch for its answers."""
        os.set_blocking(self.pipe.reader, False)
        os.set_blocking(self.pipe.writer, False)
        self._loop.watch(self.pipe.reader, self._on_readable)
        body = sftpwire.SFTP_VERSION.to_bytes(4)
        self._out += (len(body) + 1).to_bytes(4) + bytes([sftpwire.INIT]) + body
        self._flush()
        self._look_later()
        return self

    def close(self) -> None:
        """End the connection; nobody is told. May be repeated."""
        if self.closed:
            return
        self.closed = True
        self._loop.unwatch(self.pipe.reader)
        if self._wants_to_write:
            self._loop.unwatch(self.pipe.writer)
        self.pipe.close()
        self._answers.clear()
        self._askers.clear()
        self._buffer = None

    # ---- what is asked

    def request(self, kind: int, body: bytes, answered: Answered) -> None:
        """Send a request; not before the server has greeted. `go_on` has to follow."""
        self._number = (self._number + 1) & 0xFFFFFFFF
        self._answers[self._number] = (answered, 0)
        self._out += sftpwire.packet(kind, self._number, body)

    def read(self, handle: bytes, offset: int, count: int, answered: Answered) -> None:
        """Ask for a range of an open file; `handle` is a `sftpwire.string`."""
        self._number = (self._number + 1) & 0xFFFFFFFF
        self._answers[self._number] = (answered, count)
        self._outstanding += count
        self._out += sftpwire.read_request(self._number, handle, offset, count)

    def write(self, handle: bytes, offset: int, data: memoryview, answered: Answered) -> None:
        """Write `data`, which is copied, to an open file; `handle` is a `sftpwire.string`."""
        self._number = (self._number + 1) & 0xFFFFFFFF
        count = len(data)
        self._answers[self._number] = (answered, count)
        self._outstanding += count
        for part in sftpwire.write_request(self._number, handle, offset, data):
            self._out += part

    def add(self, asker: Asker, *, first: bool = False) -> None:
        """Let somebody ask for ranges whenever the window has room: after the others, or before them."""
        if first:
            self._askers.appendleft(asker)
        else:
            self._askers.append(asker)

    def remove(self, asker: Asker) -> None:
        """Ask no more for somebody; what is on the way is still answered."""
        if asker in self._askers:
            self._askers.remove(asker)

    def go_on(self) -> None:
        """Fill the window and send what is to be sent."""
        if self.closed:
            return
        while self._askers and self._outstanding < _WINDOW_BYTES and self.ready:
            asker = self._askers.popleft()
            if asker.ask():
                self._askers.appendleft(asker)
        self._look_later()
        if self.ready and self._out and not self._wants_to_write:
            self._flush()

    def took(self, count: int) -> None:
        """Account for bytes that reached a sink, or the server."""
        if self._pacer is not None:
            wait_s = self._pacer.spend(count)
            if wait_s > 0:
                self._hold(wait_s)

    # ---- what comes back

    def _on_readable(self) -> None:
        if self._buffer is None:
            self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        try:
            count = os.readv(self.pipe.reader, [self._buffer[self._to :]])
        except BlockingIOError:
            return
        except OSError:
            count = 0  # the other end of a socket was reset
        if not count:
            self._lose(self.pipe.problem())
            return
        self._to += count
        self._received += count
        try:
            self._take_packets(self._buffer)
        except TransferError as error:
            self._lose(error)
            return
        self.go_on()
        if not self.closed and not self._answers and self._from == self._to:
            self._buffer = None
            self._from = self._to = 0
            self.used_s = self._clock.monotonic_s()

    def _take_packets(self, buffer: memoryview) -> None:
        """Hand over every packet that is there whole."""
        start, end = self._from, self._to
        while end - start >= sftpwire.HEADER_BYTES:
            size = int.from_bytes(buffer[start : start + 4])
            if not 0 < size <= sftpwire.MAX_PACKET_BYTES:
                raise _not_sftp(bytes(buffer[start : min(start + 60, end)]))
            if end - start < 4 + size:
                break
            self._take(buffer[start + 4], buffer[start + 5 : start + 4 + size])
            if self.closed:
                return
            start += 4 + size
        if start == end:
            start = end = 0
        elif start and len(buffer) - end < sftpwire.MAX_PACKET_BYTES + 4:
            # Moved down by hand: the rest of a packet has to fit behind its beginning.
            rest = bytes(buffer[start:end])
            buffer[: len(rest)] = rest
            start, end = 0, len(rest)
        self._from, self._to = start, end

    def _take(self, kind: int, body: memoryview) -> None:
        if not self.ready:
            self._greeted(kind, body)
            return
        number = int.from_bytes(body[:4])
        entry = self._answers.pop(number, None)
        if entry is None or len(body) < 4:
            raise TransferError("SFTP server answered what nobody asked")
        answered, count = entry
        self._answered = True
        self._outstanding -= count
        answered(kind, body[4:])

    def _greeted(self, kind: int, body: memoryview) -> None:
        if kind != sftpwire.VERSION or len(body) < 4:
            raise _not_sftp(bytes([kind]) + bytes(body[:60]))
        self.ready = True
        self.pipe.established()
        self.extensions = frozenset(sftpwire.extensions(body))
        if sftpwire.LIMITS in self.extensions:
            self.request(sftpwire.EXTENDED, sftpwire.string(sftpwire.LIMITS), self._limited)
        else:
            self.request(sftpwire.REALPATH, sftpwire.string(b"."), self._limited)  # for the time it takes
        self._asked_s = self._clock.monotonic_s()

    def _limited(self, kind: int, body: memoryview) -> None:
        found = sftpwire.limits(body) if kind == sftpwire.EXTENDED_REPLY else None
        if found is not None:
            largest = sftpwire.MAX_PACKET_BYTES - 1024  # OpenSSH's own; room for what is around the data
            self.read_bytes = max(min(found.read_bytes, largest), _FIRST_READ_BYTES)
            self.write_bytes = max(min(found.write_bytes, largest), _FIRST_READ_BYTES)
        self.round_trip_s = self._clock.monotonic_s() - self._asked_s
        self._on_ready()

    # ---- the descriptors

    def _flush(self) -> None:
        """Write what the pipe takes; watch it for the rest."""
        try:
            while self._out:
                del self._out[: os.write(self.pipe.writer, self._out)]
        except BlockingIOError:
            if not self._wants_to_write:
                self._wants_to_write = True
                self._loop.watch(self.pipe.writer, self._on_writable, writing=True)
            return
        except OSError:
            self._out.clear()  # closed at the other end: reading finds out why
        if self._wants_to_write:
            self._wants_to_write = False
            self._loop.unwatch(self.pipe.writer)

    def _on_writable(self) -> None:
        self._flush()

    def _hold(self, wait_s: float) -> None:
        """Read nothing for a while: pipe, channel and socket fill up, and the server waits."""
        if self._held or self.closed:
            return
        self._held = True
        self._loop.unwatch(self.pipe.reader)
        self._loop.call_later(wait_s, self._release)

    def _release(self) -> None:
        self._held = False
        if not self.closed:
            self._loop.watch(self.pipe.reader, self._on_readable)

    def _lose(self, error: TransferError) -> None:
        if not self.closed:
            self.close()
            self._on_end(error)

    # ---- stalls

    def _look_later(self) -> None:
        """While something is awaited, look now and then whether it comes."""
        if self._looking or self.closed or not self._awaits():
            return
        self._looking = True
        self._mark()
        self._loop.call_later(self._interval_s, self._look)

    def _awaits(self) -> bool:
        return bool(self._answers) or not self.ready

    def _patience_s(self) -> float:
        return self._settings.stall_s if self.ready else self._settings.connect_timeout_s

    def _look(self) -> None:
        self._looking = False
        if self.closed or not self._awaits():
            return
        waited_s = self._clock.monotonic_s() - self._mark_s
        patience_s = self._patience_s()
        enough = self._received - self._mark_bytes >= self._settings.stall_bytes_s * waited_s
        if self._answered or enough or self._held:
            self._mark()
        elif waited_s >= patience_s:
            self._lose(TransferError(f"the SFTP server stalled: no answer within {patience_s:g} s"))
            return
        self._looking = True
        self._loop.call_later(self._interval_s, self._look)

    def _mark(self) -> None:
        self._mark_s = self._clock.monotonic_s()
        self._mark_bytes = self._received
        self._answered = False


def _not_sftp(found: bytes) -> TransferError:
    """Often a login script of that account prints something."""
    return TransferError(f"the server does not speak SFTP: {found!r}")

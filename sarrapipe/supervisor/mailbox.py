"""What an instance hears: signals from people, frames from its parent, and the parent's end.

All of it makes one descriptor readable, so an instance that waits for sockets waits for this one as well and
needs no timer to notice a stop:

    while not mailbox.stopping:
        wait_for(sockets, mailbox.fileno())
        news = mailbox.read()
        if news.deaths:
            recover(dead for dead in mine if dead not in arena.alive())

Frames are 16 bytes, two words: kind and value. Losing one is harmless, since the arena holds the truth; they
only say "look now".
"""

from __future__ import annotations

import contextlib
import enum
import selectors
import signal
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Final

from sarrapipe.clock import SYSTEM_CLOCK, Clock

__all__ = ["Frame", "FrameReader", "Mailbox", "News", "receive_frame", "send_frame"]

_FRAME: Final = struct.Struct("<QQ")


class Frame(enum.IntEnum):
    """Kinds of frame between parent and instance; the value's meaning in parentheses."""

    GO = 1
    """Parent to instance: you are known, begin (instance's pid as the parent knows it)."""
    STOP = 2
    """Parent to instance: finish what is under way and end (milliseconds you have; 0 for no limit)."""
    DEATHS = 3
    """Parent to instance: an incarnation died (which)."""
    WORK = 4
    """Either way: somebody has segments to share; the parent passes it on to all others (0)."""
    READY = 5
    """Instance to parent: I am consuming (0)."""


@dataclass(frozen=True, slots=True)
class News:
    """What came in since the last `read`."""

    stop: bool = False
    deaths: bool = False
    work: bool = False


def send_frame(channel: socket.socket, kind: Frame, value: int = 0) -> bool:
    """Send one frame without ever waiting; False if the other end is gone or too far behind."""
    try:
        return channel.send(_FRAME.pack(kind, value), socket.MSG_DONTWAIT) == _FRAME.size
    except OSError:
        return False


def receive_frame(channel: socket.socket) -> int:
    """Wait for one frame and return its kind; 0 if the other end is gone."""
    data = b""
    while len(data) < _FRAME.size:
        try:
            more = channel.recv(_FRAME.size - len(data))
        except OSError:
            more = b""
        if not more:
            return 0
        data += more
    kind: int = _FRAME.unpack(data)[0]
    return kind


class FrameReader:
    """Cuts what a channel delivers into frames."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._rest = b""
        self.ended = False
        """Whether the other end is gone."""

    def read(self) -> list[tuple[int, int]]:
        """Return the (kind, value) pairs that are there, without waiting."""
        try:
            data = self._channel.recv(4096, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        self.ended = not data
        data = self._rest + data
        whole = len(data) - len(data) % _FRAME.size
        self._rest = data[whole:]
        return [(kind, value) for kind, value in _FRAME.iter_unpack(data[:whole])]


class Mailbox:
    """Signals and frames of one instance, as one readable descriptor.

    Args:
        channel: The instance's end of the pair shared with its parent; None when it runs without one.
        reopen_logs: Called from `read` after SIGUSR1.
        clock: For the stop deadline.
    """

    def __init__(
        self,
        channel: socket.socket | None,
        reopen_logs: Callable[[], None],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._channel = channel
        self._frames = FrameReader(channel) if channel is not None else None
        self._reopen_logs = reopen_logs
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._wakeup: tuple[socket.socket, socket.socket] | None = None
        self._signals: list[int] = []
        self.stopping = False
        """Whether to finish and end: SIGTERM, SIGINT, the parent's word, or the parent's end."""
        self.asked = False
        """Whether the stop came from the parent or its end, rather than from somebody's signal."""
        self.stop_by_s: float | None = None
        """Monotonic time by which to have ended; None for no limit."""

    def open(self) -> None:
        """Take over the process's signals; main thread only."""
        reader, writer = self._wakeup = socket.socketpair()
        reader.settimeout(0)
        writer.settimeout(0)
        self._selector.register(reader, selectors.EVENT_READ)
        if self._channel is not None:
            self._selector.register(self._channel, selectors.EVENT_READ)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, self._on_signal)

    def close(self) -> None:
        """Give the signals back to the system."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        self._selector.close()
        for end in self._wakeup or ():
            end.close()

    def fileno(self) -> int:
        """The descriptor that is readable when there is news (an epoll or kqueue: any poll takes it)."""
        return self._selector.fileno()

    def wait(self, timeout_s: float | None) -> News:
        """Wait for news at most so long, and read it; for instances with nothing else to wait for."""
        if not self._signals:
            self._selector.select(timeout_s)
        return self.read()

    def read(self) -> News:
        """Take in everything that has arrived; never waits.

        Returns:
            What is new. `stopping` and `stop_by_s` are up to date afterwards.
        """
        was_stopping = self.stopping
        self._read_signals()
        kinds = self._read_channel()
        return News(
            stop=self.stopping and not was_stopping,
            deaths=Frame.DEATHS in kinds,
            work=Frame.WORK in kinds,
        )

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)  # nothing else: a handler may run between any two instructions

    def _read_signals(self) -> None:
        if self._wakeup is not None:
            with contextlib.suppress(BlockingIOError):
                self._wakeup[0].recv(4096)
        while self._signals:
            if self._signals.pop() == signal.SIGUSR1:
                self._reopen_logs()
            else:
                self.stopping = True

    def _read_channel(self) -> set[int]:
        kinds: set[int] = set()
        if self._frames is None or self._frames.ended:
            return kinds
        for kind, value in self._frames.read():
            kinds.add(kind)
            if kind == Frame.STOP:
                self.stopping = self.asked = True
                self.stop_by_s = self._clock.monotonic_s() + value / 1000 if value else None
        if self._frames.ended:
            # Where the system cannot kill us with our parent (R30), we end by ourselves.
            self.stopping = self.asked = True
            assert self._channel is not None
            self._selector.unregister(self._channel)
        return kinds

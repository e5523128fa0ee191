"""pika's event loop on a thread of its own, and the two ways across: `post` in, `notify` out.

Messages do not cross one by one. Main thread to loop: work is put where the loop finds it and one wake-up
is sent for all that was posted since. Loop to main thread: results are put in a deque and a descriptor
becomes readable, written once however many results follow until the main thread clears it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable

from pika.adapters.select_connection import IOLoop

from sarrapipe.errors import BrokerError
from sarrapipe.log import get_logger

__all__ = ["Loop", "Wakeup"]

_log = get_logger(__name__)


class Wakeup:
    """A descriptor that is readable from `set` to `clear`: an eventfd, or a pipe where there is none."""

    def __init__(self) -> None:
        self._signalled = False
        self._read_fd = self._write_fd = -1

    def open(self) -> None:
        """Make the descriptor, which is not inherited by children."""
        try:
            self._read_fd = self._write_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except AttributeError:  # no eventfd on this system
            self._read_fd, self._write_fd = os.pipe()
            os.set_blocking(self._read_fd, False)
            os.set_blocking(self._write_fd, False)

    def fileno(self) -> int:
        """The descriptor to poll for reading."""
        return self._read_fd

    def set(self) -> None:
        """Make it readable. One system call until the next `clear`, however often it is called."""
        if not self._signalled:
            self._signalled = True
            with contextlib.suppress(BlockingIOError, OSError):  # full means readable; closed: nobody waits
                os.write(self._write_fd, b"\x01\0\0\0\0\0\0\0")

    def clear(self) -> None:
        """Make it unreadable. Look for results after this, never before, and none is missed."""
        if self._signalled:
            with contextlib.suppress(BlockingIOError):
                os.read(self._read_fd, 4096)
            self._signalled = False

    def close(self) -> None:
        """Give the descriptor back."""
        for descriptor in {self._read_fd, self._write_fd} - {-1}:
            os.close(descriptor)
        self._read_fd = self._write_fd = -1


class Loop:
    """One pika IOLoop and its thread. Start it after a fork, never before."""

    def __init__(self) -> None:
        self.wakeup = Wakeup()
        self.failure: BaseException | None = None
        """What ended the thread, if not `stop`."""
        self._ioloop: IOLoop = None
        self._thread: threading.Thread | None = None
        self._posted: deque[Callable[[], None]] = deque()
        self._scheduled = False

    @property
    def native(self) -> IOLoop:
        """The IOLoop, for the connections that live on it."""
        return self._ioloop

    def start(self) -> None:
        """Make the wake-up descriptor and start the thread."""
        self.wakeup.open()
        self._ioloop = IOLoop()
        # A daemon: an instance that ends without close() must not hang on its broker.
        self._thread = threading.Thread(target=self._run, name="broker", daemon=True)
        self._thread.start()

    def post(self, work: Callable[[], None]) -> None:
        """Run `work` on the loop's thread, in the order of posting. Any thread may call."""
        self._posted.append(work)
        if not self._scheduled:
            self._scheduled = True
            self._ioloop.add_callback_threadsafe(self._drain)

    def call_later(self, delay_s: float, work: Callable[[], None]) -> object:
        """Run `work` on the loop's thread in `delay_s` seconds; call from that thread only."""
        return self._ioloop.call_later(delay_s, work)

    def cancel(self, timer: object) -> None:
        """Take back what `call_later` was asked for."""
        self._ioloop.remove_timeout(timer)

    def notify(self) -> None:
        """Tell the main thread that there are results."""
        self.wakeup.set()

    def stop(self) -> None:
        """Leave the loop; call from its thread."""
        self._ioloop.stop()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread; return whether it ended. Frees the loop if so."""
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        self._ioloop.close()
        self.wakeup.close()
        self._thread = None
        return True

    def check(self) -> None:
        """Raise if the thread has died of an error.

        Raises:
            BrokerError: With what ended it as the cause.
        """
        if self.failure is not None:
            raise BrokerError(f"the broker thread ended: {self.failure!r}") from self.failure

    def _drain(self) -> None:
        # The flag is lowered first: what is posted from here on schedules a new call.
        self._scheduled = False
        posted = self._posted
        while posted:
            posted.popleft()()

    def _run(self) -> None:
        try:
            self._ioloop.start()
        except Exception as error:  # noqa: BLE001  # top of a thread: the main thread must learn of it
            self.failure = error
            _log.critical("the broker thread ended, the instance cannot go on", exc_info=error)
            self.wakeup.set()

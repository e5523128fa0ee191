"""How long to wait on the loop: for something that has to happen, and for bytes that have to flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sarrapipe.clock import Clock
from sarrapipe.transfer.curlloop import CurlLoop

__all__ = ["FlowWatch", "Patience"]

_LOOKS: Final = 4
"""How often it is looked for a stall within the time that makes one."""


class Patience:
    """Calls when it has come to its end; a new term takes the place of the one before.

    A term that is met costs no timer: one look is under way at a time, and begins the next.

    Args:
        loop: Calls.
        clock: Monotonic time.
        call: Told at the end of a term.
    """

    def __init__(self, loop: CurlLoop, clock: Clock, call: Callable[[], None]) -> None:
        self._loop = loop
        self._clock = clock
        self._call = call
        self._until_s: float | None = None
        self._look_s: float | None = None

    def begin(self, seconds: float) -> None:
        """Call in so many seconds from now."""
        now = self._clock.monotonic_s()
        self._until_s = now + seconds
        if self._look_s is None or self._look_s > self._until_s:
            self._look_later(now)

    def end(self) -> None:
        """Call not at all."""
        self._until_s = None

    def _look_later(self, now: float) -> None:
        assert self._until_s is not None
        self._look_s = at = self._until_s
        self._loop.call_later(at - now, lambda: self._look(at))

    def _look(self, at: float) -> None:
        if self._look_s != at:
            return  # another one looks earlier
        self._look_s = None
        if self._until_s is None:
            return
        now = self._clock.monotonic_s()
        if now < self._until_s:
            self._look_later(now)
            return
        self._until_s = None
        self._call()


class FlowWatch:
    """Calls when fewer bytes flow than have to, for longer than may be.

    Args:
        loop: Calls.
        clock: Monotonic time.
        least_bytes_s: Fewer bytes a second are a stall.
        stall_s: After so long of them.
        stalled: Told once.
    """

    def __init__(
        self,
        loop: CurlLoop,
        clock: Clock,
        *,
        least_bytes_s: float,
        stall_s: float,
        stalled: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._least_bytes_s = least_bytes_s
        self._stall_s = stall_s
        self._stalled = stalled
        self._patience = Patience(loop, clock, self._look)
        self._mark_s = 0.0
        self._mark_bytes = 0
        self.moved = 0
        """Bytes; counted by whoever moves them."""
        self.held = False
        """This side does not want any: nothing has to flow."""

    def begin(self) -> None:
        """Something has to flow from now on."""
        self._mark()
        self._patience.begin(self._stall_s / _LOOKS)

    def end(self) -> None:
        """Nothing has to flow any more."""
        self._patience.end()

    def _mark(self) -> None:
        self._mark_s = self._clock.monotonic_s()
        self._mark_bytes = self.moved

    def _look(self) -> None:
        waited_s = self._clock.monotonic_s() - self._mark_s
        if self.held or self.moved - self._mark_bytes >= self._least_bytes_s * waited_s:
            self._mark()
        elif waited_s >= self._stall_s:
            self._stalled()
            return
        self._patience.begin(self._stall_s / _LOOKS)

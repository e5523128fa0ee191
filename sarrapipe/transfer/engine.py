"""Many requests at a time, in one thread: what a flow hands in, and what comes back.

    engine = TransferEngine(TransferSettings(streams=16)).open()
    engine.add_wakeup(eventfd_of_the_broker_thread)
    taken = engine.submit([RangeRead(url=..., sink=..., token=...)])
    for done in engine.poll(timeout_s=1.0):
        ...

The engine starts as much as streams, streams per remote and bytes in flight allow, and keeps the rest
waiting. It takes no more than its bounds: what `submit` did not take stays with the caller, who takes no
more from the broker then. It decides nothing about files, retries nothing, and knows no messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sarrapipe.clock import SYSTEM_CLOCK, Clock
from sarrapipe.errors import SarrapipeError, Unsupported
from sarrapipe.transfer.base import (
    Capabilities,
    Done,
    RangeDone,
    RateLimiter,
    Request,
    TransferBackend,
    failed,
)
from sarrapipe.transfer.curlloop import CurlLoop
from sarrapipe.transfer.pacing import Pacer
from sarrapipe.transfer.registry import BACKENDS, factory_of, scheme_of
from sarrapipe.transfer.remotecall import RemoteCall
from sarrapipe.transfer.schedule import Schedule, weight_bytes
from sarrapipe.transfer.settings import Surroundings, TransferSettings
from sarrapipe.transfer.writing import RangeWrite, WriteDone

__all__ = ["TransferEngine", "TransferSettings"]


class TransferEngine:
    """Runs requests on the backends of their schemes.

    Args:
        settings: Limits.
        limiter: The byte rate all instances share; None if there is no limit.
        clock: Monotonic and wall time.
        backends: Scheme → `module:function`, see `sarrapipe.transfer.registry`.
    """

    def __init__(
        self,
        settings: TransferSettings | None = None,
        limiter: RateLimiter | None = None,
        clock: Clock = SYSTEM_CLOCK,
        backends: Mapping[str, str] = BACKENDS,
    ) -> None:
        self._settings = settings or TransferSettings()
        self._clock = clock
        self._known = backends
        self._pacer = None if limiter is None else Pacer(limiter, clock)
        self._loop = CurlLoop(self._settings.streams, clock)
        self._schedule = Schedule(self._settings.streams, self._settings.streams_per_remote)
        self._by_scheme: dict[str, TransferBackend] = {}
        self._backends: list[TransferBackend] = []
        self._running: dict[object, tuple[TransferBackend, Request]] = {}
        self._failed: list[Done] = []
        self._woken: list[int] = []

    def open(self) -> TransferEngine:
        """Create what belongs to this process alone; after a fork, never before."""
        self._loop.open()
        return self

    def close(self) -> None:
        """Cancel everything and free connections and handles. May be repeated."""
        for backend in self._backends:
            backend.close()
        self._backends.clear()
        self._by_scheme.clear()
        self._running.clear()
        self._failed.clear()
        self._loop.close()
        self._schedule = Schedule(self._settings.streams, self._settings.streams_per_remote)

    @property
    def settings(self) -> TransferSettings:
        """The limits it keeps."""
        return self._settings

    @property
    def waiting(self) -> int:
        """Requests taken in and not started yet."""
        return self._schedule.waiting

    @property
    def running(self) -> int:
        """Requests under way."""
        return self._schedule.running

    @property
    def kept_free(self) -> int:
        """Of the streams that are free, how many are kept for small requests."""
        return self._schedule.kept_free

    @property
    def inflight_bytes(self) -> int:
        """Bytes of all requests taken in; one of unknown length counts 1 MiB."""
        return self._schedule.bytes

    @property
    def woken(self) -> list[int]:
        """Wake-up descriptors that ended the last `poll`; whoever added one drains it."""
        return self._woken

    def room(self) -> int:
        """How many more requests `submit` would take now, were they small."""
        if self._schedule.bytes >= self._settings.max_inflight_bytes:
            return 0
        limit = self._settings.max_waiting + self._settings.streams
        return max(limit - self._schedule.waiting - self._schedule.running, 0)

    def capabilities(self, url: str) -> Capabilities:
        """What can be done with this URL.

        Raises:
            MessageError: Its scheme has no backend.
            ConfigError: The backend configured for it cannot be imported.
        """
        return self._backend(url).capabilities

    def add_wakeup(self, fd: int) -> None:
        """Let `poll` return when `fd` becomes readable."""
        self._loop.add_wakeup(fd)

    def watch(self, fd: int, call: Callable[[], None]) -> None:
        """Call from within `poll` while `fd` is readable, without letting it return; until `close`."""
        self._loop.watch(fd, call)

    def call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call once, from within `poll`, without letting it return, when so many seconds have passed."""
        self._loop.call_later(delay_s, call)

    def remove_wakeup(self, fd: int) -> None:
        """Stop watching `fd`; before it is closed."""
        self._loop.remove_wakeup(fd)

    def submit(self, requests: Sequence[Request]) -> int:
        """Take in requests, from the first on, as many as there is room for, and start what may start.

        Returns:
            How many were taken; the others stay with the caller.
        """
        taken = 0
        for request in requests:
            if self._schedule.bytes and not self._fits(request):
                break
            self._schedule.push(request)
            taken += 1
        self._start()
        return taken

    def _fits(self, request: Request) -> bool:
        limit = self._settings.max_inflight_bytes
        return self.room() > 0 and self._schedule.bytes + weight_bytes(request) <= limit

    def poll(self, timeout_s: float) -> list[Done]:
        """Let the transfers work until some end, a wake-up descriptor is readable, or `timeout_s` has passed.

        What the caller does with them costs nearly the same for one as for thirty. So while requests are
        running and only small ones have ended, it goes on for up to `gather_s`, or until `gather_reads` have
        ended. With nothing running it returns at once.

        Returns:
            Those that ended, in no particular order; each request exactly once.
        """
        clock = self._clock
        settings = self._settings
        deadline = clock.monotonic_s() + timeout_s
        done = self._turn(deadline)
        woken = self._loop.woken
        while not done and not woken and clock.monotonic_s() < deadline:
            done = self._turn(deadline)
            woken = self._loop.woken
        deadline = clock.monotonic_s() + settings.gather_s
        while (
            self._running
            and len(done) < settings.gather_reads
            and all(_moved_bytes(one) < settings.gather_bytes for one in done)
            and clock.monotonic_s() < deadline
        ):
            done += self._turn(deadline)
            woken = woken + self._loop.woken
        self._woken = woken
        return done

    def cancel(self, token: object) -> bool:
        """Stop a request, waiting or running; sink and source are left alone and `poll` does not return it.

        Returns:
            False if none has this token: it has ended, and `poll` returned it or is about to.
        """
        entry = self._running.pop(token, None)
        if entry is None:
            return self._schedule.discard(token)
        backend, request = entry
        cancelled = backend.cancel(token)
        self._schedule.finished(request)
        return cancelled

    def go_on(self, token: object) -> None:
        """The source of a write has bytes again, or its end; see `writing.Source.read`."""
        entry = self._running.get(token)
        if entry is not None:
            entry[0].go_on(token)

    def _turn(self, deadline: float) -> list[Done]:
        self._start()
        busy = bool(self._failed) or any(backend.busy() for backend in self._backends)
        self._loop.run_once(0.0 if busy else self._wait_s(deadline))
        done, self._failed = self._failed, []
        for backend in self._backends:
            done += backend.step()
        for one in done:
            entry = self._running.pop(one.token, None)
            if entry is not None:
                self._schedule.finished(entry[1])
        if done:
            self._start()  # so that no connection is idle while the caller works on what is done
        return done

    def _wait_s(self, deadline: float) -> float:
        now = self._clock.monotonic_s()
        if self._pacer is not None and self._schedule.waiting and self._pacer.held_until_s > now:
            deadline = min(deadline, self._pacer.held_until_s)
        return deadline - now

    def _start(self) -> None:
        if self._pacer is not None and self._pacer.held_until_s > self._clock.monotonic_s():
            return
        while (request := self._schedule.pop()) is not None:
            try:
                backend = self._backend(request.url)
                _check(request, backend.capabilities)
            except SarrapipeError as error:
                self._schedule.finished(request)
                self._failed.append(failed(request, error))
                continue
            self._running[request.token] = (backend, request)
            backend.start(request)

    def _backend(self, url: str) -> TransferBackend:
        scheme = scheme_of(url)
        backend = self._by_scheme.get(scheme)
        if backend is None:
            backend = self._by_scheme[scheme] = self._make(scheme)
        return backend

    def _make(self, scheme: str) -> TransferBackend:
        make = factory_of(scheme, self._known)
        for other, backend in self._by_scheme.items():
            if self._known[other] == self._known[scheme]:
                return backend
        surroundings = Surroundings(
            loop=self._loop, settings=self._settings, pacer=self._pacer, clock=self._clock
        )
        backend = make(surroundings)
        self._backends.append(backend)
        return backend


def _check(request: Request, able: Capabilities) -> None:
    """Refuse what a backend cannot do.

    Raises:
        Unsupported: This request cannot be made with this scheme, whoever is asked.
    """
    scheme = scheme_of(request.url)
    if isinstance(request, RangeWrite):
        if not able.writes:
            raise Unsupported(f"nothing can be sent to {scheme}: URLs: {request.url}")
        if not request.whole and not able.positioned_writes:
            raise Unsupported(f"a part of a file cannot be sent to {scheme}: URLs: {request.url}")
    elif isinstance(request, RemoteCall) and request.operation not in able.operations:
        raise Unsupported(f"{request.operation.value}: not possible with {scheme}: URLs: {request.url}")


def _moved_bytes(done: Done) -> int:
    if isinstance(done, RangeDone):
        return done.received
    return done.sent if isinstance(done, WriteDone) else 0

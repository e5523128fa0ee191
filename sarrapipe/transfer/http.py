"""Fetching and sending by HTTP and HTTPS with libcurl: many handles at a time, connections kept alive.

HTTP/1.1 only: with HTTP/2 all ranges of a file would share one connection, and one congestion window.

    loop = CurlLoop(streams=16).open()
    backend = HttpBackend(loop)
    backend.start(RangeRead(url="http://127.0.0.1/f", sink=sink, token=1))
    while not (done := backend.step()):
        loop.run_once(1.0)
"""

from __future__ import annotations

import pycurl

from sarrapipe.clock import SYSTEM_CLOCK, Clock
from sarrapipe.errors import SarrapipeError
from sarrapipe.transfer.base import Capabilities, Done, RangeRead, Request, failed
from sarrapipe.transfer.curlloop import CurlLoop
from sarrapipe.transfer.httpsend import OPERATIONS, SendStream
from sarrapipe.transfer.httpstream import Stream
from sarrapipe.transfer.pacing import Pacer
from sarrapipe.transfer.schedule import SMALL_BYTES, weight_bytes
from sarrapipe.transfer.settings import HttpSettings, Surroundings

__all__ = ["HttpBackend", "make_backend"]


class HttpBackend:
    """Requests over HTTP/1.1 and TLS.

    Args:
        loop: The loop that runs the handles.
        settings: How requests are made.
        pacer: Holds up the senders when the flow's byte rate is used up; None if there is no limit.
        clock: For Retry-After dates.
    """

    capabilities = Capabilities(
        ranges=True,
        parallel=True,
        validators=True,
        local=False,
        pauses=True,
        writes=True,
        operations=frozenset(OPERATIONS),
    )

    def __init__(
        self,
        loop: CurlLoop,
        settings: HttpSettings | None = None,
        pacer: Pacer | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._loop = loop
        self._settings = settings or HttpSettings()
        self._pacer = pacer
        self._clock = clock
        self._idle: list[Stream] = []
        self._idle_senders: list[SendStream] = []
        self._by_curl: dict[pycurl.Curl, Stream | SendStream] = {}
        self._by_token: dict[object, Stream | SendStream] = {}
        self._failed: list[Done] = []

    def start(self, request: Request) -> None:
        """Begin `request`; see `TransferBackend.start`."""
        stream: Stream | SendStream
        try:
            if isinstance(request, RangeRead):
                stream = self._idle.pop() if self._idle else Stream(self._loop, self._settings, self._pacer)
                stream.begin(request)
            else:
                stream = self._sender()
                stream.begin(request)
        except SarrapipeError as error:
            self._put_back(stream)
            self._failed.append(failed(request, error))
            return
        self._by_curl[stream.curl] = stream
        self._by_token[request.token] = stream
        self._loop.add(stream.curl, bulk=weight_bytes(request) > SMALL_BYTES)

    def _sender(self) -> SendStream:
        if self._idle_senders:
            return self._idle_senders.pop()
        return SendStream(self._loop, self._settings, self._pacer)

    def _put_back(self, stream: Stream | SendStream) -> None:
        if isinstance(stream, Stream):
            self._idle.append(stream)
        else:
            self._idle_senders.append(stream)

    def step(self) -> list[Done]:
        """What ended; libcurl itself works in `CurlLoop.run_once`."""
        done, self._failed = self._failed, []
        for ended in self._loop.ended(self._by_curl):
            stream = self._by_curl.pop(ended.curl)
            self._loop.remove(ended.curl)
            one = stream.finish(ended, self._clock.wall_ns() / 1e9)
            if one is None:  # it goes on with its next request
                self._by_curl[stream.curl] = stream
                self._loop.add(stream.curl)
                continue
            del self._by_token[one.token]
            self._put_back(stream)
            done.append(one)
        return done

    def busy(self) -> bool:
        """Only what failed before it began waits here."""
        return bool(self._failed)

    def go_on(self, token: object) -> None:
        """The source of a write has bytes again, or its end."""
        stream = self._by_token.get(token)
        if isinstance(stream, SendStream):
            stream.go_on()

    def cancel(self, token: object) -> bool:
        """Stop a request; its connection is closed, as its bytes are still on the way."""
        stream = self._by_token.pop(token, None)
        if stream is None:
            before = len(self._failed)
            self._failed = [one for one in self._failed if one.token != token]
            return len(self._failed) < before
        del self._by_curl[stream.curl]
        self._loop.remove(stream.curl)
        stream.drop()
        self._put_back(stream)
        return True

    def close(self) -> None:
        """End everything under way and free the handles."""
        for token in list(self._by_token):
            self.cancel(token)
        for curl in [stream.curl for stream in self._idle] + [one.curl for one in self._idle_senders]:
            curl.close()
        self._idle.clear()
        self._idle_senders.clear()
        self._failed.clear()


def make_backend(surroundings: Surroundings) -> HttpBackend:
    """What the registry calls for the first http or https URL."""
    return HttpBackend(surroundings.loop, surroundings.settings.http, surroundings.pacer, surroundings.clock)

"""Stand-ins for what a server does wrong with single ranges of a large file."""

from __future__ import annotations

import threading
from collections import Counter as Counts
from http.server import BaseHTTPRequestHandler

from standins import StandIn

__all__ = ["Ranges", "Stalling"]


class Ranges(StandIn):
    """Serves each range after a little while, and counts what is under way.

    Args:
        body: Served.
        pause_s: Before each answer.
        bad: Offsets of ranges, each with how often it is not served well.
    """

    def __init__(self, body: bytes, pause_s: float = 0.0, bad: dict[int, int] | None = None) -> None:
        super().__init__(body)
        self.pause_s = pause_s
        self.bad = dict(bad or {})
        self.lock = threading.Lock()
        self.busy = self.most = 0
        self.asked: Counts[int] = Counts()

    def answer(self, handler: BaseHTTPRequestHandler, headers: dict[str, str]) -> None:
        first, _ = self.span(headers) or (0, 0)
        with self.lock:
            self.asked[first] += 1
            self.busy += 1
            self.most = max(self.most, self.busy)
            bad = self.bad.get(first, 0)
            if bad:
                self.bad[first] -= 1
        try:
            if bad:
                self.misbehave(handler, headers)
                return
            self.ending.wait(self.pause_s)
            with self.lock:
                self.busy -= 1  # before its end can be seen, and the next one asked for
            super().answer(handler, headers)
            self.busy += 1
        finally:
            with self.lock:
                self.busy -= 1

    def misbehave(self, handler: BaseHTTPRequestHandler, headers: dict[str, str]) -> None:
        """What becomes of a bad range."""
        raise NotImplementedError


class Stalling(Ranges):
    """Sends a little of a bad range, then nothing. (libcurl's low speed is a mean over five seconds.)"""

    def misbehave(self, handler: BaseHTTPRequestHandler, headers: dict[str, str]) -> None:
        first, last = self.span(headers) or (0, 0)
        self.head(handler, 206, last + 1 - first, Content_Range=self.content_range(first, last), ETag='"v1"')
        handler.wfile.write(self.body[first : first + 500])
        handler.wfile.flush()
        self.ending.wait()
        handler.close_connection = True

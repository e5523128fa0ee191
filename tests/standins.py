"""Servers that do on demand what a real one will not do; each is named by what it does.

    with ShortReadServer(body) as server:
        fetch(server.url + "f")          # half of it comes, then the connection closes
    server.requests[0].headers["range"]

Every other test of transfers uses a real nginx (`webserver.py`).
"""

from __future__ import annotations

import re
import socket
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

_RANGE = re.compile(r"bytes=(\d+)-(\d*)\Z")


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    path: str
    headers: dict[str, str]
    """Names in lower case."""


class StandIn:
    """An HTTP/1.1 server on a free port of loopback that serves one body, correctly.

    Subclasses misbehave in `answer`.
    """

    def __init__(self, body: bytes = b"") -> None:
        self.body = body
        self.requests: list[Request] = []
        self.ending = threading.Event()

    def __enter__(self) -> Self:
        standin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                super().setup()

            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                standin.requests.append(Request(self.path, headers))
                try:
                    standin.answer(self, headers)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128  # with 5, some of many connections at once are made a second later

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that went away is no error of the server."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """With its trailing slash."""
        return f"http://127.0.0.1:{self.port}/"

    def span(self, headers: dict[str, str]) -> tuple[int, int] | None:
        """First and last byte asked for; None for the whole body."""
        match = _RANGE.match(headers.get("range", ""))
        if match is None:
            return None
        return int(match[1]), int(match[2] or len(self.body) - 1)

    def head(self, handler: BaseHTTPRequestHandler, status: int, length: int | None, **headers: str) -> None:
        """Send status and headers."""
        handler.send_response(status)
        if length is not None:
            handler.send_header("Content-Length", str(length))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    def answer(self, handler: BaseHTTPRequestHandler, headers: dict[str, str]) -> None:
        """Serve the body, or the range asked for."""
        span = self.span(headers)
        if span is None:
            self.head(handler, 200, len(self.body), ETag='"v1"')
            handler.wfile.write(self.body)
            return
        first, last = span
        self.head(handler, 206, last + 1 - first, Content_Range=self.content_range(first, last), ETag='"v1"')
        handler.wfile.write(self.body[first : last + 1])

    def content_range(self, first: int, last: int) -> str:
        return f"bytes {first}-{last}/{len(self.body)}"


class RecordingServer(StandIn):
    """Serves correctly; the requests are what is looked at."""


class ShortReadServer(StandIn):
    """Announces all of it, sends half, closes."""

    def answer(self, handler: BaseHTTPRequestHandler, headers: dict[str, str]) -> None:
        first, last = self.span(headers) or (0, len(self.body) - 1)
        status = 206 if "range" in headers else 200
        extra = {"Content_Range": self.content_range(first, last)} if status == 206 else {}
        self.head(handler, status, last + 1 - first, **extra)
        handler.wfile.write(self.body[first : (first + last) // 2])
        handler.close_connection = True


class OverlongServer(StandIn):
    """Sends 1,000 bytes more than were asked for; the whole file without saying how long it is."""

    def answer(self, handler: BaseHTTPRequestHandler, headers: dict[str, str]) -> None:
        span = self.span(headers)
        if span is None:
            self.head(handler, 200, None, Connection="close")
            handler.wfile.write(self.body + bytes(1000))
        else:
            first, last = span
            count = last + 1 - first
            self.head(handler, 206, count + 1000, Content_Range=self.content_range(first, last))
            handler.wfile.write(self.body[first : last + 1] + bytes(1000))
        handler.close_connection = True


class StallingServer(StandIn):
    """Sends the first half, then nothing, and keeps the connection."""

    def answer(self, handler: BaseHTTPRequestHandler, headers: dict[str, str]) -> None:
        self.head(handler, 200, len(self.body))
        handler.wfile.write(self.body[: len(self.body) // 2])
        handler.wfile.flush()
        self.ending.wait()
        handler.close_connection = True


class SlowServer(StandIn):
    """Sends a piece every few milliseconds."""

    def __init__(self, body: bytes, piece: int, pause_s: float) -> None:
        super().__init__(body)
        self._piece = piece
        self._pause_s = pause_s

    def answer(self, handler: BaseHTTPRequestHandler, headers: dict[str, str]) -> None:
        self.head(handler, 200, len(self.body))
        for at in range(0, len(self.body), self._piece):
            handler.wfile.write(self.body[at : at + self._piece])
            handler.wfile.flush()
            if self.ending.wait(self._pause_s):
                return


class RangeIgnoringServer(StandIn):
    """Knows no ranges: 200 and all of it, whatever was asked."""

    def answer(self, handler: BaseHTTPRequestHandler, headers: dict[str, str]) -> None:
        super().answer(handler, {})


class LyingRangeServer(StandIn):
    """Answers a range with the bytes from elsewhere, and says so in Content-Range."""

    def answer(self, handler: BaseHTTPRequestHandler, headers: dict[str, str]) -> None:
        first, last = self.span(headers) or (0, len(self.body) - 1)
        count = last + 1 - first
        self.head(handler, 206, count, Content_Range=self.content_range(0, count - 1))
        handler.wfile.write(self.body[:count])


class EtagChangingServer(StandIn):
    """Has another version each time it is asked, and knows no preconditions."""

    def answer(self, handler: BaseHTTPRequestHandler, headers: dict[str, str]) -> None:
        first, last = self.span(headers) or (0, len(self.body) - 1)
        tag = f'"v{len(self.requests)}"'
        self.head(handler, 206, last + 1 - first, Content_Range=self.content_range(first, last), ETag=tag)
        handler.wfile.write(self.body[first : last + 1])


class RedirectServer(StandIn):
    """Sends everybody somewhere else; `{n}` in the place is the number of the request."""

    def __init__(self, location: str) -> None:
        super().__init__()
        self.location = location

    def answer(self, handler: BaseHTTPRequestHandler, headers: dict[str, str]) -> None:
        self.head(handler, 302, 0, Location=self.location.format(n=len(self.requests)))


class RedirectLoop(RedirectServer):
    """Sends everybody to itself, for ever."""

    def __init__(self) -> None:
        super().__init__("/again/{n}")


class StatusServer(StandIn):
    """Answers with one status, an error page, and the headers given."""

    def __init__(self, status: int, page: bytes = b"<html>no</html>", **headers: str) -> None:
        super().__init__(page)
        self.status = status
        self._headers = headers

    def answer(self, handler: BaseHTTPRequestHandler, headers: dict[str, str]) -> None:
        self.head(handler, self.status, len(self.body), **self._headers)
        handler.wfile.write(self.body)

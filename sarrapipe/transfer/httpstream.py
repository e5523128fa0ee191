"""One libcurl easy handle: set up for a read, fed by libcurl, judged, and used again for the next.

Libcurl splits what it receives into pieces of 16 KiB, whatever the size of its buffer, and hands each over as
a memoryview of it. The pieces of a large body are gathered to 256 KiB before the sink gets them. Nothing of
a body reaches the sink before its head was found to be what was asked for.
"""

from __future__ import annotations

import os
from functools import partial

import pycurl

from sarrapipe.errors import AccessDenied, SarrapipeError, TransferError
from sarrapipe.transfer.base import Credentials, RangeDone, RangeRead, StagingSink, staging
from sarrapipe.transfer.curlloop import CurlLoop, Ended
from sarrapipe.transfer.httprules import (
    Response,
    condition,
    judge,
    parse_response,
    range_of,
    retry_after_s,
    wire_url,
)
from sarrapipe.transfer.pacing import Pacer
from sarrapipe.transfer.schedule import SMALL_BYTES
from sarrapipe.transfer.settings import HttpSettings

__all__ = ["GATHER_BYTES", "Stream", "set_base", "set_credentials", "set_trust"]

_DRAIN_BYTES = 65_536
"""An error page up to this size is read and dropped, to keep the connection; beyond it a new one is
cheaper."""
GATHER_BYTES = 262_144
"""Handed to the sink at once. Writing what libcurl hands over, 16 KiB, takes 1.05 CPU seconds a GiB on ext4,
this 0.70 and 1 MiB the same; on tmpfs 0.84 and 0.79 (docs/explanation/pipeline.md)."""
_SMALL_BYTES = 65_536
"""A body up to this size is handed over as it comes: one piece or a few."""
_NOTHING_TAKEN = 0
"""What a write callback returns to make libcurl give up (CURLE_WRITE_ERROR)."""
_PAUSE: int = pycurl.WRITEFUNC_PAUSE
_ALWAYS = ("Accept-Encoding: identity",)
"""The bytes as they are stored: a server may compress on the way where this is not said (RFC 9110 12.5.3)."""
_CA_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
"""Where Debian, Red Hat and the BSDs keep what they trust; the libcurl of a wheel does not know its host."""
_BEARER = 1 << 6
"""CURLAUTH_BEARER of curl.h, which pycurl has no name for."""
_WEB = pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS


def set_base(curl: pycurl.Curl, settings: HttpSettings) -> None:
    """Set what is the same for every request of a flow."""
    curl.setopt(pycurl.NOSIGNAL, 1)
    curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
    curl.setopt(pycurl.PROTOCOLS, _WEB)
    curl.setopt(pycurl.PATH_AS_IS, 1)
    curl.setopt(pycurl.HTTPHEADER, _ALWAYS)
    curl.setopt(pycurl.USERAGENT, settings.user_agent)
    curl.setopt(pycurl.BUFFERSIZE, settings.buffer_bytes)
    curl.setopt(pycurl.FOLLOWLOCATION, 1)
    curl.setopt(pycurl.MAXREDIRS, settings.max_redirects)
    curl.setopt(pycurl.REDIR_PROTOCOLS, _WEB if settings.redirect_to_http else pycurl.PROTO_HTTPS)
    curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(settings.connect_timeout_s * 1000))
    curl.setopt(pycurl.LOW_SPEED_LIMIT, settings.stall_bytes_s)
    curl.setopt(pycurl.LOW_SPEED_TIME, settings.stall_s)
    if settings.proxy != "environment":
        curl.setopt(pycurl.PROXY, settings.proxy or "")
    set_trust(curl, settings)


def set_trust(curl: pycurl.Curl, settings: HttpSettings) -> None:
    """Say which certificates are trusted."""
    if not settings.tls_verify:
        curl.setopt(pycurl.SSL_VERIFYPEER, 0)
        curl.setopt(pycurl.SSL_VERIFYHOST, 0)
        return
    ca_file = settings.ca_file or next(filter(os.path.exists, _CA_FILES), None)
    if ca_file is not None:
        curl.setopt(pycurl.CAINFO, ca_file)


def set_credentials(curl: pycurl.Curl, credentials: Credentials) -> None:
    """Say who to be. Libcurl tells the host of the URL alone, not one it is redirected to."""
    if credentials.bearer:
        curl.setopt(pycurl.HTTPAUTH, _BEARER)
        curl.setopt(pycurl.XOAUTH2_BEARER, credentials.bearer)
    elif credentials.user:
        curl.setopt(pycurl.HTTPAUTH, pycurl.HTTPAUTH_BASIC)
        curl.setopt(pycurl.USERNAME, credentials.user.encode())
        curl.setopt(pycurl.PASSWORD, credentials.password.encode())


class Stream:
    """One easy handle and the read it is busy with."""

    __slots__ = (
        "_buffer",
        "_credentials",
        "_gather",
        "_held",
        "_loop",
        "_pacer",
        "_settings",
        "_shares",
        "_special",
        "_staging",
        "_waits",
        "curl",
        "delivered",
        "error",
        "lines",
        "read",
        "received",
        "response",
        "taking",
    )

    def __init__(self, loop: CurlLoop, settings: HttpSettings, pacer: Pacer | None) -> None:
        self._loop = loop
        self._pacer = pacer
        self.lines: list[bytes] = []
        """Header lines of all responses of this request; libcurl limits them to 300 KiB."""
        self.read: RangeRead | None = None
        self.response: Response | None = None
        self.error: SarrapipeError | None = None
        self.taking = False
        """The response was judged to be what was asked for: its body goes to the sink."""
        self.received = 0
        """Bytes of body so far; those of an error page as well."""
        self.delivered = 0
        """Of those, how many the sink took."""
        self._gather = False
        self._buffer: memoryview | None = None
        self._held = 0
        self._staging: StagingSink | None = None
        self._waits = False
        """Paused until the sink has room."""
        self.curl = pycurl.Curl()
        self._settings = settings
        self._credentials: Credentials | None = None
        self._special = self._shares = False
        self._set_up()

    def _set_up(self) -> None:
        """Set everything that stays the same from read to read."""
        set_base(self.curl, self._settings)
        self.curl.setopt(pycurl.HEADERFUNCTION, self.lines.append)
        self.curl.setopt(pycurl.WRITEFUNCTION, self._on_body, use_memoryview=True)
        self._special = self._shares = False

    def begin(self, read: RangeRead) -> None:
        """Set the handle up for `read`; a plain GET after a plain GET is one option, the URL.

        Raises:
            MessageError: The URL is none.
        """
        self.lines.clear()
        self.response = None
        self.error = None
        self.taking = False
        self.received = self.delivered = self._held = 0
        self._staging = staging(read.sink)
        self._waits = False
        url = wire_url(read.url, escaped=read.url_is_escaped)
        if read.credentials != self._credentials:
            self._be(read.credentials)
        wanted = range_of(read)
        special = wanted is not None or read.validator is not None or bool(read.headers)
        if special or self._special:
            self._set_special(read, wanted)
            self._special = special
        shared = self._loop.is_shared and self._is_large(read)
        if shared != self._shares:
            size = self._settings.shared_buffer_bytes if shared else self._settings.buffer_bytes
            self.curl.setopt(pycurl.BUFFERSIZE, size)
            self._shares = shared
        self.curl.setopt(pycurl.URL, url)
        self.read = read

    @staticmethod
    def _is_large(read: RangeRead) -> bool:
        return read.length is None or read.length > SMALL_BYTES

    def _be(self, credentials: Credentials | None) -> None:
        """Change who to be: not every option can be unset alone, so all of them are set again."""
        self.curl.reset()
        self._set_up()
        if credentials is not None:
            set_credentials(self.curl, credentials)
        self._credentials = credentials

    def _set_special(self, read: RangeRead, wanted: str | None) -> None:
        if wanted is None:
            self.curl.unsetopt(pycurl.RANGE)
        else:
            self.curl.setopt(pycurl.RANGE, wanted)
        pinned = condition(read)
        lines = (*_ALWAYS, *read.headers, *((pinned,) if pinned else ()))
        self.curl.setopt(pycurl.HTTPHEADER, [line.encode() for line in lines])

    def judge(self) -> None:
        """Read the head of the response, once, and decide whether its body is wanted."""
        assert self.read is not None, "libcurl only calls between begin and the end"
        if self.response is None:
            self.response = parse_response(self.lines)
            self.error = judge(self.read, self.response)
            self.taking = self.error is None
            length = self.response.content_length
            self._gather = self._staging is None and (length is None or length > _SMALL_BYTES)

    def _on_body(self, data: memoryview) -> int | None:
        """libcurl: the next piece of the body. Returning None takes all of it."""
        count = len(data)
        if not self.taking:
            self.judge()
            if not self.taking:
                self.received += count
                return None if self.received <= _DRAIN_BYTES else _NOTHING_TAKEN
        try:
            if self._staging is not None and not self._staging.room(count):
                return self._wait_for_room(self._staging)
            self.received += count
            self._take(data, count)
        except SarrapipeError as error:
            self.error = error
            return _NOTHING_TAKEN
        if self._pacer is not None:
            self._hold(self._pacer.spend(count))
        return None

    def _wait_for_room(self, sink: StagingSink) -> int:
        """Have libcurl keep the piece, and read nothing more, until there is room for it."""
        if not self._waits and self.read is not None:
            self._waits = True
            sink.call_when_room(partial(self._look_for_room, self.read))
        return _PAUSE

    def _look_for_room(self, read: RangeRead) -> None:
        if self.read is read:
            self._waits = False
            self._go_on(read)

    def _take(self, data: memoryview, count: int) -> None:
        """Gather pieces for the sink; those of a small body go straight through."""
        if self._held + count > GATHER_BYTES:
            self._flush()
        if not self._gather or count > GATHER_BYTES:
            self._deliver(data)
            return
        if self._buffer is None:
            self._buffer = memoryview(bytearray(GATHER_BYTES))
        self._buffer[self._held : self._held + count] = data
        self._held += count

    def _flush(self) -> None:
        held, self._held = self._held, 0
        if held and self._buffer is not None:
            self._deliver(self._buffer[:held])

    def _deliver(self, data: memoryview) -> None:
        assert self.read is not None, "libcurl only calls between begin and the end"
        self.read.sink.write(data)
        self.delivered += len(data)

    def _hold(self, wait_s: float) -> None:
        if wait_s > 0 and self.read is not None:
            self.curl.pause(pycurl.PAUSE_RECV)
            self._loop.call_later(wait_s, partial(self._go_on, self.read))

    def _go_on(self, read: RangeRead) -> None:
        if self.read is not read:
            return
        self._loop.go_on(self.curl)

    def finish(self, ended: Ended, now_s: float) -> RangeDone:
        """Say how the read ended; the handle is free afterwards."""
        assert self.read is not None, "a handle ends once"
        if self.lines:
            self.judge()
        response = self.response or Response()
        unwritten = self._last_piece()
        done = RangeDone(
            read=self.read,
            received=self.delivered,
            status=response.status,
            etag=response.etag,
            last_modified=response.last_modified,
            whole_size=response.whole_size,
            retry_after_s=retry_after_s(response.retry_after, now_s),
            wait_s=self._wait_s(),
            error=self._verdict(ended, response) or unwritten or self._short(self.read, response),
        )
        self.read = None
        return done

    def _wait_s(self) -> float:
        """Of a large body: what is learnt from it is of use to the next."""
        if not self._gather and self._staging is None:
            return 0.0
        first_s: float = self.curl.getinfo(pycurl.STARTTRANSFER_TIME)
        asked_s: float = self.curl.getinfo(pycurl.PRETRANSFER_TIME)
        return max(first_s - asked_s, 0.0)

    def _last_piece(self) -> SarrapipeError | None:
        """Deliver what is held; also of a read that failed, as its bytes are good and may be built upon."""
        try:
            self._flush()
        except SarrapipeError as error:
            return error
        finally:
            self._buffer = None  # 256 KiB a stream are too much for an instance that has nothing to do
        return None

    def drop(self) -> None:
        """Forget the read; what is held of it reaches nobody."""
        self.read = None
        self._held = 0
        self._buffer = None

    def _verdict(self, ended: Ended, response: Response) -> SarrapipeError | None:
        """What was found out here says more than libcurl's code, except about redirects."""
        assert self.read is not None, "asked by finish alone"
        if self.error is not None and not (ended.code and 300 <= response.status <= 399):
            return self.error
        return _curl_error(self.read, ended) if ended.code else None

    def _short(self, read: RangeRead, response: Response) -> TransferError | None:
        """Libcurl finds a body shorter than its Content-Length; a shorter Content-Length is found here."""
        wanted = read.length
        if wanted is None and read.whole_size is not None:
            wanted = read.whole_size - read.offset
        if wanted is None or self.received == wanted:
            return None
        return TransferError(
            f"{self.received} bytes of {wanted} came with status {response.status}: {read.url}"
        )


def _curl_error(read: RangeRead, ended: Ended) -> TransferError:
    text = f"{ended.message or 'libcurl failed'} (CURLE {ended.code}): {read.url}"
    if ended.code == pycurl.E_LOGIN_DENIED:
        return AccessDenied(text)
    return TransferError(text)

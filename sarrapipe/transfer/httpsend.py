"""Sending by HTTP: PUT, and what WebDAV knows of names (RFC 9110 9.3.4, RFC 4918 9).

One libcurl easy handle for one request at a time, as `httpstream` has it for reads. A directory is never
removed: DELETE of a collection takes all that is in it (RFC 4918 9.6.1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Final

import pycurl

from sarrapipe.errors import (
    AccessDenied,
    NoSpaceThere,
    SarrapipeError,
    SourceGone,
    TooLargeThere,
    TransferError,
    Unsupported,
)
from sarrapipe.transfer.credentials import Credentials
from sarrapipe.transfer.curlloop import CurlLoop, Ended
from sarrapipe.transfer.httprules import Response, parse_response, retry_after_s, wire_url
from sarrapipe.transfer.httpstream import set_base, set_credentials
from sarrapipe.transfer.pacing import Pacer
from sarrapipe.transfer.remotecall import Attributes, CallDone, Operation, RemoteCall, RemoteEntry
from sarrapipe.transfer.settings import HttpSettings
from sarrapipe.transfer.writing import RangeWrite, WriteDone

__all__ = ["OPERATIONS", "SendStream"]

_LINES: Final = ("Expect:", "Accept-Encoding: identity")
"""No waiting for 100 Continue: a server that refuses says so, and the source can be read again."""
_SCHEME_AND_HOST: Final = re.compile(r"\w+://[^/]*")
_SECOND_NS: Final = 1_000_000_000
_GIVE_UP: Final[int] = pycurl.READFUNC_ABORT
_PAUSE: Final[int] = pycurl.READFUNC_PAUSE


class SendStream:
    """One easy handle and what it is sending.

    Args:
        loop: Wakes the engine when a pause of the rate limit is over.
        settings: How requests are made.
        pacer: Holds up the source when the flow's byte rate is used up; None if there is no limit.
    """

    def __init__(self, loop: CurlLoop, settings: HttpSettings, pacer: Pacer | None) -> None:
        self._loop = loop
        self._settings = settings
        self._pacer = pacer
        self.curl = pycurl.Curl()
        self._lines: list[bytes] = []
        self.request: RangeWrite | RemoteCall | None = None
        self._sent = 0
        self._error: SarrapipeError | None = None
        self._paused = False
        self._missing: list[str] = []
        self._looking = False

    @property
    def token(self) -> object:
        """Of the request under way."""
        assert self.request is not None
        return self.request.token

    def begin(self, request: RangeWrite | RemoteCall) -> None:
        """Set the handle up.

        Raises:
            MessageError: The URL is none.
        """
        self.curl.reset()
        set_base(self.curl, self._settings)
        self.curl.setopt(pycurl.FOLLOWLOCATION, 0)  # what is sent goes where it was meant to go
        self.curl.setopt(pycurl.HEADERFUNCTION, self._lines.append)
        self.curl.setopt(pycurl.WRITEFUNCTION, _drop)
        self._set_credentials(request.credentials)
        self._lines.clear()
        self._error, self._sent, self._paused = None, 0, False
        self._missing, self._looking = [], False
        self.request = request
        if isinstance(request, RangeWrite):
            self._set_url(request.url)
            self._begin_put(request)
        else:
            OPERATIONS[request.operation](self, request)

    def _set_url(self, url: str) -> None:
        self.curl.setopt(pycurl.URL, wire_url(url, escaped=False))

    def _set_credentials(self, credentials: Credentials | None) -> None:
        if credentials is not None:
            set_credentials(self.curl, credentials)

    def _set_lines(self, *more: str) -> None:
        self.curl.setopt(pycurl.HTTPHEADER, [line.encode() for line in (*_LINES, *more)])

    # ---- PUT

    def _begin_put(self, write: RangeWrite) -> None:
        self._set_lines("Content-Type: application/octet-stream")
        self.curl.setopt(pycurl.UPLOAD, 1)
        self.curl.setopt(pycurl.UPLOAD_BUFFERSIZE, self._settings.buffer_bytes)
        self.curl.setopt(pycurl.INFILESIZE_LARGE, write.length)
        self.curl.setopt(pycurl.READFUNCTION, self._on_read)

    def _on_read(self, count: int) -> bytes | int:
        """libcurl: up to `count` more bytes, please."""
        write = self.request
        assert isinstance(write, RangeWrite), "libcurl only calls between begin and the end"
        try:
            data = write.source.read(min(count, write.length - self._sent))
        except SarrapipeError as error:
            self._error = error
            return _GIVE_UP
        if data is None:
            self._paused = True
            return _PAUSE
        if not data and self._sent < write.length:
            self._error = TransferError(f"the source ended after {self._sent} bytes: {write.url}")
            return _GIVE_UP
        self._sent += len(data)
        if self._pacer is not None:
            self._hold(self._pacer.spend(len(data)))
        return bytes(data)

    def _hold(self, wait_s: float) -> None:
        if wait_s > 0:
            self.curl.pause(pycurl.PAUSE_SEND)
            request = self.request
            self._loop.call_later(wait_s, lambda: self._resume(request))

    def _resume(self, request: RangeWrite | RemoteCall | None) -> None:
        if self.request is request:
            self._loop.go_on(self.curl)

    def go_on(self) -> None:
        """The source has bytes again, or its end.

        Said from within libcurl, where one handle feeds another, so it goes on once that has returned.
        """
        if self._paused:
            self._paused = False
            request = self.request
            self._loop.call_later(0.0, lambda: self._resume(request))

    # ---- names

    def _make_directory(self, call: RemoteCall) -> None:
        self._missing = [call.url.rstrip("/")]
        self._make_one()

    def _make_one(self) -> None:
        self._set_lines()
        self._set_url(self._missing[-1] + "/")
        self.curl.setopt(pycurl.CUSTOMREQUEST, "MKCOL")

    def _look_what_is_there(self) -> None:
        """MKCOL says the same of a directory and of a file that is there; with a slash there is no file."""
        self._looking = True
        self.curl.unsetopt(pycurl.CUSTOMREQUEST)
        self.curl.setopt(pycurl.NOBODY, 1)

    def _remove(self, call: RemoteCall) -> None:
        self._set_lines()
        self._set_url(call.url)
        self.curl.setopt(pycurl.CUSTOMREQUEST, "DELETE")

    def _rename(self, call: RemoteCall) -> None:
        match = _SCHEME_AND_HOST.match(call.url)
        server = match[0] if match is not None else ""
        destination = wire_url(server + call.to, escaped=False).decode("latin-1")
        self._set_lines(f"Destination: {destination}", "Overwrite: T")
        self._set_url(call.url)
        self.curl.setopt(pycurl.CUSTOMREQUEST, "MOVE")

    def _look(self, call: RemoteCall) -> None:
        self._set_lines()
        self._set_url(call.url)
        self.curl.setopt(pycurl.NOBODY, 1)

    # ---- the end

    def finish(self, ended: Ended, now_s: float) -> WriteDone | CallDone | None:
        """Say how the request ended; None if it goes on with another of the same handle."""
        request = self.request
        assert request is not None, "a handle ends once"
        response = parse_response(self._lines)
        error = self._error or self._judge(request, ended, response)
        if isinstance(request, RemoteCall) and self._goes_on(request, response, error):
            self._lines.clear()
            return None
        self.request = None
        if isinstance(request, RangeWrite):
            return WriteDone(
                write=request,
                sent=self._sent,
                status=response.status,
                retry_after_s=retry_after_s(response.retry_after, now_s),
                error=error,
            )
        entries = (_entry(request, response),) if request.operation is Operation.STAT and not error else ()
        if request.operation is Operation.REMOVE and isinstance(error, SourceGone):
            error = None
        if self._looking and not isinstance(error, SourceGone):
            error = None  # listed or not, it is a directory
        return CallDone(call=request, entries=entries, status=response.status, error=error)

    def _goes_on(self, call: RemoteCall, response: Response, error: SarrapipeError | None) -> bool:
        """Make the directories above one that cannot be made without them."""
        if call.operation is not Operation.MAKE_DIRECTORY or self._error is not None:
            return False
        above = self._missing[-1].rpartition("/")[0]
        if response.status in _ABOVE_IS_MISSING and not self._looking and above.count("/") > _SLASHES_OF_HOST:
            self._missing.append(above)
        elif (error is None or response.status == _IS_THERE) and len(self._missing) > 1:
            self._missing.pop()
        elif response.status == _IS_THERE and not self._looking:
            self._look_what_is_there()
            return True
        else:
            return False
        self._make_one()
        return True

    def drop(self) -> None:
        """Forget the request."""
        self.request = None

    def _judge(
        self, request: RangeWrite | RemoteCall, ended: Ended, response: Response
    ) -> SarrapipeError | None:
        what = "PUT" if isinstance(request, RangeWrite) else request.operation.value
        status = response.status
        if ended.code and status < _REFUSED:  # a server that refuses may close before all was sent
            text = f"{what}: {ended.message or 'libcurl failed'} (CURLE {ended.code}): {request.url}"
            return TransferError(text)
        if 200 <= status <= 299:
            return None
        text = f"{what}: status {status}: {request.url}"
        if status in (401, 403, 407):
            return AccessDenied(text)
        if status in (404, 410):
            return SourceGone(text)
        if status == _ABOVE_IS_GONE:
            return SourceGone(f"{text}: its directory is not there")
        if status == _TOO_LARGE:
            return TooLargeThere(f"{text}: the file is larger than this server takes")
        if status == _NO_SPACE:
            return NoSpaceThere(f"{text}: the server has no room for it now")
        if status in (405, 501):
            return Unsupported(f"{text}: the server does not take this (is WebDAV allowed there?)")
        return TransferError(text)


_REFUSED: Final = 400
"""Statuses from here on are final, and no success (RFC 9110 15.5)."""
_TOO_LARGE: Final = 413
"""Content Too Large (RFC 9110 15.5.14)."""
_NO_SPACE: Final = 507
"""Insufficient Storage, "considered to be temporary" (RFC 4918 11.5)."""
_IS_THERE: Final = 405
"""MKCOL of a name that is there (RFC 4918 9.3.1)."""
_ABOVE_IS_GONE: Final = 409
_ABOVE_IS_MISSING: Final = (404, _ABOVE_IS_GONE)
"""MKCOL below a directory that is not there: 409 (RFC 4918 9.3.1), from some servers 404."""
_SLASHES_OF_HOST: Final = 2


def _drop(_data: bytes) -> None:
    """What a server says in the body of its answer is not looked at."""


def _entry(call: RemoteCall, response: Response) -> RemoteEntry:
    mtime_ns = None
    if response.last_modified is not None:
        try:
            moment = parsedate_to_datetime(response.last_modified)
        except ValueError:
            pass  # no date: then none is known
        else:
            mtime_ns = int(moment.timestamp()) * _SECOND_NS
    name = call.url.rstrip("/").rpartition("/")[2]
    attributes = Attributes(size=response.content_length, mtime_ns=mtime_ns)
    return RemoteEntry(name=name, attributes=attributes, is_directory=call.url.endswith("/"))


OPERATIONS: Final[Mapping[Operation, Callable[[SendStream, RemoteCall], None]]] = MappingProxyType({
    Operation.MAKE_DIRECTORY: SendStream._make_directory,
    Operation.REMOVE: SendStream._remove,
    Operation.RENAME: SendStream._rename,
    Operation.STAT: SendStream._look,
})  # fmt: skip
"""What begins each operation."""

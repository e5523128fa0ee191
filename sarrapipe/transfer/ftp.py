"""Fetching and sending by FTP and FTPS with libcurl (RFC 959, RFC 3659, RFC 4217).

One easy handle for one request at a time; libcurl keeps control connections between them. A range is REST
and RETR, of which the rest is not waited for, so each range of a large file logs in anew. Files are written
whole: servers differ in what REST before STOR does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import pycurl

from sarrapipe.errors import (
    AccessDenied,
    SarrapipeError,
    SourceChanged,
    SourceGone,
    TransferError,
    Unsupported,
)
from sarrapipe.transfer import ftprules
from sarrapipe.transfer.base import (
    Capabilities,
    Done,
    RangeDone,
    RangeRead,
    Request,
    StagingSink,
    failed,
    staging,
)
from sarrapipe.transfer.credentials import Credentials
from sarrapipe.transfer.curlloop import CurlLoop, Ended
from sarrapipe.transfer.httpstream import GATHER_BYTES, set_trust
from sarrapipe.transfer.pacing import Pacer
from sarrapipe.transfer.remotecall import Attributes, CallDone, Operation, RemoteCall, RemoteEntry
from sarrapipe.transfer.settings import HttpSettings, Surroundings
from sarrapipe.transfer.writing import RangeWrite, WriteDone

__all__ = ["FtpBackend", "make_backend"]

_NOTHING_TAKEN: Final = 0
_GIVE_UP: Final[int] = pycurl.READFUNC_ABORT
_PAUSE: Final[int] = pycurl.READFUNC_PAUSE
_KEEP: Final[int] = pycurl.WRITEFUNC_PAUSE
_FTP: Final = pycurl.PROTO_FTP | pycurl.PROTO_FTPS
_NO_SUCH_COMMAND: Final = (500, 502, 504)
_NO_DIRECTORY: Final = 501
"""What MLSD says of a name that is no directory (RFC 3659 7.2.1)."""
_DIRECTORY_IS_MISSING: Final = (550, 553)
_NOBODY: Final = Credentials()


class _Handle:
    """One easy handle and what it is busy with."""

    def __init__(self, loop: CurlLoop, settings: HttpSettings, pacer: Pacer | None) -> None:
        self._loop = loop
        self._settings = settings
        self._pacer = pacer
        self.curl = pycurl.Curl()
        self.request: Request | None = None
        self._lines: list[bytes] = []
        self._listed = bytearray()
        self._error: SarrapipeError | None = None
        self._taking = False
        self._moved = 0
        self._paused = False
        self._second = False
        self._staging: StagingSink | None = None
        self._waits = False

    def begin(self, request: Request) -> None:
        """Set the handle up.

        Raises:
            MessageError: The URL is none, or its path cannot be named.
        """
        self.request = request
        self._lines.clear()
        self._listed.clear()
        self._error, self._taking, self._moved = None, False, 0
        self._paused = self._second = self._waits = False
        self._set_base(request.credentials or _NOBODY)
        if isinstance(request, RangeRead):
            self._begin_read(request)
        elif isinstance(request, RangeWrite):
            self._begin_write(request)
        else:
            self._set_url(request)
            _CALLS[request.operation](self, request)

    def _set_base(self, who: Credentials) -> None:
        curl, settings = self.curl, self._settings
        curl.reset()
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.PROTOCOLS, _FTP)
        curl.setopt(pycurl.FTP_FILEMETHOD, pycurl.FTPMETHOD_NOCWD)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(settings.connect_timeout_s * 1000))
        curl.setopt(pycurl.FTP_RESPONSE_TIMEOUT, settings.stall_s)
        curl.setopt(pycurl.LOW_SPEED_LIMIT, settings.stall_bytes_s)
        curl.setopt(pycurl.LOW_SPEED_TIME, settings.stall_s)
        curl.setopt(pycurl.BUFFERSIZE, settings.buffer_bytes)
        curl.setopt(pycurl.PROXY, "")
        curl.setopt(pycurl.HEADERFUNCTION, self._lines.append)
        curl.setopt(pycurl.WRITEFUNCTION, self._on_body, use_memoryview=True)
        set_trust(curl, settings)
        assert self.request is not None
        if who.tls or self.request.url[:5].lower() == "ftps:":
            curl.setopt(pycurl.USE_SSL, pycurl.USESSL_ALL)
        if not who.passive:
            curl.setopt(pycurl.FTPPORT, "-")
        if who.user:
            curl.setopt(pycurl.USERNAME, who.user.encode())
            curl.setopt(pycurl.PASSWORD, who.password.encode())

    def _set_url(self, request: Request, *, escaped: bool = False) -> None:
        implicit = (request.credentials or _NOBODY).implicit_tls
        url = ftprules.wire_url(request.url, escaped=escaped, implicit_tls=implicit)
        self.curl.setopt(pycurl.URL, url)

    # ---- reads

    def _begin_read(self, read: RangeRead) -> None:
        self._staging = staging(read.sink)
        self._set_url(read, escaped=read.url_is_escaped)
        self.curl.setopt(pycurl.OPT_FILETIME, 1)
        if not read.whole and read.length != 0:
            last = "" if read.length is None else str(read.offset + read.length - 1)
            self.curl.setopt(pycurl.RANGE, f"{read.offset}-{last}")

    def _judge(self, read: RangeRead) -> None:
        """Compare what the server says of the file with what was announced, before a byte of it is taken."""
        found = ftprules.facts(self._lines)
        if read.whole_size is not None and found.size is not None and found.size != read.whole_size:
            self._error = SourceChanged(
                f"source has {found.size} bytes, announced {read.whole_size}: {read.url}"
            )
        elif read.validator is not None and found.version not in (None, read.validator):
            self._error = SourceChanged(
                f"source is of version {found.version} now, was {read.validator}: {read.url}"
            )
        self._taking = self._error is None

    def _on_body(self, data: memoryview) -> int | None:
        request = self.request
        if isinstance(request, RemoteCall):
            self._listed += data
            return None
        assert isinstance(request, RangeRead), "libcurl only calls between begin and the end"
        if not self._taking:
            self._judge(request)
            if not self._taking:
                return _NOTHING_TAKEN
        try:
            if self._staging is not None and not self._staging.room(len(data)):
                return self._wait_for_room(request, self._staging)
            request.sink.write(data)
        except SarrapipeError as error:
            self._error = error
            return _NOTHING_TAKEN
        self._moved += len(data)
        self._spend(len(data), pycurl.PAUSE_RECV)
        return None

    def _wait_for_room(self, read: RangeRead, sink: StagingSink) -> int:
        """Have libcurl keep the piece, and read nothing more, until there is room for it."""
        if not self._waits:
            self._waits = True
            sink.call_when_room(lambda: self._look_for_room(read))
        return _KEEP

    def _look_for_room(self, read: RangeRead) -> None:
        if self.request is read:
            self._waits = False
            self._loop.go_on(self.curl)

    def _spend(self, count: int, pause: int) -> None:
        wait_s = 0.0 if self._pacer is None else self._pacer.spend(count)
        if wait_s > 0:
            self.curl.pause(pause)
            request = self.request
            self._loop.call_later(wait_s, lambda: self._resume(request))

    def _resume(self, request: Request | None) -> None:
        if self.request is request:
            self._loop.go_on(self.curl)

    # ---- writes

    def _begin_write(self, write: RangeWrite) -> None:
        self._set_url(write)
        self.curl.setopt(pycurl.UPLOAD, 1)
        self.curl.setopt(pycurl.UPLOAD_BUFFERSIZE, self._settings.buffer_bytes)
        self.curl.setopt(pycurl.INFILESIZE_LARGE, write.length)
        self.curl.setopt(pycurl.READFUNCTION, self._on_read)

    def _on_read(self, count: int) -> bytes | int:
        write = self.request
        assert isinstance(write, RangeWrite), "libcurl only calls between begin and the end"
        try:
            data = write.source.read(min(count, write.length - self._moved, GATHER_BYTES))
        except SarrapipeError as error:
            self._error = error
            return _GIVE_UP
        if data is None:
            self._paused = True
            return _PAUSE
        if not data and self._moved < write.length:
            self._error = TransferError(f"the source ended after {self._moved} bytes: {write.url}")
            return _GIVE_UP
        self._moved += len(data)
        self._spend(len(data), pycurl.PAUSE_SEND)
        return bytes(data)

    def go_on(self) -> None:
        """The source has bytes again; see `httpsend.SendStream.go_on`."""
        if self._paused:
            self._paused = False
            request = self.request
            self._loop.call_later(0.0, lambda: self._resume(request))

    # ---- names

    def _commands(self, call: RemoteCall, *commands: bytes) -> None:
        """Send commands alone; one that begins with `*` may fail."""
        implicit = (call.credentials or _NOBODY).implicit_tls
        self.curl.setopt(pycurl.URL, ftprules.server_of(call.url, implicit_tls=implicit))
        self.curl.setopt(pycurl.NOBODY, 1)
        self.curl.setopt(pycurl.QUOTE, list(commands))

    def _make_directory(self, call: RemoteCall) -> None:
        path = ftprules.command_path(call.url).rstrip(b"/")
        parts = path.split(b"/")
        above = [b"/".join(parts[: count + 1]) for count in range(len(parts)) if parts[count]]
        self._commands(call, *(b"*MKD " + one for one in above), b"CWD " + (path or b"/"))

    def _remove(self, call: RemoteCall) -> None:
        self._commands(call, b"DELE " + ftprules.command_path(call.url))

    def _remove_directory(self, call: RemoteCall) -> None:
        self._commands(call, b"RMD " + ftprules.command_path(call.url).rstrip(b"/"))

    def _rename(self, call: RemoteCall, *before: bytes) -> None:
        old, new = ftprules.command_path(call.url), ftprules.command_path(path=call.to)
        self._commands(call, *before, b"RNFR " + old, b"RNTO " + new)

    def _set(self, call: RemoteCall) -> None:
        """Times and modes that a server does not take are left as they are, as sr3 has it."""
        wanted, path = call.attributes or Attributes(), ftprules.command_path(call.url)
        commands = [b"NOOP"]
        if wanted.mode is not None:
            commands.append(b"*SITE CHMOD %o " % wanted.mode + path)
        if wanted.mtime_ns is not None:
            commands.append(b"*MFMT " + ftprules.stamp(wanted.mtime_ns).encode() + b" " + path)
        self._commands(call, *commands)

    def _look(self, _call: RemoteCall) -> None:
        self.curl.setopt(pycurl.NOBODY, 1)
        self.curl.setopt(pycurl.OPT_FILETIME, 1)

    def _list(self, call: RemoteCall) -> None:
        path = ftprules.command_path(call.url).rstrip(b"/") or b"/"
        self.curl.setopt(pycurl.CUSTOMREQUEST, b"MLSD " + path)
        implicit = (call.credentials or _NOBODY).implicit_tls
        self.curl.setopt(pycurl.URL, ftprules.server_of(call.url, implicit_tls=implicit))

    # ---- the end

    def finish(self, ended: Ended) -> Done | None:
        """Say how the request ended; None if it goes on with another of the same handle."""
        request = self.request
        assert request is not None, "a handle ends once"
        code = int(self.curl.getinfo(pycurl.RESPONSE_CODE))
        error = self._error or self._verdict(request, ended, code)
        if isinstance(request, RemoteCall):
            if error is not None and not self._second and self._goes_on(request, error):
                return None
            self.request = None
            return self._called(request, code, error)
        self.request = None
        if isinstance(request, RangeWrite):
            return WriteDone(write=request, sent=self._moved, status=code, error=error)
        return self._read(request, code, error)

    def _read(self, read: RangeRead, code: int, error: SarrapipeError | None) -> RangeDone:
        found = ftprules.facts(self._lines)
        if self._error is None and not self._taking and not isinstance(error, AccessDenied | SourceGone):
            self._judge(read)  # another size explains more than the refusal of a range
            error = self._error or error
        wanted = read.length
        if wanted is None and found.size is not None:
            wanted = found.size - read.offset
        if error is None and wanted is not None and self._moved < wanted:
            error = TransferError(f"{self._moved} bytes of {wanted} came: {read.url}")
        return RangeDone(
            read=read,
            received=self._moved,
            status=code,
            etag=found.version,
            whole_size=found.size,
            error=error,
        )

    def _called(self, call: RemoteCall, code: int, error: SarrapipeError | None) -> CallDone:
        entries: tuple[RemoteEntry, ...] = ()
        if self._second and call.operation in (Operation.REMOVE, Operation.REMOVE_DIRECTORY):
            # It could not be removed, and was looked for: gone already, or still there.
            # Any other error says nothing of it.
            if error is None:
                error = AccessDenied(f"{call.operation.value}: it stays: {call.url}")
            elif isinstance(error, SourceGone):
                error = None
        elif error is None and call.operation is Operation.LIST:
            entries = tuple(ftprules.listing(bytes(self._listed)))
        elif error is None and call.operation is Operation.STAT:
            entries = (self._entry(call),)
        return CallDone(call=call, entries=entries, status=code, error=error)

    def _entry(self, call: RemoteCall) -> RemoteEntry:
        found = ftprules.facts(self._lines)
        mtime_ns = None if found.mtime_s is None else found.mtime_s * 1_000_000_000
        name = call.url.rpartition("/")[2]
        return RemoteEntry(name=name, attributes=Attributes(size=found.size, mtime_ns=mtime_ns))

    def _goes_on(self, call: RemoteCall, error: SarrapipeError) -> bool:
        """Find out what a refusal means, or try another way; once."""
        renamed_from = any(line.startswith(b"350") for line in self._lines)
        if isinstance(error, AccessDenied) or self._error is not None:
            return False
        if call.operation is Operation.RENAME and renamed_from:
            self._again()
            self._rename(call, b"*DELE " + ftprules.command_path(path=call.to))
        elif call.operation is Operation.REMOVE:
            self._again()
            path = ftprules.command_path(call.url)
            self._commands(call, b"RNFR " + path)  # of all commands the one that finds names of every kind
        elif call.operation is Operation.REMOVE_DIRECTORY:
            self._again()
            self._commands(call, b"CWD " + ftprules.command_path(call.url).rstrip(b"/"))
        else:
            return False
        return True

    def _again(self) -> None:
        self._second = True
        self._lines.clear()

    def _verdict(self, request: Request, ended: Ended, code: int) -> SarrapipeError | None:
        if not ended.code:
            return None
        what = _named(request)
        said = b"".join(self._lines[-1:]).decode("utf-8", "replace").strip()
        text = f"{what} {request.url}: {said or ended.message} (CURLE {ended.code})"
        if ended.code == pycurl.E_LOGIN_DENIED:
            return ftprules.refusal(ftprules.NOT_LOGGED_IN, text, said)
        if ended.code in (pycurl.E_OPERATION_TIMEDOUT, pycurl.E_COULDNT_CONNECT):
            return TransferError(text)
        if isinstance(request, RangeWrite) and code in _DIRECTORY_IS_MISSING:
            return SourceGone(f"{text}: its directory is not there, or may not be written")
        if isinstance(request, RemoteCall) and request.operation is Operation.LIST and code == _NO_DIRECTORY:
            return SourceGone(text)
        if isinstance(request, RemoteCall) and code in _NO_SUCH_COMMAND:
            return Unsupported(text)
        if ended.code == pycurl.E_REMOTE_FILE_NOT_FOUND:
            return SourceGone(text)
        return ftprules.refusal(code, text, said)

    def drop(self) -> None:
        """Forget the request."""
        self.request = None


def _named(request: Request) -> str:
    if isinstance(request, RangeRead):
        return "read"
    return "write" if isinstance(request, RangeWrite) else request.operation.value


_CALLS: Final[Mapping[Operation, Callable[[_Handle, RemoteCall], None]]] = MappingProxyType({
    Operation.MAKE_DIRECTORY: _Handle._make_directory,
    Operation.REMOVE: _Handle._remove,
    Operation.REMOVE_DIRECTORY: _Handle._remove_directory,
    Operation.RENAME: _Handle._rename,
    Operation.SET: _Handle._set,
    Operation.STAT: _Handle._look,
    Operation.LIST: _Handle._list,
})  # fmt: skip


class FtpBackend:
    """Requests over FTP.

    Args:
        loop: The loop that runs the handles.
        settings: Time limits and trust, as for HTTP.
        pacer: Holds up both directions when the flow's byte rate is used up; None if there is no limit.
    """

    capabilities = Capabilities(
        ranges=True,
        parallel=True,
        validators=True,
        local=False,
        pauses=True,
        writes=True,
        operations=frozenset(_CALLS),
    )

    def __init__(self, loop: CurlLoop, settings: HttpSettings, pacer: Pacer | None) -> None:
        self._loop = loop
        self._settings = settings
        self._pacer = pacer
        self._idle: list[_Handle] = []
        self._by_curl: dict[pycurl.Curl, _Handle] = {}
        self._by_token: dict[object, _Handle] = {}
        self._failed: list[Done] = []

    def start(self, request: Request) -> None:
        """Begin `request`; see `TransferBackend.start`."""
        handle = self._idle.pop() if self._idle else _Handle(self._loop, self._settings, self._pacer)
        try:
            handle.begin(request)
        except SarrapipeError as error:
            handle.drop()
            self._idle.append(handle)
            self._failed.append(failed(request, error))
            return
        self._by_curl[handle.curl] = handle
        self._by_token[request.token] = handle
        self._loop.add(handle.curl)

    def step(self) -> list[Done]:
        """What ended; libcurl itself works in `CurlLoop.run_once`."""
        done, self._failed = self._failed, []
        for ended in self._loop.ended(self._by_curl):
            handle = self._by_curl.pop(ended.curl)
            self._loop.remove(ended.curl)
            one = handle.finish(ended)
            if one is None:
                self._by_curl[handle.curl] = handle
                self._loop.add(handle.curl)
                continue
            del self._by_token[one.token]
            self._idle.append(handle)
            done.append(one)
        return done

    def busy(self) -> bool:
        """Only what failed before it began waits here."""
        return bool(self._failed)

    def go_on(self, token: object) -> None:
        """The source of a write has bytes again, or its end."""
        handle = self._by_token.get(token)
        if handle is not None:
            handle.go_on()

    def cancel(self, token: object) -> bool:
        """Stop a request; its connection is closed."""
        handle = self._by_token.pop(token, None)
        if handle is None:
            before = len(self._failed)
            self._failed = [one for one in self._failed if one.token != token]
            return len(self._failed) < before
        del self._by_curl[handle.curl]
        self._loop.remove(handle.curl)
        handle.drop()
        self._idle.append(handle)
        return True

    def close(self) -> None:
        """End everything under way and free the handles."""
        for token in list(self._by_token):
            self.cancel(token)
        for handle in self._idle:
            handle.curl.close()
        self._idle.clear()
        self._failed.clear()


def make_backend(surroundings: Surroundings) -> FtpBackend:
    """What the registry calls for the first ftp or ftps URL."""
    return FtpBackend(surroundings.loop, surroundings.settings.http, surroundings.pacer)

"""One operation on a name over SFTP: mostly one request, sometimes a few, one after the other."""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from sarrapipe.errors import SarrapipeError, SourceGone, TransferError
from sarrapipe.transfer import sftpwire
from sarrapipe.transfer.remotecall import Attributes, CallDone, Operation, RemoteCall, RemoteEntry
from sarrapipe.transfer.sftplink import Answered, SftpLink

__all__ = ["OPERATIONS", "SftpCall"]

_SECOND_NS: Final = 1_000_000_000


class SftpCall:
    """An operation under way.

    Args:
        request: What is to be done.
        name: What to (`sftpwire.file_name`).
        link: The connection.
        ended: Told once how it went; not if it was cancelled.
    """

    __slots__ = ("_ended", "_entries", "_handle", "_link", "_missing", "_over", "name", "request")

    def __init__(
        self,
        request: RemoteCall,
        name: bytes,
        link: SftpLink,
        ended: Callable[[SftpCall, CallDone], None],
    ) -> None:
        self.request = request
        self.name = name
        self._link = link
        self._ended = ended
        self._over = False
        self._handle = b""
        self._entries: list[RemoteEntry] = []
        self._missing: list[bytes] = []

    @property
    def wanted_bytes(self) -> int:
        """None count."""
        return 0

    def begin(self) -> None:
        """Send the first request."""
        OPERATIONS[self.request.operation](self)

    def go_on(self) -> None:
        """Nothing waits for a source here."""

    def drop(self) -> None:
        """Tell nobody; what was asked for is done all the same."""
        self._over = True

    def lost(self, error: TransferError) -> None:
        """The connection is gone."""
        self._tell(type(error)(f"{error}: {self.request.url}"))

    # ---- one request each

    def remove(self) -> None:
        """Remove a file or link."""
        self._ask(sftpwire.REMOVE, sftpwire.string(self.name), self._removed)

    def remove_directory(self) -> None:
        """Remove an empty directory."""
        self._ask(sftpwire.RMDIR, sftpwire.string(self.name), self._removed)

    def _removed(self, kind: int, body: memoryview) -> None:
        error = self._refusal(kind, body)
        self._tell(None if isinstance(error, SourceGone) else error)

    def set(self) -> None:
        """Set size, permissions and times."""
        wanted = self.request.attributes or Attributes()
        body = sftpwire.set_attributes(size=wanted.size, mode=wanted.mode, times_s=_times_s(wanted))
        self._ask(sftpwire.SETSTAT, sftpwire.string(self.name) + body, self._done)

    def rename(self) -> None:
        """Rename over what is there: at once where the server can, else by removing that first."""
        self._rename(self.name, sftpwire.file_name(self.request.to))

    def _rename(self, old: bytes, new: bytes) -> None:
        names = sftpwire.string(old) + sftpwire.string(new)
        if sftpwire.POSIX_RENAME in self._link.extensions:
            self._ask(sftpwire.EXTENDED, sftpwire.string(sftpwire.POSIX_RENAME) + names, self._done)
            return

        def removed(_kind: int, _body: memoryview) -> None:
            self._ask(sftpwire.RENAME, names, self._done)

        def looked(kind: int, body: memoryview) -> None:
            if kind == sftpwire.ATTRS:  # what is renamed is there: make room for it
                self._ask(sftpwire.REMOVE, sftpwire.string(new), removed)
            else:
                self._done(kind, body)

        self._ask(sftpwire.LSTAT, sftpwire.string(old), looked)

    def link(self) -> None:
        """Make a link beside the name, and rename it over what is there.

        OpenSSH takes the two names the other way round than the draft has them, and every server that is
        told from it does (OpenSSH's PROTOCOL, section 4.1).
        """
        text = self.request.to.encode("utf-8", "surrogateescape")
        head, slash, last = self.name.rpartition(b"/")
        beside = head + slash + b".sarrapipe-link." + last[:200]
        body = sftpwire.string(text) + sftpwire.string(beside)

        def made(kind: int, answer: memoryview) -> None:
            error = self._refusal(kind, answer)
            if error is None:
                self._rename(beside, self.name)
            else:
                self._tell(error)

        def removed(_kind: int, _body: memoryview) -> None:
            self._ask(sftpwire.SYMLINK, body, made)

        self._ask(sftpwire.REMOVE, sftpwire.string(beside), removed)

    # ---- directories

    def make_directory(self) -> None:
        """Make it; where one above is missing, that one first."""
        self._missing = [self.name.rstrip(b"/") or b"/"]
        self._make_one()

    def _make_one(self) -> None:
        mode = self.request.attributes.mode if self.request.attributes is not None else None
        wanted = sftpwire.set_attributes(mode=mode if len(self._missing) == 1 else None)
        self._ask(sftpwire.MKDIR, sftpwire.string(self._missing[-1]) + wanted, self._made_one)

    def _made_one(self, kind: int, body: memoryview) -> None:
        error = self._refusal(kind, body)
        name = self._missing[-1]
        if error is None:
            self._missing.pop()
            if self._missing:
                self._make_one()
            else:
                self._tell(None)
            return
        above = name.rpartition(b"/")[0]
        if isinstance(error, SourceGone) and above and above != name:
            self._missing.append(above)
            self._make_one()
            return
        # There already, as the protocol has no word for, or not allowed.
        self._ask(sftpwire.STAT, sftpwire.string(name), lambda k, b: self._looked(k, b, error))

    def _looked(self, kind: int, body: memoryview, error: SarrapipeError) -> None:
        found = sftpwire.attributes(body) if kind == sftpwire.ATTRS else None
        if found is None or found.mode is None or not stat.S_ISDIR(found.mode):
            self._tell(error)
            return
        self._missing.pop()
        if self._missing:
            self._make_one()
        else:
            self._tell(None)

    # ---- looking

    def look(self) -> None:
        """Ask for the attributes of a name, and where a link leads."""
        self._ask(sftpwire.LSTAT, sftpwire.string(self.name), self._found)

    def _found(self, kind: int, body: memoryview) -> None:
        if kind != sftpwire.ATTRS:
            self._done(kind, body)
            return
        name = self.name.rpartition(b"/")[2]
        entry = _entry(name, sftpwire.attributes(body))
        if not entry.is_link:
            self._entries = [entry]
            self._tell(None)
            return
        self._ask(
            sftpwire.READLINK,
            sftpwire.string(self.name),
            lambda k, b: self._found_link(k, b, entry),
        )

    def _found_link(self, kind: int, body: memoryview, entry: RemoteEntry) -> None:
        if kind != sftpwire.NAME:
            self._done(kind, body)
            return
        target = sftpwire.names(body)[0][0]
        self._entries = [replace(entry, link_target=_text(target))]
        self._tell(None)

    def list(self) -> None:
        """Read a directory to its end."""
        self._ask(sftpwire.OPENDIR, sftpwire.string(self.name.rstrip(b"/") or b"/"), self._opened)

    def _opened(self, kind: int, body: memoryview) -> None:
        if kind != sftpwire.HANDLE:
            self._done(kind, body)
            return
        self._handle = bytes(body)
        self._ask(sftpwire.READDIR, self._handle, self._listed)

    def _listed(self, kind: int, body: memoryview) -> None:
        if kind == sftpwire.NAME:
            for name, found in sftpwire.names(body):
                if name not in (b".", b".."):
                    self._entries.append(_entry(name, found))
            self._ask(sftpwire.READDIR, self._handle, self._listed)
            return
        self._link.request(sftpwire.CLOSE, self._handle, _nobody_waits)
        at_end = kind == sftpwire.STATUS and sftpwire.status(body)[0] == sftpwire.STATUS_EOF
        self._tell(None if at_end else self._refusal(kind, body))

    # ---- what all have in common

    def _ask(self, kind: int, body: bytes, answered: Answered) -> None:
        def take(kind: int, body: memoryview) -> None:
            if self._over:
                return
            try:
                answered(kind, body)
            except SarrapipeError as error:
                self._tell(error)

        self._link.request(kind, body, take)

    def _done(self, kind: int, body: memoryview) -> None:
        self._tell(self._refusal(kind, body))

    def _refusal(self, kind: int, body: memoryview) -> TransferError | None:
        """What the server said, None for success."""
        what = f"{self.request.operation.value} {self.request.url}"
        if kind != sftpwire.STATUS:
            return TransferError(f"{what}: SFTP server answered with a packet of type {kind}")
        if sftpwire.status(body)[0] == sftpwire.STATUS_OK:
            return None
        return sftpwire.status_error(body, what)

    def _tell(self, error: SarrapipeError | None) -> None:
        if not self._over:
            self._over = True
            entries = () if error is not None else tuple(self._entries)
            self._ended(self, CallDone(call=self.request, entries=entries, error=error))


def _times_s(wanted: Attributes) -> tuple[int, int] | None:
    """Times of last access and last change; the protocol has no one without the other."""
    if wanted.mtime_ns is None:
        return None
    atime_ns = wanted.mtime_ns if wanted.atime_ns is None else wanted.atime_ns
    return _second(atime_ns), _second(wanted.mtime_ns)


def _second(time_ns: int) -> int:
    """What 32 bits hold of it."""
    return min(max(time_ns // _SECOND_NS, 0), 0xFFFFFFFF)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _entry(name: bytes, found: sftpwire.Attributes) -> RemoteEntry:
    mode = found.mode
    return RemoteEntry(
        name=_text(name),
        attributes=Attributes(
            size=found.size,
            mode=None if mode is None else stat.S_IMODE(mode),
            mtime_ns=None if found.mtime_s is None else found.mtime_s * _SECOND_NS,
        ),
        is_directory=mode is not None and stat.S_ISDIR(mode),
        is_link=mode is not None and stat.S_ISLNK(mode),
    )


def _nobody_waits(_kind: int, _body: memoryview) -> None:
    """What a close is answered changes nothing."""


OPERATIONS: Final[Mapping[Operation, Callable[[SftpCall], None]]] = MappingProxyType({
    Operation.MAKE_DIRECTORY: SftpCall.make_directory,
    Operation.REMOVE: SftpCall.remove,
    Operation.REMOVE_DIRECTORY: SftpCall.remove_directory,
    Operation.RENAME: SftpCall.rename,
    Operation.LINK: SftpCall.link,
    Operation.SET: SftpCall.set,
    Operation.STAT: SftpCall.look,
    Operation.LIST: SftpCall.list,
})  # fmt: skip
"""What begins each operation."""

"""What is said to an FTP server, and in which order: dialogues, without a connection in sight.

A dialogue is a generator that yields commands and is sent their replies; what it returns is its result, what
it raises its error. Whoever has a connection runs it (`ftplink`), a test does so with a transcript.

    def look(path):
        reply = yield b"SIZE " + path

Rules: RFC 959, RFC 2428 (EPSV, EPRT), RFC 2389 (FEAT), RFC 3659 (SIZE, MDTM, MLST, REST), RFC 4217 (TLS),
draft-somers-ftp-mfxx (MFMT). Commands and replies alternate, as RFC 959 5.4 has it: there are servers, and
firewalls, that lose a command which is sent before the answer to the one before.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeAlias, TypeVar

from sarrapipe.errors import AccessDenied, RangeNotHonoured, SourceGone, TransferError, Unsupported
from sarrapipe.transfer import ftprules, ftpwire
from sarrapipe.transfer.ftplist import machine_entry, moment_s
from sarrapipe.transfer.ftprules import NO_SUCH_COMMAND, Facts, FtpPlace
from sarrapipe.transfer.ftpwire import Reply
from sarrapipe.transfer.remotecall import Attributes, Operation, RemoteCall, RemoteEntry

__all__ = [
    "DIALOGUES",
    "Dialogue",
    "Habits",
    "Session",
    "Step",
    "active",
    "enter",
    "log_in",
    "look",
    "passive",
    "transfer",
]

_T = TypeVar("_T")

_READY: Final = 220
_READY_SOON: Final = 120
_PASSWORD_WANTED: Final = 331
_ACCOUNT_WANTED: Final = 332
_TLS_BEGINS: Final = 234
_EXTENDED_PASSIVE: Final = 229
_PASSIVE: Final = 227
_ENDS_OF_TRANSFERS: Final = (226, 426, 451)
_SECOND_NS: Final = 1_000_000_000
_MDTM: Final = re.compile(rb"213 (\d{14})(?:\.\d+)?\s*\Z")
_SIZE: Final = re.compile(rb"213 (\d{1,19})\s*\Z")


class Step(enum.Enum):
    """What a dialogue may yield in place of a command."""

    LISTEN = "listen"
    """Send nothing: the server speaks next."""
    START_TLS = "start TLS"
    """Encrypt the connection; the reply that is sent in then has no meaning."""


Dialogue: TypeAlias = Generator[bytes | Step, Reply, _T]


@dataclass(slots=True)
class Habits:
    """What was learnt of a server, so that it is not asked again for what it does not know."""

    epsv: bool = True
    eprt: bool = True
    mlsd: bool = True
    size: bool = True
    mdtm: bool = True
    features: frozenset[str] | None = None
    """What FEAT said; None until it was asked."""


@dataclass(slots=True)
class Session:
    """One login."""

    habits: Habits = field(default_factory=Habits)
    home: bytes | None = None
    """Directory one is logged in to, which every command finds as the current one; None until it was asked,
    empty if the server does not tell."""


# ---- logging in


def log_in(place: FtpPlace) -> Dialogue[None]:
    """From the greeting to the point where files can be asked for.

    Raises:
        ServerFull: It takes nobody in now.
        AccessDenied: Not this user with this password.
        TransferError: It is not ready, or does not encrypt.
    """
    reply = yield Step.LISTEN
    while reply.code == _READY_SOON:
        reply = yield Step.LISTEN
    if reply.code != _READY:
        raise ftprules.login_refusal(reply.code, reply.said)
    if place.tls and not place.implicit_tls:
        reply = yield b"AUTH TLS"
        if reply.code != _TLS_BEGINS:
            raise TransferError(f"the FTP server does not encrypt: {reply.said}")
        yield Step.START_TLS
    yield from _say_who(place)
    if place.tls:
        yield b"PBSZ 0"
        reply = yield b"PROT P"
        if not reply.ok:
            raise TransferError(f"the FTP server does not encrypt data: {reply.said}")
    reply = yield b"TYPE I"
    if not reply.ok:
        raise TransferError(f"the FTP server knows no bytes: {reply.said}")


def _say_who(place: FtpPlace) -> Dialogue[None]:
    reply = yield b"USER " + place.user.encode("utf-8", "surrogateescape")
    if reply.code == _PASSWORD_WANTED:
        reply = yield b"PASS " + place.password.encode("utf-8", "surrogateescape")
    if reply.code == _ACCOUNT_WANTED:
        raise AccessDenied(f"the FTP server wants an account: {reply.said}")
    if not reply.ok:
        raise ftprules.login_refusal(reply.code, reply.said)


# ---- transfers


def look(path: bytes, habits: Habits) -> Dialogue[Facts]:
    """Ask for time and size of a file; what the server does not tell is None."""
    mtime_s = size = None
    if habits.mdtm:
        reply = yield b"MDTM " + path
        habits.mdtm = reply.code not in NO_SUCH_COMMAND
        match = _MDTM.match(reply.lines[-1])
        mtime_s = moment_s(match[1].decode()) if match else None
    if habits.size:
        reply = yield b"SIZE " + path
        habits.size = reply.code not in NO_SUCH_COMMAND
        match = _SIZE.match(reply.lines[-1])
        size = int(match[1]) if match else None
    return Facts(size, mtime_s)


def passive(address: str, habits: Habits) -> Dialogue[int]:
    """Ask the server to listen; return its port.

    Raises:
        TransferError: It does not.
    """
    only_extended = ipaddress.ip_address(address.partition("%")[0]).version != 4
    if habits.epsv or only_extended:
        reply = yield b"EPSV"
        if reply.code == _EXTENDED_PASSIVE:
            return ftpwire.extended_passive_port(reply)
        if only_extended:
            raise ftprules.refusal(reply.code, f"no passive mode: {reply.said}", reply.said)
        habits.epsv = False
    reply = yield b"PASV"
    if reply.code != _PASSIVE:
        raise ftprules.refusal(reply.code, f"no passive mode: {reply.said}", reply.said)
    return ftpwire.passive_port(reply)


def active(address: str, port: int, habits: Habits) -> Dialogue[None]:
    """Say where this side listens.

    Raises:
        TransferError: The server does not connect to there.
    """
    plain = ":" not in address
    if habits.eprt or not plain:
        reply = yield b"EPRT " + ftpwire.extended_port_argument(address, port)
        if reply.ok:
            return
        if not plain:
            raise ftprules.refusal(reply.code, f"no active mode: {reply.said}", reply.said)
        habits.eprt = False
    reply = yield b"PORT " + ftpwire.port_argument(address, port)
    if not reply.ok:
        raise ftprules.refusal(reply.code, f"no active mode: {reply.said}", reply.said)


def transfer(command: bytes, offset: int = 0, cut_off: Callable[[], bool] = bool) -> Dialogue[Reply]:
    """Begin what moves data, and hear how it ended.

    Args:
        command: With its argument.
        offset: Where in the file it begins.
        cut_off: Says whether this side has closed the data connection before its end.

    Returns:
        The last reply, whatever it says.

    Raises:
        RangeNotHonoured: Files are only sent from their beginning.
    """
    if offset:
        reply = yield b"REST %d" % offset
        if not reply.wants_more:
            raise RangeNotHonoured(f"the FTP server starts at no offset: {reply.said}")
    reply = yield command
    begun = False
    while reply.preliminary:
        if begun and cut_off():
            # Pure-FTPd ends a transfer that was cut off with another 150, and says no more.
            return (yield from _catch_up())
        begun = True
        reply = yield Step.LISTEN
    return reply


def _catch_up() -> Dialogue[Reply]:
    """Say something harmless, so that no reply is left which the next command would take for its own."""
    reply = yield b"NOOP"
    while reply.code in _ENDS_OF_TRANSFERS:
        reply = yield Step.LISTEN
    return reply


# ---- operations on names


def _refused(call: RemoteCall, reply: Reply) -> TransferError:
    text = f"{call.operation.value} {call.url}: {reply.said}"
    if reply.code in NO_SUCH_COMMAND:
        return Unsupported(text)
    return ftprules.refusal(reply.code, text, reply.said)


def enter(path: bytes, session: Session) -> Dialogue[Reply]:
    """Find out whether there is such a directory: go there. Whoever calls goes back with `leave`."""
    if session.home is None:
        reply = yield b"PWD"
        session.home = ftpwire.quoted_path(reply)
    return (yield b"CWD " + (path.rstrip(b"/") or b"/"))


def leave(session: Session) -> Dialogue[None]:
    """Go back to where relative paths begin."""
    if session.home:
        yield b"CWD " + session.home


def _is_directory(path: bytes, session: Session) -> Dialogue[Reply]:
    reply = yield from enter(path, session)
    if reply.ok:
        yield from leave(session)
    return reply


def _make_directory(path: bytes, call: RemoteCall, session: Session) -> Dialogue[tuple[RemoteEntry, ...]]:
    path = path.rstrip(b"/")
    if not path:
        return ()
    reply = yield b"MKD " + path
    if reply.ok or (yield from _is_directory(path, session)).ok:
        return ()
    parts = path.split(b"/")
    for count in range(len(parts)):
        if parts[count]:
            reply = yield b"MKD " + b"/".join(parts[: count + 1])
    found = yield from _is_directory(path, session)
    if not found.ok:
        raise _refused(call, reply if reply.code in NO_SUCH_COMMAND else found)
    return ()


def _remove(path: bytes, call: RemoteCall, session: Session) -> Dialogue[tuple[RemoteEntry, ...]]:
    reply = yield b"DELE " + path
    if reply.ok:
        return ()
    if reply.code in NO_SUCH_COMMAND:
        raise _refused(call, reply)
    found = yield b"RNFR " + path  # of all commands the one that finds names of every kind
    if not found.wants_more and (yield from look(path, session.habits)).version is not None:
        raise AccessDenied(f"{call.operation.value}: it stays: {call.url}: {reply.said}")
    return _judge_removal(call, reply, found)


def _remove_directory(path: bytes, call: RemoteCall, session: Session) -> Dialogue[tuple[RemoteEntry, ...]]:
    reply = yield b"RMD " + path.rstrip(b"/")
    if reply.ok:
        return ()
    if reply.code in NO_SUCH_COMMAND:
        raise _refused(call, reply)
    found = yield from _is_directory(path, session)
    return _judge_removal(call, reply, found)


def _judge_removal(call: RemoteCall, reply: Reply, found: Reply) -> tuple[RemoteEntry, ...]:
    """It could not be removed, and was looked for: gone already, or still there; else nothing is known."""
    if found.ok or found.wants_more:
        raise AccessDenied(f"{call.operation.value}: it stays: {call.url}: {reply.said}")
    error = _refused(call, found)
    if not isinstance(error, SourceGone):
        raise error
    return ()


def _rename(path: bytes, call: RemoteCall, _session: Session) -> Dialogue[tuple[RemoteEntry, ...]]:
    new = ftprules.command_path(call.to)
    reply = yield b"RNFR " + path
    if not reply.wants_more:
        raise _refused(call, reply)
    reply = yield b"RNTO " + new
    if reply.ok:
        return ()
    yield b"DELE " + new
    reply = yield b"RNFR " + path
    if reply.wants_more:
        reply = yield b"RNTO " + new
    if not reply.ok:
        raise _refused(call, reply)
    return ()


def _set(path: bytes, call: RemoteCall, _session: Session) -> Dialogue[tuple[RemoteEntry, ...]]:
    """Times and modes that a server does not take are left as they are, as sr3 has it."""
    wanted = call.attributes or Attributes()
    if wanted.mode is not None:
        yield b"SITE CHMOD %o " % wanted.mode + path
    if wanted.mtime_ns is not None:
        yield b"MFMT " + ftprules.stamp(wanted.mtime_ns).encode() + b" " + path
    return ()


def _stat(path: bytes, call: RemoteCall, session: Session) -> Dialogue[tuple[RemoteEntry, ...]]:
    name = call.url.rpartition("/")[2]
    if "MLST" in (yield from _features(session.habits)):
        reply = yield b"MLST " + path
        entry = machine_entry(reply.lines[1].lstrip(b" ")) if len(reply.lines) > len((1, 2)) else None
        if reply.ok and entry is not None:
            return (RemoteEntry(name=name, attributes=entry.attributes, is_directory=entry.is_directory,
                                is_link=entry.is_link),)  # fmt: skip
        if not reply.ok and reply.code not in NO_SUCH_COMMAND:
            raise _refused(call, reply)
    found = yield from look(path, session.habits)
    is_directory = False
    if found.size is None:
        reply = yield from _is_directory(path, session)
        is_directory = reply.ok
        if not is_directory and found.mtime_s is None:
            raise _refused(call, reply)
    mtime_ns = None if found.mtime_s is None else found.mtime_s * _SECOND_NS
    attributes = Attributes(size=found.size, mtime_ns=mtime_ns)
    return (RemoteEntry(name=name, attributes=attributes, is_directory=is_directory),)


def _features(habits: Habits) -> Dialogue[frozenset[str]]:
    if habits.features is None:
        reply = yield b"FEAT"
        habits.features = ftpwire.features(reply)
    return habits.features


Operate: TypeAlias = Callable[[bytes, RemoteCall, Session], Dialogue[tuple[RemoteEntry, ...]]]

DIALOGUES: Final[Mapping[Operation, Operate]] = MappingProxyType({
    Operation.MAKE_DIRECTORY: _make_directory,
    Operation.REMOVE: _remove,
    Operation.REMOVE_DIRECTORY: _remove_directory,
    Operation.RENAME: _rename,
    Operation.SET: _set,
    Operation.STAT: _stat,
})  # fmt: skip
"""What is said for each operation that moves no data: of path, call and session, to what was found."""

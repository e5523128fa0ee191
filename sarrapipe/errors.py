"""Every error of sarrapipe, and what happens next to the thing it befell.

    SarrapipeError
    ├── UsageError                  HALT    the command line asks for what cannot be
    ├── ConfigError                 HALT    a configuration line is wrong; names file, line, column
    ├── MessageError                REJECT  a notification message is malformed or malicious
    ├── BrokerError                 RETRY   the broker refused, vanished or did not confirm
    │   └── TopologyError           HALT    an object exists with other properties
    ├── TransferError               RETRY   fetching or sending failed; `transient` or final
    │   ├── AccessDenied            REJECT  401, 403
    │   ├── HostUntrusted           RETRY   the data server's key is unknown, or is not the known one
    │   ├── SourceGone              RETRY   404, 410: up to `attempts`, then rejected
    │   ├── TooLargeThere           REJECT  413: the server it is sent to takes no file of that size
    │   ├── NoSpaceThere            RETRY   507 (FTP 452, 552): the server it is sent to is full for now
    │   ├── AlreadyThere            REJECT  204: the file is in place, and `overwrite` is off
    │   ├── SourceChanged           REJECT  another version answers than was announced
    │   ├── Unsupported             REJECT  this protocol or server cannot do that, whoever asks
    │   ├── RangeNotHonoured        RETRY   whole file instead of a range: one stream next time
    │   └── IdentityMismatch        RETRY   bytes, size or digest are not the announced ones
    ├── StorageError                RETRY   the local file system refused
    │   ├── InflightDamaged         RETRY   somebody cut, replaced or removed a file under way: fetched anew
    │   ├── NoSpace                 PAUSE   it will fit when space comes back
    │   └── TooLarge                REJECT  it can never fit
    ├── UnsafePath                  REJECT  a path would leave the directories configured
    ├── LedgerError                 HALT    the ledger is corrupt, foreign or of another version
    ├── CallbackError               RETRY   a user's callback raised or overran its time
    └── SupervisorError             HALT    a second parent, no such flow, a stale socket

Library exceptions are translated at the edge that called the library, with the cause kept. `Disposition`
answers "what now?"; `code` is the number that goes into a report (wire.md 3.1).
"""

from __future__ import annotations

import enum

__all__ = [
    "AccessDenied",
    "AlreadyThere",
    "BrokerError",
    "CallbackError",
    "ConfigError",
    "Disposition",
    "HostUntrusted",
    "IdentityMismatch",
    "InflightDamaged",
    "LedgerError",
    "MessageError",
    "NoSpace",
    "NoSpaceThere",
    "RangeNotHonoured",
    "SarrapipeError",
    "SourceChanged",
    "SourceGone",
    "StorageError",
    "SupervisorError",
    "TooLarge",
    "TooLargeThere",
    "TopologyError",
    "TransferError",
    "UnsafePath",
    "Unsupported",
    "UsageError",
]


class Disposition(enum.Enum):
    """What happens next to the item or process an error befell."""

    RETRY = "retry"
    """Keep the item and try again later, with back-off."""
    REJECT = "reject"
    """Acknowledge, count and report the item; never try again."""
    PAUSE = "pause"
    """Stop taking work until the cause goes away; the item waits."""
    HALT = "halt"
    """The process cannot go on; a person has to act."""


class SarrapipeError(Exception):
    """Root of all errors raised on purpose.

    Attributes:
        disposition: What happens next.
        code: Report code (wire.md 3.1), or the exit status for errors that end a command.
    """

    disposition = Disposition.HALT
    code = 500


class UsageError(SarrapipeError):
    """The command line asks for something that does not exist or cannot be done."""

    code = 2


class ConfigError(SarrapipeError):
    """A configuration line is wrong.

    Args:
        what: The problem, naming the option or value, and the nearest valid name if there is one.
        file: Path of the file, or "command line".
        line: Line number from 1; 0 if the problem belongs to the file as a whole.
        column: Column number from 1; 0 if it belongs to the line as a whole.
    """

    code = 78  # EX_CONFIG of sysexits.h

    def __init__(self, what: str, file: str = "", line: int = 0, column: int = 0) -> None:
        super().__init__(what)
        self.what = what
        self.file = file
        self.line = line
        self.column = column

    def __str__(self) -> str:
        """`file:line:column: what`, with the parts that are known."""
        where = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        return f"{where}: {self.what}" if where else self.what


class MessageError(SarrapipeError):
    """A notification message is malformed or malicious."""

    disposition = Disposition.REJECT
    code = 417


class BrokerError(SarrapipeError):
    """The broker refused, vanished, or did not confirm."""

    disposition = Disposition.RETRY
    code = 503


class TopologyError(BrokerError):
    """A queue or exchange exists with other properties than asked for (AMQP 406)."""

    disposition = Disposition.HALT
    code = 78


class TransferError(SarrapipeError):
    """Fetching or sending failed."""

    disposition = Disposition.RETRY
    code = 499


class AccessDenied(TransferError):
    """The data server refuses these credentials (401, 403)."""

    disposition = Disposition.REJECT
    code = 403


class HostUntrusted(TransferError):
    """An SSH server's key is unknown, or is another than the known one; files wait until that is settled."""

    code = 403


class SourceGone(TransferError):
    """The data server has no such file (404, 410); retried up to `attempts`."""

    code = 410


class TooLargeThere(TransferError):
    """The server that it is sent to takes no file of that size (413): another try changes nothing."""

    disposition = Disposition.REJECT
    code = 413


class NoSpaceThere(TransferError):
    """The server that it is sent to is full for now (HTTP 507; FTP 452, 552).

    The file is tried again later. Nothing else is held up by it: the directories and servers that a flow
    sends to need not share that disk, and its own disks have room (`NoSpace` stops the intake for those).
    """

    code = 507


class AlreadyThere(TransferError):
    """What is announced is in place already, and `overwrite` is off."""

    disposition = Disposition.REJECT
    code = 204


class SourceChanged(TransferError):
    """The source holds another version than the one announced (etag, size or time differ)."""

    disposition = Disposition.REJECT
    code = 410


class Unsupported(TransferError):
    """The protocol, or this server, cannot do what is asked: another try changes nothing."""

    disposition = Disposition.REJECT
    code = 503


class RangeNotHonoured(TransferError):
    """The server answered a range request with something else than that range."""


class IdentityMismatch(TransferError):
    """What arrived is not what was announced."""

    code = 417


class StorageError(SarrapipeError):
    """The local file system refused."""

    disposition = Disposition.RETRY


class InflightDamaged(StorageError):
    """What is under way is not what was written there: it was cut, replaced or removed from outside."""


class NoSpace(StorageError):
    """The file system is full for now (ENOSPC, EDQUOT)."""

    disposition = Disposition.PAUSE


class TooLarge(StorageError):
    """The file exceeds `fileSizeMax` or the capacity of the file system."""

    disposition = Disposition.REJECT
    code = 413


class UnsafePath(SarrapipeError):
    """A path from a message, listing or archive would leave the directories configured."""

    disposition = Disposition.REJECT
    code = 422


class LedgerError(SarrapipeError):
    """The ledger or kept store is corrupt, of another version, or owned by another user."""

    code = 74  # EX_IOERR


class CallbackError(SarrapipeError):
    """A user's callback raised, or overran `callbackTimeout`."""

    disposition = Disposition.RETRY


class SupervisorError(SarrapipeError):
    """The parent of a flow cannot do what was asked: already running, not running, no answer."""

    code = 69  # EX_UNAVAILABLE

"""What is done to names at the other side: directories, renames, removals, attributes, listings.

    RemoteCall(url="sftp://pump/in/.a.tmp", operation=Operation.RENAME, to="/in/a", token=task)

Every operation may be repeated: done already is success, as whoever repeats it after a kill cannot know.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from sarrapipe.errors import SarrapipeError
from sarrapipe.transfer.credentials import Credentials

__all__ = ["Attributes", "CallDone", "Operation", "RemoteCall", "RemoteEntry"]


class Operation(enum.Enum):
    """What to do to the name that a URL names."""

    MAKE_DIRECTORY = "make directory"
    """With the directories above it; one that is there is left as it is."""
    REMOVE = "remove"
    """A file or link; none there is success. A directory is an error."""
    REMOVE_DIRECTORY = "remove directory"
    """An empty one; none there is success, one that holds something an error."""
    RENAME = "rename"
    """To `to`, over what is there. No file of the old name is `SourceGone`."""
    LINK = "link"
    """Make a symbolic link that leads to `to`, over what is there."""
    SET = "set attributes"
    """Those of `attributes` that are given."""
    STAT = "stat"
    """One entry; `SourceGone` if there is none. Links are not followed."""
    LIST = "list"
    """An entry for each name in a directory but `.` and `..`, in the server's order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """Of a name at the other side; None where they are not known, or not to be set."""

    size: int | None = None
    """Bytes; setting it cuts or extends the file."""
    mode: int | None = None
    """Permission bits."""
    mtime_ns: int | None = None
    """Nanoseconds since 1970; most protocols know seconds only."""
    atime_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteEntry:
    """What `STAT` and `LIST` find."""

    name: str
    """Without directories; bytes that are no UTF-8 as surrogate escapes (PEP 383)."""
    attributes: Attributes
    is_directory: bool = False
    is_link: bool = False
    link_target: str = ""
    """Where a link leads, if the protocol tells without another question."""


@dataclass(slots=True, kw_only=True)
class RemoteCall:
    """One operation; not changed after it was submitted."""

    url: str
    """What it is done to: scheme, host, and the path, nothing escaped."""
    operation: Operation
    token: object
    """Anything; handed back in `CallDone`. Unique among all requests under way."""
    to: str = ""
    """Path at the same server that is renamed to, nothing escaped; text of a link."""
    attributes: Attributes | None = None
    """What to set; of a new directory, the mode."""
    rides_along: bool = False
    """Others that hold a stream wait for its end: it needs none."""
    credentials: Credentials | None = None


@dataclass(slots=True, kw_only=True)
class CallDone:
    """How an operation ended."""

    call: RemoteCall
    entries: Sequence[RemoteEntry] = ()
    status: int = 0
    """The last answer in the protocol's own numbers; 0 if there was none."""
    error: SarrapipeError | None = None

    @property
    def token(self) -> object:
        """The token of the call."""
        return self.call.token

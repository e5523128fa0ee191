"""What one instance has under way at the server that files are sent to.

`Sends` stands between the tasks and the transfer engine, as `Downloads` does for what is fetched: it makes
requests, hands what ended to whoever asked, makes each directory once, and tells the loop which names were
put in place there.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from sarrapipe.errors import SarrapipeError
from sarrapipe.flow.farside import FarSide
from sarrapipe.flow.sentparts import Parts
from sarrapipe.log import get_logger
from sarrapipe.segment.plan import segment_size
from sarrapipe.transfer.base import Done, Request
from sarrapipe.transfer.remotecall import Attributes, CallDone, Operation, RemoteCall
from sarrapipe.transfer.writing import RangeWrite, Source

if TYPE_CHECKING:
    from sarrapipe.flow.download import Downloads
    from sarrapipe.flow.relayreads import RelayReads
    from sarrapipe.ledger.ledger import Decisions

__all__ = ["FarName", "SendToken", "Sends", "Then"]

_log = get_logger(__name__)

_MIN_SEGMENTS: Final = 2
_DIRECTORIES_KNOWN: Final = 10_000
"""Directories remembered as made; a tree of more is asked about again, a round trip each."""

Then = Callable[[Done], None]


class FarName(Protocol):
    """A task that changes a name at the server, in requests that take their time."""

    error: SarrapipeError | None


class SendToken:
    """Identifies one request; `then` takes its end.

    Args:
        then: Takes it.
        source: Of a write: what it reads.
    """

    __slots__ = ("_began_at", "_source", "then")

    def __init__(self, then: Then, source: Source | None = None) -> None:
        self.then = then
        self._source = source
        self._began_at = 0 if source is None else source.position()

    @property
    def read(self) -> int | None:
        """How many bytes of its source were read to be written; None where nothing is written."""
        return None if self._source is None else self._source.position() - self._began_at


class Sends:
    """Requests to one server.

    Args:
        far: Names there.
        downloads: Runs the engine.

    Attributes:
        far: The same.
        parts: Files in segments of which the ledger knows what is there.
        relays: What is fetched of files that are relayed.
    """

    def __init__(self, far: FarSide, downloads: Downloads) -> None:
        self.far = far
        self.parts = Parts()
        self.relays: list[RelayReads] = []
        self._downloads = downloads
        self._made: OrderedDict[str, None] = OrderedDict()
        self._making: dict[str, list[Callable[[SarrapipeError | None], None]]] = {}
        self._ended: list[FarName] = []
        self._relays = 0
        self._waiting_relays: deque[Callable[[], None]] = deque()

    @property
    def busy(self) -> bool:
        """Whether `ended` would return something, or the ledger is to be asked."""
        return bool(self._ended) or self.undecided

    @property
    def undecided(self) -> bool:
        """Whether the ledger has to be asked or told something."""
        return self.parts.undecided or any(reads.undecided for reads in self.relays)

    def decide(self, decide: Decisions) -> None:
        """Ask and tell the ledger, inside the turn's transaction: versions before what is of them."""
        for reads in self.relays:
            reads.decide(decide)
        self.parts.decide(decide)

    def act(self) -> None:
        """Let the tasks go on with what it answered."""
        for reads in list(self.relays):
            reads.act()
        self.parts.act()

    def further_source(self, generation: bytes | None = None) -> None:
        """The ledger may know another source of a file that is relayed; without a generation of any."""
        for reads in self.relays:
            reads.ask = reads.ask or generation in (None, reads.generation)

    @property
    def operations(self) -> frozenset[Operation]:
        """What can be done to names there."""
        return self._downloads.engine.capabilities(self.far.url("/")).operations

    @property
    def positioned(self) -> bool:
        """Whether parts of one file can be written at the same time."""
        return self._downloads.engine.capabilities(self.far.url("/")).positioned_writes

    def segment_bytes(self, size: int) -> int:
        """Return the size of the segments of a file of which the ledger counts what is there; 0: it does not.

        A server that takes one stream only keeps nothing of one that broke off, and under its final name
        somebody else may write a file.

        Args:
            size: Bytes of the whole file.
        """
        if not self.positioned or self.far.in_place or Operation.STAT not in self.operations:
            return 0
        wanted = self._downloads.config.segment_size or segment_size(size)
        return wanted if size >= _MIN_SEGMENTS * wanted else 0

    def ended(self) -> list[FarName]:
        """Return the tasks whose change of a name came to its end; `error` says how."""
        ended, self._ended = self._ended, []
        return ended

    def end(self, task: FarName, error: SarrapipeError | None) -> None:
        """Let the loop know that a task's change of a name came to its end."""
        task.error = error
        self._ended.append(task)

    def write(
        self,
        path: str,
        source: Source,
        length: int,
        then: Then,
        *,
        offset: int = 0,
        whole: bool = True,
        mode: int | None = None,
        rides_along: bool = False,
    ) -> SendToken:
        """Write a range of a file.

        Args:
            path: Absolute path at the server.
            source: The bytes.
            length: How many.
            then: Takes the end.
            offset: Where the first byte goes.
            whole: It is all of the file.
            mode: Permission bits of a file that is made.
            rides_along: As of `RangeWrite`.

        Returns:
            What cancels it.
        """
        token = SendToken(then, source)
        url = self.far.url(path)
        self._submit(
            RangeWrite(
                url=url,
                source=source,
                token=token,
                length=length,
                offset=offset,
                whole=whole,
                mode=mode,
                rides_along=rides_along,
                credentials=self._downloads.credentials(url),
            )
        )
        return token

    def call(
        self,
        operation: Operation,
        path: str,
        then: Then,
        *,
        to: str = "",
        attributes: Attributes | None = None,
        rides_along: bool = False,
    ) -> SendToken:
        """Change a name, or look at it; arguments as of `RemoteCall`.

        Returns:
            What cancels it.
        """
        token = SendToken(then)
        url = self.far.url(path)
        self._submit(
            RemoteCall(
                url=url,
                operation=operation,
                token=token,
                to=to,
                attributes=attributes,
                rides_along=rides_along,
                credentials=self._downloads.credentials(url),
            )
        )
        return token

    def cancel(self, token: SendToken) -> None:
        """Stop a request; its end is told to nobody."""
        self._downloads.cancel(token)

    def in_directory(self, path: str, then: Callable[[SarrapipeError | None], None]) -> None:
        """Have the directory of a path made, unless that is known to be done, and go on with `then`.

        Args:
            path: Absolute path of a file.
            then: Takes what went wrong, or None.
        """
        directory = path.rpartition("/")[0]
        if not directory or directory in self._made or Operation.MAKE_DIRECTORY not in self.operations:
            then(None)
            return
        waiting = self._making.setdefault(directory, [])
        waiting.append(then)
        if len(waiting) == 1:
            self.call(Operation.MAKE_DIRECTORY, directory, lambda done: self._made_one(directory, done))

    def relay_begins(self) -> None:
        """A relay has slots."""
        self._relays += 1

    def relay_waits(self, go_on: Callable[[], None]) -> bool:
        """Call when a relay of this process has ended: there may be slots then.

        Returns:
            False if none is under way: the slots are with other processes.
        """
        if self._relays:
            self._waiting_relays.append(go_on)
        return bool(self._relays)

    def relay_ended(self) -> None:
        """A relay gave its slots back: let the next one look."""
        self._relays -= 1
        self.relay_passes_on()

    def relay_passes_on(self) -> None:
        """Let the next relay that waits look for slots."""
        if self._waiting_relays:
            self._waiting_relays.popleft()()

    def forget_directory(self, path: str) -> None:
        """Ask for the directory of a path again the next time: somebody may have removed it."""
        self._made.pop(path.rpartition("/")[0], None)

    def forget_below(self, directory: str) -> None:
        """Ask for a directory, and for all below it, again: it was removed or renamed."""
        for known in [one for one in self._made if f"{one}/".startswith(f"{directory}/")]:
            del self._made[known]

    def remove_quietly(self, path: str) -> None:
        """Remove what is left of a file under way; nobody waits for it."""
        self.call(Operation.REMOVE, path, lambda done: _tell_failure(path, done))

    def _made_one(self, directory: str, done: Done) -> None:
        if done.error is None:
            self._made[directory] = None
            if len(self._made) > _DIRECTORIES_KNOWN:
                self._made.popitem(last=False)
        for then in self._making.pop(directory):
            then(done.error)

    def _submit(self, request: Request) -> None:
        self._downloads.start((request,))


def _tell_failure(path: str, done: Done) -> None:
    assert isinstance(done, CallDone)
    if done.error is not None:
        _log.warning("what was under way as %s stays behind: %s", path, done.error)

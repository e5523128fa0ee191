"""Downloads: the transfers of one instance, and the task of a file that is fetched in one piece.

`Downloads` stands between the tasks and the transfer engine: it keeps the reads the engine has no room for,
hands what ended to the task it belongs to, and tells the loop which tasks are ready to be committed and which
broke. Files of several segments are in `segmented`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final, TypeVar
from urllib.parse import quote

from sarrapipe.config.model import FlowConfig
from sarrapipe.config.values import Fetching
from sarrapipe.errors import SarrapipeError
from sarrapipe.flow.blockfetch import BlockFetches
from sarrapipe.flow.blockparts import BlockToken
from sarrapipe.flow.blocktask import BlockedFile
from sarrapipe.flow.comparer import Comparer
from sarrapipe.flow.content import ContentTask, expected_method
from sarrapipe.flow.farside import FarSide
from sarrapipe.flow.fetch import Token
from sarrapipe.flow.filetask import FileTask
from sarrapipe.flow.localfiles import check_local_source, is_local
from sarrapipe.flow.movements import Movement, in_one_piece
from sarrapipe.flow.places import Places
from sarrapipe.flow.segmented import SegmentedDownload, Segments
from sarrapipe.flow.sends import FarName, Sends, SendToken
from sarrapipe.flow.staging import StagedWrites
from sarrapipe.flow.task import Task
from sarrapipe.ledger.admission import Admission, Announcement
from sarrapipe.ledger.ledger import Decisions
from sarrapipe.message import identity
from sarrapipe.message.worklist import WorkItem
from sarrapipe.shm.slots import Counter, Slot
from sarrapipe.transfer.base import Done, RangeDone, RangeRead, Request, Sink
from sarrapipe.transfer.credentials import Credentials
from sarrapipe.transfer.engine import TransferEngine

__all__ = ["IN_ONE_PIECE", "Downloads", "SingleDownload"]

IN_ONE_PIECE: Final = "_in_one_piece"
"""Local field of an item: its server serves no ranges."""

_WORTH_RESERVING: Final = 1 << 20
"""Bytes from which on it is asked whether a file will fit before it is fetched."""

_MIN_SEGMENTS: Final = 2
_Content = TypeVar("_Content", bound=ContentTask)
_URL_CHARACTERS: Final = ":/?#[]@!$&'()*+,;=%~"  # RFC 3986 section 2, and escapes that are there already


class Downloads:
    """What one instance is fetching.

    Args:
        config: The flow's configuration.
        engine: Opened by this process.
        places: Where files go.
        segments: Files of several segments, of this instance and of its siblings.
        slot: Counters.
        comparer: Compares blocks with what is in place.
        staged: What goes through shared memory; None where nothing does.
        digests: Gives those of the segments of a file under way, as they were written.

    Attributes:
        sends: Requests to the server that files are sent to; None where they are put in place here.
        staged: What goes through shared memory; None where nothing does.
    """

    def __init__(
        self,
        config: FlowConfig,
        engine: TransferEngine,
        places: Places,
        segments: Segments,
        slot: Slot,
        comparer: Comparer,
        staged: StagedWrites | None = None,
        digests: Callable[[bytes], Mapping[int, bytes]] = lambda _generation: {},
    ) -> None:
        self.config = config
        self.engine = engine
        self.places = places
        self.slot = slot
        self.segments = segments
        self.staged = staged
        self.digests = digests
        self._requests: deque[Request] = deque()
        self._ready: list[Task] = []
        self._broken: list[Task] = []
        self._sizes: dict[ContentTask, int] = {}
        self._credentials_of = ""
        self._credentials: Credentials | None = None
        self.inflight_bytes = 0
        self.blocks = BlockFetches(self, segments.announce_work, segments.clock, comparer)
        self.sends = None if config.send_to is None else Sends(FarSide(config), self)
        segments.attach(self)

    def segment_bytes(self, item: WorkItem) -> int:
        """Return the size of the segments an item's file moves in; 0 for one piece."""
        size = item.message.size
        if size is None or not self.config.download or "blocks" in item.message.fields:
            return 0
        if self.sends is not None:
            in_one_piece = item.local and item.local.get(IN_ONE_PIECE)
            relayed = self.config.download is Fetching.STREAM
            if in_one_piece or (relayed and not self.serves_ranges(item.message.url)):
                return 0
            return self.sends.segment_bytes(size)
        url = item.message.url
        wanted = self.config.segment_size or self.segments.watch.remotes.segment_size(size, url)
        if size < _MIN_SEGMENTS * wanted or not self.gains_by_ranges(url):
            return 0
        return 0 if item.local and item.local.get(IN_ONE_PIECE) else wanted

    def gains_by_ranges(self, url: str) -> bool:
        """Return whether several ranges of a URL can be fetched at a time."""
        return self.serves_ranges(url) and self.engine.capabilities(url).parallel

    def serves_ranges(self, url: str) -> bool:
        """Return whether a part of what is at a URL can be fetched."""
        try:
            return self.engine.capabilities(url).ranges
        except SarrapipeError:
            return False  # nobody can fetch it: the transfer says so, and of which file

    def make(self, item: WorkItem, announcement: Announcement, admission: Admission) -> FileTask:
        """Return the task for a file."""
        kind = SegmentedDownload if announcement.segment_size else SingleDownload
        if announcement.total_segments:
            return BlockedFile(item, announcement, admission, self)  # the bytes of each block are counted
        return self.take(kind(item, announcement, admission, self))

    def take(self, task: _Content) -> _Content:
        """Count a task's bytes as being under way, once."""
        if task not in self._sizes:
            self._sizes[task] = task.item.message.size or 0
            self.inflight_bytes += self._sizes[task]
        return task

    def moved(self, task: ContentTask) -> None:
        """Count them no longer."""
        self.inflight_bytes -= self._sizes.pop(task, 0)

    def start(self, requests: Sequence[Request]) -> None:
        """Begin as soon as there is room."""
        if self.staged is not None:
            for one in requests:
                if isinstance(one, RangeRead):
                    self._stage(self.staged, one)
        self._requests.extend(requests)
        self._submit()

    def _stage(self, staged: StagedWrites, read: RangeRead) -> None:
        with suppress(SarrapipeError):  # a URL nobody can fetch: the engine says so
            staged.stage(read, self.engine.capabilities(read.url))
            if isinstance(read.token, Token | BlockToken | SingleDownload):
                read.token.sink = read.sink  # progress is looked at there

    def forget(self, task: ContentTask) -> None:
        """Stop what is moved for a task; its files may be closed after this."""
        self.moved(task)
        if self._requests:
            self._requests = deque(one for one in self._requests if not task.wants(one.token))
        for token in task.tokens():
            self._cancel(token)

    def credentials(self, url: str) -> Credentials | None:
        """Return who to be where `url` is fetched, from credentials.conf.

        An entry may be for one path of a server, so the answer holds for the files of one directory; that of
        the last one is kept.
        """
        directory = url[: url.rfind("/") + 1]
        if directory != self._credentials_of:
            # Names may hold blanks and the like, which are no part of a URL as credentials.conf has them.
            found = self.config.credentials.lookup(quote(directory, safe=_URL_CHARACTERS))
            self._credentials = (
                None
                if found is None
                else Credentials(
                    user=found.user,
                    password=found.password or "",
                    bearer=found.bearer_token or "",
                    key_file=found.ssh_keyfile or "",
                    passive=found.passive,
                    tls=found.tls,
                    implicit_tls=found.implicit_ftps,
                )
            )
            self._credentials_of = directory
        return self._credentials

    def poll(self, timeout_s: float) -> tuple[list[Task], list[Task]]:
        """Let transfers go on.

        Returns:
            Tasks ready to be committed, and tasks whose `error` is set.
        """
        busy = self._ready or self._broken or self.segments.busy or self.blocks.undecided
        busy = busy or self.blocks.has_compared or (self.sends is not None and self.sends.busy)
        staged = self.staged
        if staged is not None:
            staged.resume()
            busy = busy or staged.has_written
        look_s = self.segments.watch.next_look_s - self.segments.clock.monotonic_s()
        for done in self.engine.poll(0.0 if busy else max(min(timeout_s, look_s), 0.0)):
            if staged is None or not isinstance(done, RangeDone) or not staged.holds(done):
                self._received(done)
        for done in staged.written() if staged is not None else ():
            self.slot.add(Counter.BYTES_STAGED, done.received)
            self._received(done)
        self.segments.watch.look()
        self._submit()
        self.segments.collect_verified()
        self.blocks.collect_compared()
        ready, self._ready = self._ready, []
        broken, self._broken = self._broken, []
        for task in ready:
            if isinstance(task, ContentTask):
                self.moved(task)
        return ready, broken

    def _received(self, done: Done) -> None:
        """Hand what ended to whoever asked."""
        receiver = done.token
        if isinstance(receiver, SendToken):
            receiver.then(done)
            return
        assert isinstance(done, RangeDone), "everything else is sent"
        self.slot.add(Counter.BYTES_RECEIVED, done.received)
        if isinstance(receiver, SingleDownload):
            receiver.received(done)
        elif isinstance(receiver, BlockToken):
            self.blocks.received(done)
        else:
            self.segments.received(done)

    def movements(self) -> Iterator[Movement]:
        """Return how far everything is that has bytes under way."""
        yield from self.segments.movements()
        yield from self.blocks.movements()
        for task in self._sizes:
            if (movement := task.movement()) is not None:
                yield movement

    def further_source(self, generation: bytes) -> None:
        """The ledger knows another source of a file, which may be ours or a sibling's."""
        self.segments.further_source(generation)
        if self.sends is not None:
            self.sends.further_source(generation)

    def placed_far(self) -> list[FarName]:
        """Return the tasks whose change of a name at the server came to its end."""
        return [] if self.sends is None else self.sends.ended()

    @property
    def undecided(self) -> bool:
        """Whether segments wait to be claimed or marked."""
        far = self.sends is not None and self.sends.undecided
        return far or self.segments.undecided or self.blocks.undecided

    @property
    def free_streams(self) -> int:
        """How many more transfers of parts of large files may be started."""
        engine = self.engine
        return max(engine.settings.streams - engine.kept_free - engine.running - len(self._requests), 0)

    def decide(self, decide: Decisions) -> None:
        """Claim and mark segments, inside the turn's transaction."""
        self.segments.decide(decide, self.free_streams)
        self.blocks.decide(decide, self.free_streams)
        if self.sends is not None:
            self.sends.decide(decide)

    def act(self) -> None:
        """Start what was claimed."""
        self.segments.act()
        self.blocks.act()
        if self.sends is not None:
            self.sends.act()

    def cancel(self, token: object) -> None:
        """Stop one request."""
        self._requests = deque(one for one in self._requests if one.token is not token)
        self._cancel(token)

    def _cancel(self, token: object) -> None:
        self.engine.cancel(token)
        if self.staged is not None:
            self.staged.cancel(token)

    def stop(self) -> None:
        """Stop helping siblings."""
        self.segments.stop()

    def ready(self, task: Task) -> None:
        """A task is verified and finished: to be committed."""
        self._ready.append(task)

    def broke(self, task: Task, error: SarrapipeError) -> None:
        """A task met an error."""
        task.error = error
        self._broken.append(task)

    def _submit(self) -> None:
        if self._requests:
            taken = self.engine.submit(list(self._requests))
            for _ in range(taken):
                self._requests.popleft()


class SingleDownload(FileTask):
    """A file that moves in one piece: one request, hashed on the way, no transaction until its commit.

    Attributes:
        sink: Where its bytes go; None before the transfer.
    """

    __slots__ = ("_dirty", "hasher", "sink")

    def __init__(
        self, item: WorkItem, announcement: Announcement, admission: Admission, downloads: Downloads
    ) -> None:
        super().__init__(item, announcement, admission, downloads)
        self.sink: Sink | None = None

    def begin(self) -> None:
        """Start the transfer, or take the data from the message where it carries it.

        Raises:
            StorageError: The inflight file cannot be made.
            MessageError: An identity method nobody knows.
        """
        self.is_ready = False
        self.downloads.take(self)
        if not self.config.overwrite:
            self.refuse_if_there()
        if is_local(self.item.message):
            check_local_source(self.item.message, self.config)
        method = expected_method(self.item, self.config)
        self.hasher = identity.hasher(method) if method is not None else None
        # A former attempt, or the file that is written over, may have left more bytes than come now.
        self._dirty = self.resumes or self._is_in_place
        file = self.open_file()
        message = self.item.message
        size = message.size
        if size is not None and size >= _WORTH_RESERVING:
            file.preallocate(size)
            self._dirty = True  # it has the announced size now, whatever comes
        content = message.content() if "content" in message else None
        if content is not None or (size == 0 and self.size_is_binding):
            sink = file.sink(0, self._limit(size), self.hasher)
            if content:
                sink.write(content)
            self._complete(sink.written)
            self.is_ready = True
            self.downloads.moved(self)
            return
        self.downloads.start((self.read(),))

    def read(self) -> RangeRead:
        """Return the read of its bytes into the inflight file, which is open."""
        assert self.file is not None
        message = self.item.message
        limit = self._limit(message.size)
        self.sink = self.file.sink(0, limit, self.hasher)
        return RangeRead(
            url=message.url,
            sink=self.sink,
            token=self,
            length=limit,
            whole_size=limit,
            url_is_escaped=message.retrieve_path is not None,
            credentials=self.downloads.credentials(message.url),
        )

    def movement(self) -> Movement | None:
        """Return how much of it has come."""
        if self.sink is None:
            return None
        message = self.item.message
        size = -1 if message.size is None else message.size
        return in_one_piece(self.target, message.url, size, came=self.sink.written)

    def _limit(self, size: int | None) -> int | None:
        """Return how many bytes may come; None where the announced size need not be believed."""
        return size if self.size_is_binding else None

    def received(self, done: RangeDone) -> None:
        """Take the end of the transfer."""
        try:
            if done.error is not None:
                raise done.error
            self._complete(done.read.sink.written)
        except SarrapipeError as error:
            self.downloads.broke(self, error)
        else:
            self.downloads.ready(self)

    def _complete(self, size: int) -> None:
        self.check_size(size)
        self.check_identity(None if self.hasher is None else self.hasher.value())
        self.finish(size if self._dirty else None, size)

    @property
    def keeps_progress(self) -> bool:
        """A file of one piece begins anew."""
        return False

    def tokens(self) -> Sequence[object]:
        """Return the tokens of its transfers."""
        return (self,)

    def wants(self, token: object) -> bool:
        """Return whether a read belongs to it."""
        return token is self

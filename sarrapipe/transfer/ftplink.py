"""One control connection to an FTP server: it logs in, holds one dialogue at a time, and is kept.

The link knows no files. It runs dialogues (`ftptalk`) and opens what data connections belong to (`ftpdata`).
It never blocks, and what a server does on one link holds up no other.

    link = FtpLink(place, session, surroundings, on_ready=..., on_free=..., on_end=...).open()
    link.hold(dialogue, told)      # told(result, error) is called from CurlLoop.run_once
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from sarrapipe.clock import Clock
from sarrapipe.errors import SarrapipeError, TransferError
from sarrapipe.transfer import ftptalk
from sarrapipe.transfer.base import Done, Request
from sarrapipe.transfer.curlloop import CurlLoop
from sarrapipe.transfer.ftprules import FtpPlace, ServerFull
from sarrapipe.transfer.ftptalk import Dialogue, Session, Step
from sarrapipe.transfer.ftpwire import Reply, ReplyReader
from sarrapipe.transfer.netstream import NOTHING_NOW, NetStream
from sarrapipe.transfer.pacing import Pacer
from sarrapipe.transfer.patience import FlowWatch, Patience
from sarrapipe.transfer.resolver import Address, Resolver
from sarrapipe.transfer.settings import HttpSettings

__all__ = ["BUFFER_BYTES", "Belonging", "FtpCourse", "FtpLink", "FtpSurroundings", "LinkClosed"]

_T = TypeVar("_T")

BUFFER_BYTES: Final = 262_144
"""Received at once, and handed to the sink at once (`httpstream.GATHER_BYTES`)."""
_CONTROL_BYTES: Final = 16_384
_CLOSING: Final = 421
_NO_REPLY: Final = Reply(0, ())


class LinkClosed(TransferError):
    """The server closed a connection that was in use before, before it answered anything of this request."""


class Belonging(Protocol):
    """A data connection: what belongs to a link and ends with it."""

    def close(self) -> None:
        """End it; may be repeated."""

    def not_opened(self) -> None:
        """It was to be there within the term of `FtpLink.opening`."""


class FtpCourse(Protocol):
    """One request under way on a link."""

    @property
    def request(self) -> Request:
        """What was asked for."""

    def begin(self) -> None:
        """Say the first thing."""

    def go_on(self) -> None:
        """The source of a write has bytes again."""

    def drop(self) -> None:
        """Leave sink or source alone, and tell nobody."""

    def end(self, error: SarrapipeError | None) -> Done:
        """Say how it went; asked once, and not after `drop`."""


@dataclass(frozen=True, slots=True)
class FtpSurroundings:
    """What all links of a backend have in common."""

    loop: CurlLoop
    resolver: Resolver
    settings: HttpSettings
    pacer: Pacer | None
    clock: Clock
    context: Callable[[], ssl.SSLContext]
    """What certificates are checked with, made when it is first needed; it may raise TransferError."""


class FtpLink:
    """One control connection.

    Args:
        place: Where to, and as whom.
        session: What is known of the server.
        around: What all links have in common.
        on_ready: Told once, when it is logged in.
        on_free: Told whenever nothing is under way any more.
        on_done: Told of the course's end, while its last reply may still be awaited.
        on_end: Told once when the connection is lost, with the reason; not after `close`.
    """

    def __init__(
        self,
        place: FtpPlace,
        session: Session,
        around: FtpSurroundings,
        *,
        on_ready: Callable[[FtpLink], None],
        on_free: Callable[[FtpLink], None],
        on_done: Callable[[FtpLink, Done], None],
        on_end: Callable[[FtpLink, TransferError], None],
    ) -> None:
        self.place = place
        self.session = session
        self.around = around
        self._on_ready = on_ready
        self._on_free = on_free
        self._on_done = on_done
        self._on_end = on_end
        self._stream = NetStream(around.loop, self._opened, self.lose)
        self._reader = ReplyReader()
        self._out = bytearray()
        self._dialogue: Dialogue[Any] | None = None
        self._told: Callable[[Any, SarrapipeError | None], None] | None = None
        self._preliminary: Callable[[], None] | None = None
        self._greeted = False
        self._shaking = False
        """TLS is being agreed on: nothing else is to be heard."""
        self._unheard = 0
        """Replies that came together with the one that is heard."""
        self._patience = Patience(around.loop, around.clock, self._waited_enough)
        self._patience_s = around.settings.connect_timeout_s
        self.flow = FlowWatch(
            around.loop,
            around.clock,
            least_bytes_s=around.settings.stall_bytes_s,
            stall_s=around.settings.stall_s,
            stalled=self._stalled,
        )
        """Of the data connection of what is under way."""
        self.opening = Patience(around.loop, around.clock, self._not_opened)
        """With a data connection that is to be opened; one for all, as a thousand files need one timer."""
        self.course: FtpCourse | None = None
        self.served = 0
        """Requests begun on it."""
        self._answered = False
        self.ready = False
        """One is logged in."""
        self.closed = False
        self.free_since_s = around.clock.monotonic_s()
        self._buffer: memoryview | None = None
        self._data: Belonging | None = None

    def __repr__(self) -> str:
        """For messages."""
        return f"FtpLink({self.place})"

    @property
    def free(self) -> bool:
        """Whether a request may begin on it."""
        return self.ready and self.course is None and self._dialogue is None and not self.closed

    @property
    def buffer(self) -> memoryview:
        """Where its data are received: one for all transfers of the link, while it has any."""
        if self._buffer is None:
            self._buffer = memoryview(bytearray(BUFFER_BYTES))
        return self._buffer

    # ---- from the name to the login

    def open(self) -> FtpLink:
        """Begin to connect."""
        self._patience.begin(self._patience_s)
        self.around.resolver.look_up(self.place.host, self.place.port, self._found)
        return self

    def _found(self, addresses: list[Address], problem: str) -> None:
        if self.closed:
            return
        if not addresses:
            self.lose(TransferError(f"no address of {self.place.host}: {problem}"))
            return
        self._patience_s = self.around.settings.connect_timeout_s / len(addresses)
        self._patience.begin(self._patience_s)
        self._stream.connect(addresses)

    def _opened(self) -> None:
        """It is connected; or encrypted."""
        self._shaking = False
        self._stream.keep_alive()
        self._patience_s = self.around.settings.connect_timeout_s
        if self.place.implicit_tls and not self._stream.encrypted:
            self._start_tls()
            return
        self._stream.watch_reading(self._on_readable)
        if self._dialogue is None:
            self.hold(ftptalk.log_in(self.place), self._logged_in)
        else:
            self._go(_NO_REPLY)  # after AUTH TLS

    def _start_tls(self) -> None:
        self._shaking = True
        if self._unheard or not self._reader.empty:
            # Sent in clear behind the reply to AUTH, to be taken for what comes under TLS.
            self.lose(TransferError("the FTP server sent more than its reply before TLS began"))
            return
        self._patience.begin(self._patience_s)
        try:
            context = self.around.context()
        except TransferError as error:
            self.lose(error)
            return
        self._stream.start_tls(context, self.place.host)

    def _logged_in(self, _result: None, error: SarrapipeError | None) -> None:
        if error is not None:
            self.lose(error if isinstance(error, TransferError) else TransferError(str(error)))
            return
        self.ready = True
        self._patience_s = float(self.around.settings.stall_s)
        self._on_ready(self)

    # ---- the end

    def close(self) -> None:
        """End the connection; nobody is told. May be repeated."""
        if self.closed:
            return
        self.closed = True
        self._patience.end()
        self.opening.end()
        self.flow.end()
        if self._data is not None:
            self._data.close()
            self._data = None
        if self.ready and not self._stream.closed:
            self._say_good_bye()
        self._stream.close()
        self._dialogue = self._told = self._preliminary = self._buffer = None

    def _say_good_bye(self) -> None:
        if self._dialogue is None and not self._out:
            try:
                self._stream.send(b"QUIT\r\n")
            except TransferError:
                return  # closed at the other end already

    def lose(self, error: TransferError) -> None:
        """Give the connection up; whoever is on it hears why."""
        if self.closed:
            return
        self.close()
        self._on_end(self, error)

    def _lose_to_server(self, error: TransferError) -> None:
        """The server ended it: no failure of a request that came too late for it."""
        came_too_late = self.ready and self.served > 1 and not self._answered
        self.lose(LinkClosed(str(error)) if came_too_late else error)

    def _waited_enough(self) -> None:
        if not self.ready and self._stream.try_next():
            self._patience.begin(self._patience_s)
            return
        what = "answered" if self.ready else "answered the login"
        self.lose(TransferError(f"the FTP server has not {what} within {self._patience_s:g} s"))

    def _not_opened(self) -> None:
        if self._data is not None:
            self._data.not_opened()

    def _stalled(self) -> None:
        stall_s = self.around.settings.stall_s
        self.lose(TransferError(f"the FTP server stalled: less than wanted moved in {stall_s} s"))

    # ---- courses

    def begin(self, course: FtpCourse) -> None:
        """Let a request begin; only while the link is `free`."""
        self.course = course
        self.served += 1
        self.flow.held = False
        self._answered = False
        course.begin()

    def done(self, done: Done) -> None:
        """Of a course: it ended. What the server still has to say is awaited without it."""
        self.course = None
        self.flow.end()
        self._on_done(self, done)
        self._look_free()

    def drop(self) -> None:
        """Stop what is under way; the link is free when the server has answered."""
        course, self.course = self.course, None
        if course is not None:
            course.drop()
            self.flow.end()
            self._look_free()

    def _look_free(self) -> None:
        if self._dialogue is not None and not self.closed:
            self._patience.begin(self._patience_s)
        elif self.free:
            self.free_since_s = self.around.clock.monotonic_s()
            self._on_free(self)

    # ---- dialogues

    def hold(
        self,
        dialogue: Dialogue[_T],
        told: Callable[[_T, SarrapipeError | None], None],
        preliminary: Callable[[], None] | None = None,
    ) -> None:
        """Hold a dialogue; there is no other under way.

        Args:
            dialogue: What is said.
            told: Gets its result and None, or nothing of use and the error; not if the connection is lost.
            preliminary: Told of a reply that another one follows. From then on it is not waited for that one:
                `await_reply` does so when the data are through.
        """
        assert self._dialogue is None, "one dialogue at a time"
        self._dialogue, self._told, self._preliminary = dialogue, told, preliminary
        self._go(None)

    def await_reply(self) -> None:
        """All data are through: what is left of the dialogue has to come."""
        if self._dialogue is not None:
            self._patience.begin(self._patience_s)

    def _go(self, reply: Reply | None) -> None:
        dialogue = self._dialogue
        assert dialogue is not None, "only called while one is under way"
        try:
            step = next(dialogue) if reply is None else dialogue.send(reply)
        except StopIteration as end:
            self._conclude(end.value, None)
        except SarrapipeError as error:
            self._conclude(None, error)
        else:
            self._do(step)

    def _conclude(self, result: object, error: SarrapipeError | None) -> None:
        told, self._dialogue, self._told = self._told, None, None
        self._patience.end()
        assert told is not None
        told(result, error)
        if self._dialogue is None and self.course is None and not self.closed and self.ready:
            self._look_free()

    def _do(self, step: bytes | Step) -> None:
        self._patience.begin(self._patience_s)
        if step is Step.START_TLS:
            self._start_tls()
        elif isinstance(step, bytes):
            self._out += step + b"\r\n"
            self._flush()

    def _flush(self) -> None:
        try:
            while self._out:
                count = self._stream.send(self._out)
                if count == NOTHING_NOW:
                    self._stream.watch_writing(self._flush)
                    return
                del self._out[:count]
        except TransferError:
            self._out.clear()  # closed at the other end: reading finds out why
        self._stream.watch_reading(self._on_readable)

    def _on_readable(self) -> None:
        """Hear what the server says."""
        data = memoryview(bytearray(_CONTROL_BYTES))
        while not self.closed and not self._shaking:
            try:
                count = self._stream.receive(data)
            except TransferError as error:
                self._lose_to_server(error)
                return
            if count == NOTHING_NOW:
                return
            if not count:
                self._lose_to_server(self._closed_by_server())
                return
            try:
                replies = self._reader.feed(data[:count])
            except TransferError as error:
                self.lose(error)
                return
            for left, reply in zip(range(len(replies) - 1, -1, -1), replies, strict=True):
                self._unheard = left
                self._hear(reply)
                if self.closed:
                    return

    def _closed_by_server(self) -> TransferError:
        if self._greeted:
            return TransferError("the FTP server closed the connection")
        return ServerFull("the FTP server closed the connection before it greeted")

    def _hear(self, reply: Reply) -> None:
        self._greeted = True
        if self.ready and reply.code == _CLOSING:
            self._lose_to_server(TransferError(f"the FTP server closes the connection: {reply.said}"))
            return
        if self._dialogue is None:
            self.lose(TransferError(f"the FTP server says what nobody asked: {reply.said}"))
            return
        self._answered = True
        if reply.preliminary and self._preliminary is not None:
            self._go(reply)
            self._patience.end()
            if self.course is None:
                self.await_reply()
            else:
                self._preliminary()
            return
        self._go(reply)

    # ---- what data connections need

    def peer(self, port: int) -> Address:
        """A port of the server at the other end: never of the host that a reply names."""
        return self._stream.peer(port)

    def here(self) -> Address:
        """This end's address."""
        return self._stream.here()

    def keep(self, data: Belonging) -> None:
        """Close a transfer with the link, or when the next one begins."""
        if self._data is not None:
            self._data.close()
        self._data = data

    def protect(self, stream: NetStream) -> None:
        """Encrypt a data connection as part of this session."""
        try:
            context = self.around.context()
        except TransferError as error:
            self.lose(error)
            return
        stream.start_tls(context, self.place.host, self._stream.session)

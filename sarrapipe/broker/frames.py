"""AMQP frames the broker sends often, read without pika's object per frame.

pika builds a Method, a Header, a Body and a property object for every message and looks each up in its table
of callbacks, and reads 4 KiB at a time. Here basic.deliver with its content, and the broker's basic.ack and
basic.nack, are taken straight from the buffer: 2 us a message of 1 KiB, where pika's decoder alone takes 9
(docs/explanation/broker.md). Every other frame goes through pika's own decoder unchanged.

Leans on three methods of pika's connection that have kept their names and arguments since 1.0:
`_on_data_available`, `_process_frame` and `_output_marshaled_frames`. The tests hold what is read against
what pika itself writes, wherever the stream is cut.

Source: AMQP 0-9-1 specification, 2.3.5 (frames) and 4.2 (formal grammar).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import pika
from pika import exceptions, frame, spec
from pika.adapters.select_connection import IOLoop
from pika.adapters.utils.nbio_interface import AbstractStreamTransport

__all__ = [
    "MAX_BODY_BYTES",
    "ConfirmHandler",
    "DeliveryHandler",
    "FastConnection",
    "FrameReader",
]

DeliveryHandler = Callable[[int, bool, str, str, str | None, Mapping[str, object], bytes], None]
"""Called with (tag, redelivered, exchange, routing key, content type, headers, body)."""
ConfirmHandler = Callable[[int, bool, bool], None]
"""Called with (tag, multiple, positive)."""

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
"""A longer body is delivered empty, so that it is rejected as malformed instead of filling the memory.

A notification message is small however large its file (R15); the largest known, with a full manifest of
4,096 sha512 blocks, has 0.6 MB (style.md 4)."""

_RECV_BYTES: Final = 65536
_CACHE_ENTRIES: Final = 4096
_CACHED_PROPERTY_BYTES: Final = 128
_END: Final = spec.FRAME_END
_PROTOCOL_HEADER: Final = ord("A")
"""First byte of "AMQP": the broker speaks another version."""
_DELIVER: Final = spec.Basic.Deliver.INDEX
_ACK: Final = spec.Basic.Ack.INDEX
_NACK: Final = spec.Basic.Nack.INDEX
_frame_header: Final = struct.Struct(">BHI")
_method_index: Final = struct.Struct(">I")
_tag_and_bits: Final = struct.Struct(">QB")
_content_header: Final = struct.Struct(">BHIHHQ")
_NO_HEADERS: Final[Mapping[str, object]] = MappingProxyType({})


_Deliver = tuple[int, bool, str, str]
"""Tag, redelivered, exchange, routing key."""


class _Partial:
    """A delivery whose frames are still coming in."""

    __slots__ = ("bytes_seen", "chunks", "deliver", "properties", "size_bytes")

    def __init__(self, deliver: _Deliver) -> None:
        self.deliver = deliver
        self.properties: tuple[str | None, Mapping[str, object]] = (None, _NO_HEADERS)
        self.size_bytes = -1
        self.bytes_seen = 0
        self.chunks: list[bytes] = []


class FrameReader:
    """Takes apart what the broker sends, in whatever pieces it arrives.

    Args:
        other: Called with every frame that is not ours, as pika decodes it.
    """

    def __init__(self, other: Callable[[frame.Frame], None]) -> None:
        self.delivery_handlers: dict[int, DeliveryHandler] = {}
        """By channel number; a channel in here must not be used with basic_get."""
        self.confirm_handlers: dict[int, ConfirmHandler] = {}
        self.frame_max = spec.FRAME_MAX_SIZE
        self._other = other
        self._rest = b""
        self._partials: dict[int, _Partial] = {}
        self._routes: dict[bytes, tuple[str, str]] = {}
        self._properties: dict[bytes, tuple[str | None, Mapping[str, object]]] = {}

    def forget_channel(self, number: int) -> None:
        """Stop handing frames of a channel out; call when the channel is closed."""
        self.delivery_handlers.pop(number, None)
        self.confirm_handlers.pop(number, None)
        self._partials.pop(number, None)

    def feed(self, data: bytes) -> None:
        """Work off every frame that is complete; keep the rest for the next call.

        Raises:
            pika.exceptions.ProtocolSyntaxError: Not AMQP, or a frame above the limit.
        """
        buffer = self._rest + data if self._rest else data
        offset, end = 0, len(buffer)
        while end - offset >= 8:
            if buffer[offset] == _PROTOCOL_HEADER:
                after = offset + 8
                self._other(frame.decode_frame(buffer[offset:after])[1])
            else:
                after = self._take(buffer, offset, end)
                if not after:
                    break
            offset = after
        self._rest = buffer[offset:] if offset else buffer

    def _take(self, buffer: bytes, offset: int, end: int) -> int:
        """Work off the frame at `offset`, or the whole delivery that begins there.

        Returns:
            Where the next frame begins; 0 if this one is not complete.
        """
        kind, channel, size = _frame_header.unpack_from(buffer, offset)
        after: int = offset + 8 + size
        if after > end:
            if size > self.frame_max:
                raise exceptions.InvalidFrameError(f"a frame of {size} bytes, the limit is {self.frame_max}")
            return 0
        if buffer[after - 1] != _END:
            raise exceptions.InvalidFrameError("Invalid FRAME_END marker")
        if kind == spec.FRAME_METHOD:
            method = _method_index.unpack_from(buffer, offset + 7)[0]
            if method == _DELIVER and channel in self.delivery_handlers:
                deliver = self._read_deliver(buffer, offset + 11)
                whole = self._take_content(deliver, channel, buffer, after, end)
                if not whole:
                    self._partials[channel] = _Partial(deliver)
                return whole or after
            if method in (_ACK, _NACK) and channel in self.confirm_handlers:
                tag, bits = _tag_and_bits.unpack_from(buffer, offset + 11)
                self.confirm_handlers[channel](tag, bool(bits & 1), method == _ACK)
                return after
        elif channel in self._partials:
            self._add(channel, kind, buffer[offset:after])
            return after
        self._other(frame.decode_frame(buffer[offset:after])[1])
        return after

    def _read_deliver(self, buffer: bytes, position: int) -> _Deliver:
        """Read the arguments of basic.deliver."""
        position += 1 + buffer[position]  # consumer tag
        tag, bits = _tag_and_bits.unpack_from(buffer, position)
        start = position + 9
        middle = start + 1 + buffer[start]
        after = middle + 1 + buffer[middle]
        raw = buffer[start:after]
        route = self._routes.get(raw)
        if route is None:
            if len(self._routes) >= _CACHE_ENTRIES:
                self._routes.clear()
            # Names that are not UTF-8 must not end the connection: whoever decodes the message judges them.
            exchange = buffer[start + 1 : middle].decode("utf-8", "backslashreplace")
            route = exchange, buffer[middle + 1 : after].decode("utf-8", "backslashreplace")
            self._routes[raw] = route
        return tag, bool(bits & 1), route[0], route[1]

    def _take_content(self, deliver: _Deliver, channel: int, buffer: bytes, offset: int, end: int) -> int:
        """Deliver if header and the only body frame follow in the buffer; return where they end, else 0."""
        if end - offset < 28:  # a header frame without properties, and the head of a body frame
            return 0
        kind, of_channel, size, _class, _weight, body_size = _content_header.unpack_from(buffer, offset)
        body_at = offset + 15 + size
        if kind != spec.FRAME_HEADER or of_channel != channel or body_at > end:
            return 0
        kind, of_channel, size = _frame_header.unpack_from(buffer, body_at - 7)
        after: int = body_at + size + 1
        if kind != spec.FRAME_BODY or of_channel != channel or size != body_size or after > end:
            return 0
        if buffer[body_at - 8] != _END or buffer[after - 1] != _END:
            raise exceptions.InvalidFrameError("Invalid FRAME_END marker")
        content_type, headers = self._read_properties(buffer[offset + 19 : body_at - 8])
        self.delivery_handlers[channel](*deliver, content_type, headers, buffer[body_at : after - 1])
        return after

    def _read_properties(self, raw: bytes) -> tuple[str | None, Mapping[str, object]]:
        known = self._properties.get(raw)
        if known is None:
            known = _decode_properties(raw)
            if len(raw) <= _CACHED_PROPERTY_BYTES:
                if len(self._properties) >= _CACHE_ENTRIES:
                    self._properties.clear()
                self._properties[raw] = known
        return known

    def _add(self, channel: int, kind: int, whole_frame: bytes) -> None:
        """Add a header or body frame to a delivery that did not lie in one piece."""
        partial = self._partials[channel]
        if kind == spec.FRAME_HEADER and partial.size_bytes < 0:
            partial.size_bytes = _content_header.unpack_from(whole_frame)[5]
            partial.properties = self._read_properties(whole_frame[19:-1])
        elif kind == spec.FRAME_BODY and partial.size_bytes >= 0:
            partial.bytes_seen += len(whole_frame) - 8
            if partial.bytes_seen > partial.size_bytes:
                raise exceptions.BodyTooLongError(partial.bytes_seen, partial.size_bytes)
            if partial.size_bytes <= MAX_BODY_BYTES:
                partial.chunks.append(whole_frame[7:-1])
        else:
            raise exceptions.UnexpectedFrameError(f"frame type {kind} within a delivery")
        if partial.bytes_seen == partial.size_bytes:
            del self._partials[channel]
            self.delivery_handlers[channel](*partial.deliver, *partial.properties, b"".join(partial.chunks))


class FastConnection(pika.SelectConnection):  # type: ignore[misc]  # pika has no type information for mypy
    """A SelectConnection that hands deliveries and confirms of chosen channels to plain functions.

    Args:
        parameters: pika's connection parameters.
        ioloop: The loop it lives on.
        after_data: Called once after each piece read from the socket has been worked off.
        **callbacks: `on_open_callback`, `on_open_error_callback`, `on_close_callback` of pika.
    """

    def __init__(
        self,
        parameters: pika.ConnectionParameters,
        ioloop: IOLoop,
        after_data: Callable[[], None],
        **callbacks: Callable[..., None],
    ) -> None:
        self.reader = FrameReader(self._process_frame)
        self._after_data = after_data
        super().__init__(parameters, custom_ioloop=ioloop, **callbacks)

    def send_joined(self, data: bytes) -> None:
        """Write marshalled frames as they are."""
        self._output_marshaled_frames([data])

    def _proto_connection_made(self, transport: AbstractStreamTransport) -> None:
        # pika reads 4 KiB at a time, three messages. One call a piece costs more than the bytes.
        transport._MAX_RECV_BYTES = _RECV_BYTES
        super()._proto_connection_made(transport)

    def _on_data_available(self, data_in: bytes) -> None:
        self.bytes_received += len(data_in)  # what pika's heartbeat check looks at
        self.reader.feed(data_in)
        self._after_data()


def _decode_properties(raw: bytes) -> tuple[str | None, Mapping[str, object]]:
    """Return content type and headers; those of a property list that cannot be read are None and empty.

    Such a message would otherwise end the connection again and again.
    """
    try:
        properties = spec.BasicProperties().decode(raw)
    except (exceptions.AMQPError, struct.error, ValueError, IndexError, OverflowError, OSError):
        return None, _NO_HEADERS
    content_type = properties.content_type
    return (
        content_type if isinstance(content_type, str) else None,
        MappingProxyType(properties.headers) if properties.headers else _NO_HEADERS,
    )

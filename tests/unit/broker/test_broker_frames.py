"""The fast reader and writer against pika's own: the same deliveries, the same bytes."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import exceptions, frame, spec

from sarrapipe.broker.frames import MAX_BODY_BYTES, FrameReader
from sarrapipe.broker.marshal import PublishMarshaller, marshal_acks, marshal_nacks

FRAME_MAX = 4096  # the smallest AMQP allows: bodies of several frames without much data
NAMES = st.text(st.characters(blacklist_categories=["Cs"]), max_size=40)
HEADERS = st.dictionaries(
    NAMES,
    st.one_of(NAMES, st.integers(-(2**40), 2**40), st.booleans(), st.none(), st.lists(NAMES, max_size=2)),
    max_size=4,
)


def pika_publish(channel, exchange, routing_key, body, properties, frame_max=FRAME_MAX, mandatory=False):
    """What pika's connection sends for basic_publish (its `_send_message`)."""
    data = frame.Method(
        channel, spec.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory)
    )
    pieces = [data.marshal(), frame.Header(channel, len(body), properties).marshal()]
    step = frame_max - 8
    pieces += [frame.Body(channel, body[at : at + step]).marshal() for at in range(0, len(body), step)]
    return b"".join(pieces)


def pika_deliver(channel, tag, redelivered, exchange, routing_key, properties, body, frame_max=FRAME_MAX):
    pieces = [
        frame.Method(
            channel, spec.Basic.Deliver("ctag1.x", tag, redelivered, exchange, routing_key)
        ).marshal(),
        frame.Header(channel, len(body), properties).marshal(),
    ]
    step = frame_max - 8
    pieces += [frame.Body(channel, body[at : at + step]).marshal() for at in range(0, len(body), step)]
    return b"".join(pieces)


def collect(pieces, channels=(1,), confirms=()):
    """Feed pieces; return deliveries, confirms and the frames handed to pika."""
    deliveries, confirmed, others = [], [], []
    reader = FrameReader(others.append)
    for channel in channels:
        reader.delivery_handlers[channel] = lambda *values, channel=channel: deliveries.append(
            (channel, *values)
        )
    for channel in confirms:
        reader.confirm_handlers[channel] = lambda *values, channel=channel: confirmed.append(
            (channel, *values)
        )
    for piece in pieces:
        reader.feed(piece)
    return deliveries, confirmed, others


def cut(data, places):
    places = sorted({place % (len(data) + 1) for place in places})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@settings(max_examples=150)
@given(NAMES, NAMES, st.binary(max_size=9000), HEADERS, st.booleans(), st.booleans(), st.booleans())
def test_publishes_the_bytes_pika_would(exchange, routing_key, body, headers, persistent, typed, expires):
    content_type = "application/json" if typed else None
    expiration = 60000 if expires else None
    properties = spec.BasicProperties(
        content_type=content_type,
        headers=headers,
        delivery_mode=2 if persistent else 1,
        expiration=None if expiration is None else str(expiration),
    )
    marshaller = PublishMarshaller(3, FRAME_MAX)
    for _ in range(2):  # the second time from the caches
        ours = marshaller.marshal(
            exchange,
            routing_key,
            body,
            headers,
            content_type,
            persistent=persistent,
            expiration_ms=expiration,
        )
        assert ours == pika_publish(3, exchange, routing_key, body, properties)


@pytest.mark.parametrize("mandatory", [False, True])
def test_publishes_v02_headers_and_mandatory_as_pika_would(mandatory):
    headers = {"parts": "1,10,1,0,0", "sum": "d,é", "to_clusters": "ALL"}
    properties = spec.BasicProperties(content_type="text/plain", headers=headers, delivery_mode=2)
    ours = PublishMarshaller(1, FRAME_MAX, mandatory=mandatory).marshal(
        "xs_bob", "v02.post.a", b"20230101 http://h /a", headers, "text/plain"
    )
    theirs = pika_publish(1, "xs_bob", "v02.post.a", b"20230101 http://h /a", properties, mandatory=mandatory)
    assert ours == theirs


def test_refuses_what_amqp_cannot_carry():
    marshaller = PublishMarshaller(1, FRAME_MAX)
    with pytest.raises(exceptions.ShortStringTooLong):
        marshaller.marshal("x", "é" * 128, b"", {}, None)
    with pytest.raises(exceptions.ShortStringTooLong):
        marshaller.marshal("x", "a", b"", {"k" * 256: "v"}, "text/plain")
    with pytest.raises(UnicodeEncodeError):
        marshaller.marshal("x", "\udcff", b"", {}, None)
    with pytest.raises(exceptions.UnsupportedAMQPFieldException):
        marshaller.marshal("x", "a", b"", {"k": object()}, None)


def test_acks_and_nacks_are_pikas_bytes():
    pairs = [(1, False), (2**40, True)]
    assert marshal_acks(7, pairs) == b"".join(
        frame.Method(7, spec.Basic.Ack(tag, multiple)).marshal() for tag, multiple in pairs
    )
    for requeue in (False, True):
        assert marshal_nacks(7, pairs, requeue=requeue) == b"".join(
            frame.Method(7, spec.Basic.Nack(tag, multiple, requeue)).marshal() for tag, multiple in pairs
        )


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(NAMES, NAMES, HEADERS, st.binary(max_size=9000), st.booleans()), min_size=1, max_size=4
    ),
    st.lists(st.integers(0, 40000), max_size=6),
)
def test_reads_what_pika_writes_wherever_it_is_cut(messages, places):
    data = b""
    expected = []
    for number, (exchange, routing_key, headers, body, redelivered) in enumerate(messages, 1):
        properties = spec.BasicProperties(content_type="text/plain", headers=headers, delivery_mode=2)
        data += pika_deliver(1, number, redelivered, exchange, routing_key, properties, body)
        expected.append((1, number, redelivered, exchange, routing_key, "text/plain", headers, body))
    deliveries, _, others = collect(cut(data, places))
    assert [(*each[:6], dict(each[6]), each[7]) for each in deliveries] == [
        (*each[:6], each[6], each[7]) for each in expected
    ]
    assert others == []


@settings(max_examples=100)
@given(st.lists(st.integers(0, 1000), max_size=6))
def test_everything_else_goes_to_pika_in_order(places):
    body = spec.BasicProperties(content_type="text/plain")
    frames = [
        frame.Heartbeat(),
        frame.Method(2, spec.Basic.Ack(9, True)),
        frame.Method(1, spec.Basic.QosOk()),
        frame.Method(5, spec.Basic.Deliver("c", 1, False, "x", "y")),
        frame.Header(5, 0, body),
        frame.Method(0, spec.Connection.Blocked("low on memory")),
    ]
    mine = pika_deliver(1, 1, False, "x", "y", body, b"z")
    data = (
        b"".join(each.marshal() for each in frames[:3])
        + mine
        + b"".join(each.marshal() for each in frames[3:])
    )
    deliveries, confirmed, others = collect(cut(data, places), confirms=(2,))
    assert len(deliveries) == 1
    assert confirmed == [(2, 9, True, True)]
    assert [each.marshal() for each in others] == [each.marshal() for each in frames if each is not frames[1]]


def test_deliveries_of_two_channels_do_not_mix():
    properties = spec.BasicProperties(content_type="text/plain")
    first = frame.Method(1, spec.Basic.Deliver("c", 1, False, "x", "one")).marshal()
    second = pika_deliver(2, 1, False, "x", "two", properties, b"second")
    header = frame.Header(1, 5, properties).marshal()
    body = frame.Body(1, b"first").marshal()
    deliveries, _, others = collect([first + second + header, body], channels=(1, 2))
    assert [(each[0], each[4], each[7]) for each in deliveries] == [
        (2, "two", b"second"),
        (1, "one", b"first"),
    ]
    assert others == []


def test_property_types_beyond_strings_survive():
    moment = datetime.datetime(2023, 11, 14, tzinfo=datetime.UTC)
    properties = spec.BasicProperties(headers={"when": moment, "nested": {"a": 1}})
    deliveries, _, _ = collect([pika_deliver(1, 1, False, "x", "y", properties, b"z")])
    assert dict(deliveries[0][6]) == {"when": moment, "nested": {"a": 1}}
    assert deliveries[0][5] is None


def test_properties_that_cannot_be_read_do_not_end_the_connection():
    good = frame.Header(1, 1, spec.BasicProperties(headers={"a": "b"})).marshal()
    bad = good.replace(b"S\0\0\0\x01b", b"?\0\0\0\x01b")
    assert bad != good
    deliver = frame.Method(1, spec.Basic.Deliver("c", 1, False, "x", "y")).marshal()
    deliveries, _, _ = collect([deliver + bad + frame.Body(1, b"z").marshal()])
    assert [(each[5], dict(each[6]), each[7]) for each in deliveries] == [(None, {}, b"z")]


def test_names_that_are_not_utf8_do_not_end_the_connection():
    data = pika_deliver(1, 1, False, "x", "abc", spec.BasicProperties(), b"z").replace(b"abc", b"a\xffc")
    deliveries, _, _ = collect([data])
    assert deliveries[0][4] == "a\\xffc"


def test_an_absurd_body_is_delivered_empty_without_being_kept():
    # R15: messages are small.
    seen = []
    reader = FrameReader(seen.append)
    reader.delivery_handlers[1] = lambda *values: seen.append(values)
    size = MAX_BODY_BYTES + 1
    reader.feed(frame.Method(1, spec.Basic.Deliver("c", 1, False, "x", "y")).marshal())
    reader.feed(frame.Header(1, size, spec.BasicProperties()).marshal())
    piece = frame.Body(1, b"\0" * 65536).marshal()
    for _ in range(MAX_BODY_BYTES // 65536):
        reader.feed(piece)
    assert not seen
    reader.feed(frame.Body(1, b"\0").marshal())
    assert seen[0][6] == b""


@pytest.mark.parametrize(
    "data",
    [
        frame.Heartbeat().marshal()[:-1] + b"\0",
        frame.Method(1, spec.Basic.Deliver("c", 1, False, "x", "y")).marshal()
        + frame.Body(1, b"no header").marshal(),
        b"\x01\0\x01\x7f\xff\xff\xff" + b"\0" * 8,
        b"\x09\0\x01\0\0\0\0\xce",
    ],
    ids=["frame end", "body before header", "frame above the limit", "frame type"],
)
def test_nonsense_is_a_protocol_error(data):
    with pytest.raises(exceptions.ProtocolSyntaxError):
        collect([data])


def test_another_protocol_version_reaches_pika():
    _, _, others = collect([b"AMQP\0\0\x09\x01"])
    assert isinstance(others[0], frame.ProtocolHeader)

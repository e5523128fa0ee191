from __future__ import annotations

from email.utils import formatdate
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarrapipe.errors import (
    AccessDenied,
    MessageError,
    RangeNotHonoured,
    SourceChanged,
    SourceGone,
    TransferError,
)
from sarrapipe.segment.sink import DiscardSink
from sarrapipe.transfer.base import RangeRead
from sarrapipe.transfer.httprules import (
    MAX_RETRY_AFTER_S,
    Response,
    condition,
    is_transient,
    judge,
    parse_response,
    range_of,
    retry_after_s,
    wire_url,
)


def read(**fields: object) -> RangeRead:
    return RangeRead(url="http://h/f", sink=DiscardSink(), token=1, **fields)  # type: ignore[arg-type]


class TestWireUrl:
    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("http://h/a/b.txt", b"http://h/a/b.txt"),
            ("http://h", b"http://h/"),
            ("HTTPS://h:8443/x", b"HTTPS://h:8443/x"),
            ("http://[::1]:80/x", b"http://[::1]:80/x"),
            ("http://h/a b", b"http://h/a%20b"),
            ("http://h/50%", b"http://h/50%25"),
            ("http://h/a%20b", b"http://h/a%2520b"),
            ("http://h/q?x=1#y", b"http://h/q%3Fx=1%23y"),
            ("http://h/ü", b"http://h/%C3%BC"),
            ("http://h/\udcff", b"http://h/%FF"),
            ('http://h/a\nb\\c"<>|^`{}', b"http://h/a%0Ab%5Cc%22%3C%3E%7C%5E%60%7B%7D"),
            ("http://h/a\r\nHost: x", b"http://h/a%0D%0AHost:%20x"),
        ],
    )
    def test_a_name(self, url: str, expected: bytes) -> None:
        assert wire_url(url, escaped=False) == expected

    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("http://h/a%20b?x=1&y=%C3%BC", b"http://h/a%20b?x=1&y=%C3%BC"),
            ("http://h/a b?x=ü", b"http://h/a%20b?x=%C3%BC"),
        ],
    )
    def test_a_reference_keeps_its_escapes(self, url: str, expected: bytes) -> None:
        assert wire_url(url, escaped=True) == expected

    def test_user_and_password_are_dropped(self) -> None:
        assert wire_url("http://bob:s3@cret@h:81/x@y", escaped=False) == b"http://h:81/x@y"

    @pytest.mark.parametrize(
        "url", ["ftp://h/x", "h/x", "http:///x", "http://h h/x", "http://h\n/x", "http://h?x", ""]
    )
    def test_refuses_what_is_no_web_url(self, url: str) -> None:
        with pytest.raises(MessageError):
            wire_url(url, escaped=False)

    @given(st.binary(max_size=60).filter(lambda name: b"\0" not in name))
    def test_every_name_comes_out_as_it_went_in(self, name: bytes) -> None:
        url = wire_url("http://h/" + name.decode("utf-8", "surrogateescape"), escaped=False)
        assert unquote_to_bytes(url.removeprefix(b"http://h/")) == name
        assert url.isascii()
        assert not set(url) & set(b' \r\n\t"<>#?\\^`{|}')


class TestRequest:
    def test_ranges(self) -> None:
        assert range_of(read()) is None
        assert range_of(read(length=10, whole_size=10)) is None
        assert range_of(read(length=0)) is None
        assert range_of(read(length=10)) == "0-9"
        assert range_of(read(offset=5, length=10, whole_size=20)) == "5-14"
        assert range_of(read(offset=5)) == "5-"

    def test_conditions(self) -> None:
        assert condition(read()) is None
        assert condition(read(validator='"abc"')) == 'If-Match: "abc"'
        assert condition(read(validator="Mon, 01 Jan 2024 00:00:00 GMT")) == (
            "If-Unmodified-Since: Mon, 01 Jan 2024 00:00:00 GMT"
        )


class TestParseResponse:
    def test_the_last_of_several(self) -> None:
        response = parse_response(
            [b"HTTP/1.1 302 Found\r\n", b"Content-Length: 7\r\n", b"ETag: \"old\"\r\n", b"\r\n",
             b"HTTP/1.1 206 Partial Content\r\n", b"content-RANGE:bytes 0-9/100 \r\n",
             b"Content-Length: 10\r\n", b"Retry-After: 3\r\n", b"Last-Modified: x\r\n", b"\r\n"]
        )  # fmt: skip
        assert response == Response(206, 10, "bytes 0-9/100", None, "x", "3")
        assert response.whole_size == 100

    @pytest.mark.parametrize("line", [b"HTTP/1.1\r\n", b"HTTP/1.1 2x0 OK\r\n", b"HTTP/1.1 20000 OK\r\n"])
    def test_a_broken_status_is_none(self, line: bytes) -> None:
        assert parse_response([line]).status == 0

    @pytest.mark.parametrize("value", [b"-1", b"1e3", b"9" * 30, b"", b"\xd9\xa1"])
    def test_a_broken_length_is_unknown(self, value: bytes) -> None:
        assert parse_response([b"HTTP/1.1 200 OK\r\n", b"Content-Length: " + value]).content_length is None

    @given(st.lists(st.binary(max_size=40), max_size=8))
    def test_nothing_makes_it_raise(self, lines: list[bytes]) -> None:
        response = parse_response(lines)
        judge(read(length=10, whole_size=20), response)
        assert response.whole_size is None or response.whole_size >= 0


class TestJudge:
    @pytest.mark.parametrize(
        ("fields", "response"),
        [
            ({}, Response(200)),
            ({}, Response(200, 10)),
            ({"length": 10, "whole_size": 10}, Response(200, 10)),
            ({"length": 10}, Response(200, 10)),
            ({"length": 10}, Response(206, 10, "bytes 0-9/10")),
            ({"offset": 5, "length": 10}, Response(206, 10, "bytes 5-14/100")),
            ({"offset": 5, "length": 10}, Response(206, 10, "Bytes  5-14/*")),
            ({"offset": 5}, Response(206, 10, "bytes 5-99/100")),
            ({"offset": 5, "length": 10, "validator": '"a"'}, Response(206, 10, "bytes 5-14/100", '"a"')),
            ({"offset": 5, "length": 10, "validator": '"a"'}, Response(206, 10, "bytes 5-14/100")),
            ({"validator": "date"}, Response(200, 10, None, '"a"', "date")),
        ],
    )
    def test_what_was_asked_for(self, fields: dict[str, object], response: Response) -> None:
        assert judge(read(**fields), response) is None

    @pytest.mark.parametrize(
        ("fields", "response", "kind"),
        [
            ({"offset": 5, "length": 10}, Response(200, 100), RangeNotHonoured),
            ({"length": 10}, Response(200, 100), RangeNotHonoured),
            ({"length": 10}, Response(200), RangeNotHonoured),
            ({"offset": 5}, Response(200, 10), RangeNotHonoured),
            ({}, Response(206, 10, "bytes 0-9/10"), RangeNotHonoured),
            ({"offset": 5, "length": 10}, Response(206, 10), RangeNotHonoured),
            ({"offset": 5, "length": 10}, Response(206, 10, "bytes 0-9/100"), RangeNotHonoured),
            ({"offset": 5, "length": 10}, Response(206, 10, "bytes 5-13/100"), RangeNotHonoured),
            ({"offset": 5, "length": 10}, Response(206, 10, "bytes 5-15/100"), RangeNotHonoured),
            ({"offset": 5, "length": 10}, Response(206, 10, "bytes */100"), RangeNotHonoured),
            ({"offset": 5, "length": 10}, Response(206, 10, "lines 5-14/100"), RangeNotHonoured),
            ({"offset": 5}, Response(206, 10, "bytes 5-50/100"), RangeNotHonoured),
            ({"offset": 5, "length": 10}, Response(416), RangeNotHonoured),
            ({"whole_size": 10}, Response(200, 11), SourceChanged),
            (
                {"offset": 5, "length": 10, "whole_size": 100},
                Response(206, 10, "bytes 5-14/99"),
                SourceChanged,
            ),
            ({"offset": 5, "length": 9, "whole_size": 14}, Response(416, 0, "bytes */7"), SourceChanged),
            ({"validator": '"a"'}, Response(412), SourceChanged),
            ({"validator": '"a"'}, Response(200, 10, None, '"b"'), SourceChanged),
            ({"validator": "date"}, Response(200, 10, None, None, "later"), SourceChanged),
            ({}, Response(401), AccessDenied),
            ({}, Response(403), AccessDenied),
            ({}, Response(407), AccessDenied),
            ({}, Response(404), SourceGone),
            ({}, Response(410), SourceGone),
            ({}, Response(500), TransferError),
            ({}, Response(429), TransferError),
            ({}, Response(304), TransferError),
            ({}, Response(0), TransferError),
        ],
    )
    def test_what_was_not(
        self, fields: dict[str, object], response: Response, kind: type[TransferError]
    ) -> None:
        error = judge(read(**fields), response)
        assert type(error) is kind
        assert "http://h/f" in str(error)

    def test_what_may_succeed_later(self) -> None:
        assert [s for s in (200, 400, 404, 408, 425, 429, 500, 503, 599, 600) if is_transient(s)] == [
            408, 425, 429, 500, 503, 599,
        ]  # fmt: skip


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (None, None),
            ("7", 7.0),
            ("0", 0.0),
            ("999999999999", MAX_RETRY_AFTER_S),
            ("soon", None),
            ("-3", None),
            ("", None),
            (formatdate(1_000_060, usegmt=True), 60.0),
            (formatdate(999_000, usegmt=True), 0.0),
        ],
    )
    def test_seconds_and_dates(self, value: str | None, expected: float | None) -> None:
        assert retry_after_s(value, 1_000_000) == expected

    @given(st.text(max_size=40))
    def test_nothing_makes_it_raise(self, value: str) -> None:
        wait_s = retry_after_s(value, 1e9)
        assert wait_s is None or 0 <= wait_s <= MAX_RETRY_AFTER_S

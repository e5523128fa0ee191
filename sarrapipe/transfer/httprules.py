r"""What HTTP asks for and how its answers are judged: pure functions, no connection in sight.

    url = wire_url("http://host/a dir/50%#1.txt", escaped=False)     # b"http://host/a%20dir/50%25%231.txt"
    response = parse_response([b"HTTP/1.1 206 Partial Content\r\n", b"Content-Range: bytes 0-9/100\r\n"])
    error = judge(read, response)                                    # None: its body is the range asked for

Rules: RFC 9110 (semantics), RFC 3986 (URLs). A server that answers a range with something else is found out
before the first byte of its body reaches the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from sarrapipe.errors import (
    AccessDenied,
    MessageError,
    RangeNotHonoured,
    SourceChanged,
    SourceGone,
    TransferError,
)
from sarrapipe.transfer.base import RangeRead

__all__ = [
    "Response",
    "condition",
    "is_transient",
    "judge",
    "parse_response",
    "range_of",
    "retry_after_s",
    "wire_url",
]

_URL = re.compile(r"(https?)://([^/?#\s\x00-\x20]+)((?:/.*)?)\Z", re.DOTALL | re.IGNORECASE)
_PLAIN = re.compile(r"[A-Za-z0-9_.~/!$&'()*+,;=:@-]*\Z")
"""Characters of RFC 3986 `pchar` and the slash: names made of them alone, nearly all, need no escaping."""
_NAME_SAFE = "/!$&'()*+,;=:@"
_REFERENCE_SAFE = "/!$&'()*+,;=:@%?#[]"
_CONTENT_RANGE = re.compile(r"bytes\s+(?:(\d{1,19})-(\d{1,19})|\*)/(\d{1,19}|\*)\Z", re.IGNORECASE)

_WANTED = frozenset(
    {b"content-length", b"content-range", b"etag", b"last-modified", b"retry-after", b"location"}
)

MAX_RETRY_AFTER_S = 3600.0
"""A server may ask for more; an hour later is soon enough to see whether it meant it."""


@dataclass(slots=True)
class Response:
    """The head of the last response of a request."""

    status: int = 0
    content_length: int | None = None
    content_range: str | None = None
    etag: str | None = None
    last_modified: str | None = None
    retry_after: str | None = None
    location: str | None = None

    @property
    def whole_size(self) -> int | None:
        """Size of the whole file, if this response tells it."""
        if self.status == 200:
            return self.content_length
        match = _CONTENT_RANGE.match(self.content_range or "")
        return None if match is None or match[3] == "*" else int(match[3])


def wire_url(url: str, *, escaped: bool) -> bytes:
    """Return a URL as it goes into the request.

    Args:
        url: Scheme, host and path. User and password in front of the host are dropped: they come as
            `Credentials`, and must not end in a log.
        escaped: The path is a URL reference, of which only what may never stand in a URL is escaped.
        Otherwise it
            is a file name: blanks, `%`, `#`, `?`, and bytes that are not UTF-8 (surrogateescape) are part of
            it.

    Raises:
        MessageError: It is no http or https URL.
    """
    match = _URL.match(url)
    if match is None:
        raise MessageError(f"no http or https URL: {url[:200]!r}")
    scheme, authority, path = match.groups()
    if not _PLAIN.match(path):
        path = quote(path.encode("utf-8", "surrogateescape"), safe=_REFERENCE_SAFE if escaped else _NAME_SAFE)
    host = authority.rpartition("@")[2]
    return f"{scheme}://{host}{path or '/'}".encode()


def range_of(read: RangeRead) -> str | None:
    """The value of libcurl's RANGE for a read, `first-last`; None if the whole file is asked for."""
    if read.whole or read.length == 0:
        return None
    return f"{read.offset}-" if read.length is None else f"{read.offset}-{read.offset + read.length - 1}"


def condition(read: RangeRead) -> str | None:
    """The header line that pins the version of the source (RFC 9110 13.1.1, 13.1.4); None if nothing does."""
    if read.validator is None:
        return None
    name = "If-Match" if read.validator.startswith('"') else "If-Unmodified-Since"
    return f"{name}: {read.validator}"


def parse_response(lines: list[bytes]) -> Response:
    """Read the head of the last response from header lines as libcurl hands them over, redirects included."""
    response = Response()
    for line in lines:
        if line[:5] == b"HTTP/":
            response = Response(status=_status(line))
            continue
        name, _, value = line.partition(b":")
        name = name.lower()
        if name in _WANTED:
            _set(response, name, value.strip().decode("latin-1"))
    return response


def _status(line: bytes) -> int:
    word = line.split(None, 2)[1:2]
    return int(word[0]) if word and len(word[0]) == 3 and word[0].isdigit() else 0


def _set(response: Response, name: bytes, value: str) -> None:
    if name == b"content-length":
        if value.isascii() and value.isdigit() and len(value) < 20:
            response.content_length = int(value)
    else:
        setattr(response, name.decode().replace("-", "_"), value)


def judge(read: RangeRead, response: Response) -> TransferError | None:
    """Say whether the body of `response` is what `read` asked for.

    Returns:
        None if it is; otherwise the error that `RangeDone` carries, naming status and URL.
    """
    status = response.status
    if status == 200:
        error = _judge_whole(read, response)
    elif status == 206:
        error = _judge_range(read, response)
    else:
        return _judge_refusal(read, response)
    return error or _judge_version(read, response)


def _judge_whole(read: RangeRead, response: Response) -> TransferError | None:
    size = response.content_length
    if not read.whole and not (read.offset == 0 and size is not None and size == read.length):
        return RangeNotHonoured(f"whole file instead of range {range_of(read)}: {read.url}")
    return _judge_size(read, size)


def _judge_range(read: RangeRead, response: Response) -> TransferError | None:
    asked = range_of(read)
    if asked is None:
        return RangeNotHonoured(f"range {response.content_range!r} where none was asked: {read.url}")
    match = _CONTENT_RANGE.match(response.content_range or "")
    if match is None or match[1] is None:
        return RangeNotHonoured(f"Content-Range {response.content_range!r} for range {asked}: {read.url}")
    first, last = int(match[1]), int(match[2])
    total = None if match[3] == "*" else int(match[3])
    wrong_size = _judge_size(read, total)
    if wrong_size is not None:
        return wrong_size
    wanted_last = read.offset + read.length - 1 if read.length is not None else total and total - 1
    if first != read.offset or (wanted_last is not None and last != wanted_last):
        return RangeNotHonoured(f"Content-Range {response.content_range!r} for range {asked}: {read.url}")
    return None


def _judge_size(read: RangeRead, size: int | None) -> TransferError | None:
    if read.whole_size is not None and size is not None and size != read.whole_size:
        return SourceChanged(f"source has {size} bytes, announced {read.whole_size}: {read.url}")
    return None


def _judge_version(read: RangeRead, response: Response) -> TransferError | None:
    """Servers that know no preconditions ignore them, so the version is compared here as well."""
    if read.validator is None:
        return None
    now = response.etag if read.validator.startswith('"') else response.last_modified
    if now is not None and now != read.validator:
        return SourceChanged(f"source is of version {now} now, was {read.validator}: {read.url}")
    return None


def _judge_refusal(read: RangeRead, response: Response) -> TransferError:
    status = response.status
    if status in (401, 403, 407):
        return AccessDenied(f"status {status}: {read.url}")
    if status in (404, 410):
        return SourceGone(f"status {status}: {read.url}")
    if status == 412:
        return SourceChanged(f"status 412, source is not of version {read.validator} any more: {read.url}")
    if status == 416:
        wrong_size = _judge_size(read, response.whole_size)
        return wrong_size or RangeNotHonoured(f"status 416 for range {range_of(read)}: {read.url}")
    return TransferError(f"status {status}: {read.url}")


def is_transient(status: int) -> bool:
    """Whether the same request may succeed later without anybody acting (RFC 9110 15.6, RFC 6585 4)."""
    return status in (408, 425, 429) or 500 <= status <= 599


def retry_after_s(value: str | None, now_s: float) -> float | None:
    """Read a Retry-After header (RFC 9110 10.2.3).

    Args:
        value: Seconds, or an HTTP date.
        now_s: Seconds since 1970, for the date.

    Returns:
        Seconds to wait, 0 to `MAX_RETRY_AFTER_S`; None if there is no such header or it makes no sense.
    """
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), MAX_RETRY_AFTER_S)
    try:
        wait_s = parsedate_to_datetime(value).timestamp() - now_s
    except (ValueError, OverflowError):
        return None
    return min(max(wait_s, 0.0), MAX_RETRY_AFTER_S)

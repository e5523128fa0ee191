"""What FTP is asked and how its replies are read."""

from __future__ import annotations

import pytest

from sarrapipe.errors import AccessDenied, MessageError, SourceGone, TransferError
from sarrapipe.transfer import ftprules


@pytest.mark.parametrize(
    ("url", "wire"),
    [
        ("ftp://h/a/b", b"ftp://h/%2Fa/b"),
        ("ftp://u@h:2121/a b/50%#?", b"ftp://h:2121/%2Fa%20b/50%25%23%3F"),
        ("FTPS://h/a", b"ftp://h/%2Fa"),
        ("ftp://h/~/a", b"ftp://h/a"),
        ("ftp://h/a;type=d", b"ftp://h/%2Fa%3Btype=d"),
        ("ftp://h/\udcff", b"ftp://h/%2F%FF"),
    ],
)
def test_urls(url: str, wire: bytes) -> None:
    assert ftprules.wire_url(url) == wire


def test_an_escaped_url_and_implicit_tls() -> None:
    assert ftprules.wire_url("ftps://h/a%20b", escaped=True, implicit_tls=True) == b"ftps://h/%2Fa%20b"


@pytest.mark.parametrize("path", ["a\nb", "a\rb", "a\0b"])
def test_what_would_end_a_command_is_refused(path: str) -> None:
    with pytest.raises(MessageError, match="FTP"):
        ftprules.wire_url(f"ftp://h/{path}")
    with pytest.raises(MessageError, match="FTP"):
        ftprules.command_path(path=f"/{path}")


@pytest.mark.parametrize("url", ["http://h/a", "ftp:///a", "ftp://h", "ftp://h h/a"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(MessageError, match="no ftp"):
        ftprules.wire_url(url)


@pytest.mark.parametrize(
    ("lines", "size", "mtime_s"),
    [
        ([b"213 20240102030405\r\n", b"213 1000\r\n"], 1000, 1704164645),
        ([b"213 20240102030405.123\r\n", b"213 0\r\n"], 0, 1704164645),
        ([b"550 no\r\n", b"213 77\r\n"], 77, None),
        ([b"213 20241302030405\r\n"], None, None),
        ([b"220 hello\r\n", b"230 in\r\n"], None, None),
    ],
)
def test_facts(lines: list[bytes], size: int | None, mtime_s: int | None) -> None:
    found = ftprules.facts(lines)
    assert (found.size, found.mtime_s) == (size, mtime_s)
    assert (found.version is None) == (size is None and mtime_s is None)


def test_a_listing() -> None:
    body = (
        b"type=cdir;modify=20240102030405; .\r\n"
        b"type=file;size=5;modify=20240102030405.5;UNIX.mode=0640; a b;c\r\n"
        b"Type=dir;Modify=20240102030405; d\n"
        b"type=OS.unix=slink:/x; l\n"
        b"nonsense\n"
        b"\n"
    )
    a, d, link = ftprules.listing(body)
    assert (a.name, a.attributes.size, a.attributes.mode) == ("a b;c", 5, 0o640)
    assert a.attributes.mtime_ns == 1704164645 * 10**9
    assert d.is_directory
    assert link.is_link


@pytest.mark.parametrize(
    ("code", "kind"), [(530, AccessDenied), (550, SourceGone), (0, TransferError), (451, TransferError)]
)
def test_refusals(code: int, kind: type[TransferError]) -> None:
    assert type(ftprules.refusal(code, "read x")) is kind


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("530 Sorry, the maximum number of clients (2) from your host are already connected.", TransferError),
        ("530 Sorry, the maximum number of connections for user alice is exceeded", TransferError),
        ("530 Too many users logged in; try again later", TransferError),
        ("530 Login incorrect.", AccessDenied),
        ("530 Please login with USER and PASS.", AccessDenied),
    ],
)
def test_a_server_that_is_full_refuses_nobody_for_good(said: str, kind: type[TransferError]) -> None:
    assert type(ftprules.refusal(530, "read x", said)) is kind


def test_a_time_as_mfmt_takes_it() -> None:
    assert ftprules.stamp(1704164645_500_000_000) == "20240102030405"

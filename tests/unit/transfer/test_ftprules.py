"""What FTP is asked and what its answers mean."""

from __future__ import annotations

import pytest

from sarrapipe.errors import (
    AccessDenied,
    MessageError,
    NoSpaceThere,
    SourceChanged,
    SourceGone,
    TransferError,
)
from sarrapipe.segment.sink import DiscardSink
from sarrapipe.transfer import ftprules
from sarrapipe.transfer.base import RangeRead
from sarrapipe.transfer.credentials import Credentials
from sarrapipe.transfer.ftprules import Facts, FtpPlace, ServerFull

ALICE = Credentials(user="alice", password="s3cret")


@pytest.mark.parametrize(
    ("url", "server", "path"),
    [
        ("ftp://h/a/b", "ftp://h:21/", b"/a/b"),
        ("ftp://u@h:2121/a b/50%#?", "ftp://h:2121/", b"/a b/50%#?"),
        ("FTPS://h/a", "ftps://h:21/", b"/a"),
        ("ftp://h/~/a", "ftp://h:21/", b"a"),
        ("ftp://h/~a", "ftp://h:21/", b"/~a"),
        ("ftp://h/a;type=d", "ftp://h:21/", b"/a;type=d"),
        ("ftp://h/\udcff", "ftp://h:21/", b"/\xff"),
        ("ftp://[fe80::1%lo]:99/a", "ftp://[fe80::1%lo]:99/", b"/a"),
    ],
)
def test_urls(url: str, server: str, path: bytes) -> None:
    place, found = ftprules.place_and_path(url, ALICE)
    assert (str(place), found) == (server, path)
    assert "s3cret" not in f"{place} {place!r}"


def test_who_one_is_and_how_one_connects() -> None:
    place, path = ftprules.place_and_path("ftp://h/a%20b", ALICE, escaped=True)
    assert (path, place.user, place.password, place.tls, place.passive) == (
        b"/a b", "alice", "s3cret", False, True,
    )  # fmt: skip
    anonymous, _ = ftprules.place_and_path("ftp://h/a", None)
    assert anonymous.user == "anonymous"
    explicit, _ = ftprules.place_and_path("ftp://h/a", Credentials(tls=True, passive=False))
    assert (explicit.tls, explicit.implicit_tls, explicit.port, explicit.passive) == (True, False, 21, False)
    implicit, _ = ftprules.place_and_path("ftps://h/a", Credentials(implicit_tls=True))
    assert (implicit.tls, implicit.implicit_tls, implicit.port) == (True, True, 990)


@pytest.mark.parametrize("path", ["a\nb", "a\rb", "a\0b"])
def test_what_would_end_a_command_is_refused(path: str) -> None:
    with pytest.raises(MessageError, match="FTP"):
        ftprules.place_and_path(f"ftp://h/{path}", None)
    with pytest.raises(MessageError, match="FTP"):
        ftprules.command_path(f"/{path}")
    with pytest.raises(MessageError, match="FTP"):
        ftprules.place_and_path("ftp://h/%0a", None, escaped=True)
    with pytest.raises(MessageError, match="FTP"):
        ftprules.place_and_path("ftp://h/a", Credentials(user="u", password=path))


@pytest.mark.parametrize(
    "url", ["http://h/a", "ftp:///a", "ftp://h", "ftp://h h/a", "ftp://h:99999/a", "ftp://no host/x"]
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(MessageError, match="no ftp"):
        ftprules.place_and_path(url, None)


def test_versions() -> None:
    assert Facts(None, None).version is None
    assert Facts(16, 255).version == '"ff-10"'
    assert Facts(16, None).version == '"0-10"'


@pytest.mark.parametrize(
    ("found", "fields", "changed"),
    [
        (Facts(10, 5), {"whole_size": 10, "length": 10}, False),
        (Facts(10, 5), {"whole_size": 11}, True),
        (Facts(None, None), {"whole_size": 11, "validator": '"5-a"'}, False),
        (Facts(10, 5), {"validator": '"5-a"'}, False),
        (Facts(10, 6), {"validator": '"5-a"'}, True),
        (Facts(10, 5), {"offset": 5, "length": 6}, True),
        (Facts(10, 5), {"offset": 5, "length": 5}, False),
        (Facts(10, 5), {"offset": 11}, True),
    ],
)
def test_what_was_announced(found: Facts, fields: dict[str, object], changed: bool) -> None:
    read = RangeRead(url="ftp://h/a", sink=DiscardSink(), token=1, **fields)  # type: ignore[arg-type]
    if changed:
        with pytest.raises(SourceChanged):
            ftprules.check(read, found)
    else:
        ftprules.check(read, found)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (530, AccessDenied),
        (550, SourceGone),
        (0, TransferError),
        (451, TransferError),
        (452, NoSpaceThere),
        (552, NoSpaceThere),
    ],
)
def test_refusals(code: int, kind: type[TransferError]) -> None:
    assert type(ftprules.refusal(code, "read x")) is kind


@pytest.mark.parametrize(
    ("said", "full"),
    [
        ("421 Service not available", True),
        ("530 Sorry, the maximum number of clients (2) from your host are already connected.", True),
        ("530 Sorry, the maximum number of connections for user alice is exceeded", True),
        ("530 Too many users logged in; try again later", True),
        ("530 Login incorrect.", False),
        ("530 Please login with USER and PASS.", False),
    ],
)
def test_a_server_that_is_full_refuses_nobody_for_good(said: str, full: bool) -> None:
    assert type(ftprules.login_refusal(int(said[:3]), said)) is (ServerFull if full else AccessDenied)
    if said[:3] == "530":
        assert type(ftprules.refusal(530, "read x", said)) is (TransferError if full else AccessDenied)


def test_a_time_as_mfmt_takes_it() -> None:
    assert ftprules.stamp(1704164645_500_000_000) == "20240102030405"


def test_places_are_what_requests_have_in_common() -> None:
    same = [ftprules.place_and_path(f"ftp://h/{name}", ALICE)[0] for name in "ab"]
    other = ftprules.place_and_path("ftp://h/a", None)[0]
    assert isinstance(other, FtpPlace)
    assert len({*same, other}) == 2

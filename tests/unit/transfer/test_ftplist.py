"""Listings of FTP servers."""

from __future__ import annotations

import calendar
import time

import pytest

from sarrapipe.transfer.ftplist import machine_listing, plain_listing
from sarrapipe.transfer.remotecall import RemoteEntry

NOW_S = float(calendar.timegm((2024, 3, 10, 12, 0, 0)))


def time_of(entry: RemoteEntry) -> tuple[int, ...]:
    assert entry.attributes.mtime_ns is not None
    return tuple(time.gmtime(entry.attributes.mtime_ns / 1e9))[:5]


def test_a_machine_listing() -> None:
    body = (
        b"type=cdir;modify=20240102030405; .\r\n"
        b"type=pdir; ..\r\n"
        b"type=file;size=5;modify=20240102030405.5;UNIX.mode=0640; a b;c\r\n"
        b"Type=dir;Modify=20240102030405; d\n"
        b"type=OS.unix=slink:/x; l\n"
        b"type=file;size=x;modify=2024;UNIX.mode=abc; odd\r\n"
        b"nonsense\n"
        b"\n"
    )
    a, d, link, odd = machine_listing(body)
    assert (a.name, a.attributes.size, a.attributes.mode) == ("a b;c", 5, 0o640)
    assert a.attributes.mtime_ns == 1704164645 * 10**9
    assert d.is_directory
    assert link.is_link
    assert (odd.attributes.size, odd.attributes.mode, odd.attributes.mtime_ns) == (None, None, None)


def test_a_listing_of_unix() -> None:
    body = (
        b"total 12\r\n"
        b"drwxr-sr-x   2 1000     users        4096 Jan  2 03:04 .\r\n"
        b"-rw-r-----   1 alice    users           5 Mar  9 23:59 a  b\r\n"
        b"-rwsr-xr-t   1 alice    users  5000000000 Nov 30 1999 old\r\n"
        b"drwxrwxrwt   2 ftp      ftp          4096 Apr  1 00:00 d\r\n"
        b"lrwxrwxrwx   1 ftp      ftp             7 Mar 10 11:00 l -> ../a b\r\n"
        b"-rw-r--r--   1 ftp                     17 Mar 11 08:00 no group, from tomorrow\r\n"
        b"-rw-r--r--+  1 a        b               0 9 Mar 10:00 day first\r\n"
        b"-rw-r--r--   1 a        b               3 Feb 29 2024  leading blank\r\n"
        b"-rw-r--r--   1 a        b               3 Xyz 29 2024 no month\r\n"
        b"ls: cannot open x\r\n"
    )
    found = {entry.name: entry for entry in plain_listing(body, NOW_S)}
    assert list(found) == ["a  b", "old", "d", "l", "no group, from tomorrow", "day first", " leading blank"]
    assert [(e.attributes.size, e.attributes.mode) for e in found.values()][:2] == [
        (5, 0o640),
        (5_000_000_000, 0o5755),
    ]
    assert time_of(found["a  b"]) == (2024, 3, 9, 23, 59)
    assert time_of(found["old"]) == (1999, 11, 30, 0, 0)
    assert time_of(found["d"]) == (2023, 4, 1, 0, 0)
    assert time_of(found["no group, from tomorrow"]) == (2024, 3, 11, 8, 0)
    assert found["d"].is_directory
    assert (found["l"].is_link, found["l"].link_target) == (True, "../a b")


def test_a_listing_of_dos() -> None:
    body = (
        b"01-02-24  03:04PM       <DIR>          a dir\r\n"
        b"12-31-99  12:00AM                 1234 old.txt\r\n"
        b"03-10-2024  23:59            1,234,567 b\r\n"
        b"01-02-24  03:04PM       <SYMLINK>      link\r\n"
        b"13-41-24  03:04PM                   12 no such day\r\n"
    )
    directory, old, b, link, odd = plain_listing(body, NOW_S)
    assert (directory.name, directory.is_directory, time_of(directory)) == (
        "a dir",
        True,
        (2024, 1, 2, 15, 4),
    )
    assert (old.name, old.attributes.size, time_of(old)) == ("old.txt", 1234, (1999, 12, 31, 0, 0))
    assert (b.name, b.attributes.size, time_of(b)) == ("b", 1_234_567, (2024, 3, 10, 23, 59))
    assert link.is_link
    assert odd.attributes.mtime_ns is None


@pytest.mark.parametrize(
    "body", [b"", b"\r\n\r\n", b"\xff\xfe\0" * 1000, b"-rw-r--r-- " * 5000, b"-" + b"a " * 50_000]
)
def test_what_is_no_listing(body: bytes) -> None:
    assert plain_listing(body, NOW_S) == []
    assert machine_listing(body.replace(b" ", b"")) == []

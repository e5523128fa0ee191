r"""Listings of FTP servers: MLSD's, which is a rule, and LIST's, which is what `ls` or `dir` prints.

    machine_listing(b"type=file;size=5;modify=20240102030405; a\r\n")
    plain_listing(b"-rw-r--r-- 1 u g 5 Jan  2 03:04 a\r\n", now_s)

Rules: RFC 3659 7.2 for MLSD. RFC 959 leaves LIST to the server: lines of the two forms that servers are known
to print are read (unix and DOS), others are left out. Their times have no zone and are taken for UTC.
"""

from __future__ import annotations

import calendar
import re
import time
from typing import Final

from sarrapipe.transfer.remotecall import Attributes, RemoteEntry

__all__ = ["machine_entry", "machine_listing", "moment_s", "plain_listing"]

_SECOND_NS: Final = 1_000_000_000
_DAY_S: Final = 86_400
_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
    )
}
_UNIX: Final = re.compile(
    rb"(?P<kind>[-bcdlpsD])(?P<mode>[-rwxsStT]{9})\S?\s+"
    rb"(?:\d+\s+)?(?:\S+\s+){0,3}?(?P<size>\d+)\s+"
    rb"(?:(?P<month>[A-Za-z]{3})\s+(?P<day>\d{1,2})|(?P<day_first>\d{1,2})\s+(?P<month_second>[A-Za-z]{3}))\s+"
    rb"(?:(?P<hour>\d{1,2}):(?P<minute>\d{2})|(?P<year>\d{4})) (?P<name>.+)\Z",
    re.DOTALL,
)
_DOS: Final = re.compile(
    rb"(?P<month>\d{2})-(?P<day>\d{2})-(?P<year>\d{4}|\d{2})\s+"
    rb"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?P<half>[AaPp][Mm])?\s+"
    rb"(?:(?P<directory><(?:DIR|JUNCTION|SYMLINKD?)>)|(?P<size>[\d,]+))\s(?:\s*)(?P<name>.+)\Z",
    re.DOTALL,
)


def moment_s(digits: str) -> int | None:
    """A time as MDTM and `modify` have it, `YYYYMMDDhhmmss`; None if it is none."""
    try:
        return calendar.timegm(time.strptime(digits, "%Y%m%d%H%M%S"))
    except ValueError:
        return None


def machine_listing(body: bytes) -> list[RemoteEntry]:
    """Read the lines that MLSD is answered; what is none of them is left out."""
    found = []
    for line in body.split(b"\n"):
        entry = machine_entry(line.removesuffix(b"\r"))
        if entry is not None and entry.name not in ("", ".", ".."):
            found.append(entry)
    return found


def machine_entry(line: bytes) -> RemoteEntry | None:
    """Read one line of MLSD, or the one of MLST without its leading blank; None if it is none."""
    head, blank, name = line.partition(b" ")
    if not blank or not name:
        return None
    pairs = (pair.partition("=") for pair in head.decode("latin-1").split(";") if pair)
    known = {key.lower(): value for key, _, value in pairs}
    kind = known.get("type", "file").lower()
    if kind == "pdir":
        return None
    size, mode, moment = known.get("size", ""), known.get("unix.mode", ""), known.get("modify", "")[:14]
    mtime_s = moment_s(moment) if moment.isdigit() else None
    return RemoteEntry(
        name="." if kind == "cdir" else _text(name),
        attributes=Attributes(
            size=int(size) if re.fullmatch(r"[0-9]{1,19}", size) else None,
            mode=int(mode, 8) & 0o7777 if re.fullmatch(r"[0-7]{3,6}", mode) else None,
            mtime_ns=None if mtime_s is None else mtime_s * _SECOND_NS,
        ),
        is_directory=kind in ("dir", "cdir"),
        is_link=kind.startswith("os.unix=s"),
    )


def plain_listing(body: bytes, now_s: float) -> list[RemoteEntry]:
    """Read the lines that LIST is answered; what is of no form that is known is left out.

    Args:
        body: As it came.
        now_s: Wall time: `ls` leaves out the year where it is the last twelve months'.
    """
    found = []
    for line in body.split(b"\n"):
        line = line.removesuffix(b"\r")  # noqa: PLW2901 - the same line
        entry = _unix_entry(line, now_s) or _dos_entry(line)
        if entry is not None and entry.name not in (".", ".."):
            found.append(entry)
    return found


def _unix_entry(line: bytes, now_s: float) -> RemoteEntry | None:
    match = _UNIX.match(line)
    if match is None:
        return None
    month = _MONTHS.get((match["month"] or match["month_second"]).decode().lower())
    if month is None:
        return None
    day = int(match["day"] or match["day_first"])
    if match["year"]:
        mtime_s = _moment(int(match["year"]), month, day, 0, 0)
    else:
        mtime_s = _recent(month, day, int(match["hour"]), int(match["minute"]), now_s)
    name, target = match["name"], b""
    is_link = match["kind"] == b"l"
    if is_link:
        name, _, target = name.partition(b" -> ")
    return RemoteEntry(
        name=_text(name),
        attributes=Attributes(
            size=int(match["size"]),
            mode=_mode(match["mode"].decode()),
            mtime_ns=None if mtime_s is None else mtime_s * _SECOND_NS,
        ),
        is_directory=match["kind"] == b"d",
        is_link=is_link,
        link_target=_text(target),
    )


def _dos_entry(line: bytes) -> RemoteEntry | None:
    match = _DOS.match(line)
    if match is None:
        return None
    year, hour = int(match["year"]), int(match["hour"])
    if len(match["year"]) == len("24"):
        year += 1900 if year >= 70 else 2000
    if match["half"]:
        hour = hour % 12 + (12 if match["half"].lower() == b"pm" else 0)
    mtime_s = _moment(year, int(match["month"]), int(match["day"]), hour, int(match["minute"]))
    size = match["size"]
    return RemoteEntry(
        name=_text(match["name"]),
        attributes=Attributes(
            size=None if size is None else int(size.replace(b",", b"") or b"0"),
            mtime_ns=None if mtime_s is None else mtime_s * _SECOND_NS,
        ),
        is_directory=match["directory"] in (b"<DIR>", b"<JUNCTION>"),
        is_link=bool(match["directory"]) and match["directory"].startswith(b"<SYMLINK"),
    )


def _moment(year: int, month: int, day: int, hour: int, minute: int) -> int | None:
    return moment_s(f"{year:04}{month:02}{day:02}{hour:02}{minute:02}00")


def _recent(month: int, day: int, hour: int, minute: int, now_s: float) -> int | None:
    """The latest such moment that is not ahead of now by more than a day, for clocks and zones differ."""
    year = time.gmtime(now_s).tm_year
    for candidate in (year + 1, year, year - 1):
        found = _moment(candidate, month, day, hour, minute)
        if found is not None and found <= now_s + _DAY_S:
            return found
    return None


def _mode(text: str) -> int:
    """Permission bits of `rwxr-x--x` and its like (ls(1))."""
    mode = 0
    for place, letter in enumerate(text):
        if letter in "rwxst":
            mode |= 1 << (8 - place)
        if letter in "sStT":
            mode |= 0o4000 >> (place // 3)
    return mode


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")

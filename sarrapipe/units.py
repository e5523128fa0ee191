"""Sizes, durations, counts and times as the configuration and the wire write them.

>>> parse_size("12M"), parse_size("12MB"), parse_duration_s("1h30m")
(12000000, 12582912, 5400.0)

Sources: sr3-surface.md 2.4 (kinds), wire.md 1.2 (times) and 2.3 (unit letters).
"""

from __future__ import annotations

import re
import time
from calendar import timegm
from functools import lru_cache
from typing import Final

__all__ = [
    "format_bytes",
    "format_duration",
    "format_time",
    "parse_count",
    "parse_duration_s",
    "parse_size",
    "parse_time_ns",
]

_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_SIZE_RE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(b|i|ib)?", re.IGNORECASE | re.ASCII)
_DURATION_PART_RE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])", re.IGNORECASE | re.ASCII)
_DURATION_RE: Final = re.compile(r"(?:\d+(?:\.\d+)?\s*[smhdw]\s*)+", re.IGNORECASE | re.ASCII)
_NUMBER_RE: Final = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_OFF: Final = frozenset({"none", "off", "no", "false"})
_TIME_RE: Final = re.compile(r"(\d{4})(\d\d)(\d\d)T?(\d\d)(\d\d)(\d\d)(?:\.(\d*)(?:e-\d+)?)?Z?", re.ASCII)
_MAX_SIZE: Final = 2**63 - 1


def parse_size(text: str) -> int:
    """Return a number of bytes.

    `k m g t p` are powers of 1000; with a trailing `b`, `i` or `ib` they are powers of 1024 (wire.md 2.3).

    Raises:
        ValueError: Not a size, negative, or above 2^63 - 1.
    """
    if text.strip().lower() in _OFF:
        return 0
    match = _SIZE_RE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size: use digits and k, m, g or t, such as 500M or 8MiB")
    number, letter, binary = match.groups()
    factor = (1024 if binary else 1000) ** _POWERS[letter.lower()]
    size = int(float(number) * factor) if "." in number else int(number) * factor
    if size > _MAX_SIZE:
        raise ValueError(f"{text!r} is larger than any file")
    return size


def parse_count(text: str) -> int:
    """Return a whole number that may carry the letters of a size."""
    return parse_size(text)


def parse_duration_s(text: str) -> float:
    """Return seconds: `90`, `30s`, `5m`, `2h`, `1d`, `1w`, `1h30m`; `off` and `none` are 0, `on` is 300.

    Raises:
        ValueError: Not a duration.
    """
    text = text.strip().lower()
    if text in _OFF:
        return 0.0
    if text in ("on", "yes", "true"):
        return 300.0  # what sr3 takes a bare `nodupe_ttl on` to mean
    if _NUMBER_RE.fullmatch(text):
        return float(text)
    if not _DURATION_RE.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration: use digits and s, m, h, d or w, such as 90s or 1h30m")
    return sum(float(number) * _SECONDS[letter] for number, letter in _DURATION_PART_RE.findall(text))


def format_time(wall_ns: int, *, separator: str = "T") -> str:
    """Return `YYYYMMDDTHHMMSS[.fraction]` in UTC, the fraction without trailing zeros.

    Args:
        wall_ns: Nanoseconds since 1970 UTC.
        separator: `T` in v03; empty in v02, where a fraction of at least one digit is written.
    """
    seconds, fraction = divmod(wall_ns, 1_000_000_000)
    text = _format_seconds(seconds, separator)
    if fraction:
        return f"{text}.{fraction:09d}".rstrip("0")
    return text if separator else text + ".0"


def _format_seconds(seconds: int, separator: str) -> str:
    days, rest = divmod(seconds, 86400)
    hours, rest = divmod(rest, 3600)
    return f"{_format_day(days)}{separator}{hours:02d}{rest // 60:02d}{rest % 60:02d}"


@lru_cache(maxsize=64)  # strftime costs more than the rest of a post's time field
def _format_day(days: int) -> str:
    return time.strftime("%Y%m%d", time.gmtime(days * 86400))


def parse_time_ns(text: str) -> int:
    """Return nanoseconds since 1970 UTC of a v02 or v03 time.

    Tolerant of the separator `T`, of a trailing `Z`, of a missing fraction, and of the exponent that sr3
    writes after small fractions (wire.md 1.2).

    Raises:
        ValueError: Not a time.
    """
    match = _TIME_RE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a time: YYYYMMDDTHHMMSS[.fraction]")
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    in_range = (
        year >= 1970 and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 61
    )
    if not in_range:
        raise ValueError(f"{text!r} is not a time: a field is out of range")
    seconds = timegm((year, month, day, hour, minute, second))
    digits = match.group(7) or ""
    if "e" in text:
        # sr3 writes a fraction below 1e-4 without its leading zeros (wire.md 1.2): worth less than 100 us.
        return seconds * 1_000_000_000
    return seconds * 1_000_000_000 + int(digits[:9].ljust(9, "0") or 0)


def format_bytes(count: float) -> str:
    """Return a size for people: `1.5 GB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable: the loop ends at TB")


def format_duration(seconds: float) -> str:
    """Return a duration for people: `4.2 s`, `3m 07s`, `2h 05m`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    return f"{minutes // 60}h {minutes % 60:02d}m"

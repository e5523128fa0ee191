"""Variables in option values: `${BROKER_USER}`, `${%Y%m%d}`, `${SOURCE}`, `${1}` and their kin.

Two classes of variables. Those known when the configuration is read (environment, `declare env`, other
options, the account of the broker) are replaced then, by `expand`. Those that a message decides stay in the
text and are replaced by `Template.render`, which takes message, groups and time as arguments: nothing here
reads a clock. Times are UTC (R135), where sr3 uses local time.

Source: sr3-surface.md 3.4.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from sarrapipe.errors import MessageError, UnsafePath
from sarrapipe.units import parse_duration_s

__all__ = ["VARIABLE_RE", "Environment", "Template", "expand", "is_message_variable", "variables"]

VARIABLE_RE: Final = re.compile(r"\$\{([^{}]*)\}")

Part = Callable[[Mapping[str, object], Sequence[str], int], str]

_OLD_TIMES: Final = {
    "YYYYMMDD": "%Y%m%d", "YYYY": "%Y", "MM": "%m", "DD": "%d", "HH": "%H", "JJJ": "%j", "SS": "%S",
}  # fmt: skip
_OLD_TIME_RE: Final = re.compile(r"(YYYYMMDD|YYYY|MM|DD|HH|JJJ|SS)(?:([-+])(\d+[A-Za-z]))?", re.ASCII)
_STRFTIME_RE: Final = re.compile(r"%(?:o?([-+]?)(\d[^%]*))?(%?.+)", re.ASCII | re.DOTALL)
_STRFTIME_CODES: Final = re.compile(r"(?:[^%]|%[aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ%])+", re.DOTALL)

# Parts of a bulletin's file name T1T2A1A2ii_CCCC_YYGGGg_BBB: (field between underscores, from, to).
_BULLETIN: Final = {
    "T1": (0, 0, 1), "T2": (0, 1, 2), "A1": (0, 2, 3), "A2": (0, 3, 4), "ii": (0, 4, 6), "CCCC": (1, 0, None),
    "YY": (2, 0, 2), "GG": (2, 2, 4), "Gg": (2, 4, 6), "BBB": (3, 0, 3),
}  # fmt: skip
# Reception time: the seventh field between colons, YYYYMMDDhhmmss, else the present time.
_RECEPTION: Final = {
    "RYYYY": (0, 4), "RMM": (4, 6), "RDD": (6, 8), "RHH": (8, 10), "RMN": (10, 12), "RSS": (12, 14),
}  # fmt: skip
_RECEPTION_FIELD: Final = 6
_MAX_DEPTH: Final = 10


@dataclass(frozen=True, slots=True)
class Environment:
    """What the world outside says: passed in, so that reading a configuration is repeatable.

    Attributes:
        variables: The process's environment.
        user: Name of the account the process runs as.
        hostname: Name of this host.
        seed: Text that differs between hosts and flows and never changes: `${RAND8}` is made of it.
        cwd: Directory that relative paths are taken from.
        home: Home directory: what `~` stands for.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    hostname: str = ""
    seed: str = ""
    cwd: str = "/"
    home: str = "/"


def variables(text: str) -> list[tuple[int, str]]:
    """Return position and name of every `${NAME}` in a text."""
    return [(match.start(), match.group(1)) for match in VARIABLE_RE.finditer(text)]


def is_message_variable(name: str) -> bool:
    """Return whether only a message, or the time, can say what `${name}` stands for."""
    return _part(name, 0.0) is not None


def expand(text: str, lookup: Callable[[str], str | None]) -> str:
    """Replace the variables that `lookup` knows, also in what it returns; leave the others.

    Args:
        text: A value, or part of one.
        lookup: Gives the text a name stands for, None for unknown names.

    Raises:
        ValueError: A variable stands for itself, directly or in a circle.
    """
    for _ in range(_MAX_DEPTH):
        if "${" not in text:
            return text
        replaced = VARIABLE_RE.sub(lambda match: _keep_or_replace(match, lookup), text)
        if replaced == text:
            return text
        text = replaced
        if len(text) > 65536:
            break
    raise ValueError("variables refer to each other in a circle")


def _keep_or_replace(match: re.Match[str], lookup: Callable[[str], str | None]) -> str:
    found = lookup(match.group(1))
    return match.group(0) if found is None else found


class Template:
    """A text with variables that a message decides.

    Attributes:
        text: As written.
        constant: The text itself where it has no variables, else None.
        highest_group: The largest n of the `${n}` in it; -1 where there is none.
    """

    __slots__ = ("_offset_s", "_parts", "constant", "highest_group", "text")

    def __init__(self, text: str, time_offset_s: float = 0.0) -> None:
        self.text = text
        self._offset_s = time_offset_s
        self._parts: list[str | Part] = []
        self.highest_group = -1
        position = 0
        for match in VARIABLE_RE.finditer(text):
            part = _part(match.group(1), time_offset_s)
            if part is not None:
                self._parts += [text[position : match.start()], part]
                position = match.end()
                if match.group(1).isdigit():
                    self.highest_group = max(self.highest_group, int(match.group(1)))
        self._parts.append(text[position:])
        self.constant = text if len(self._parts) == 1 else None

    def render(self, message: Mapping[str, object], groups: Sequence[str], now_ns: int) -> str:
        """Return the text for one message.

        Args:
            message: Wire fields.
            groups: The whole match of the mask's expression, then its groups.
            now_ns: Nanoseconds since 1970 UTC.

        Raises:
            MessageError: The message lacks a field that the text asks for.
            UnsafePath: The message's source is no plain name.
        """
        if self.constant is not None:
            return self.constant
        return "".join(
            [part if isinstance(part, str) else part(message, groups, now_ns) for part in self._parts]
        )

    @property
    def uses_groups(self) -> bool:
        """Whether the groups of a mask are needed."""
        return self.highest_group >= 0

    @property
    def fixed_head(self) -> str:
        """The text up to its first variable."""
        head = self._parts[0]
        assert isinstance(head, str)
        return head

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and (other.text, other._offset_s) == (self.text, self._offset_s)

    def __hash__(self) -> int:
        return hash((self.text, self._offset_s))

    def __reduce__(self) -> tuple[type[Template], tuple[str, float]]:
        return Template, (self.text, self._offset_s)

    def __repr__(self) -> str:
        return f"Template({self.text!r})"


def _part(name: str, offset_s: float) -> Part | None:
    if name.isascii() and name.isdigit() and len(name) <= 3:
        return _group_part(int(name))
    if name in _MESSAGE_PARTS:
        return _MESSAGE_PARTS[name]
    if name in _BULLETIN:
        return _bulletin_part(name)
    if name in _RECEPTION:
        return _reception_part(*_RECEPTION[name])
    return _time_part(name, offset_s)


def _time_part(name: str, offset_s: float) -> Part | None:
    if name.startswith("%"):
        match = _STRFTIME_RE.fullmatch(name)
        if match is None:
            return None
        sign, shift, code = match.groups()
        code = code if code.startswith("%") else "%" + code
    else:
        match = _OLD_TIME_RE.fullmatch(name)
        if match is None:
            return None
        code, sign, shift = _OLD_TIMES[match.group(1)], match.group(2), match.group(3)
    if not _STRFTIME_CODES.fullmatch(code):
        return None
    if shift:
        try:
            seconds = parse_duration_s(shift)
        except ValueError:
            return None
        offset_s += -seconds if sign == "-" else seconds
    return _strftime_part(code, offset_s)


def _strftime_part(code: str, offset_s: float) -> Part:
    cached_second, cached_text = -1, ""

    def part(_message: Mapping[str, object], _groups: Sequence[str], now_ns: int) -> str:
        nonlocal cached_second, cached_text
        second = int(now_ns // 1_000_000_000 + offset_s)
        if second != cached_second:
            cached_second, cached_text = second, time.strftime(code, time.gmtime(second))
        return cached_text

    return part


def _group_part(number: int) -> Part:
    def part(_message: Mapping[str, object], groups: Sequence[str], _now_ns: int) -> str:
        if number >= len(groups):
            raise MessageError(f"the accept line's expression has no group {number} for ${{{number}}}")
        return groups[number]

    return part


def _field(message: Mapping[str, object], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str) or not value:
        raise MessageError(f"the message has no {name}, which the configuration asks for")
    return value


def _source(message: Mapping[str, object], _groups: Sequence[str], _now_ns: int) -> str:
    source = _field(message, "source")
    if "/" in source or source in (".", ".."):
        raise UnsafePath(f"source {source[:60]!r} is not a plain name")
    return source


def _base_url_path(message: Mapping[str, object], _groups: Sequence[str], _now_ns: int) -> str:
    _, _, rest = _field(message, "baseUrl").partition("://")
    return unquote("/" + rest.partition("/")[2])


def _base_url_last(message: Mapping[str, object], groups: Sequence[str], now_ns: int) -> str:
    return _base_url_path(message, groups, now_ns).rpartition("/")[2]


_MESSAGE_PARTS: Final[Mapping[str, Part]] = {
    "SOURCE": _source,
    "BUP": _base_url_path,
    "baseUrlPath": _base_url_path,
    "BUPL": _base_url_last,
    "baseUrlPathLast": _base_url_last,
}


def _file_name(message: Mapping[str, object]) -> str:
    return _field(message, "relPath").rpartition("/")[2]


def _bulletin_part(name: str) -> Part:
    number, start, end = _BULLETIN[name]

    def part(message: Mapping[str, object], _groups: Sequence[str], _now_ns: int) -> str:
        fields = _file_name(message).partition(":")[0].split("_")
        if number >= len(fields):
            raise MessageError(
                f"{_file_name(message)[:60]!r} is not a bulletin's name, which ${{{name}}} asks for"
            )
        return fields[number][start:end]

    return part


def _reception_part(start: int, end: int) -> Part:
    def part(message: Mapping[str, object], _groups: Sequence[str], now_ns: int) -> str:
        fields = _file_name(message).split(":")
        if len(fields) > _RECEPTION_FIELD:
            return fields[_RECEPTION_FIELD][start:end]
        return time.strftime("%Y%m%d%H%M%S", time.gmtime(now_ns // 1_000_000_000))[start:end]

    return part

r"""The configuration language, first step: text into lines of option and value. Pure; no meaning yet.

    >>> parse("prefetch 30\n# a comment\nmirror\n", "a.conf")[0][0].option
    'prefetch'

A line is a name and, after blanks, its value: the rest of the line without surrounding blanks. Only a line
whose first character that is no blank is `#` is a comment, since `#` is a wildcard of topics. A name alone is
a flag switched on. Source: sr3-surface.md 3.3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sarrapipe.config.values import Origin
from sarrapipe.errors import ConfigError

__all__ = ["COMMAND_LINE", "Line", "parse"]

COMMAND_LINE: Final = "command line"
_MAX_LINE: Final = 32768
_MAX_ERRORS: Final = 100
_LINE_RE: Final = re.compile(r"([^\S\n]*)(\S+)(?:\s+(.*))?", re.DOTALL)
_CONTROL_RE: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Line:
    """One option and its value.

    Attributes:
        option: The name as written.
        value: The rest of the line without surrounding blanks; "" for a bare name.
        file: Name of the file, or "command line".
        line: Number from 1.
        column: Column of the name, from 1; 0 on the command line.
        value_column: Column of the value, from 1; the name's end where there is none; 0 on the command line.
    """

    option: str
    value: str
    file: str
    line: int
    column: int
    value_column: int

    @property
    def origin(self) -> Origin:
        """Where it stands."""
        return Origin(self.file, self.line, self.column)

    def error(self, what: str, offset: int = -1) -> ConfigError:
        """Return an error about this line.

        Args:
            what: The problem.
            offset: Position in the value that it is about, from 0; -1 for the name.
        """
        if not self.column:
            return ConfigError(what, self.file, self.line)
        column = self.column if offset < 0 else self.value_column + offset
        return ConfigError(what, self.file, self.line, column)


def parse(text: str, file: str) -> tuple[list[Line], list[ConfigError]]:
    """Take a configuration's text apart.

    Args:
        text: The text; a byte order mark and carriage returns are tolerated.
        file: Its name, for errors.

    Returns:
        The lines that could be read, and an error with file and line for each that could not.
    """
    lines: list[Line] = []
    errors: list[ConfigError] = []
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        stripped = raw.strip()
        if not stripped or stripped.startswith("#"):
            continue
        line = _line(raw.rstrip(), file, number)
        if isinstance(line, Line):
            lines.append(line)
        elif len(errors) < _MAX_ERRORS:
            errors.append(line)
    return lines, errors


def _line(raw: str, file: str, number: int) -> Line | ConfigError:
    if len(raw) > _MAX_LINE:
        return ConfigError(f"a line of {len(raw)} characters: at most {_MAX_LINE}", file, number)
    control = _CONTROL_RE.search(raw)
    if control is not None:
        what = f"control character {control.group()!r}: not a text file?"
        return ConfigError(what, file, number, control.start() + 1)
    match = _LINE_RE.fullmatch(raw)
    assert match is not None, "a line that is not empty has a name"
    value = match.group(3) or ""
    value_column = (match.start(3) if value else match.end(2)) + 1
    return Line(match.group(2), value, file, number, match.end(1) + 1, value_column)

"""Numbers for starts that are never used twice, so that a claim in the ledger names one process for ever.

The file holds an upper bound; numbers below it may have been given out. A bound is raised and synced before
any number of its range is used, so neither a kill nor a loss of power makes a number come back.
"""

from __future__ import annotations

import os
from typing import Final

from sarrapipe.errors import SupervisorError

__all__ = ["IncarnationCounter"]

_RANGE: Final = 256  # starts between two writes


class IncarnationCounter:
    """The counter of one flow; used by the holder of its pid file only.

    Args:
        path: Of the counter file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._last = 0
        self._bound = 0

    def open(self) -> None:
        """Read the bound that earlier parents left.

        Raises:
            SupervisorError: The file is there and holds no number: starting anew at 1 might let a dead
                instance pass for a living one, so a person has to look.
        """
        try:
            with open(self._path, encoding="ascii", errors="replace") as file:
                text = file.read(64).strip()
        except FileNotFoundError:
            text = "0"
        except OSError as error:
            raise SupervisorError(f"{self._path}: {error.strerror}") from error
        if not (text.isascii() and text.isdigit()):
            raise SupervisorError(
                f"{self._path}: no number in it; write one larger than any incarnation of this flow so far"
            )
        self._last = self._bound = int(text)

    def take(self) -> int:
        """Return the next number, from 1."""
        if self._last == self._bound:
            self._raise_bound(self._bound + _RANGE)
        self._last += 1
        return self._last

    def _raise_bound(self, bound: int) -> None:
        temporary = f"{self._path}.new"
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, f"{bound}\n".encode())
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temporary, self._path)
        except OSError as error:
            raise SupervisorError(f"{self._path}: {error.strerror}") from error
        self._bound = bound

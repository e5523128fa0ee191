"""Lines about large transfers in the log of a flow that runs in the foreground.

Lines and no display that is redrawn: instances write to the same terminal, and a container's log keeps lines.
A transfer is told of when it was under way at the look before, so short ones are not.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Final

from sarrapipe.supervisor.transfers import TransferStatus, lasting, line

__all__ = ["ProgressLog"]

_TERMINAL_S: Final = 5.0
_LOG_S: Final = 30.0


class ProgressLog:
    """When to look, and what to say.

    Args:
        logger: Of the parent.
        look: Returns the large transfers under way.
        terminal: Whether a person looks; otherwise lines come less often.
    """

    def __init__(
        self, logger: logging.Logger, look: Callable[[], Sequence[TransferStatus]], *, terminal: bool
    ) -> None:
        self._logger = logger
        self._look = look
        self._every_s = _TERMINAL_S if terminal else _LOG_S
        self._known: Sequence[TransferStatus] = ()
        self._due_s = -math.inf

    @property
    def deadline(self) -> float:
        """Monotonic time of the next look."""
        return self._due_s

    def tick(self, now_s: float) -> None:
        """Look, if it is time."""
        if now_s < self._due_s:
            return
        self._due_s = now_s + self._every_s
        found = self._look()
        for one in lasting(self._known, found):
            self._logger.info("%s", line(one))
        self._known = found

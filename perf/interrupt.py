"""SIGTERM ends a benchmark as Ctrl-C does: through every `finally`."""

from __future__ import annotations

from types import FrameType
from typing import NoReturn

__all__ = ["end_like_ctrl_c"]


def end_like_ctrl_c(_number: int, _frame: FrameType | None) -> NoReturn:
    """Be a signal handler that raises KeyboardInterrupt."""
    raise KeyboardInterrupt

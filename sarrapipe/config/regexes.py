"""Compiling regular expressions: errors have a position; warnings of future meanings are left out."""

from __future__ import annotations

import re
import warnings
from functools import lru_cache

__all__ = ["RegexError", "compile_regex"]


class RegexError(ValueError):
    """Not a regular expression.

    Attributes:
        position: Where in the text, from 0.
    """

    def __init__(self, what: str, position: int) -> None:
        super().__init__(f"not a regular expression: {what}")
        self.position = position


@lru_cache(maxsize=1024)
def compile_regex(text: str) -> re.Pattern[str]:
    """Return the compiled expression.

    Raises:
        RegexError: It is none.
    """
    try:
        with warnings.catch_warnings():
            # Such as `[[`, which may mean something else to a later Python; here it is what it is.
            warnings.simplefilter("ignore")
            return re.compile(text)
    except re.error as error:
        raise RegexError(str(error), error.pos or 0) from error
    except (OverflowError, RecursionError) as error:
        raise RegexError(f"{type(error).__name__}: {error}", 0) from error

"""Several configuration errors as one exception."""

from __future__ import annotations

from collections.abc import Iterable

from sarrapipe.config.values import Problem
from sarrapipe.errors import ConfigError

__all__ = ["ConfigErrors"]


class ConfigErrors(ConfigError):
    """Everything that is wrong with a configuration, not only the first.

    Args:
        errors: At least one; repeated ones are kept once. They are put in the order of files and lines.

        warnings: What else there is to say of it.

    Attributes:
        errors: The single errors.
        warnings: The warnings.
    """

    def __init__(self, errors: Iterable[ConfigError], warnings: Iterable[Problem] = ()) -> None:
        unique = {str(error): error for error in errors}
        self.errors = tuple(sorted(unique.values(), key=lambda error: (error.file, error.line, error.column)))
        self.warnings = tuple(warnings)
        first = self.errors[0]
        super().__init__(first.what, first.file, first.line, first.column)

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)

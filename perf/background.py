"""One call on a thread of its own, with its result or error handed to whoever asks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Background"]

T = TypeVar("T")


class Background(Generic[T]):
    """A call that runs beside its caller.

    Args:
        call: What to run.
    """

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> Background[T]:
        """Begin."""
        self._thread.start()
        return self

    def running(self) -> bool:
        """Tell whether it has not ended yet."""
        return self._thread.is_alive()

    def result(self) -> T:
        """Wait for the end; return the result or raise what the call raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._results[0]

    def _run(self) -> None:
        try:
            self._results.append(self._call())
        except BaseException as error:  # noqa: BLE001 - the top of a thread; raised again by `result`
            self._error = error

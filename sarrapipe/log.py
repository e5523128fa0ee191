"""Logging: one line an item, key=value, to standard error or to the flow's log file.

Every WARNING says what happens next. Messages that repeat (a broker that stays away) pass through
`RepeatFilter`, which lets the first through and then one a minute with a count.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import Final

from sarrapipe.errors import ConfigError

__all__ = ["LOG_FORMAT", "RepeatFilter", "configure", "flush", "get_logger", "printable", "reopen"]

LOG_FORMAT: Final = "%(asctime)s.%(msecs)03dZ %(levelname)s {pid} %(name)s %(message)s"
_REPEAT_INTERVAL_S: Final = 60.0


class RepeatFilter(logging.Filter):
    """Let one record of each (logger, template) through in an interval; say how many were held back.

    Only records at WARNING and above marked with `extra={"repeats": key}` are held back.
    """

    def __init__(self, interval_s: float = _REPEAT_INTERVAL_S) -> None:
        super().__init__()
        self._interval_s = interval_s
        self._held: dict[object, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record may be written now."""
        key = getattr(record, "repeats", None)
        if key is None:
            return True
        now = time.monotonic()
        first_seen, held = self._held.get(key, (-self._interval_s, 0))
        if now - first_seen < self._interval_s:
            self._held[key] = (first_seen, held + 1)
            return False
        if held:
            record.msg = f"{record.msg} (and {held} more like this)"
        if len(self._held) > 1000:  # bounded: keys are few by construction
            self._held.clear()
        self._held[key] = (now, 0)
        return True


class _UtcFormatter(logging.Formatter):
    """Writes times in UTC (R135), formatting each second once: there is a line for every small file."""

    def __init__(self) -> None:
        super().__init__(LOG_FORMAT.format(pid=os.getpid()))
        self._second = 0
        self._text = ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002
        """Return the time without its fraction, which `LOG_FORMAT` adds."""
        second = int(record.created)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return self._text


class _ReopenableHandler(logging.FileHandler):
    """A file handler whose file an administrator may rotate away.

    Args:
        path: The file, appended to.
        batched: Lines below WARNING wait for `write_out`.
    """

    def __init__(self, path: str, *, batched: bool) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self._batched = batched
        self._at_once = not batched

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, or put it to those that wait."""
        self._at_once = not self._batched or record.levelno >= logging.WARNING
        super().emit(record)

    def flush(self) -> None:
        """Write what waits, unless it may wait longer; the base class calls this after each line."""
        if self._at_once:
            super().flush()

    def write_out(self) -> None:
        """Write what waits."""
        self.acquire()
        try:
            self._at_once = True
            super().flush()
        except OSError as error:  # a full disk stops no transfer, as it would not where lines go out singly
            sys.stderr.write(f"the log cannot be written: {error}\n")
        finally:
            self.release()

    def close(self) -> None:
        """Write what waits and close the file."""
        self._at_once = True
        super().close()

    def reopen(self) -> None:
        """Close the file and open the same name anew (SIGUSR1)."""
        self.acquire()
        try:
            if self.stream:
                self.stream.close()  # with what waits
            self.stream = self._open()
        finally:
            self.release()


def configure(level: str = "info", path: str | None = None, *, batched: bool = False) -> None:
    """Send the log of this process to `path`, or to standard error.

    Args:
        level: Name of a logging level, in any case.
        path: File to append to; None for standard error.
        batched: The caller calls `flush` now and then. Lines below WARNING wait for that in a file: one for
            every small file is a system call for every small file otherwise.

    Raises:
        ConfigError: No such level.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ConfigError(f"logLevel {level!r}: use debug, info, warning, error or critical")
    handler: logging.Handler = (
        _ReopenableHandler(path, batched=batched) if path else logging.StreamHandler(sys.stderr)
    )
    handler.setFormatter(_UtcFormatter())
    handler.addFilter(RepeatFilter())
    # Nobody prints these, and looking them up takes a third of the time of a line
    # (https://docs.python.org/3/howto/logging.html#optimization).
    logging.logThreads = logging.logMultiprocessing = logging.logProcesses = False
    logging._srcfile = None
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(number)
    # pika tells of every socket step; its errors reach us as exceptions anyway.
    logging.getLogger("pika").setLevel(logging.CRITICAL)


def flush() -> None:
    """Write every line that waits (see `configure`)."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _ReopenableHandler):
            handler.write_out()


def reopen() -> None:
    """Open every log file of this process anew."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _ReopenableHandler):
            handler.reopen()


def printable(text: object) -> str:
    """Return a text of somebody else's as it may stand in a line of the log: control characters escaped."""
    plain = str(text)
    return plain if plain.isprintable() else repr(plain)


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module, named without the package prefix."""
    return logging.getLogger(name.removeprefix("sarrapipe."))

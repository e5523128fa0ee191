"""A descriptor that other threads make readable to end the flow's wait."""

from __future__ import annotations

import contextlib
import os

__all__ = ["Wake"]


class Wake:
    """A pipe whose only message is "look again"; an eventfd where the system has one."""

    def __init__(self) -> None:
        self._read_fd = self._write_fd = -1

    def open(self) -> Wake:
        """Make the descriptors."""
        if hasattr(os, "eventfd"):
            self._read_fd = self._write_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._read_fd, self._write_fd = os.pipe()
            for descriptor in (self._read_fd, self._write_fd):
                os.set_blocking(descriptor, False)
        return self

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._read_fd

    def set(self) -> None:
        """Make it readable; from any thread."""
        with contextlib.suppress(BlockingIOError):  # full of wake-ups nobody has looked at yet
            os.write(self._write_fd, (1).to_bytes(8, "little"))

    def clear(self) -> None:
        """Make it unreadable; before looking for what the wake-up was about."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._read_fd, 4096)

    def close(self) -> None:
        """Free the descriptors."""
        for descriptor in {self._read_fd, self._write_fd}:
            if descriptor >= 0:
                os.close(descriptor)
        self._read_fd = self._write_fd = -1

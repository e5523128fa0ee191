"""Addresses of a host, looked up without holding up the loop: each name in a thread of its own.

    resolver.look_up("host", 21, found)      # found(addresses, problem) is called from CurlLoop.run_once

A lookup may take as long as the name servers' time-outs, and has no way to be given up: the threads are
daemons, so that the end of a process does not wait for them.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from sarrapipe.transfer.curlloop import CurlLoop

__all__ = ["Address", "Resolver"]


class Address(NamedTuple):
    """Where to connect to."""

    family: int
    sockaddr: Any
    """As `socket.connect` takes it."""


Found: TypeAlias = Callable[[list[Address], str], None]
"""Gets the addresses, or none and why."""


class Resolver:
    """Looks names up for one loop.

    Args:
        loop: Calls back.
    """

    def __init__(self, loop: CurlLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._answers: deque[tuple[Found, list[Address], str]] = deque()
        self._event = -1

    def look_up(self, host: str, port: int, found: Found) -> None:
        """Call `found` once, not before this returns; never after `close`."""
        if self._event < 0:
            self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._loop.watch(self._event, self._tell)
        try:
            addresses = _look_up(host, port, socket.AI_NUMERICHOST)
        except (OSError, ValueError):
            thread = threading.Thread(
                target=self._search, args=(host, port, found), name=f"resolve {host}", daemon=True
            )
            thread.start()
            return
        self._answer(found, addresses, "")

    def close(self) -> None:
        """Forget what is looked up. May be repeated."""
        with self._lock:
            event, self._event = self._event, -1
            self._answers.clear()
        if event >= 0:
            self._loop.unwatch(event)
            os.close(event)

    def _search(self, host: str, port: int, found: Found) -> None:
        try:
            addresses, problem = _look_up(host, port, 0), ""
        except (OSError, ValueError) as error:  # the latter for what is no name at all
            addresses, problem = [], f"{getattr(error, 'strerror', None) or error}"
        self._answer(found, addresses, problem)

    def _answer(self, found: Found, addresses: list[Address], problem: str) -> None:
        with self._lock:
            if self._event >= 0:
                self._answers.append((found, addresses, problem))
                os.eventfd_write(self._event, 1)

    def _tell(self) -> None:
        os.eventfd_read(self._event)
        with self._lock:
            answers = list(self._answers)
            self._answers.clear()
        for found, addresses, problem in answers:
            found(addresses, problem)


def _look_up(host: str, port: int, flags: int) -> list[Address]:
    rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=flags)
    return [Address(row[0], row[4]) for row in rows]

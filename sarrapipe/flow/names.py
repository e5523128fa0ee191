"""Removing names that a dead process left: of this machine, or at the server that files are sent to."""

from __future__ import annotations

import contextlib
import os
from typing import Protocol

from sarrapipe.flow.places import Places
from sarrapipe.flow.sends import Sends
from sarrapipe.segment import assembly
from sarrapipe.transfer.remotecall import Operation

__all__ = ["FarNames", "LocalNames", "Names"]


class Names(Protocol):
    """Removes names. Both calls may be repeated, and names that are not there are no error."""

    def discard(self, target: str, nonce: str) -> None:
        """Remove what was under way for a target.

        Raises:
            SarrapipeError: It stays.
        """

    def unlink(self, target: str) -> None:
        """Remove a file by its final name; directories stay.

        Raises:
            SarrapipeError: It stays.
        """


class LocalNames:
    """Names in the directories of a flow.

    Args:
        places: Where the flow may write.
    """

    def __init__(self, places: Places) -> None:
        self._places = places

    def discard(self, target: str, nonce: str) -> None:
        """Unlink an inflight file; see `Names`."""
        destination, path = self._places.find(target)
        assembly.discard(destination, path, nonce)

    def unlink(self, target: str) -> None:
        """Unlink a file; see `Names`."""
        destination, path = self._places.find(target)
        if destination.stat(path) is None:
            return
        with (
            destination.parent(path) as (parent, name),
            contextlib.suppress(FileNotFoundError, IsADirectoryError),
        ):
            os.unlink(name, dir_fd=parent)


class FarNames:
    """Names at a server: removed while the flow goes on; what cannot be is told in the log.

    Args:
        sends: Requests to the server.
    """

    def __init__(self, sends: Sends) -> None:
        self._sends = sends

    def discard(self, target: str, nonce: str) -> None:
        """Have an inflight file removed; see `Names`."""
        if not self._sends.far.in_place:
            self._sends.remove_quietly(self._sends.far.inflight(target, nonce))

    def unlink(self, target: str) -> None:
        """Have a file removed; see `Names`."""
        if Operation.REMOVE in self._sends.operations:
            self._sends.remove_quietly(target)

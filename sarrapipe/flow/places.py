"""Where a flow may write: the directories its configuration names, each opened once.

A target is an absolute path; everything done to it is done from the descriptor of the directory it belongs
to, so that no link planted below can lead outside (guarantee 4).
"""

from __future__ import annotations

import functools
import os
import shutil
import stat
from collections.abc import Collection

import xxhash

from sarrapipe.config.model import FlowConfig
from sarrapipe.config.values import InflightMode
from sarrapipe.errors import UnsafePath
from sarrapipe.segment.destination import Destination
from sarrapipe.segment.place import InflightKind, InflightPlace

__all__ = ["Places", "flow_mark"]

_KINDS = {
    InflightMode.HIDDEN: InflightKind.HIDDEN,
    InflightMode.SUFFIX: InflightKind.SUFFIX,
    InflightMode.PREFIX: InflightKind.PREFIX,
    InflightMode.DIRECTORY: InflightKind.DIRECTORY,
    InflightMode.AGE: InflightKind.IN_PLACE,
    InflightMode.NONE: InflightKind.IN_PLACE,
}


@functools.cache
def flow_mark(state_dir: str) -> bytes:
    """Return what tells the files of this flow on this host from those of others in the same tree.

    What bears another mark was not decided by this flow's ledger (`ledger.completion`).

    Args:
        state_dir: Where the flow's ledger is.
    """
    return xxhash.xxh3_64_digest(f"{os.uname().nodename}\0{state_dir}".encode("utf-8", "surrogateescape"))


class Places:
    """The destinations of one flow.

    Args:
        config: The flow's configuration.
    """

    def __init__(self, config: FlowConfig) -> None:
        rules = [config.masks.default_rule, *(mask.rule for mask in config.masks.masks if mask.accept)]
        roots = {_root_of(rule.directory.text) for rule in rules}
        place = InflightPlace(_KINDS[config.inflight.mode], config.inflight.text.rstrip("/"))
        owner = config.flow.replace("/", "_")
        mark = flow_mark(config.state_dir)
        # Longest first: of two nested directories the inner one is meant.
        self._destinations = [
            (root.rstrip("/") + "/", Destination(root, place, owner, config.perm_dir_default, mark))
            for root in sorted(roots, key=len, reverse=True)
        ]
        self._open: set[str] = set()

    def find(self, target: str) -> tuple[Destination, str]:
        """Return the destination that a target belongs to, opened, and its path below.

        Raises:
            UnsafePath: It belongs to none.
            StorageError: The destination cannot be made or opened.
        """
        for prefix, destination in self._destinations:
            if target.startswith(prefix):
                if prefix not in self._open:
                    destination.open()
                    self._open.add(prefix)
                return destination, target[len(prefix) :]
        raise UnsafePath(f"{target!r} is in no directory of this flow")

    def remove_litter(self, known: Collection[str], before_ns: int) -> int:
        """Remove what lies in the hidden directories and is not under way.

        It was left by a loss of power with the ledger that knew it, or could not be removed at its time.

        Args:
            known: Names (nonces) that the ledger has.
            before_ns: Wall time; what was changed since is left alone: it may be younger than `known`.

        Returns:
            How many files were removed.
        """
        removed = 0
        for prefix, destination in self._destinations:
            if prefix not in self._open:
                continue
            for name, directory in destination.litter():
                if name not in known and _unlink_if_old(name, directory, before_ns):
                    removed += 1
        return removed

    def close(self) -> None:
        """Close what was opened."""
        for _, destination in self._destinations:
            destination.close()
        self._open.clear()


def _unlink_if_old(name: str, directory: int, before_ns: int) -> bool:
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if found.st_ctime_ns >= before_ns:
            return False
        if stat.S_ISDIR(found.st_mode):  # planted: this flow makes none here
            shutil.rmtree(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)
    except OSError:
        return False  # somebody else removed it, or it will be tried again
    return True


def _root_of(directory: str) -> str:
    """Return the part of a directory's text that no message decides."""
    fixed, variable, _ = directory.partition("${")
    return (fixed.rpartition("/")[0] if variable else fixed.rstrip("/")) or "/"

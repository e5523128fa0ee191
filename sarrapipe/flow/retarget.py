"""Placement by callbacks: `new_dir` and `new_file` of an item say where its file goes (sr3-surface.md 2.2).

A callback sets them in `after_accept`. What it names is looked at like what a message names: a path that is
not absolute, holds `..` or a control character is refused, and so is, later, one outside the directories of
the flow.
"""

from __future__ import annotations

from typing import Final

from sarrapipe.config.placement import safe_relative_path
from sarrapipe.errors import UnsafePath
from sarrapipe.message.worklist import WorkItem

__all__ = ["retarget"]

_DIRECTORY: Final = "new_dir"
_FILE: Final = "new_file"


def retarget(item: WorkItem) -> None:
    """Set an item's target to what a callback asked for, if one did.

    Raises:
        UnsafePath: That is no path a file may have.
    """
    local = item.local
    if not local or not (_DIRECTORY in local or _FILE in local):
        return
    directory, _, name = item.target.rpartition("/")
    directory = str(local.get(_DIRECTORY) or directory)
    name = str(local.get(_FILE) or name)
    if not directory.startswith("/"):
        raise UnsafePath(f"new_dir {directory[:100]!r} of a callback is not absolute")
    if "/" in name:
        raise UnsafePath(f"new_file {name[:100]!r} of a callback is no file name")
    item.target = "/" + safe_relative_path(f"{directory}/{name}")

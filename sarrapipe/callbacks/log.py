"""Log what happens to each item: one line an item, key=value (sr3's callback of the same name)."""

from __future__ import annotations

from sarrapipe.callbacks.base import FlowCallback
from sarrapipe.log import get_logger
from sarrapipe.message.worklist import Worklist

__all__ = ["Log"]

_log = get_logger("item")


class Log(FlowCallback):
    """A line for what was done; the flow itself tells of what was rejected and what failed."""

    def after_work(self, worklist: Worklist) -> None:
        """Log what is in place."""
        for item in worklist.ok:
            _log.info("ok %s bytes=%s to=%s", item.message.rel_path, item.message.size, item.target)

"""The entry points at which a flow can be extended: one class, documented hooks that do nothing.

A callback overrides the hooks it needs. Names and order are those sr3's users know (sr3-surface.md 2.2);
lists are those of Table 1 of the seeds (C, Flow Algorithm). Callbacks that come with sarrapipe run on the
flow's own thread; a user's run on the callback thread, where a slow one stalls neither transfers nor
heartbeats, and are given `callbackTimeout` seconds.

    class Twice(FlowCallback):
        def after_accept(self, worklist):
            for item in worklist.incoming:
                item["seen"] = "twice"          # a wire field: travels with the announcement
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sarrapipe.config.model import FlowConfig
from sarrapipe.message.worklist import WorkItem, Worklist

__all__ = ["HOOKS", "FlowCallback", "Gathered"]

Gathered = tuple[bool, Sequence[WorkItem]]
"""(True if the following gatherers shall be asked as well, the items)."""

HOOKS: Final = (
    "on_start",
    "gather",
    "after_accept",
    "download",
    "after_work",
    "post",
    "after_post",
    "ack",
    "on_part",
    "on_housekeeping",
    "metricsReport",
    "please_stop",
    "on_stop",
    "on_declare",
    "on_cleanup",
)


class FlowCallback:
    """Base of all callbacks.

    Args:
        options: The flow's configuration; also readable as `self.o`, the name sr3's callbacks use.
    """

    def __init__(self, options: FlowConfig) -> None:
        self.o = options

    def on_start(self) -> None:
        """Called once, before the first `gather`, in each instance."""

    def on_stop(self) -> None:
        """Called once, after the last item was settled or handed back."""

    def please_stop(self) -> None:
        """Called when a stop was asked for: end long waits."""

    def on_housekeeping(self) -> None:
        """Called every `housekeeping` seconds."""

    def on_declare(self) -> None:
        """Called by `sarrapipe declare` after the broker's objects were declared."""

    def on_cleanup(self) -> None:
        """Called by `sarrapipe cleanup` before the broker's objects are removed."""

    def gather(self, message_count_max: int) -> Gathered:  # noqa: ARG002 - what overrides receive
        """Return new items, at most `message_count_max`, besides those from the flow's queues or files.

        Asked again at once where there were some, else a second later.

        Returns:
            Whether the callbacks that follow shall be asked too, and the items.
        """
        return True, ()

    def after_accept(self, worklist: Worklist) -> None:
        """Look at `worklist.incoming` after the masks; move what must not go on to another list."""

    def download(self, item: WorkItem) -> bool | None:  # noqa: ARG002 - what overrides receive
        """Fetch one item in the flow's stead.

        Returns:
            True: it is in place. False: try again later. None: let the flow fetch it.
        """
        return None

    def after_work(self, worklist: Worklist) -> None:
        """Look at `worklist.ok` (in place and verified), `rejected` and `failed` before announcing."""

    def post(self, worklist: Worklist) -> None:
        """Announce `worklist.ok` by other means, besides `post_broker`."""

    def after_post(self, worklist: Worklist) -> None:
        """Look at `worklist.ok`: confirmed by the broker, or not to be announced at all."""

    def ack(self, items: Sequence[WorkItem]) -> None:
        """Told of items whose outcome is durable, just before their messages are acknowledged."""

    def on_part(self, items: Sequence[WorkItem]) -> None:
        """Told of blocks that were written here and verified, while others of their file are awaited.

        Each has `report`, code 206 as in sr3 (wire.md 3.1), with the number of the block and how many there
        are. Its message is answered with the file's last block.
        """

    def metricsReport(self) -> dict[str, float]:
        """Return figures, by name, for the log of housekeeping."""
        return {}

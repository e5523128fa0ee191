"""Where the files of a flow's processes are (names after sr3-surface.md 4).

In the flow's state directory: `parent.pid`, `arena`, `control`, `incarnation`, `disabled`. Beside the
components' state directories, in `log`: `sarra_ddsr.log` of the parent and `sarra_ddsr_03.log` of instance
3.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["FlowPaths"]


@dataclass(frozen=True, slots=True)
class FlowPaths:
    """The paths of one flow.

    Attributes:
        component: Such as `sarra`.
        name: Of the configuration.
        state_dir: The flow's state directory.
    """

    component: str
    name: str
    state_dir: str

    @property
    def flow(self) -> str:
        """`component/name`; the component alone for one that runs from the command line."""
        return f"{self.component}/{self.name}" if self.name else self.component

    @property
    def pid_file(self) -> str:
        """Locked by the parent and all its instances while any of them lives; says who the parent is."""
        return os.path.join(self.state_dir, "parent.pid")

    @property
    def arena(self) -> str:
        """The shared memory."""
        return os.path.join(self.state_dir, "arena")

    @property
    def control(self) -> str:
        """The parent's control socket."""
        return os.path.join(self.state_dir, "control")

    @property
    def ledger(self) -> str:
        """Directory of the ledger of files under way, if the flow has one."""
        return os.path.join(self.state_dir, "ledger")

    @property
    def incarnation(self) -> str:
        """The counter of starts."""
        return os.path.join(self.state_dir, "incarnation")

    @property
    def disabled(self) -> str:
        """Exists when the flow is not to be started with the others."""
        return os.path.join(self.state_dir, "disabled")

    @property
    def log_dir(self) -> str:
        """Directory of the logs of all flows of a home."""
        return os.path.join(os.path.dirname(os.path.dirname(self.state_dir)), "log")

    def log(self, instance: int = 0) -> str:
        """Return the log file of an instance, or of the parent for 0."""
        stem = f"{self.component}_{self.name}" if self.name else self.component
        return os.path.join(self.log_dir, f"{stem}_{instance:02d}.log" if instance else f"{stem}.log")

    def make(self) -> None:
        """Make the state and log directories; only their owner may look into them."""
        os.makedirs(self.state_dir, mode=0o700, exist_ok=True)
        os.makedirs(self.log_dir, mode=0o700, exist_ok=True)

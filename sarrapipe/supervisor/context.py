"""What an instance is given by its parent.

The work of an instance is a function named by the string `module:function` and called as
`main(context: InstanceContext) -> int`; its result is the exit status of the process. The contract:

- call `heartbeat()` from the main loop at least every few seconds: an instance silent for `heartbeatTimeout`
  is aborted (its stacks go to the log) and started again;
- call `ready()` once it consumes;
- wait for `wake_fd` beside its sockets, call `read_news()` when it is readable, and return once `stopping`.

Exit statuses: 0 the work is done or the parent asked to stop (not started again), 78 the configuration is
at fault (not started again until somebody acts), anything else or a signal: started again after a back-off
of 1, 2, 4 ... 60 s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sarrapipe.clock import SYSTEM_CLOCK, Clock
from sarrapipe.shm.arena import Arena
from sarrapipe.shm.slots import Phase, Slot
from sarrapipe.supervisor.mailbox import Frame, Mailbox, News, send_frame

if TYPE_CHECKING:
    import socket

__all__ = ["InstanceContext"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceContext:
    """Who an instance is, and its part of what the flow's processes share.

    Attributes:
        component: Such as `sarra`.
        name: Of the configuration, without `.conf`.
        instance: Number from 1. During a rolling restart two processes have the same number for a moment;
            their incarnations differ.
        incarnation: Number of this start, from 1, never used twice in `state_dir`.
        config_home: Directory of the configuration.
        state_dir: Directory of this flow's state; exists.
        overrides: Options of the command line, in order, as (key, value).
        config: What the flow's loader made of the configuration, read once per start or reload and shared by
            all instances (a `FlowConfig` unless the flow names another loader). An instance that is started
            again gets the same, whatever the file says by then; a reload changes it.
        slot: This instance's slot of the arena: counters, gauges, phase, note.
        arena: The whole arena: `alive()`, rate limits, wake-up word.
        mailbox: Signals and frames.
        channel: To the parent; None when running without one.
        clock: Time.
    """

    component: str
    name: str
    instance: int
    incarnation: int
    config_home: str
    state_dir: str
    overrides: tuple[tuple[str, str], ...]
    config: object
    slot: Slot
    arena: Arena
    mailbox: Mailbox
    channel: socket.socket | None = None
    clock: Clock = SYSTEM_CLOCK

    @property
    def flow(self) -> str:
        """`component/name`."""
        return f"{self.component}/{self.name}"

    @property
    def instances(self) -> int:
        """How many instances the flow should have now; `scale` changes it under a running instance."""
        return self.arena.wanted

    @property
    def wake_fd(self) -> int:
        """A descriptor that is readable when there is news: then call `read_news`."""
        return self.mailbox.fileno()

    @property
    def stopping(self) -> bool:
        """Whether to take no more work, finish what is under way and return; as of the last `read_news`."""
        return self.mailbox.stopping

    @property
    def stop_by_s(self) -> float | None:
        """Monotonic time of the kill that follows a stop; None if nobody set a limit."""
        return self.mailbox.stop_by_s

    def read_news(self) -> News:
        """Take in signals and frames; never waits.

        Returns:
            What is new: `stop`; `deaths`: look at `is_alive`; `work`: a sibling has segments to share.
        """
        return self.mailbox.read()

    def heartbeat(self) -> None:
        """Say that the main loop turns."""
        self.slot.heartbeat(int(self.clock.monotonic_s() * 1e9))

    def ready(self) -> None:
        """Say that this instance has begun to do its work."""
        self.heartbeat()
        self.slot.set_phase(Phase.RUNNING)
        if self.channel is not None:
            send_frame(self.channel, Frame.READY)

    def announce_work(self) -> None:
        """Tell the siblings that a file of this instance has segments that they may fetch."""
        self.arena.announce_work()
        if self.channel is not None:
            send_frame(self.channel, Frame.WORK)

    def is_alive(self, incarnation: int) -> bool:
        """Return whether an incarnation of this flow may still run; False is final."""
        return incarnation in self.arena.alive()

"""Queues of an earlier configuration: read to their end, then deleted.

After a change of `queueName` what is in the old queue is still this flow's to do. Instance 1 reads it beside
the new one. Once nothing is in it, nothing of it is in hand, and no instance of the earlier configuration is
left, it stops reading and asks the broker to delete the queue if it is empty and unused; the broker decides
that at one moment. A kill at any time leaves the queue in the list of those that were bound, and the next
instance 1 goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sarrapipe.broker.consumer import Consumer
from sarrapipe.broker.declare import delete_drained
from sarrapipe.broker.endpoint import Endpoint
from sarrapipe.clock import Clock
from sarrapipe.errors import BrokerError
from sarrapipe.log import get_logger

__all__ = ["FormerQueue", "FormerQueues"]

_log = get_logger(__name__)

_LOOK_S: Final = 1.0


@dataclass(slots=True)
class FormerQueue:
    """One queue and who reads it.

    Attributes:
        endpoint: Its broker.
        name: Its name.
        consumer: Reads it.
        is_left: The consumer was told to stop, so that the queue can be deleted.
    """

    endpoint: Endpoint
    name: str
    consumer: Consumer
    is_left: bool = False


class FormerQueues:
    """The queues that are being read to their end.

    Args:
        queues: Each with its consumer.
        state_path: File that remembers what was bound.
        clock: Source of time.
    """

    def __init__(self, queues: Sequence[FormerQueue], state_path: str, clock: Clock) -> None:
        self._queues = list(queues)
        self._state_path = state_path
        self._clock = clock
        self._look_again_s = 0.0

    @property
    def names(self) -> list[str]:
        """Those that are not deleted yet."""
        return [queue.name for queue in self._queues]

    def look(self) -> None:
        """Delete what is drained; once a second, while no instance of the earlier configuration runs."""
        now_s = self._clock.monotonic_s()
        if not self._queues or now_s < self._look_again_s:
            return
        self._look_again_s = now_s + _LOOK_S
        for queue in list(self._queues):
            try:
                self._look_at(queue)
            except BrokerError as error:
                _log.warning("queue %s of an earlier configuration stays for now: %s", queue.name, error)

    def _look_at(self, queue: FormerQueue) -> None:
        consumer = queue.consumer
        if consumer.outstanding or not consumer.state.connected:
            return
        if not queue.is_left:
            queue.is_left = True
            consumer.pause()  # the broker has to see that before it can find the queue unused
            return
        if delete_drained(queue.endpoint, queue.name, self._state_path):
            consumer.end()
            self._queues.remove(queue)
            _log.info("queue %s of an earlier configuration is empty, and deleted", queue.name)
        else:
            queue.is_left = False
            consumer.resume()

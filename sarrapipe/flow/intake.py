"""Whether an instance takes messages from its queues now.

There may be several reasons at once not to: no space, enough bytes under way, a stop. While there is one, the
consumers are cancelled: what was not taken goes back to the queue, where other instances find it, and what
was taken stays ours. Merely to leave messages untaken would hold them, unacknowledged, for as long as the
large files take that are under way; a smaller prefetch would do, but cannot be zero.

Source: https://www.rabbitmq.com/docs/consumer-prefetch, https://www.rabbitmq.com/docs/consumers.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from sarrapipe.broker.consumer import Consumer

__all__ = ["Intake", "Reason"]


class Reason(enum.Enum):
    """Why nothing is taken."""

    NO_SPACE = "no space"
    ENOUGH_BYTES = "enough bytes under way"
    STOP = "stop"


class Intake:
    """The consumers of one instance, as one.

    Args:
        consumers: One for each subscription.
    """

    def __init__(self, consumers: Sequence[Consumer]) -> None:
        self._consumers = consumers
        self._reasons: set[Reason] = set()

    def stopped_for(self, reason: Reason) -> bool:
        """Return whether this is one of the reasons for which nothing is taken."""
        return reason in self._reasons

    def stop(self, reason: Reason) -> None:
        """Take nothing more, until every reason is gone."""
        if not self._reasons:
            for consumer in self._consumers:
                consumer.pause()
        self._reasons.add(reason)

    def go_on(self, reason: Reason) -> None:
        """This reason is gone."""
        if reason in self._reasons:
            self._reasons.remove(reason)
            if not self._reasons:
                for consumer in self._consumers:
                    consumer.resume()

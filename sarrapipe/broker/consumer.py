"""Messages from one queue, acknowledged on the channel they came by and on no other.

Two threads meet here. The main thread calls what is public; the loop's thread fills `_arrived` and sends.
Nothing but deques (whose append and popleft are atomic) and values replaced as a whole lie between them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from pika.channel import Channel
from pika.frame import Method

from sarrapipe.broker.acks import AckTracker
from sarrapipe.broker.channel import ChannelUser
from sarrapipe.broker.faults import NOT_IMPLEMENTED
from sarrapipe.broker.link import Link
from sarrapipe.broker.loop import Loop
from sarrapipe.broker.marshal import marshal_acks, marshal_nacks
from sarrapipe.broker.topology import QueueSpec
from sarrapipe.crashpoints import passing
from sarrapipe.errors import SarrapipeError
from sarrapipe.log import get_logger
from sarrapipe.message.worklist import Delivery

__all__ = ["Consumer"]

_log = get_logger(__name__)

_MAX_PREFETCH = 65535  # a 16-bit field; 0 would mean without limit


class Consumer(ChannelUser):
    """One queue, consumed; made by `BrokerThread.consumer`.

    Args:
        loop: The broker thread's loop.
        link: The consume connection.
        next_epoch: See `ChannelUser`.
        queue: What to consume; declared and bound again on each new channel where it may be.
        prefetch: How many messages may be unacknowledged, 1 .. 65535.
    """

    def __init__(
        self, loop: Loop, link: Link, next_epoch: Callable[[], int], queue: QueueSpec, prefetch: int
    ) -> None:
        super().__init__(loop, link, next_epoch)
        self.queue = queue
        # Written by the loop's thread:
        self._arrived: deque[Delivery] = deque()
        self._tracker = AckTracker()
        self._consumer_tag = ""
        self._shared_prefetch = queue.shared_prefetch
        self._exact = False
        """Limit prefetch on the channel: what was taken before a pause or a change counts."""
        self._ceiling = 0
        """Prefetch the running consumer was started with."""
        self._key = link.endpoint.key
        self.delivered = self.acknowledged = self.requeued = 0
        """Messages counted since the start."""
        self._stale_at_flush = 0
        # Written by the main thread:
        self._settlements: deque[tuple[str, int, list[int]]] = deque()
        self._flush_posted = False
        self._prefetch = _clamp(prefetch)
        self._paused = False
        self._over = False
        self._stale_at_call = 0

    @property
    def stale(self) -> int:
        """Settlements dropped because their channel is gone; the broker delivers those messages again."""
        return self._stale_at_call + self._stale_at_flush

    @property
    def waiting(self) -> int:
        """Messages that have arrived and were not taken."""
        return len(self._arrived)

    @property
    def outstanding(self) -> int:
        """Messages that were delivered and are not settled."""
        return self._tracker.outstanding

    @property
    def in_use(self) -> bool:
        """Whether it wants to be connected."""
        return not self._over

    # ---- main thread -----------------------------------------------------------------------------------

    def take(self, limit: int) -> list[Delivery]:
        """Return up to `limit` messages that have arrived, oldest first; never waits.

        Raises:
            BrokerError: The broker thread has died.
        """
        self._loop.check()
        arrived = self._arrived
        taken: list[Delivery] = []
        epoch = self.state.epoch
        while arrived and len(taken) < limit:
            try:
                delivery = arrived.popleft()
            except IndexError:  # the loop's thread emptied it: the channel closed, or we are pausing
                break
            if delivery.epoch == epoch:
                taken.append(delivery)
        return taken

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge messages whose outcome is durable; those of an earlier channel are counted only."""
        self._settle("ack", deliveries)

    def requeue(self, deliveries: Sequence[Delivery]) -> None:
        """Give messages back, for another consumer or for a later time."""
        self._settle("requeue", deliveries)

    def reject(self, deliveries: Sequence[Delivery]) -> None:
        """Drop messages; they go to the queue's dead-letter exchange if it has one."""
        self._settle("reject", deliveries)

    def set_prefetch(self, prefetch: int) -> None:
        """Change how many messages may be unacknowledged.

        When it shrinks, what arrived beyond it and was not taken goes back to the queue. Quorum queues and
        streams cannot change it for a running consumer: it is cancelled and started again, and what was
        taken before does not count.
        """
        prefetch = _clamp(prefetch)
        if prefetch != self._prefetch:
            self._prefetch = prefetch
            self._loop.post(self._apply_prefetch)

    def pause(self) -> None:
        """Stop the flow of messages; what was not taken goes back to the queue. What was taken stays ours."""
        if not self._paused:
            self._paused = True
            self._loop.post(self._cancel)

    def resume(self) -> None:
        """Consume again."""
        if self._paused:
            self._paused = False
            self._loop.post(self._consume)

    def end(self) -> None:
        """Consume no more, for good: the queue is gone."""
        self._over = True
        self._loop.post(self._close_for_good)

    def _settle(self, how: str, deliveries: Sequence[Delivery]) -> None:
        epoch = self.state.epoch
        tags = [delivery.tag for delivery in deliveries if delivery.epoch == epoch]
        self._stale_at_call += len(deliveries) - len(tags)
        if tags:
            self._settlements.append((how, epoch, tags))
            if not self._flush_posted:
                self._flush_posted = True
                self._loop.post(self._flush)

    # ---- the loop's thread -----------------------------------------------------------------------------

    def _set_up(self, channel: Channel) -> None:
        self._tracker = AckTracker()
        self._consumer_tag = ""
        channel.add_on_cancel_callback(self._cancelled_by_broker)
        channel.connection.reader.delivery_handlers[channel.channel_number] = partial(
            self._deliver, self.state.epoch
        )
        queue = self.queue
        if queue.declare or queue.passive:
            channel.queue_declare(
                queue.name,
                passive=queue.passive,
                durable=queue.durable,
                auto_delete=queue.auto_delete,
                arguments={} if queue.passive else queue.declare_arguments(),
                callback=_ignore,
            )
        if queue.bind:
            for binding in queue.bindings:
                channel.queue_bind(queue.name, binding.exchange, binding.routing_key, callback=_ignore)
        self._consume()

    def _consume(self) -> None:
        channel = self._channel
        if channel is None or not channel.is_open:
            return
        if self._paused or self._consumer_tag:
            self.state = replace(self.state, connected=True)
            return
        # A consumer's own limit costs the broker 3 us a message less than the channel's (34 and
        # 31 us), but it is fixed, and what is still unacknowledged of an earlier consumer does not count.
        self._ceiling = self._prefetch
        channel.basic_qos(prefetch_count=self._ceiling, global_qos=False, callback=_ignore)
        if self._exact and self._shared_prefetch:
            channel.basic_qos(prefetch_count=self._prefetch, global_qos=True, callback=_ignore)
        self._consumer_tag = channel.basic_consume(self.queue.name, _never_called, callback=self._consuming)

    def _consuming(self, _frame: Method) -> None:
        _log.debug("queue=%s epoch=%d consuming", self.queue.name, self.state.epoch)
        self._ready()

    def _deliver(
        self,
        epoch: int,
        tag: int,
        redelivered: bool,  # noqa: FBT001  # called once a message by position
        exchange: str,
        routing_key: str,
        content_type: str | None,
        headers: Mapping[str, object],
        body: bytes,
    ) -> None:
        self._tracker.delivered(tag)
        self.delivered += 1
        delivery = Delivery(
            body, headers, content_type, exchange, routing_key, redelivered, tag, self._key, epoch
        )
        self._arrived.append(delivery)
        if not self._consumer_tag:  # came in while basic.cancel was under way
            self._give_back(len(self._arrived))

    def _flush(self) -> None:
        self._flush_posted = False
        acks: list[int] = []
        epoch = self.state.epoch
        while self._settlements:
            how, of_epoch, tags = self._settlements.popleft()
            if of_epoch != epoch or self._channel is None or not self._channel.is_open:
                self._stale_at_flush += len(tags)
            elif how == "ack":
                acks += tags
            else:
                self._send_nacks(tags, requeue=how == "requeue")
        frames = self._tracker.settle(acks)
        channel = self._channel
        if frames and channel is not None:
            self.acknowledged += len(acks)
            channel.connection.send_joined(marshal_acks(channel.channel_number, frames))
            passing("acknowledged")

    def _send_nacks(self, tags: list[int], *, requeue: bool) -> None:
        frames = self._tracker.settle(tags)
        channel = self._channel
        if frames and channel is not None:
            self.requeued += len(tags) if requeue else 0
            channel.connection.send_joined(marshal_nacks(channel.channel_number, frames, requeue=requeue))

    def _give_back(self, count: int) -> None:
        """Requeue up to `count` of the messages that arrived last and were not taken."""
        tags = []
        for _ in range(count):
            try:
                tags.append(self._arrived.pop().tag)
            except IndexError:  # the main thread took them
                break
        if tags and self._channel is not None and self._channel.is_open:
            self._send_nacks(tags, requeue=True)

    def _apply_prefetch(self) -> None:
        channel = self._channel
        self._exact = True
        if channel is None or not channel.is_open or not self._consumer_tag:
            return
        if self._shared_prefetch and self._prefetch <= self._ceiling:
            # Before the excess goes back: the broker must not send it to us again.
            channel.basic_qos(prefetch_count=self._prefetch, global_qos=True, callback=_ignore)
            self._give_back(self._tracker.outstanding - self._prefetch)
        else:
            self._cancel()
            self._consume()

    def _cancel(self) -> None:
        self._exact = True
        tag, self._consumer_tag = self._consumer_tag, ""
        if tag and self._channel is not None and self._channel.is_open:
            self._channel.basic_cancel(tag, callback=_ignore)
            self._give_back(len(self._arrived))

    def _close_for_good(self) -> None:
        self.stop()
        self._consumer_tag = ""
        if self._channel is not None and self._channel.is_open:
            self._channel.close()

    def _cancelled_by_broker(self, _frame: Method) -> None:
        # The queue was deleted, or moved to another node: a new channel declares it again where it may.
        self._consumer_tag = ""
        if self._over:
            return
        self._reopen(f"the broker ended our consumer of {self.queue.name}")

    def _torn_down(self, error: SarrapipeError, code: int) -> None:  # noqa: ARG002  # the hook's signature
        if code == NOT_IMPLEMENTED and self._shared_prefetch:
            self._shared_prefetch = False
        self._consumer_tag = ""
        self._arrived.clear()


def _clamp(prefetch: int) -> int:
    return min(max(prefetch, 1), _MAX_PREFETCH)


def _ignore(_frame: Method) -> None:
    """The answer needs no action: pika keeps the order, and a refusal closes the channel."""


def _never_called(*_arguments: object) -> None:
    """Deliveries of this channel go to `_deliver`; pika wants a callback all the same."""
    raise AssertionError("a delivery went past the fast reader")

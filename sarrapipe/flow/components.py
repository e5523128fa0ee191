"""Put a flow together: the same engine for every component, told apart by its configuration (R33).

What a component is, is a table of defaults (`config.components`); here its configuration decides which parts
there are: a flow with subscriptions gathers messages, one without gathers files; one that downloads has work;
one with a post_broker has an outlet.
"""

from __future__ import annotations

import math
import os
import select
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sarrapipe.broker.channel import ConnectionState
from sarrapipe.broker.consumer import Consumer
from sarrapipe.broker.endpoint import Endpoint
from sarrapipe.broker.publisher import Publisher
from sarrapipe.broker.session import BrokerThread
from sarrapipe.broker.topology import QueueSpec
from sarrapipe.callbacks.chain import CallbackChain
from sarrapipe.callbacks.gather_file import GatherFile
from sarrapipe.callbacks.gather_message import GatherMessage
from sarrapipe.callbacks.loader import load_configured
from sarrapipe.clock import SYSTEM_CLOCK, Clock
from sarrapipe.config.model import FlowConfig
from sarrapipe.flow.brokerretry import BrokerRetry, queues_of, uses_broker
from sarrapipe.flow.brokers import endpoint, exchange_specs, queue_spec
from sarrapipe.flow.brokerwatch import BrokerWatch
from sarrapipe.flow.filter import Filter
from sarrapipe.flow.formerqueues import FormerQueue, FormerQueues
from sarrapipe.flow.housekeeping import KEEP_EARLY_AFTER_S, Housekeeping
from sarrapipe.flow.intake import Intake
from sarrapipe.flow.movements import Movements
from sarrapipe.flow.post import Outlet, Writer
from sarrapipe.flow.runner import Flow, Parts
from sarrapipe.flow.settle import Settlement
from sarrapipe.flow.tally import Tally
from sarrapipe.flow.topology import bindings_file, former_queues
from sarrapipe.flow.wake import Wake
from sarrapipe.flow.work import Work
from sarrapipe.ledger.kept import KeptStore
from sarrapipe.ledger.ledger import Ledger
from sarrapipe.shm.limiter import Limiter
from sarrapipe.shm.moving import Board
from sarrapipe.shm.ring import Ring
from sarrapipe.shm.slots import SLOT_SIZE, Slot
from sarrapipe.transfer.settings import HttpSettings, SftpSettings, TransferSettings

if TYPE_CHECKING:
    from sarrapipe.flow.segmented import Segments

__all__ = ["Assembled", "Place", "assemble"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where in a flow's processes an instance stands.

    Attributes:
        instance: Number from 1; 0 for a flow that runs by itself.
        incarnation: Of this life of the process.
        slot_number: Unique among the live processes of the flow, from 1.
        slot: Counters.
        board: Where it tells of the large files it moves; None where nobody looks.
        limiter: The byte rate the flow's instances share; None for no limit.
        announce_work: Tells siblings that there are segments to share.
        heartbeat: Tells the parent that the loop turns.
        wake_fd: Readable when the parent has news; -1 where there is no parent.
        keep_early_after_s: How long a message may be in hand before it is kept and acknowledged.
    """

    instance: int = 0
    incarnation: int = 1
    slot_number: int = 1
    slot: Slot | None = None
    board: Board | None = None
    limiter: Limiter | None = None
    announce_work: Callable[[], None] = lambda: None
    heartbeat: Callable[[], None] = lambda: None
    wake_fd: int = -1
    keep_early_after_s: float = KEEP_EARLY_AFTER_S


@dataclass(slots=True)
class Assembled:
    """A flow, and the parts its process looks after.

    Attributes:
        flow: The loop.
        broker: The broker thread; started.
        consumers: One for each subscription.
        former: Queues of an earlier configuration that are read to their end.
        chain: The callbacks.
        housekeeping: Told of deaths.
        segments: Told of work to share; None where nothing is fetched.
        source: Where items come from.
        tally: Counters.
        settlement: Acknowledges and keeps.
        kept: Messages to be tried again; None for a flow that receives nothing.
        closing: Closes everything that was opened, last first.
    """

    flow: Flow
    broker: BrokerThread
    consumers: list[Consumer]
    former: FormerQueues
    chain: CallbackChain
    housekeeping: Housekeeping
    segments: Segments | None
    source: GatherMessage | GatherFile
    tally: Tally
    settlement: Settlement
    kept: KeptStore | None
    closing: ExitStack
    _post_endpoint: Endpoint | None

    @property
    def refusals(self) -> list[str]:
        """Return what could never be announced, as sentences that name the path."""
        return self.flow.refusals

    def broker_state(self) -> ConnectionState | None:
        """Return the state of the broker that is announced at; None if there is none."""
        return None if self._post_endpoint is None else self.broker.state(self._post_endpoint)


def assemble(config: FlowConfig, place: Place, clock: Clock = SYSTEM_CLOCK) -> Assembled:
    """Open everything a flow needs in this process.

    Args:
        config: The flow's configuration.
        place: Where this process stands.
        clock: Source of time.

    Raises:
        ConfigError: A callback or broker cannot be used as configured.
        LedgerError: The ledger or the kept store cannot be opened.
    """
    assembler = _Assembler(config, place, clock)
    try:
        return assembler.assemble()
    except BaseException:
        assembler.closing.close()
        raise


class _Assembler:
    """Opens the parts of one flow, in the order in which they need each other.

    Args:
        config: The flow's configuration.
        place: Where this process stands.
        clock: Source of time.
    """

    def __init__(self, config: FlowConfig, place: Place, clock: Clock) -> None:
        self.closing = ExitStack()
        self._config = config
        self._place = place
        self._clock = clock
        self._receives = bool(config.subscriptions)
        self._slot = place.slot or Slot(0, memoryview(bytearray(SLOT_SIZE)))
        self._wake = Wake()
        self._broker = BrokerThread()
        self._ring: Ring | None = None
        self._movements: Movements | None = None

    def assemble(self) -> Assembled:
        """Open everything and put it together."""
        config, clock = self._config, self._clock
        tally = Tally(self._slot, clock)
        self._wake.open()
        self.closing.callback(self._wake.close)
        chain = CallbackChain(
            load_configured(config), config.callback_timeout, self._wake.set, clock, tally.error
        )
        self.closing.callback(chain.close)
        self._broker.start()
        self.closing.callback(self._broker.close, config.stop_timeout / 2)
        consumers = self._consumers()
        former = self._former()
        every = [*consumers, *(queue.consumer for queue in former)]
        ledger, kept = self._stores() if self._receives else (None, None)
        settlement = Settlement(self._broker, kept, clock)
        intake = Intake(every)
        source = self._source(every)
        work, segments = self._fetching(ledger) if ledger is not None and config.download else (None, None)
        publisher = self._publisher()
        users = [*consumers, *([] if publisher is None else [publisher]), *every[len(consumers) :]]
        housekeeping = Housekeeping(
            config,
            ledger,
            kept,
            settlement,
            chain,
            tally,
            intake,
            BrokerWatch(lambda: [user.state for user in users if user.in_use]),
            clock,
            self._place.keep_early_after_s,
            self._ring,
        )
        parts = Parts(
            config=config,
            source=source,  # type: ignore[arg-type]  # Sequence and list of items are one here
            filter=Filter(config, clock, tally.error, receives=self._receives),
            chain=chain,
            work=work,
            outlet=self._outlet(publisher),
            settlement=settlement,
            kept=kept,
            retries=self._retries(consumers),
            housekeeping=housekeeping,
            intake=intake,
            tally=tally,
            clock=clock,
            wait=_waiter(self._fds()),
            heartbeat=self._heartbeat,
        )
        return Assembled(
            Flow(parts),
            self._broker,
            consumers,
            FormerQueues(former, bindings_file(config), clock),
            chain,
            housekeeping,
            segments,
            source,
            tally,
            settlement,
            kept,
            self.closing,
            self._post_endpoint(),
        )

    def _heartbeat(self) -> None:
        """Begin a turn: tell the parent, and look anew at what threads have to say."""
        self._place.heartbeat()
        if self._movements is not None:
            self._movements.tick()
        self._broker.clear_wakeup()
        self._wake.clear()

    def _fds(self) -> list[int]:
        """Return the descriptors that end the flow's wait."""
        return [fd for fd in (self._broker.wakeup_fd, self._wake.fileno(), self._place.wake_fd) if fd >= 0]

    def _consumers(self) -> list[Consumer]:
        config = self._config
        return [
            self._broker.consumer(
                endpoint(config, subscription.broker, self._place.instance),
                queue_spec(config, subscription),
                config.prefetch,
            )
            for subscription in config.subscriptions
        ]

    def _retries(self, consumers: list[Consumer]) -> BrokerRetry | None:
        """Let failed messages wait at the broker, where they do."""
        config = self._config
        if not uses_broker(config):
            return None
        outlets = [
            (
                consumer,
                self._broker.publisher(
                    endpoint(config, subscription.broker, self._place.instance),
                    config.publish_window,
                    queues=queues_of(config, subscription.queue_name),
                    mandatory=True,
                ),
            )
            for consumer, subscription in zip(consumers, config.subscriptions, strict=True)
        ]
        return BrokerRetry(config, outlets, self._broker, self._clock)

    def _former(self) -> list[FormerQueue]:
        """Read what earlier configurations have left in their queues; one instance does it."""
        config = self._config
        if not self._receives or self._place.instance > 1:
            return []
        found = []
        for place, name in former_queues(config):
            spec = QueueSpec(name=name, declare=False, bind=False, passive=True)
            consumer = self._broker.consumer(place, spec, config.prefetch)
            found.append(FormerQueue(place, name, consumer))
        return found

    def _source(self, consumers: list[Consumer]) -> GatherMessage | GatherFile:
        if self._receives:
            return GatherMessage(self._config, consumers)
        files = GatherFile(self._config, self._wake.set)
        self.closing.callback(files.on_stop)
        return files

    def _post_endpoint(self) -> Endpoint | None:
        url = self._config.post_broker
        return None if url is None else endpoint(self._config, url, self._place.instance)

    def _publisher(self) -> Publisher | None:
        where = self._post_endpoint()
        if where is None:
            return None
        window, exchanges = self._config.publish_window, exchange_specs(self._config)
        return self._broker.publisher(where, window, exchanges=exchanges)

    def _outlet(self, publisher: Publisher | None) -> Outlet | None:
        if publisher is None:
            return None
        return Outlet(Writer(self._config, self._clock, relays=self._receives), publisher, self._clock)

    def _stores(self) -> tuple[Ledger, KeptStore]:
        config, place = self._config, self._place
        ledger = Ledger.open(
            os.path.join(config.state_dir, "ledger"),
            incarnation=place.incarnation,
            instance=place.slot_number,
            durability=config.durability,
            nodupe_ttl_s=config.nodupe_ttl,
            clock=self._clock,
        )
        self.closing.callback(ledger.close)
        kept = KeptStore.open(
            os.path.join(config.state_dir, "kept"), incarnation=place.incarnation, clock=self._clock
        )
        self.closing.callback(kept.close)
        return ledger, kept

    def _fetching(self, ledger: Ledger) -> tuple[Work, Segments]:
        """Open what fetches files; imported here, since it brings in curl."""
        from sarrapipe.flow.comparer import Comparer
        from sarrapipe.flow.download import Downloads
        from sarrapipe.flow.durability import Durability
        from sarrapipe.flow.places import Places
        from sarrapipe.flow.segmented import Segments
        from sarrapipe.flow.staging import opened
        from sarrapipe.flow.verify import Verifier
        from sarrapipe.transfer.engine import TransferEngine

        config = self._config
        verifier = Verifier(self._wake.set)
        self.closing.callback(verifier.close)
        comparer = Comparer(self._wake.set)
        self.closing.callback(comparer.close)
        engine = TransferEngine(transfer_settings(config), limiter=self._place.limiter, clock=self._clock)
        engine.open()
        self.closing.callback(engine.close)
        for fd in self._fds():
            engine.add_wakeup(fd)
        places = Places(config)
        self.closing.callback(places.close)
        segments = Segments(verifier, self._place.announce_work, self._clock)
        staged = opened(config, self._place.incarnation, self._place.announce_work, self._wake.set)
        if staged is not None:
            self.closing.callback(staged.close)
            staged.attach(engine)
            self._ring = staged.ring
        downloads = Downloads(config, engine, places, segments, self._slot, comparer, staged, ledger.digests)
        if self._place.board is not None:
            self._movements = Movements(self._place.board, downloads.movements, self._clock)
        durability = None
        if config.durability == "host":
            durability = Durability(places, ledger.sync, self._wake.set)
            self.closing.callback(durability.close)
        count_error = self._slot.count_error
        work = Work(config, ledger, places, downloads, durability, count_error, self._clock)
        return work, segments


def transfer_settings(config: FlowConfig) -> TransferSettings:
    """Return the limits of one instance's transfers; it has its share of those that hold for the flow."""
    streams = min(config.streams, _share(config.streams_flow, config.instances))
    return TransferSettings(
        streams=streams,
        streams_per_remote=min(streams, _share(config.streams_per_host, config.instances)),
        max_inflight_bytes=config.max_inflight_bytes,
        http=HttpSettings(
            stall_s=max(math.ceil(config.timeout), 1),
            tls_verify=config.tls_rigour != "lax",
            ca_file=config.ca_file,
        ),
        sftp=SftpSettings(
            driver=config.sftp_driver,
            host_keys=config.sftp_host_keys,
            known_hosts=config.sftp_known_hosts,
            connections=config.sftp_connections,
            stall_s=max(config.timeout, 1.0),
        ),
    )


def _share(limit: int, instances: int) -> int:
    """An instance that may do nothing could not finish what it has: at least one."""
    return max(limit // max(instances, 1), 1) if limit else sys.maxsize


def _waiter(fds: list[int]) -> Callable[[float], None]:
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)

    def wait(seconds: float) -> None:
        poller.poll(seconds * 1000)

    return wait

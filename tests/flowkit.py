"""One flow in the test's own process, against a real broker and a real data server.

    with Site(tmp_path, vhost, docroot) as site:
        tap = site.tap("xpublic")
        flow = site.run("sarra", "mirror on")
        site.announce("a/b.txt", b"hello")            # puts the file under the document root and announces it
        flow.until_done(1)
        assert tap.one()["relPath"] == "a/b.txt"
        flow.close(); site.assert_clean(flow)

The loop is turned by the test, in a bounded loop and without sleeps: a flow that has nothing to do waits for
its broker and its transfers. Time that has to pass is made to pass (`Clock.advance`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import select
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pika
from servers import MS, DocRoot, Vhost

from sarrapipe.config.load import ConfigHome, load_flow, read_environment
from sarrapipe.config.model import FlowConfig
from sarrapipe.flow.components import Assembled, Place, assemble
from sarrapipe.instance import stop_flow
from sarrapipe.ledger.kept import KeptStore
from sarrapipe.ledger.keys import new_incarnation
from sarrapipe.ledger.ledger import Ledger
from sarrapipe.message.codec import decode
from sarrapipe.message.model import Message
from sarrapipe.shm.arena import Arena
from sarrapipe.shm.limiter import Limit, Limiter
from sarrapipe.shm.moving import BOARD_SIZE, Board, Moving
from sarrapipe.shm.slots import SLOT_SIZE, Counter, Slot
from sarrapipe.units import format_time

SOURCE_EXCHANGE = "xs_tsource"


class Clock:
    """The clocks of this machine, set ahead."""

    def __init__(self) -> None:
        self.ahead_s = 0.0
        self.stepped_s = 0.0

    def monotonic_s(self) -> float:
        return time.monotonic() + self.ahead_s

    def wall_ns(self) -> int:
        return time.time_ns() + int((self.ahead_s + self.stepped_s) * 1e9)

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self.ahead_s += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock ahead, or back, as somebody does who mends it; no time passes."""
        self.stepped_s += seconds


def sha512(data: bytes) -> dict[str, str]:
    """The identity of some bytes as it is announced."""
    return {"method": "sha512", "value": base64.b64encode(hashlib.sha512(data).digest()).decode()}


class Tap:
    """What is published to one exchange from now on, decoded."""

    def __init__(self, connection: pika.BlockingConnection, exchange: str) -> None:
        self._channel = connection.channel()
        self._queue = self._channel.queue_declare("", exclusive=True).method.queue
        self._channel.queue_bind(self._queue, exchange, "#")
        self.keys: list[str] = []
        self.raw: list[tuple[bytes, dict[str, Any], str | None]] = []

    def take(self) -> list[Message]:
        """All that has come since the last call."""
        messages = []
        while True:
            method, properties, body = self._channel.basic_get(self._queue, auto_ack=True)
            if method is None:
                return messages
            headers = dict(properties.headers or {})
            self.keys.append(method.routing_key)
            self.raw.append((body, headers, properties.content_type))
            messages.append(decode(body, headers, properties.content_type, method.routing_key))

    def one(self) -> Message:
        """The one message that has come."""
        messages = self.take()
        assert len(messages) == 1, messages
        return messages[0]

    def paths(self) -> list[str]:
        """relPath of all that has come, sorted."""
        return sorted(message.rel_path for message in self.take())


class Running:
    """An assembled flow and its loop."""

    def __init__(self, config: FlowConfig, place: Place, clock: Clock) -> None:
        self._nudge = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        place = replace(place, wake_fd=self._nudge)
        self.config = config
        self.clock = clock
        self.slot = place.slot
        self.place = place
        self.assembled: Assembled = assemble(config, place, clock)
        self.flow = self.assembled.flow
        self._closed = False
        self.assembled.chain.call("on_start")

    def count(self, counter: Counter) -> int:
        """One counter."""
        assert self.slot is not None
        return self.slot.get(counter)

    def counts(self) -> dict[str, int]:
        """Every counter that is not 0, without gauges, maxima and bytes of messages."""
        return {
            counter.name: self.count(counter)
            for counter in Counter
            if self.count(counter) and not counter.name.startswith(("GAUGE_", "MAX_", "MESSAGE_BYTES", "LAG"))
        }

    def until(self, done: Callable[[], object], what: str, timeout_s: float = 20.0) -> None:
        """Turn the loop until `done`; fail naming `what`."""
        deadline = time.monotonic() + timeout_s * MS
        while not done():
            assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}; {self.counts()}"
            self.flow.turn()

    def until_counted(self, counter: Counter, count: int = 1, timeout_s: float = 20.0) -> None:
        """Turn the loop until a counter has got so far."""
        self.until(lambda: self.count(counter) >= count, f"{counter.name} is {count}", timeout_s)

    def until_settled(self, count: int, timeout_s: float = 20.0) -> None:
        """Turn the loop until so many messages were acknowledged, whatever became of them."""
        settlement = self.assembled.settlement
        self.until(lambda: settlement.answered >= count, f"{count} messages are answered", timeout_s)

    def advance(self, seconds: float, turns: int = 2) -> None:
        """Let time pass, and the flow notice; it does not wait."""
        self.clock.advance(seconds)
        os.eventfd_write(self._nudge, 1)
        for _ in range(turns):
            self.flow.turn()
        os.eventfd_read(self._nudge)

    def moving(self) -> list[Moving]:
        """What it tells of its large files, after a look of now."""
        self.advance(1.0)
        assert self.place.board is not None
        return self.place.board.read()

    def kept(self) -> list[Any]:
        """What is in the kept store."""
        assert self.assembled.kept is not None
        return self.assembled.kept.messages()

    def close(self, *, stop: bool = True, limit_s: float = 5.0) -> None:
        """End it: in good order, or at once, as a process that is killed does to everybody else."""
        if self._closed:
            return
        self._closed = True
        with self.assembled.closing:
            if stop:
                stop_flow(self.assembled, self.clock, self.clock.monotonic_s() + limit_s)
                self.assembled.chain.call("on_stop")
        os.close(self._nudge)


class Site:
    """Configurations, state, a destination and a document root of one test."""

    def __init__(self, directory: Path, vhost: Vhost, docroot: DocRoot) -> None:
        self.directory = directory
        self.vhost = vhost
        self.docroot = docroot
        self.clock = Clock()
        self.home = ConfigHome(str(directory / "config"), str(directory / "state"))
        self.dest = directory / "dest"
        self._running: list[Running] = []
        self._slots = 0

    def __enter__(self) -> Self:
        pump = self.vhost.pump
        (self.directory / "config").mkdir(parents=True)
        self.dest.mkdir()
        lines = [
            f"amqp://{user}:{account.password}@127.0.0.1:{pump.amqp_port}/"
            for user, account in pump.users.items()
        ]
        self.credentials("\n".join(lines) + "\n")
        self._connection = pika.BlockingConnection(pika.URLParameters(self.vhost.url("admin")))
        self._channel = self._connection.channel()
        self._channel.confirm_delivery()
        return self

    def __exit__(self, *_: object) -> None:
        for running in self._running:
            running.close()
        if self._connection.is_open:
            self._connection.close()

    def limiter(self, bytes_per_s: int) -> Limiter:
        """The byte rate of a flow, as its instances share it."""
        arena = Arena.create(str(self.directory / "arena"), "sarra/t", created_wall_ns=0)
        return Limiter(arena, Limit.BYTES, bytes_per_s)

    # ---- configuration

    def credentials(self, text: str) -> None:
        """Write credentials.conf."""
        path = Path(self.home.credentials_file)
        path.write_text(text)
        path.chmod(0o600)

    def plugin(self, name: str, text: str) -> None:
        """Write a callback into the plugins directory."""
        path = Path(self.home.config_dir) / "plugins" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def config(
        self, component: str, lines: str = "", name: str = "t", exchange: str = SOURCE_EXCHANGE
    ) -> FlowConfig:
        """Write and read a configuration with what every flow of its component has here."""
        usual = {
            "sarra": [
                f"broker {self.vhost.url('feeder', password=False)}",
                f"exchange {exchange}",
                "post_exchange xpublic",
                f"directory {self.dest}",
                f"post_baseDir {self.dest}",
                "post_baseUrl http://example.com/data/",
            ],
            "sender": [
                f"broker {self.vhost.url('feeder', password=False)}",
                f"exchange {exchange}",
                f"baseDir {self.docroot.path}",
                "post_exchange xpublic",
                "post_baseUrl http://example.com/data/",
            ],
            "flow": [
                f"broker {self.vhost.url('feeder', password=False)}",
                f"exchange {exchange}",
                f"post_broker {self.vhost.url('feeder', password=False)}",
            ],
            "subscribe": [
                f"broker {self.vhost.url('feeder', password=False)}",
                f"exchange {exchange}",
                "mirror on",
                f"directory {self.dest}",
            ],
            "post": [
                f"post_broker {self.vhost.url('tsource', password=False)}",
                f"post_exchange {SOURCE_EXCHANGE}",
                f"post_baseDir {self.docroot.path}",
                f"post_baseUrl {self.docroot.url}",
            ],
        }[component]
        usual.append("subtopic #") if component != "post" else None
        path = Path(self.home.config_file(component, name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*usual, *(line.strip() for line in lines.splitlines())]) + "\n")
        return load_flow(self.home, component, name, (), read_environment())

    def run(
        self, component: str = "sarra", lines: str = "", *, name: str = "t", wait: bool = True, **place: Any
    ) -> Running:
        """Assemble a flow."""
        return self.start(self.config(component, lines, name), wait=wait, **place)

    def start(self, config: FlowConfig, *, wait: bool = True, **place: Any) -> Running:
        """Assemble a flow of a configuration, and wait until it consumes."""
        self._slots += 1
        os.makedirs(config.state_dir, exist_ok=True)
        standing = Place(
            instance=self._slots,
            incarnation=new_incarnation(),
            slot_number=self._slots,
            slot=Slot(0, memoryview(bytearray(SLOT_SIZE))),
            board=Board(memoryview(bytearray(BOARD_SIZE))),
        )
        running = Running(config, replace(standing, **place), self.clock)
        self._running.append(running)
        if wait and running.assembled.consumers:
            running.until(
                lambda: all(consumer.state.connected for consumer in running.assembled.consumers), "consuming"
            )
        return running

    # ---- messages

    def tap(self, exchange: str = "xpublic") -> Tap:
        """Listen to an exchange from now on."""
        return Tap(self._connection, exchange)

    def fields(self, rel_path: str, data: bytes | None = None, **changes: object) -> dict[str, object]:
        """The fields of an announcement; a change to None takes a field away."""
        fields: dict[str, object] = {
            "pubTime": format_time(self.clock.wall_ns()),
            "baseUrl": self.docroot.url,
            "relPath": rel_path,
            "source": "tsource",
        }
        if data is not None:
            fields |= {
                "size": len(data),
                "identity": sha512(data),
                "mtime": "20240102T030405.5",
                "mode": "640",
            }
        fields |= changes
        return {name: value for name, value in fields.items() if value is not None}

    def put(self, rel_path: str, data: bytes) -> Path:
        """Put a file under the document root."""
        path = self.docroot.path / rel_path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def announce(
        self, rel_path: str, data: bytes | None = None, *, put: bool = True, **changes: object
    ) -> None:
        """Publish an announcement, having put the file where it says."""
        if put and data is not None:
            self.put(rel_path, data)
        self.publish(self.fields(rel_path, data, **changes))

    def event(self, rel_path: str, **operation: str) -> None:
        """Publish an announcement of an event without data."""
        self.publish(self.fields(rel_path, fileOp=operation))

    def publish(
        self,
        fields: Mapping[str, object] | bytes,
        *,
        exchange: str = SOURCE_EXCHANGE,
        headers: Mapping[str, Any] | None = None,
        content_type: str | None = "application/json",
        key: str = "v03.t",
    ) -> None:
        """Publish one message, confirmed: fields of v03, or a body as it is."""
        body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
        properties = pika.BasicProperties(
            content_type=content_type, delivery_mode=2, headers=dict(headers or {})
        )
        self._channel.basic_publish(exchange, key, body, properties)

    def publish_all(self, messages: Iterable[Mapping[str, object]]) -> int:
        """Publish many; return how many."""
        count = 0
        for fields in messages:
            self.publish(fields)
            count += 1
        return count

    # ---- what is left

    def files(self, root: Path | None = None) -> dict[str, bytes | str | None]:
        """What is in the destination: bytes of files, targets of links, None for directories."""
        top = self.dest if root is None else root
        found: dict[str, bytes | str | None] = {}
        for directory, names, files in os.walk(top):
            for name in [*names, *files]:
                path = Path(directory, name)
                relative = str(path.relative_to(top))
                if path.is_symlink():
                    found[relative] = os.readlink(path)
                else:
                    found[relative] = None if path.is_dir() else path.read_bytes()
        return {name: content for name, content in found.items() if not _is_hidden_directory(name, content)}

    def assert_clean(self, running: Running) -> None:
        """Nothing is under way, kept, unacknowledged or half done; ends the flow."""
        running.close()
        config = running.config
        assert leftovers(config) == {}
        for subscription in config.subscriptions:
            assert self.depth(subscription.queue_name) == 0, "messages are left in the queue"

    def depth(self, queue: str) -> int:
        """Messages in a queue."""
        return int(self._connection.channel().queue_declare(queue, passive=True).method.message_count)


def turn_all(
    flows: Iterable[Running], done: Callable[[], object], what: str, timeout_s: float = 30.0
) -> None:
    """Turn several flows' loops, none of which waits, until `done`; fail naming `what`."""
    flows = list(flows)
    deadline = time.monotonic() + timeout_s * MS
    while not done():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        for flow in flows:
            flow.advance(0, turns=1)


def leftovers(config: FlowConfig) -> dict[str, object]:
    """What a flow that is not running has left in its ledger and its kept store."""
    left: dict[str, object] = {}
    path = os.path.join(config.state_dir, "ledger")
    with Ledger.open(path, incarnation=1, instance=999) as ledger, ledger.view() as view:
        rows = [row for _, row in view.tables.files()]
        pending = [target for _, target, record in view.tables.paths() if record.pending]
    if rows:
        left["rows"] = rows
    if pending:
        left["pending"] = pending
    with KeptStore.open(os.path.join(config.state_dir, "kept"), incarnation=1) as kept:
        if kept.messages():
            left["kept"] = kept.messages()
    return left


def _is_hidden_directory(name: str, content: object) -> bool:
    """The directory for files under way, and those of each flow in it; a file in there is litter."""
    return content is None and name.split("/", maxsplit=1)[0] == ".sarrapipe"


def wait_readable(fd: int, timeout_s: float) -> bool:
    """Wait for a descriptor."""
    return bool(select.select([fd], [], [], timeout_s * MS)[0])

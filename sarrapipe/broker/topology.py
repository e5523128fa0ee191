"""What should exist on a broker: exchanges, queues, bindings; and the difference to what was made before.

Pure, except `BindingStore`, which keeps in a file what was bound so that a subtopic taken out of the
configuration is unbound (AMQP has no way to list bindings). `declare.py` carries it out.

Sources: wire.md 4; requirements R12, R13, R48-R53; https://www.rabbitmq.com/docs/queues#optional-arguments.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from sarrapipe.errors import BrokerError, TopologyError

__all__ = ["Binding", "BindingStore", "ExchangeSpec", "QueueSpec", "difference", "explain_mismatch"]

_MISMATCH_RE: Final = re.compile(
    r"inequivalent arg '(?P<property>[^']+)' for (?P<kind>queue|exchange) '(?P<name>[^']*)'"
    r".*?: received (?P<asked>.*?) but current is (?P<found>.*)$",
    re.DOTALL,
)
_OPTION_OF: Final = {
    "x-expires": "expire",
    "x-message-ttl": "message_ttl",
    "x-queue-type": "queueType",
    "durable": "durable",
    "auto_delete": "auto_delete",
}
"""Configuration option that sets each property (sr3-surface.md)."""


class Binding(NamedTuple):
    """A queue gets what is published to `exchange` with a routing key matching `routing_key`."""

    exchange: str
    routing_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeSpec:
    """An exchange as its publisher declares it: topic, durable, not auto-delete (R13)."""

    name: str
    kind: str = "topic"
    durable: bool = True
    auto_delete: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSpec:
    """A queue as its consumers declare it.

    Attributes:
        name: Expanded name, starting with `q_<user>`.
        durable: Survives a restart of the broker (R49).
        auto_delete: Deleted with its last consumer.
        expires_ms: Deleted when unused for so long; None for never.
        message_ttl_ms: Messages older than this are dropped by the broker; None for never.
        queue_type: `classic`, `quorum` or `stream`; None leaves it to the broker.
        arguments: Further arguments, as given (`amqp_queue_args`).
        bindings: What it is bound to.
        declare: Whether we may create it.
        bind: Whether we may bind it.
        passive: Only check that it exists (someone else owns it).
    """

    name: str
    durable: bool = True
    auto_delete: bool = False
    expires_ms: int | None = None
    message_ttl_ms: int | None = None
    queue_type: str | None = None
    arguments: Mapping[str, object] = field(default_factory=dict)
    bindings: tuple[Binding, ...] = ()
    declare: bool = True
    bind: bool = True
    passive: bool = False

    def declare_arguments(self) -> dict[str, object]:
        """Return the arguments of queue.declare."""
        arguments: dict[str, object] = {}
        if self.expires_ms is not None:
            arguments["x-expires"] = self.expires_ms
        if self.message_ttl_ms is not None:
            arguments["x-message-ttl"] = self.message_ttl_ms
        if self.queue_type is not None:
            arguments["x-queue-type"] = self.queue_type
        arguments.update(self.arguments)
        return arguments

    @property
    def shared_prefetch(self) -> bool:
        """Whether the queue's kind can limit prefetch per channel; quorum queues and streams cannot.

        Source: https://www.rabbitmq.com/docs/quorum-queues#feature-matrix (global QoS).
        """
        return str(self.declare_arguments().get("x-queue-type", "classic")) == "classic"


def difference(made: Iterable[Binding], wanted: Iterable[Binding]) -> tuple[list[Binding], list[Binding]]:
    """Return (to bind, to unbind). Everything wanted is bound again: binding twice does no harm."""
    wanted = list(dict.fromkeys(wanted))
    keep = set(wanted)
    return wanted, sorted(binding for binding in set(made) if binding not in keep)


def explain_mismatch(reply_text: str, where: str) -> TopologyError | None:
    """Return the error for a 406 that tells of an object with other properties; None if it is another 406.

    Args:
        reply_text: The broker's text.
        where: Key of the endpoint.
    """
    match = _MISMATCH_RE.search(reply_text)
    if match is None:
        return None
    name, kind, prop = match["name"], match["kind"], match["property"]
    asked, found = (match[group].strip().replace("the value ", "") for group in ("asked", "found"))
    if kind == "exchange":
        advice = "name another one, or set exchangeDeclare off to use this one as it is"
    else:
        option = _OPTION_OF.get(prop, prop)
        advice = f"set {option} to what is there, or delete the queue with `sarrapipe cleanup`"
    return TopologyError(
        f"{kind} {name} on {where} exists with {prop} {found}, the configuration asks for {asked}: {advice}"
    )


class BindingStore:
    """The bindings last made, by broker and queue, in one JSON file.

    Args:
        path: The file; made on the first save, its directory must exist.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def load(self, endpoint_key: str, queue: str) -> list[Binding]:
        """Return what was bound; empty if nothing is known.

        Raises:
            BrokerError: The file is not what `save` writes.
        """
        return self._read().get(endpoint_key, {}).get(queue, [])

    def queues(self, endpoint_key: str) -> list[str]:
        """Return the queues of which anything is known, by name.

        Raises:
            BrokerError: The file is not what `save` writes.
        """
        return sorted(self._read().get(endpoint_key, {}))

    def save(self, endpoint_key: str, queue: str, bindings: Iterable[Binding]) -> None:
        """Replace what is known of one queue; no bindings forgets it. The file is replaced atomically.

        Raises:
            BrokerError: The file cannot be read or written.
        """
        known = self._read()
        entries = known.setdefault(endpoint_key, {})
        entries[queue] = sorted(set(bindings))
        if not entries[queue]:
            del entries[queue]
        record = {
            key: {name: list(map(list, each)) for name, each in queues.items()}
            for key, queues in known.items()
        }
        try:
            self._replace(json.dumps(record, indent=1, sort_keys=True))
        except OSError as error:
            raise BrokerError(f"bindings cannot be kept in {self._path}: {error}") from error

    def _replace(self, text: str) -> None:
        descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(self._path) or ".", prefix=".bindings")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._path)
        except BaseException:
            os.unlink(temporary)
            raise

    def _read(self) -> dict[str, dict[str, list[Binding]]]:
        try:
            with open(self._path, encoding="utf-8") as file:
                record = json.load(file)
            return {
                key: {
                    queue: [Binding(str(exchange), str(routing_key)) for exchange, routing_key in pairs]
                    for queue, pairs in queues.items()
                }
                for key, queues in record.items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise BrokerError(
                f"bindings file {self._path} is damaged: {error}; remove it and declare again"
            ) from error

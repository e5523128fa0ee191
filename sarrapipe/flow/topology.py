"""A flow's objects at its brokers: declared, reconciled with the configuration, cleaned up."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from sarrapipe.broker.declare import Declared, Removed, cleanup, declare_topology, queue_depths, unbind_all
from sarrapipe.broker.endpoint import Endpoint
from sarrapipe.broker.topology import BindingStore, difference
from sarrapipe.callbacks.base import FlowCallback
from sarrapipe.callbacks.loader import load_configured
from sarrapipe.config.model import FlowConfig
from sarrapipe.errors import CallbackError
from sarrapipe.flow.brokerretry import queues_of
from sarrapipe.flow.brokers import endpoint, exchange_specs, queue_spec

__all__ = [
    "CleanedUp",
    "bindings_file",
    "cleanup_flow",
    "declare_flow",
    "former_queues",
    "reconcile_bindings",
]


class CleanedUp(NamedTuple):
    """What `cleanup_flow` did at one broker."""

    broker: str
    removed: Removed


def declare_flow(config: FlowConfig) -> list[Declared]:
    """Declare the exchange a flow posts to, and its queues with their bindings.

    Bindings that an earlier configuration made, and this one does not name, are removed.

    The callbacks' `on_declare` follows.

    Raises:
        TopologyError: A queue or exchange exists with other properties.
        BrokerError: A broker refuses or is away.
        ConfigError: A callback cannot be loaded.
        CallbackError: A callback failed.
    """
    callbacks = load_configured(config)
    os.makedirs(config.state_dir, exist_ok=True)
    if config.post_broker is not None and exchange_specs(config):
        declare_topology(endpoint(config, config.post_broker), exchanges=exchange_specs(config))
    declared = []
    for subscription in config.subscriptions:
        declared += declare_topology(
            endpoint(config, subscription.broker),
            [queue_spec(config, subscription), *queues_of(config, subscription.queue_name)],
            state_path=bindings_file(config),
        )
    _call(callbacks, "on_declare")
    return declared


def reconcile_bindings(config: FlowConfig) -> list[Declared]:
    """Remove the bindings that an earlier configuration made and this one does not name.

    The broker is only asked where something is to be removed. What is wanted is bound first, though the
    consumers do that as well: a message that matches either must find a binding at every moment.

    Raises:
        BrokerError: A broker refuses or is away.
    """
    store = BindingStore(bindings_file(config))
    changed = []
    for subscription in config.subscriptions:
        place = endpoint(config, subscription.broker)
        queue = queue_spec(config, subscription)
        known = store.load(place.key, queue.name)
        if difference(known, queue.bindings)[1]:
            changed += declare_topology(place, [queue], state_path=bindings_file(config))
        elif set(known) != set(queue.bindings):
            store.save(place.key, queue.name, queue.bindings)
    for place, name in former_queues(config):
        if queue_depths(place, [name]):
            unbind_all(place, name, bindings_file(config))
        else:
            store.save(place.key, name, ())  # somebody deleted it
    return changed


def former_queues(config: FlowConfig) -> list[tuple[Endpoint, str]]:
    """Return the queues that an earlier configuration bound and this one does not read, by broker.

    Those of a broker that this configuration does not name cannot be reached: nobody says who to be there.

    Raises:
        BrokerError: What was bound is known no more.
    """
    store = BindingStore(bindings_file(config))
    places = {(place := endpoint(config, one.broker)).key: place for one in config.subscriptions}
    read = {(endpoint(config, one.broker).key, one.queue_name) for one in config.subscriptions}
    return [
        (place, name)
        for key, place in places.items()
        for name in store.queues(key)
        if (key, name) not in read
    ]


def cleanup_flow(config: FlowConfig) -> list[CleanedUp]:
    """Delete the queues of a flow, those of earlier configurations too, with all that is in them.

    Exchanges stay: others use them. The callbacks' `on_cleanup` comes first.

    Raises:
        BrokerError: A broker is away.
        ConfigError: A callback cannot be loaded.
        CallbackError: A callback failed; nothing is deleted.
    """
    _call(load_configured(config), "on_cleanup")
    result = []
    for subscription in config.subscriptions:
        place = endpoint(config, subscription.broker)
        names = [subscription.queue_name, *(one.name for one in queues_of(config, subscription.queue_name))]
        removed = cleanup(place, names, state_path=bindings_file(config))
        result.append(CleanedUp(place.key, removed))
    for place, name in former_queues(config):
        result.append(CleanedUp(place.key, cleanup(place, [name], state_path=bindings_file(config))))
    return result


def _call(callbacks: Sequence[FlowCallback], hook: str) -> None:
    for callback in callbacks:
        try:
            called = getattr(callback, hook, None)  # sr3's callbacks have those hooks they need
            if called is not None:
                called()
        except Exception as error:
            what = f"{type(callback).__name__}.{hook}: {type(error).__name__}: {error}"
            raise CallbackError(what) from error


def bindings_file(config: FlowConfig) -> str:
    """Return the file that remembers what was bound, in the flow's state directory."""
    return os.path.join(config.state_dir, "bindings.json")

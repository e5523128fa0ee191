"""From a flow's configuration to what the broker layer asks for: endpoints, queues, exchanges."""

from __future__ import annotations

from sarrapipe.broker.endpoint import Endpoint
from sarrapipe.broker.topology import Binding, ExchangeSpec, QueueSpec
from sarrapipe.config.model import FlowConfig
from sarrapipe.config.urls import BrokerUrl
from sarrapipe.config.values import Subscription

__all__ = ["endpoint", "exchange_specs", "queue_spec"]


def endpoint(config: FlowConfig, url: BrokerUrl, instance: int = 0) -> Endpoint:
    """Return who to be at a broker.

    Args:
        config: The flow's configuration.
        url: The broker, with its password.
        instance: Number of the instance, shown by the broker beside the flow's name; 0 for none.
    """
    return Endpoint(
        scheme=url.scheme,
        host=url.host,
        port=url.port,
        user=url.user,
        password=url.password or ("anonymous" if url.user == "anonymous" else ""),
        vhost=url.vhost,
        tls_rigour=config.tls_rigour,
        ca_file=config.ca_file,
        login=url.login_method or "auto",
        name=f"{config.flow} {instance}" if instance else config.flow,
    )


def queue_spec(config: FlowConfig, subscription: Subscription) -> QueueSpec:
    """Return the queue of a subscription as it is to be declared."""
    return QueueSpec(
        name=subscription.queue_name,
        durable=config.durable,
        auto_delete=config.auto_delete,
        expires_ms=int(config.expire * 1000) or None,
        # As sr3 declares it (wire.md 4): joining its queue with other arguments would be refused.
        message_ttl_ms=(int(config.message_age_max * 1000) or None) if config.defaults == "sr3" else None,
        queue_type=None if config.queue_type == "classic" else config.queue_type,
        arguments={key: _argument(value) for key, value in config.amqp_queue_args.items()},
        bindings=tuple(Binding(each.exchange, each.routing_key) for each in subscription.bindings),
        declare=config.queue_declare,
        bind=config.queue_bind,
    )


def _argument(value: str) -> object:
    """AMQP tells numbers from text; configuration files do not."""
    return int(value) if value.lstrip("-").isdigit() else value


def exchange_specs(config: FlowConfig) -> tuple[ExchangeSpec, ...]:
    """Return the exchanges that this flow posts to and may create (R12)."""
    if not config.exchange_declare or not config.post_exchange:
        return ()
    return (ExchangeSpec(name=config.post_exchange),)

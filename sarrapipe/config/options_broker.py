"""Options about brokers, queues and bindings. Source: sr3-surface.md 2.4; wire.md 4; R48-R53."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sarrapipe.config.kinds import (
    broker_url,
    choice,
    count,
    duration,
    flag,
    natural,
    optional_path,
    optional_text,
    pairs,
    queue_template,
    topic_words,
)
from sarrapipe.config.option import option
from sarrapipe.config.urls import BrokerUrl

__all__ = ["BrokerOptions"]

_SECTION: Final = "Broker, queue and bindings"


@dataclass(frozen=True, init=False, repr=False, eq=False)
class BrokerOptions:
    """What a flow reads from, and how."""

    broker: BrokerUrl | None = option(  # noqa: RUF009 - option() makes a dataclass field
        broker_url,
        None,
        section=_SECTION,
        common=True,
        help="Broker to read notification messages from. Its password is in credentials.conf. "
        "Lines below it (exchange, subtopic) belong to it; another broker line begins another subscription.",
    )
    exchange: str | None = option(
        optional_text,
        None,
        section=_SECTION,
        common=True,
        help="Exchange that later subtopic lines bind to. Default: xpublic; with exchangeSuffix, or under "
        "'defaults sr3' for a user other than anonymous, xs_<user>.",
    )
    exchange_suffix: str | None = option(
        optional_text,
        None,
        section=_SECTION,
        help="Makes the default exchange xs_<user>_<suffix>.",
    )
    topic_prefix: tuple[str, ...] = option(
        topic_words,
        ("v03",),
        section=_SECTION,
        common=True,
        help="First words of the topic that later subtopic lines bind to: v03, or v02.post for old pumps.",
    )
    queue_name: str = option(
        queue_template,
        "q_${BROKER_USER}.${COMPONENT}.${CONFIG}",
        section=_SECTION,
        common=True,
        sr3="q_${BROKER_USER}.${COMPONENT}.${CONFIG}.${QUEUESHARE}",
        help="Name of the queue. All instances, and all nodes with the same configuration, share it, unless "
        "the name holds ${HOSTNAME}. ${QUEUESHARE} is the option queueShare. For the user anonymous the "
        "default has user and host added, since strangers have that user, too.",
    )
    queue_share: str = option(
        queue_template,
        "",
        sr3="${USER}_${HOSTNAME}_${RAND8}",
        section=_SECTION,
        help="If set, a last part of the default queue name: who has the same share has the same queue.",
    )
    prefetch: int = option(
        natural,
        100,
        sr3=25,
        section=_SECTION,
        # measured.md: sr3's own throughput is best with push consumption and 100.
        help="Messages one instance may hold unacknowledged. Fewer are held while large files are under way.",
    )
    batch: int = option(
        natural,
        100,
        section=_SECTION,
        help="Messages taken into work, or posted, in one turn of the loop.",
    )
    expire: float = option(
        duration,
        0.0,
        section=_SECTION,
        help="Seconds after which the broker deletes the queue while nobody reads it; 0 never. What was "
        "announced meanwhile is then lost.",
    )
    durable: bool = option(
        flag,
        default=True,
        section=_SECTION,
        help="The queue and its messages survive a restart of the broker.",
    )
    auto_delete: bool = option(
        flag,
        default=False,
        key="auto_delete",
        section=_SECTION,
        help="The broker deletes the queue when its last reader leaves.",
    )
    queue_declare: bool = option(
        flag,
        default=True,
        section=_SECTION,
        help="Create the queue; off where an administrator does.",
    )
    queue_bind: bool = option(
        flag,
        default=True,
        section=_SECTION,
        help="Bind the queue, and unbind what the configuration no longer names.",
    )
    exchange_declare: bool = option(
        flag,
        default=True,
        section=_SECTION,
        help="Create the exchange posted to; off where an administrator does.",
    )
    queue_type: str = option(
        choice("classic", "quorum"),
        "classic",
        section=_SECTION,
        help="Type of the queue: classic, or quorum on a cluster of brokers.",
    )
    amqp_queue_args: Mapping[str, str] = option(
        pairs,
        MappingProxyType({}),
        key="amqp_queue_args",
        section=_SECTION,
        help="Further arguments of the queue's declaration, such as x-consumer-timeout=7200000.",
    )
    retry_driver: str = option(
        choice("auto", "local", "broker", disk="local"),
        "auto",
        sr3="local",
        key="retry_driver",
        section=_SECTION,
        help="Where messages wait that are to be tried again: local, on this host, for this host; broker, in "
        "queues beside the flow's own (name of the queue and .retry.TIME), from where any host that shares "
        "the queue gets them; auto, blocks that are forwarded as blocks (reassemble off) at the broker if "
        "that is also the one that is announced at, all else here. At the broker a message is never "
        "acknowledged before its outcome; the user must be allowed to write to the default exchange "
        "(amq.default).",
    )
    retry_delay: float = option(
        duration,
        10.0,
        section=_SECTION,
        help="Seconds that a message waits at the broker after its first failure (retry_driver); 8 times as "
        "long after the second, 64 times after each further one, until retry_ttl is over.",
    )
    tls_rigour: str = option(
        choice("lax", "normal", "strict", low="lax", medium="normal", high="strict"),
        "normal",
        section=_SECTION,
        help="Checks of TLS certificates of brokers and data servers: lax checks nothing, normal the "
        "chain and the host name, strict also refuses protocols before TLS 1.2 and brokers without TLS.",
    )
    ca_file: str | None = option(
        optional_path,
        None,
        section=_SECTION,
        help="File with the certificates (PEM) of the authorities to trust, in place of the system's.",
    )
    publish_window: int = option(
        natural,
        1000,
        section=_SECTION,
        help="Messages published and not yet confirmed by the broker at one time.",
    )
    message_age_max: float = option(
        duration,
        0.0,
        section=_SECTION,
        help="Seconds after which a received message is too old (by its pubTime) and is rejected; 0 never.",
    )
    message_count_max: int = option(
        count,
        0,
        section=_SECTION,
        help="Stop after this many messages were processed; 0 never.",
    )

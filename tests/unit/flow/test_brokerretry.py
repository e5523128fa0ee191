"""Which messages wait at the broker when they fail (`retry_driver`)."""

from __future__ import annotations

import pytest

from sarrapipe.flow.brokerretry import queues_of, uses_broker, waits_at_broker
from sarrapipe.message.model import Message
from sarrapipe.message.worklist import Delivery, WorkItem

BLOCKS = {"method": "inplace", "size": 10, "count": 2, "number": 0, "remainder": 0}
QUEUE = "q_feeder.sarra.t"


def item(*, blocks: bool = True, epoch: int = 3, kept: bytes | None = None) -> WorkItem:
    """A message as it came."""
    fields: dict[str, object] = {"pubTime": "20231114T221320", "baseUrl": "http://h", "relPath": "a"}
    message = Message(fields | ({"blocks": BLOCKS} if blocks else {}))
    delivery = Delivery(b"", {}, None, "xinput", "v03.a", False, 1, "b", epoch)
    made = WorkItem(message, delivery)
    made.kept = kept
    return made


@pytest.mark.parametrize(
    ("lines", "blocks", "files"),
    [
        ("", False, False),
        ("reassemble off", True, False),
        ("reassemble off\ndownload off", False, False),
        ("reassemble off\nqueueDeclare off", False, False),
        ("reassemble off\nretry_driver local", False, False),
        ("reassemble off\nretry_driver disk", False, False),
        ("reassemble off\npost_broker amqp://anonymous@elsewhere/", False, False),
        ("retry_driver broker", True, True),
    ],
)
def test_by_configuration(flow_config, lines: str, blocks: bool, files: bool) -> None:
    config = flow_config("sarra", lines)
    assert waits_at_broker(item(), config) is blocks
    assert waits_at_broker(item(blocks=False), config) is files
    assert uses_broker(config) is blocks
    assert bool(queues_of(config, QUEUE)) is blocks


def test_what_is_kept_or_acknowledged_already_stays_here(flow_config) -> None:
    config = flow_config("sarra", "retry_driver broker")
    assert not waits_at_broker(item(kept=b"key"), config)
    assert not waits_at_broker(item(epoch=0), config)


def test_the_first_wait_is_an_option(flow_config) -> None:
    config = flow_config("sarra", "reassemble off\nretryDelay 2")
    assert [queue.name for queue in queues_of(config, QUEUE)] == [
        f"{QUEUE}.retry.{seconds}s" for seconds in (2, 16, 128)
    ]


def test_under_the_peers_defaults_everything_is_kept_here(flow_config) -> None:
    assert not uses_broker(flow_config("sarra", "defaults sr3\nreassemble off"))

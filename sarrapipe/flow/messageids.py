"""What tells a message's own redelivery from another message that announces the same."""

from __future__ import annotations

from sarrapipe.ledger.keys import message_id_of
from sarrapipe.message import identity
from sarrapipe.message.model import Message

__all__ = ["message_id"]


def message_id(message: Message, exchange: str) -> bytes:
    """Return the id of a message in the ledger and in the kept store.

    Several hosts that announce one block leave its pubTime and digest as they are; each is another source,
    so a block's id holds its base URL as well.

    Args:
        message: As it came.
        exchange: It was published to.
    """
    place = message.rel_path
    if "blocks" in message.fields:
        place = f"{message.base_url}\0{place}"
    return message_id_of(exchange, place, message.pub_time, identity.fingerprint(message))

"""Announce large files as blocks, although their source announced them whole (option `segmentAt`).

For a `flow` between the exchange of a source and the internal exchange of a shared-broker pump: a file that
is announced whole would be fetched by one mover, its blocks are fetched by all. No byte is moved here.

    broker    amqp://feeder@pump
    exchange  xs_alice
    subtopic  #
    post_broker   amqp://feeder@pump
    post_exchange xinput
    segmentAt 64M

The blocks' digests are not known: each mover computes that of the block it fetches (`cod`), and announces it.
The whole file's identity goes along (`blocks.file`), for whoever puts the blocks together.
"""

from __future__ import annotations

from typing import Final

import xxhash

from sarrapipe.callbacks.base import FlowCallback
from sarrapipe.message.blocks import Blocks
from sarrapipe.message.identity import DIGEST_BYTES
from sarrapipe.message.model import Message
from sarrapipe.message.worklist import Shared, WorkItem, Worklist

__all__ = ["SegmentAt", "blocks_of"]

_MOST_BLOCKS: Final = 10_000
"""Messages for one file at most: beyond that its blocks are larger than `segmentAt` says."""
_RANGES: Final = ("http://", "https://", "sftp://")
"""Where ranges of a file can be had."""


def blocks_of(message: Message, block_bytes: int) -> list[Message]:
    """Return the announcements of a file's blocks; of what is better left whole, itself alone. Pure.

    Args:
        message: Of a whole file.
        block_bytes: Option `segmentAt`.
    """
    size = message.size
    fields = message.fields
    whole = (
        size is None or size <= block_bytes or any(name in fields for name in ("blocks", "fileOp", "content"))
    )
    if whole or size is None or not message.url.lower().startswith(_RANGES):
        return [message]
    block_bytes = max(block_bytes, -(-size // _MOST_BLOCKS))
    count = -(-size // block_bytes)
    identity = message.identity
    told = "" if identity is None else f"{identity.method},{identity.value}"
    version = f"{told}\0{size}\0{fields.get('mtime')}\0{message.rel_path}"
    mark = xxhash.xxh3_128_hexdigest(version.encode("utf-8", "surrogatepass"))
    method = "sha512"
    if identity is not None:
        named = identity.value if identity.method == "cod" else identity.method
        method = named if named in DIGEST_BYTES else method
    messages = []
    for number in range(count):
        blocks = Blocks("inplace", block_bytes, count, size % block_bytes, number, None, mark)
        wire = blocks.to_wire()
        if identity is not None and identity.method in DIGEST_BYTES:
            wire["file"] = {"method": identity.method, "value": identity.value}
        changes = {"blocks": wire, "size": blocks.length, "identity": {"method": "cod", "value": method}}
        messages.append(message.replace(**changes))
    return messages


class SegmentAt(FlowCallback):
    """Makes items of blocks from the items of large files; the message is answered with the last of them."""

    def after_accept(self, worklist: Worklist) -> None:
        """Replace large files by their blocks."""
        made: list[WorkItem] = []
        for item in worklist.incoming:
            item.target = ""  # nothing is put anywhere: it is announced under the path it came with
            first, *others = blocks_of(item.message, self.o.segment_at)
            made.append(item)
            if not others:
                continue
            item.message = first
            item.shared = Shared(1 + len(others))
            for message in others:
                other = WorkItem(message, item.delivery)
                other.shared, other.since_s, other.kept = item.shared, item.since_s, item.kept
                made.append(other)
        worklist.incoming = made

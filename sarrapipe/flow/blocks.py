"""What an item announces of a file in blocks: which bytes, where they are, what the ledger is told. Pure.

With `reassemble on` a block's item is for the file it belongs to, under that file's name; with `off` it is
for a file of its own, under sr3's name for it (wire.md 2.4), and little tells it from any other file.
"""

from __future__ import annotations

from dataclasses import dataclass

import xxhash

from sarrapipe.config.model import FlowConfig
from sarrapipe.errors import MessageError, TooLarge
from sarrapipe.flow.messageids import message_id
from sarrapipe.ledger.admission import Announcement
from sarrapipe.ledger.keys import generation_of
from sarrapipe.message import identity
from sarrapipe.message.blocknames import block_name, root_name
from sarrapipe.message.model import Blocks, Identity, Message
from sarrapipe.message.worklist import WorkItem

__all__ = [
    "BlockSource",
    "announce_block",
    "assembles",
    "block_source",
    "check_block",
    "file_identity",
    "forwarded",
    "is_trusted",
    "own_name",
    "placed_path",
    "version_of",
]

_INPLACE = "inplace"


@dataclass(frozen=True, slots=True)
class BlockSource:
    """Where the bytes of a block are.

    Attributes:
        url: Of the whole file, or of the file that holds the block.
        url_is_escaped: As in `RangeRead`.
        offset: Of the block's first byte there.
        length: Bytes of the block.
        whole_size: Bytes there altogether; None where the message does not tell.
        ranged: The whole file is there.
    """

    url: str
    url_is_escaped: bool
    offset: int
    length: int
    whole_size: int | None
    ranged: bool


def assembles(message: Message, config: FlowConfig) -> bool:
    """Return whether a message announces a block that is to be put together with others."""
    if "blocks" not in message.fields or not config.reassemble:
        return False
    blocks = message.blocks
    return blocks is not None and blocks.count > 1


def check_block(blocks: Blocks, config: FlowConfig) -> None:
    """Refuse blocks and files that this pump does not take (R87).

    Raises:
        TooLarge: The block exceeds `blockSizeMax`; or the file that is to be put together `fileSizeMax`.
    """
    if config.block_size_max and blocks.length > config.block_size_max:
        raise TooLarge(f"a block of {blocks.length} bytes exceeds blockSizeMax {config.block_size_max}")
    size = blocks.file_size
    if config.reassemble and config.file_size_max and size is not None and size > config.file_size_max:
        raise TooLarge(f"a file of {size} bytes exceeds fileSizeMax {config.file_size_max}")


def placed_path(message: Message) -> str:
    """Return the path, in place of relPath, that a block's target is made from: that of the whole file."""
    return root_name(str(message.fields.get("rename") or message.rel_path))


def own_name(target: str, blocks: Blocks, config: FlowConfig) -> str:
    """Return the target of a block: that of its file, or of its own where it is forwarded as a block."""
    if config.reassemble or blocks.count == 1:
        return target
    return block_name(target, blocks.number, blocks.size)


def block_source(message: Message) -> BlockSource:
    """Return where a block's bytes are.

    Raises:
        MessageError: The message announces no block.
    """
    blocks = message.blocks
    if blocks is None:
        raise MessageError(f"{message.rel_path}: no block is announced")
    inplace = blocks.method == _INPLACE
    return BlockSource(
        url=message.url,
        url_is_escaped=message.retrieve_path is not None,
        offset=blocks.offset if inplace else 0,
        length=blocks.length,
        whole_size=blocks.file_size if inplace else blocks.length,
        ranged=inplace,
    )


def is_trusted(blocks: Blocks) -> bool:
    """Return whether a block's identity can be relied on.

    That of one without `blocks.id` is sr3's, which is wrong for all but the last (wire.md 2.6), or one of v2,
    which nothing tells from it.
    """
    return blocks.id is not None


def file_identity(message: Message) -> Identity | None:
    """Return the identity of the whole file where a block's message tells it (`blocks.file`).

    Raises:
        MessageError: It is no identity.
    """
    blocks = message.fields.get("blocks")
    wire = blocks.get("file") if isinstance(blocks, dict) else None
    if wire is None:
        return None
    exact = identity.canonical_identity("blocks.file", wire)
    return None if not isinstance(exact, dict) else Identity(exact["method"], exact["value"])


def version_of(message: Message, blocks: Blocks) -> tuple[int, str]:
    """Return what tells one version of a file from another: time and mark.

    Where there is no modification time, the mark alone decides; without both the pubTime, which sr3 gives all
    blocks of a file alike.
    """
    mark = blocks.id or ""
    mtime_ns = message.mtime_ns or 0
    return mtime_ns or (0 if mark else message.pub_time_ns), mark


def announce_block(item: WorkItem) -> Announcement:
    """Return what the ledger needs to know of a block that is to be put together with others.

    The fingerprint is the version and the number, not the digest: equal blocks of one file are no duplicates
    of each other, nor a block of one version of the same block, unchanged, in the next.
    """
    message = item.message
    blocks = message.blocks
    assert blocks is not None
    time_ns, mark = version_of(message, blocks)
    source = message.source or ""
    # Not the whole size: sr3's v02 messages tell it with the last block only (wire.md 2.1).
    grid = f"blocks {blocks.count} {mark}"
    generation = generation_of(item.target, source, None, time_ns, blocks.size, grid)
    exchange = item.delivery.exchange if item.delivery is not None else ""
    size = blocks.file_size
    inplace = blocks.method == _INPLACE
    return Announcement(
        target=item.target,
        generation=generation,
        fingerprint=xxhash.xxh3_128_digest(generation + blocks.number.to_bytes(8, "big")),
        message_id=message_id(message, exchange),
        pub_ns=message.pub_time_ns,
        mtime_ns=message.mtime_ns or 0,
        size=-1 if size is None else size,
        segment_size=blocks.size,
        url=message.url if inplace else "",
        source=source,
        first_segment=blocks.number,
        segment_count=1,
        total_segments=blocks.count,
        ranged=inplace and message.retrieve_path is None,
        version=generation_of(item.target, source, None, time_ns, 0, f"version {mark}"),
    )


def forwarded(message: Message, blocks: Blocks, computed: dict[str, str] | None) -> Message:
    """Return the announcement of a block that is now a file of its own.

    Args:
        message: As it came.
        blocks: Its block.
        computed: The digest of its bytes where the announced one was advisory; None where it is the announced
            one that holds.
    """
    found = message.fields["blocks"]
    wire = dict(found) if isinstance(found, dict) else blocks.to_wire()
    wire["method"] = "separate"
    changes: dict[str, object] = {"blocks": wire, "size": blocks.length}
    manifest = wire.get("manifest")
    if computed is not None:
        changes["identity"] = computed
        if isinstance(manifest, dict):
            own = {"size": blocks.length, "identity": computed["value"]}
            wire["manifest"] = manifest | {str(blocks.number): own}
    return message.replace(**changes)

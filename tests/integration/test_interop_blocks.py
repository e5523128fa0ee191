"""Files announced in blocks, between sarrapipe and the real metpx-sr3: each reads what the other posts."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest
from flowkit import Tap
from servers import DocRoot, Vhost, wait_until
from sr3_peer import Interop

from sarrapipe.message.model import Message

pytestmark = [pytest.mark.broker, pytest.mark.nginx, pytest.mark.sr3]

_BLOCK = 100_000
_SIZE = 250_123


@contextlib.contextmanager
def _tap(vhost: Vhost) -> Iterator[Tap]:
    connection = pika.BlockingConnection(pika.URLParameters(vhost.url("admin")))
    try:
        connection.channel().exchange_declare("xs_tsource", "topic", durable=True)
        yield Tap(connection, "xs_tsource")
    finally:
        connection.close()


def _put(interop: Interop) -> bytes:
    data = os.urandom(_SIZE)
    (interop.wanted / "d").mkdir()
    (interop.wanted / "d" / "big.bin").write_bytes(data)
    return data


def _arrived(interop: Interop) -> dict[str, bytes]:
    """Return the blocks that sr3 has put down, by name, without its manifest and locks."""
    found = {}
    for path in (interop.arrived / "d").glob("big.bin§block_*_§"):
        with contextlib.suppress(FileNotFoundError):
            found[path.name] = path.read_bytes()
    return found


@pytest.mark.parametrize("identity", ["sha512", "md5"])
def test_sr3_fetches_the_blocks_that_sarrapipe_posts(
    vhost: Vhost, docroot: DocRoot, sr3_home: Path, tmp_path: Path, identity: str
) -> None:
    posting = (f"blockSize {_BLOCK}", "blocksManifest full", "reject .*manifest.*")
    interop = Interop(vhost, docroot, sr3_home, tmp_path, "v03", identity, posting)
    data = _put(interop)
    # wire.md 2.4: the name that sr3 gives a block of 100,000 bytes
    wanted = {
        f"big.bin§block_{number:04d},97.7kib_§": data[number * _BLOCK : (number + 1) * _BLOCK]
        for number in range(3)
    }
    with interop.sr3_runs(interop.direct):
        interop.sarrapipe_posts()
        with contextlib.suppress(pytest.fail.Exception):
            wait_until(lambda: _arrived(interop) == wanted, 30.0, "every block has arrived")
        arrived = _arrived(interop)
        assert arrived.keys() == wanted.keys(), interop.logs()
        assert arrived == wanted


def _posted_by_sr3(interop: Interop) -> list[Message]:
    with _tap(interop.vhost) as tap:
        interop.sr3_posts()
        messages = [message for message in tap.take() if message.rel_path == "d/big.bin"]
    return sorted(messages, key=lambda message: message.blocks.number if message.blocks else -1)


@pytest.mark.parametrize("message_format", ["v03", "v02"])
def test_the_blocks_that_sr3_posts_are_understood(
    vhost: Vhost, docroot: DocRoot, sr3_home: Path, tmp_path: Path, message_format: str
) -> None:
    posting = (f"blockSize {_BLOCK}", "block_manifest_delete on")
    interop = Interop(vhost, docroot, sr3_home, tmp_path, message_format, "sha512", posting)
    data = _put(interop)
    messages = _posted_by_sr3(interop)
    assert len(messages) == 3
    for number, message in enumerate(messages):
        blocks = message.blocks
        assert blocks is not None
        assert (blocks.method, blocks.number, blocks.count) == ("inplace", number, 3)
        assert (blocks.offset, blocks.length) == (number * _BLOCK, min(_BLOCK, _SIZE - number * _BLOCK))
        assert blocks.id is None, "nothing says that these digests can be trusted"
        if message_format == "v03":
            assert message.size == blocks.length
            assert blocks.file_size == _SIZE
    # Of sr3's digests only the last is that of the block's own bytes (wire.md 2.6).
    digest = base64.b64encode(hashlib.sha512(data[2 * _BLOCK :]).digest()).decode()
    last = messages[-1].identity
    assert last is not None
    assert last.value == digest

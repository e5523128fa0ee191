"""Announcements of a file's blocks, in each dialect, and files that hold one block.

posted = Posted(site, "d/big", data, block_bytes=1000)
site.publish_all(posted.messages())                 # ours: with `blocks.id`
posted.publish_v02("i", 2)
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from typing import Any

from flowkit import Site, sha512

from sarrapipe.message.blocknames import block_name
from sarrapipe.message.blocks import Blocks, ManifestEntry
from sarrapipe.units import format_time

MTIME = "20240102T030405.5"


class Posted:
    """One version of a file under a site's document root, announced in blocks.

    Args:
        site: Where.
        path: relPath of the whole file.
        data: Its bytes.
        block_bytes: Of every block but the last.
        mark: `blocks.id`; None for a foreign poster's.
        mtime: Announced modification time.
    """

    def __init__(
        self,
        site: Site,
        path: str,
        data: bytes,
        block_bytes: int,
        *,
        mark: str | None = "mark",
        mtime: str | None = MTIME,
        put: bool = True,
    ) -> None:
        self.site = site
        self.path = path
        self.data = data
        self.block_bytes = block_bytes
        self.mark = mark
        self.mtime = mtime
        self.count = -(-len(data) // block_bytes)
        self.pub_time = format_time(site.clock.wall_ns())
        if put:
            site.put(path, data)

    def bytes_of(self, number: int) -> bytes:
        """The bytes of one block."""
        return self.data[number * self.block_bytes : (number + 1) * self.block_bytes]

    def blocks(self, number: int, method: str = "inplace", *, manifest: bool = False) -> Blocks:
        """The block as ours announces it."""
        entries = None
        if manifest:
            every = [self.bytes_of(n) for n in range(self.count)]
            entries = {n: ManifestEntry(len(b), sha512(b)["value"]) for n, b in enumerate(every)}
        remainder = len(self.data) % self.block_bytes
        return Blocks(method, self.block_bytes, self.count, remainder, number, entries, self.mark)

    def message(self, number: int, method: str = "inplace", **changes: object) -> dict[str, object]:
        """Our announcement of a block; what holds a `separate` one has to be put there by `put_block`."""
        data = self.bytes_of(number)
        path = self.path if method == "inplace" else block_name(self.path, number, self.block_bytes)
        usual = {
            "pubTime": self.pub_time,
            "mtime": self.mtime,
            "blocks": self.blocks(number, method).to_wire(),
        }
        return self.site.fields(path, data, **(usual | changes))

    def messages(
        self, numbers: Iterable[int] | None = None, **changes: object
    ) -> Iterator[dict[str, object]]:
        """The announcements of blocks, all of them if none are named."""
        return (self.message(n, **changes) for n in (range(self.count) if numbers is None else numbers))

    def put_block(self, number: int, name: str = "") -> None:
        """Put a file with one block under the document root, sr3's name if none is given."""
        self.site.put(name or block_name(self.path, number, self.block_bytes), self.bytes_of(number))

    def sr3_message(self, number: int) -> dict[str, object]:
        """The block as sr3 3.03 announces it: without count, with a manifest of digests that are wrong."""
        blocks = self.blocks(number, manifest=True).to_wire()
        del blocks["count"], blocks["remainder"]
        blocks.pop("id", None)
        manifest: Any = blocks["manifest"]
        wrong = sha512(b"of too many bytes")["value"]
        for n, entry in manifest.items():
            if int(n) != self.count - 1:
                entry["identity"] = wrong
        changes = {
            "blocks": blocks,
            "identity": {"method": "sha512", "value": manifest[str(number)]["identity"]},
        }
        return self.message(number, **changes)

    def publish_v02(self, flag: str, number: int, path: str = "", *, sr3: bool = False) -> None:
        """Announce a block as v2 does, or, where `sr3`, with its own size as remainder."""
        data = self.bytes_of(number)
        remainder = len(data) if sr3 and number != self.count - 1 else len(self.data) % self.block_bytes
        digest = sha512(data)["value"]
        headers = {
            "parts": f"{flag},{self.block_bytes},{self.count},{remainder},{number}",
            "sum": "s," + base64.b64decode(digest).hex(),
            "source": "tsource",
        }
        if self.mtime is not None:
            headers["mtime"] = self.mtime.replace("T", "")
        name = (path or self.path).replace(" ", "%20")
        body = f"{self.pub_time.replace('T', '')} {self.site.docroot.url} {name}".encode()
        self.site.publish(body, headers=headers, content_type="text/plain", key="v03.t")

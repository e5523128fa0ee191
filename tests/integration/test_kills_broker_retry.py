"""A mover is killed while a block that it cannot fetch goes back to the broker: repeated, never lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from killkit import Mover, Place, UnwillingServer
from servers import DocRoot, Vhost
from test_kills_blocks import in_blocks

pytestmark = [pytest.mark.chaos, pytest.mark.broker, pytest.mark.nginx]


@pytest.mark.parametrize("point", ["published", "deferred", "acknowledged"])
def test_killed_between_publishing_and_acknowledging(
    vhost: Vhost, docroot: DocRoot, tmp_path: Path, point: str
) -> None:
    with UnwillingServer(docroot.path / "source") as server:
        place = Place(vhost, docroot, tmp_path, server.url)
        (message, *_) = in_blocks(place, place.write_large("big", 250_000))
        options = {"reassemble": "off", "attempts": 1, "retryDelay": 0.3, "housekeeping": 1}
        message["blocks"]["method"] = "separate"
        block = place.source / message["relPath"]
        number = message["blocks"]["number"]
        block.write_bytes(block.read_bytes()[number * 100_000 : (number + 1) * 100_000])
        mover = Mover(place, instances=1, crash_at=point, **options)
        with mover:
            place.send([message])
            mover.wait(lambda: mover.crashed() == {point}, 30, f"a process was killed when {point}")
            server.willing.set()
            mover.settle(1)
            mover.wait(
                lambda: all(vhost.depth(q) == 0 for q in vhost.queues() if ".retry." in q), 30, "empty"
            )
            mover.wait(mover.is_quiet, 30, "nothing is in hand")
        (announced,) = place.announced()
        assert announced["identity"] == message["identity"]
        mover.check_nothing_left()

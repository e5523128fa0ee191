"""One large file from a slow server, and the flow that fetches it interrupted again and again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from chaosload import Killer
from killkit import Mover, Place, counted, segments_written
from loggingweb import LoggingNginx
from servers import DocRoot, Vhost

Interrupt = Callable[[Mover, random.Random], None]


def stop(mover: Mover, _chance: random.Random) -> None:
    """Stop and start."""
    mover.stop()
    mover.start()


def kill_parent(mover: Mover, _chance: random.Random) -> None:
    """Kill the parent, and all with it; start again."""
    mover.kill_parent()
    mover.start()


def kill_instance(mover: Mover, chance: random.Random) -> None:
    """Kill one instance; its siblings and its successor go on."""
    Killer(mover, chance.getrandbits(30)).kill_one_instance()


def check_resuming(
    vhost: Vhost,
    docroot: DocRoot,
    home: Path,
    interrupts: Sequence[Interrupt],
    *,
    segment_bytes: int,
    segments: int,
    instances: int,
) -> None:
    """Fail if a segment that was written is fetched again, or if the file is not the source's in the end.

    Each interrupt comes at a random moment after some more segments. nginx sends a segment a second on each
    connection, and an instance has three.
    """
    chance = random.Random(segments)
    with LoggingNginx(home / "nginx", docroot.path / "source", rate=segment_bytes) as nginx:
        place = Place(vhost, docroot, home, base_url=nginx.url)
        large = place.write_large("large", segments * segment_bytes - 5)
        mover = Mover(place, instances=instances, segmentSize=segment_bytes, streams=3)
        written_since: dict[int, float] = {}

        def look() -> int:
            # A request that begins later than this is one too many for what is written by now.
            for numbers in segments_written(mover.paths.state_dir).values():
                for number in numbers - written_since.keys():
                    written_since[number] = time.time()
            return len(written_since)

        with mover:
            place.send([large])
            for number, interrupt in enumerate(interrupts, start=1):
                wanted = number * segments // (2 * len(interrupts))
                mover.wait(lambda wanted=wanted: look() >= wanted, 30, f"{wanted} segments are written")
                time.sleep(chance.random() * 0.5)
                interrupt(mover, chance)
            mover.settle(1, timeout_s=60)
        place.check()
        mover.check_nothing_left()
        assert counted(place.announced()) == counted([large])
        requests = nginx.requests()
    again = [
        request
        for request in requests
        if request.first is not None
        and request.began_s > written_since.get(request.first // segment_bytes, float("inf"))
    ]
    assert again == []
    # What was under way at an interruption is fetched again: three streams of each instance.
    most = segments + len(interrupts) * instances * 3
    assert sum(request.sent for request in requests) < most * segment_bytes

"""Limits that the instances of a flow share."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from killkit import Mover, Place
from servers import DocRoot, Vhost

pytestmark = [pytest.mark.broker, pytest.mark.nginx]

RATE = 1_500_000
FILE_BYTES = 100_000


def test_instances_share_one_byte_rate(vhost: Vhost, docroot: DocRoot, tmp_path: Path) -> None:
    place = Place(vhost, docroot, tmp_path)
    sent = [place.write(f"f{number}", bytes(FILE_BYTES)) for number in range(60)]
    with Mover(place, instances=4, byteRateMax=RATE, streams=1, batch=1, prefetch=1) as mover:
        mover.wait(mover.is_bound, 20, "the queue is bound")
        began = time.monotonic()
        place.send(sent)
        mover.settle(len(sent))
        seconds = time.monotonic() - began
    place.check()
    # 4 s, less a bucket of a second that is full at the start, less what each of the four had under way when
    # it was empty (0.3 s). With a rate for each of them it would take no time at all.
    assert seconds > 2

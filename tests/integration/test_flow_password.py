"""The broker ends every connection and the account has another password, in the middle of a large file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from killkit import Mover, Place
from servers import DocRoot, Vhost

from sarrapipe.pump.managementapi import segment

pytestmark = [pytest.mark.broker, pytest.mark.nginx]

MIB = 1 << 20
SEGMENTS = 16
NEW = "another-pw-31337"


@contextlib.contextmanager
def password(vhost: Vhost, user: str, new: str) -> Iterator[None]:
    """Give an account another password, and its own back at the end."""
    api, path = vhost.api, f"/api/users/{user}"
    found = api.get(path)
    assert isinstance(found, dict)
    api.put(path, {"password": new, "tags": found["tags"]})
    try:
        yield
    finally:
        api.put(path, {"password": vhost.pump.users[user].password, "tags": found["tags"]})


def end_connections(vhost: Vhost, user: str) -> None:
    """What a restart of the broker does to those of an account in one virtual host."""
    for one in vhost.api.get(f"/api/vhosts/{vhost.quoted}/connections"):
        if one["user"] == user:
            vhost.api.delete(f"/api/connections/{segment(one['name'])}")


def test_the_transfer_goes_on_and_is_announced_once(vhost: Vhost, docroot: DocRoot, tmp_path: Path) -> None:
    """It needs no broker; what is refused is said, and mended by `credentials.conf` and a reload."""
    place = Place(vhost, docroot, tmp_path)
    data = os.urandom(MIB) * SEGMENTS
    mover = Mover(place, instances=2, segmentSize="1Mi", streams=2, byteRateMax="3M")
    with mover:
        place.send([place.write("d/big", data)])
        mover.wait(lambda: [t for t in mover.status().transfers if t.segments_done >= 2], 20, "it has begun")
        with password(vhost, "feeder", NEW):
            end_connections(vhost, "feeder")
            refused = "the broker refuses this user or password"
            mover.wait(
                lambda: refused in mover.status().note, 30, "the broker refuses it, and status says so"
            )
            assert mover.status().state == "connecting"
            credentials = mover.home / "config" / "credentials.conf"
            text = credentials.read_text()
            credentials.write_text(text.replace(vhost.pump.users["feeder"].password, NEW))
            mover.reload()
            mover.wait(lambda: place.announced_count() == 1, 60, "it is announced")
            mover.wait(mover.is_quiet, 20, "its message is acknowledged")
            received = mover.status().totals["bytes_received"]
    place.check()
    assert len(place.announced()) == 1
    # What was on the way when the instances changed is fetched again; what was written is not.
    assert len(data) <= received <= len(data) + 8 * MIB
    mover.check_nothing_left()

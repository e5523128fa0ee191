"""A large transfer shows how far it is, in the ledger and in `status`, while it runs."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import threading

import pytest
from flowkit import Site
from killkit import Mover, Place
from servers import wait_until
from standins import StandIn

from sarrapipe.ledger.progress import Transfer, transfers
from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

MIB = 1 << 20
SEGMENTS = 6
DATA = os.urandom(1024) * 1024 * SEGMENTS
LINES = "segmentSize 1MiB\nstreams 2\nstreamsStart 2"


LOOK = """
import sys
from sarrapipe.ledger.progress import transfers
print([tuple(one) for one in transfers(sys.argv[1], int(sys.argv[2]))])
"""


def look(flow, limit: int = 8) -> list[Transfer]:
    """What another process sees: LMDB lets one open a ledger once."""
    command = [sys.executable, "-c", LOOK, os.path.join(flow.config.state_dir, "ledger"), str(limit)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [Transfer(*fields) for fields in ast.literal_eval(out)]


class Holding(StandIn):
    """Serves the first half; what follows only when it is let go."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self.go = threading.Event()

    def answer(self, handler, headers):
        span = self.span(headers)
        if span is not None and span[0] >= len(self.body) // 2:
            while not (self.go.wait(0.05) or self.ending.is_set()):
                pass
        super().answer(handler, headers)


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


def test_segments_streams_and_bytes_are_those_of_now(site):
    with Holding(DATA) as server:
        flow = site.run(lines=LINES)
        assert look(flow) == []
        site.announce("d/big", DATA, put=False, baseUrl=server.url)
        flow.until_counted(Counter.SEGMENTS_OK, SEGMENTS // 2)
        flow.until(lambda: look(flow)[0].streams == 2, "two are held")
        (one,) = look(flow)
        assert one.target == str(site.dest / "d/big")
        assert (one.size, one.done) == (len(DATA), len(DATA) // 2)
        assert (one.segments, one.segments_done) == (SEGMENTS, SEGMENTS // 2)
        assert look(flow, 0) == []
        server.go.set()
        flow.until_settled(1)
    assert look(flow) == []
    assert site.files()["d/big"] == DATA


def test_no_ledger_no_transfers(tmp_path):
    assert transfers(str(tmp_path), 8) == []


def test_status_shows_it_while_it_runs_and_not_after(vhost, docroot, tmp_path):
    """As JSON and as a table."""
    place = Place(vhost, docroot, tmp_path)
    lines = {"segmentSize": "1MiB", "streams": 2, "streamsStart": 2}
    with Holding(DATA) as server, Mover(place, instances=2, **lines) as mover:
        place.send([place.write("d/big", DATA) | {"baseUrl": server.url}])
        done = [3]
        wait_until(lambda: [one.segments_done for one in mover.status().transfers] == done, 20, "half of it")
        (status,) = json.loads(mover.command("status", "--json").stdout)
        (one,) = status["transfers"]
        assert one["target"].endswith("/d/big")
        assert one["source"] == server.url.rstrip("/")
        assert (one["done"], one["size"], one["segments"]) == (3 * MIB, len(DATA), SEGMENTS)
        assert "3/6" in mover.command("status").stdout
        server.go.set()
        wait_until(lambda: place.announced_count() == 1, 20, "it is announced")
        wait_until(lambda: not mover.status().transfers, 20, "nothing is under way")

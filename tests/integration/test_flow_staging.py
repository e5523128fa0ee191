"""Files that get in place through slots of shared memory: the same outcome, in bounded memory."""

from __future__ import annotations

import os
import threading
from http.server import BaseHTTPRequestHandler

import pytest
from flowkit import Site
from rangeservers import Ranges
from standins import StallingServer, StandIn
from test_flow_storage import mounted
from test_flow_verification import digest

from sarrapipe.shm.ring import SLAB_BYTES, slots_in_use
from sarrapipe.shm.slots import Counter
from sarrapipe.transfer.schedule import remote_of

pytestmark = pytest.mark.broker

MIB = 1 << 20
LARGE = os.urandom(4096) * 256 * 6
STAGED = "staging slots\nstagingBytes 1Mi\nattempts 1"
FORMS = pytest.mark.parametrize(
    "lines", ["segmentSize 1Mi", "segmentSize 100Mi"], ids=["segments", "one piece"]
)


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


def ring_of(flow) -> str:
    return f"{flow.config.state_dir}/ring"


@FORMS
@pytest.mark.parametrize("method", ["sha512", "xxh3_128"])
def test_a_file_arrives_through_four_slots(site, lines, method):
    tap, flow = site.tap(), site.run(lines=f"{STAGED}\n{lines}")
    site.announce("f", LARGE, identity=digest(method, LARGE))
    flow.until_settled(1)
    assert site.files()["f"] == LARGE
    assert tap.one()["identity"] == digest(method, LARGE)
    assert flow.count(Counter.FILES_VERIFIED) == 1
    assert flow.count(Counter.BYTES_STAGED) == len(LARGE)
    assert os.stat(ring_of(flow)).st_size == 8192 + 4 * SLAB_BYTES
    assert slots_in_use(ring_of(flow)) == 0
    site.assert_clean(flow)


class FirstComesLast(StandIn):
    """Serves the range that begins the file when it is let, the others at once."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self.first = threading.Event()

    def answer(self, handler: BaseHTTPRequestHandler, headers: dict[str, str]) -> None:
        if self.span(headers or {})[0] == 0:
            while not (self.first.wait(0.05) or self.ending.is_set()):
                pass
        super().answer(handler, headers)


def test_segments_behind_the_one_that_the_digest_waits_for_hold_no_slot(site):
    """Five segments of four slots each pass through four slots, while the first has not come."""
    flow = site.run(lines=f"{STAGED}\nsegmentSize 1Mi\nstreamsStart 16")
    with FirstComesLast(LARGE) as server:
        site.announce("f", LARGE, put=False, baseUrl=server.url)
        flow.until_counted(Counter.SEGMENTS_OK, 5)
        assert slots_in_use(ring_of(flow)) == 0
        server.first.set()
        flow.until_settled(1)
    assert site.files()["f"] == LARGE
    assert flow.count(Counter.FILES_VERIFIED) == 1
    site.assert_clean(flow)


def test_what_is_learnt_of_a_far_remote_is_learnt_through_slots_too(site):
    flow = site.run(lines="staging slots\nsegmentSize 1Mi")
    with Ranges(LARGE, 0.05) as server:
        site.announce("f", LARGE, put=False, baseUrl=server.url)
        flow.until_settled(1)
        assert flow.assembled.segments.watch.remotes.of(remote_of(server.url)).stream_bytes > 0
    assert flow.count(Counter.BYTES_STAGED) == len(LARGE)


@FORMS
def test_a_local_file_arrives_too(site, lines):
    flow = site.run(lines=f"{STAGED}\n{lines}\nbaseDir {site.docroot.path}")
    site.announce("f", LARGE, baseUrl=f"file:{site.docroot.path}/")
    flow.until_settled(1)
    assert site.files()["f"] == LARGE
    assert flow.count(Counter.BYTES_STAGED) == len(LARGE)


@FORMS
def test_wrong_bytes_are_found_and_leave_nothing(site, lines):
    tap, flow = site.tap(), site.run(lines=f"{STAGED}\n{lines}")
    site.announce("f", LARGE, identity=digest("sha512", b"others"))
    flow.until_settled(1)
    assert (tap.take(), site.files()) == ([], {})
    assert flow.count(Counter.ERRORS_IDENTITY) >= 1
    assert slots_in_use(ring_of(flow)) == 0
    site.assert_clean(flow)


@pytest.mark.parametrize("lines", ["staging none", "staging slots"])
def test_small_files_are_not_staged_and_none_has_no_slots(site, lines):
    flow = site.run(lines=lines)
    site.announce("f", b"small")
    flow.until_settled(1)
    assert flow.count(Counter.BYTES_STAGED) == 0
    assert os.path.exists(ring_of(flow)) == (lines == "staging slots")
    assert all(thread.name != "stage" for thread in threading.enumerate())


def test_a_flow_that_stages_no_more_leaves_no_file(site):
    first = site.run(lines="staging slots")
    assert os.path.exists(ring_of(first))
    first.close()
    second = site.run(lines="staging auto")
    assert not os.path.exists(ring_of(second))


@FORMS
def test_a_full_disk_pauses_and_work_goes_on_when_there_is_room(site, lines):
    with mounted(site.dest, "size=9m"):
        (site.dest / "litter").write_bytes(bytes(5 * MIB))
        flow = site.run(lines=f"{STAGED}\n{lines}\ninflight .tmp")
        site.announce("f", LARGE)
        flow.until_counted(Counter.ERRORS_NO_SPACE)
        assert slots_in_use(ring_of(flow)) == 0
        (site.dest / "litter").unlink()
        for _ in range(4):
            flow.advance(100)
        flow.until(lambda: (site.dest / "f").exists(), "the file is there")
        assert (site.dest / "f").read_bytes() == LARGE
        flow.close()


def test_what_is_under_way_at_a_stop_leaves_no_slot(site):
    """The server sends half of it and then nothing: the last bytes are in a slot that is not full."""
    flow = site.run(lines=STAGED)
    with StallingServer(LARGE) as server:
        site.announce("f", LARGE, put=False, baseUrl=server.url)
        flow.until(lambda: slots_in_use(ring_of(flow)) > 0, "bytes are in a slot")
        flow.close(limit_s=0.5)
    assert slots_in_use(ring_of(flow)) == 0

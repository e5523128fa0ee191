"""From a real server into place: odd names, a large file in segments, a resume that fetches no more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash
from standins import RecordingServer, ShortReadServer
from webserver import Nginx

from sarrapipe.segment.assembly import InflightFile, create, publish, reopen
from sarrapipe.segment.destination import Destination
from sarrapipe.segment.plan import SegmentPlan
from sarrapipe.segment.sink import DirectSink
from sarrapipe.transfer.base import RangeDone, RangeRead
from sarrapipe.transfer.engine import TransferEngine, TransferSettings

NAMES = ["a", "b c", "d/e/f#g", "50%/x?y", "ü/日本", "bad-\udcff", "...", "q/'\"&;<>|"]


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with Nginx(tmp_path_factory.mktemp("web")) as server:
        yield server


@pytest.fixture
def destination(tmp_path: Path) -> Iterator[Destination]:
    opened = Destination(str(tmp_path / "out")).open()
    yield opened
    opened.close()


@pytest.fixture
def engine() -> Iterator[TransferEngine]:
    opened = TransferEngine(TransferSettings(streams=8)).open()
    yield opened
    opened.close()


def tree(root: str) -> dict[str, bytes]:
    found = {}
    for top, _, names in os.walk(root):
        for name in names:
            path = os.path.join(top, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, root)] = file.read()
    return found


def run(engine: TransferEngine, reads: list[RangeRead]) -> list[RangeDone]:
    assert engine.submit(reads) == len(reads)
    done: list[RangeDone] = []
    while len(done) < len(reads):
        done += engine.poll(10)
    return done


def test_a_tree_comes_over_whole(nginx: Nginx, engine: TransferEngine, destination: Destination) -> None:
    reads = []
    for number, name in enumerate(NAMES * 10):
        path = f"{number}/{name}"
        body = os.urandom(number * 137)
        url = nginx.put(f"tree/{path}", body)
        file = create(destination, path, f"n{number}", 0o644)
        reads.append(
            RangeRead(
                url=url, sink=file.sink(0, len(body)), token=file, length=len(body), whole_size=len(body)
            )
        )
    for done in run(engine, reads):
        assert done.error is None
        file = done.token
        assert isinstance(file, InflightFile)
        file.finish(mtime_ns=10**18)
        publish(file)
    assert tree(destination.root) == tree(f"{nginx.root}/tree")
    assert all(os.stat(f"{destination.root}/{n}/{NAMES[n % 8]}").st_mtime_ns == 10**18 for n in range(80))


def test_a_large_file_in_segments_resumes_where_it_was(
    engine: TransferEngine, destination: Destination
) -> None:
    body = os.urandom(1_000_000)
    plan = SegmentPlan(len(body), 64_000)
    file = create(destination, "large", "n1")
    file.preallocate(len(body))
    inode = file.inode

    def reads(into: InflightFile, url: str, numbers: set[int], validator: str | None) -> list[RangeRead]:
        return [
            RangeRead(url=url, sink=into.sink(s.offset, s.length, xxhash.xxh3_128()), token=s.number,
                      offset=s.offset, length=s.length, whole_size=len(body), validator=validator)
            for s in plan if s.number in numbers
        ]  # fmt: skip

    missing = set(range(len(plan)))
    with RecordingServer(body) as good:
        first = run(engine, reads(file, good.url, {0, 3, 7}, None))
        validator = first[0].validator
        assert validator is not None
        missing -= {int(str(done.token)) for done in first if done.error is None}
    with ShortReadServer(body) as bad:
        broken = run(engine, reads(file, bad.url, {1, 2}, validator))
        assert all(done.error is not None and done.received > 0 for done in broken)
    file.close()

    again = reopen(destination, "large", "n1", inode)
    assert again is not None
    with RecordingServer(body) as good:
        for done in run(engine, reads(again, good.url, missing, validator)):
            assert done.error is None
            assert isinstance(done.read.sink, DirectSink)
            segment = plan[int(str(done.token))]
            assert isinstance(done.read.sink.hasher, xxhash.xxh3_128)
            span = body[segment.offset : segment.end]
            assert done.read.sink.hasher.digest() == xxhash.xxh3_128_digest(span)
        asked = {request.headers["range"] for request in good.requests}
    assert len(asked) == len(plan) - 3
    again.finish(size=len(body))
    publish(again)
    assert tree(destination.root) == {"large": body}

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sarrapipe.segment.sink import DiscardSink
from sarrapipe.transfer.base import RangeRead
from sarrapipe.transfer.remotecall import Operation, RemoteCall
from sarrapipe.transfer.schedule import SMALL_BYTES, Schedule, remote_of, weight_bytes

LARGE = SMALL_BYTES + 1


def read(token: object, length: int | None = 1000, host: str = "h", **fields: object) -> RangeRead:
    return RangeRead(
        url=f"http://{host}/{token}",
        sink=DiscardSink(),
        token=token,
        length=length,
        **fields,  # type: ignore[arg-type]
    )


def pops(schedule: Schedule) -> list[object]:
    taken = []
    while (one := schedule.pop()) is not None:
        taken.append(one.token)
    return taken


def test_a_remote_is_scheme_and_host() -> None:
    assert remote_of("http://h:81/a/b") == "http://h:81"
    assert remote_of("http://h") == "http://h"
    assert remote_of("file:///a/b") == "file://"
    assert remote_of("/a/b") == remote_of("/c")


def test_weights() -> None:
    assert weight_bytes(read(1, 5)) == 5
    assert weight_bytes(read(1, None)) == SMALL_BYTES
    assert weight_bytes(read(1, None, whole_size=100, offset=30)) == 70
    assert weight_bytes(read(1, None, whole_size=100, offset=300)) == 0


def test_streams_are_the_limit() -> None:
    schedule = Schedule(streams=3, per_remote=10)
    reads = [read(n) for n in range(5)]
    for one in reads:
        schedule.push(one)
    assert pops(schedule) == [0, 1, 2]
    assert (schedule.running, schedule.waiting, schedule.bytes) == (3, 2, 5000)
    schedule.finished(reads[1])
    assert pops(schedule) == [3]


def test_what_others_wait_for_needs_no_stream_and_does_not_wait() -> None:
    schedule = Schedule(streams=1, per_remote=1)
    for n in range(3):
        schedule.push(read(n))
    call = RemoteCall(url="http://h/f", operation=Operation.STAT, token="look", rides_along=True)
    first = read("first", rides_along=True)
    schedule.push(first)
    schedule.push(call)
    assert pops(schedule) == ["first", "look", 0]
    schedule.finished(first)
    schedule.finished(call)
    assert pops(schedule) == []
    assert (schedule.running, schedule.waiting, schedule.bytes) == (1, 2, 3000)


def test_one_remote_leaves_streams_to_the_others() -> None:
    schedule = Schedule(streams=10, per_remote=2)
    for n in range(5):
        schedule.push(read(n, host="a"))
    schedule.push(read("b", host="b"))
    assert sorted(map(str, pops(schedule))) == ["0", "1", "b"]


def test_remotes_take_turns() -> None:
    schedule = Schedule(streams=4, per_remote=4)
    for host in "ab":
        for n in range(4):
            schedule.push(read(f"{host}{n}", host=host))
    assert pops(schedule) == ["a0", "b0", "a1", "b1"]


def test_small_and_large_share_while_both_wait() -> None:
    schedule = Schedule(streams=8, per_remote=8)
    for n in range(100):
        schedule.push(read(("small", n)))
    for n in range(100):
        schedule.push(read(("large", n), LARGE))
    assert Counter(kind for kind, _ in pops(schedule)) == {"small": 4, "large": 4}  # type: ignore[misc]


def test_one_kind_alone_uses_every_stream() -> None:
    schedule = Schedule(streams=8, per_remote=8)
    for n in range(100):
        schedule.push(read(n, LARGE))
    assert len(pops(schedule)) == 8


def test_discards_what_waits() -> None:
    schedule = Schedule(streams=1, per_remote=1)
    for n in range(3):
        schedule.push(read(n))
    assert pops(schedule) == [0]
    assert schedule.discard(1)
    assert not schedule.discard(1)
    assert not schedule.discard(0)
    schedule.finished(read(0))
    assert pops(schedule) == [2]
    assert schedule.bytes == 1000


def test_nothing_is_kept_of_remotes_that_are_done() -> None:
    schedule = Schedule(streams=4, per_remote=4)
    for n in range(100):
        one = read(n, host=f"h{n}")
        schedule.push(one)
        assert schedule.pop() is one
        schedule.finished(one)
    assert (schedule._remotes, list(schedule._turn)) == ({}, [])
    schedule.push(read(1))
    schedule.discard(1)
    assert schedule._remotes == {}


@given(
    st.integers(1, 5),
    st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0, 10, LARGE])), max_size=40),
    st.randoms(use_true_random=False),
)
def test_every_read_runs_once_within_the_limits(streams, per_remote, reads, random) -> None:  # type: ignore[no-untyped-def]
    schedule = Schedule(streams, per_remote)
    waiting = [read(n, length, host) for n, (host, length) in enumerate(reads)]
    for one in waiting:
        schedule.push(one)
    ran: list[object] = []
    running: list[RangeRead] = []
    while True:
        while (one := schedule.pop()) is not None:
            running.append(one)
        assert len(running) == schedule.running <= streams
        assert all(n <= per_remote for n in Counter(remote_of(r.url) for r in running).values())
        assert schedule.bytes == sum(weight_bytes(r) for r in waiting if r.token not in ran)
        if not running:
            break
        done = running.pop(random.randrange(len(running)))
        schedule.finished(done)
        ran.append(done.token)
    assert sorted(ran) == list(range(len(reads)))  # type: ignore[type-var]
    assert schedule.waiting == schedule.bytes == 0


def filled(streams: int = 8, per_remote: int = 8) -> Schedule:
    """A schedule after a small request came and went, full of large ones, more of them waiting."""
    schedule = Schedule(streams=streams, per_remote=per_remote)
    small = read("first")
    schedule.push(small)
    assert pops(schedule) == ["first"]
    schedule.finished(small)
    for n in range(300):
        schedule.push(read(n, LARGE))
    return schedule


def test_large_ones_leave_some_streams_to_small_ones_that_came_lately() -> None:
    schedule = filled()
    assert len(pops(schedule)) == 6
    assert schedule.kept_free == 2
    for n in "abc":
        schedule.push(read(n))
    assert pops(schedule) == ["a", "b"]
    assert schedule.kept_free == 0


def test_they_leave_them_across_remotes() -> None:
    schedule = filled(streams=8, per_remote=4)
    assert len(pops(schedule)) == 3
    for n in range(20):
        schedule.push(read(f"other{n}", LARGE, host="other"))
    assert len(pops(schedule)) == 3
    schedule.push(read("small", host="third"))
    assert pops(schedule) == ["small"]


def test_without_small_ones_for_a_while_they_have_all() -> None:
    schedule = filled()
    running = pops(schedule)
    for _ in range(256 - 6):
        assert len(running) == 6
        schedule.finished(read(running.pop(0), LARGE))
        running += pops(schedule)
    assert schedule.kept_free == 0
    assert len(running) == 8
    plain = Schedule(streams=8, per_remote=8)
    for n in range(20):
        plain.push(read(n, LARGE))
    assert len(pops(plain)) == 8, "where none ever came"


def test_one_stream_is_for_everybody() -> None:
    schedule = filled(streams=1)
    assert len(pops(schedule)) == 1

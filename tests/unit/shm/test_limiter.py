"""The flow's rate limit: the arithmetic, and its accuracy over real processes."""

import multiprocessing
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe.shm.arena import Arena
from sarrapipe.shm.limiter import Limit, Limiter, reserve

SECOND = 1_000_000_000


def test_a_full_bucket_gives_at_once_and_then_at_the_rate():
    empty_at, delay = reserve(0, 100, 100 * SECOND, rate=100, burst_s=1)
    assert (empty_at, delay) == (100 * SECOND, 0)
    empty_at, delay = reserve(empty_at, 50, 100 * SECOND, rate=100, burst_s=1)
    assert delay == 0.5
    _empty_at, delay = reserve(empty_at, 50, 100 * SECOND, rate=100, burst_s=1)
    assert delay == 1.0


def test_an_amount_larger_than_the_bucket_waits_its_time():
    _empty_at, delay = reserve(0, 1000, 100 * SECOND, rate=100, burst_s=1)
    assert delay == pytest.approx(9.0)


def test_idle_time_fills_the_bucket_to_its_size_and_no_further():
    empty_at, _delay = reserve(0, 100, 100 * SECOND, rate=100, burst_s=1)
    empty_at, delay = reserve(empty_at, 100, 500 * SECOND, rate=100, burst_s=1)
    assert delay == 0
    assert reserve(empty_at, 1, 500 * SECOND, rate=100, burst_s=1)[1] > 0


@given(
    st.lists(st.tuples(st.integers(1, 10**7), st.floats(0, 3)), min_size=1, max_size=40),
    st.floats(1, 1e9),
    st.floats(0.01, 5),
)
@settings(max_examples=200)
def test_never_more_than_burst_plus_rate_times_time(takes, rate, burst_s):
    start = now = 1000 * SECOND
    empty_at, used = 0, 0.0
    for amount, pause_s in takes:
        now += int(pause_s * SECOND)
        empty_at, delay_s = reserve(empty_at, amount, now, rate=rate, burst_s=burst_s)
        used += amount
        now += int(delay_s * SECOND) + 1  # a good customer waits
        allowed = rate * (burst_s + (now - start) / SECOND)
        assert used <= allowed * (1 + 1e-6) + 1


def test_no_limit_is_no_bookkeeping(tmp_path):
    with Arena.create(str(tmp_path / "arena"), "a/b", created_wall_ns=0) as arena:
        limiter = Limiter(arena, Limit.BYTES, rate=0)
        assert limiter.unlimited
        assert limiter.take(10**12, 5) == 0


def test_bytes_and_messages_have_buckets_of_their_own_and_survive_their_user(tmp_path):
    path = str(tmp_path / "arena")
    with Arena.create(path, "a/b", created_wall_ns=0) as arena:
        now = 100 * SECOND
        assert Limiter(arena, Limit.BYTES, rate=10).take(15, now) == pytest.approx(0.5)
        assert Limiter(arena, Limit.MESSAGES, rate=10).take(5, now) == 0
        with Arena.open(path) as other:
            assert Limiter(other, Limit.BYTES, rate=10).take(5, now) == pytest.approx(1.0)


def test_right_after_boot_the_clock_is_smaller_than_the_bucket(tmp_path):
    with Arena.create(str(tmp_path / "arena"), "a/b", created_wall_ns=0) as arena:
        assert Limiter(arena, Limit.BYTES, rate=100, burst_s=10).take(1, SECOND) == 0


def _use(path, rate, seconds, chunk, results):
    with Arena.open(path) as arena:
        limiter = Limiter(arena, Limit.BYTES, rate, burst_s=0.1)
        end = time.monotonic() + seconds
        used = 0
        while True:
            delay_s = limiter.take(chunk, time.monotonic_ns())
            if time.monotonic() + delay_s > end:
                break
            time.sleep(delay_s)
            used += chunk
    results.put(used)


@pytest.mark.parametrize("processes", [1, 4])
def test_several_processes_share_one_rate(tmp_path, processes):
    path = str(tmp_path / "arena")
    Arena.create(path, "a/b", created_wall_ns=0).close()
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    rate, seconds = 2_000_000, 1.0
    workers = [
        context.Process(target=_use, args=(path, rate, seconds, 10_000, results)) for _ in range(processes)
    ]
    start = time.monotonic()
    for worker in workers:
        worker.start()
    used = sum(results.get(timeout=20) for _ in workers)
    for worker in workers:
        worker.join()
    took = time.monotonic() - start
    # Never above: what is used by the end fits the bucket and the time; and not far below where the machine
    # allows.
    assert used <= rate * (took + 0.1)
    assert used >= 0.7 * rate * seconds

"""The arena and its slots: what one process writes, another reads."""

import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe import errors
from sarrapipe.errors import SupervisorError
from sarrapipe.shm import host
from sarrapipe.shm.arena import SLOT_COUNT, Arena, read_arena
from sarrapipe.shm.slots import MAXIMA, RATED, SLOT_SIZE, Counter, Phase, Slot, counter_for, is_gauge

SECOND = 1_000_000_000


@pytest.fixture
def arena(tmp_path):
    with Arena.create(str(tmp_path / "arena"), "sarra/ddsr", created_wall_ns=7) as made:
        yield made


def occupy(arena, number=1, incarnation=1, now_ns=0, **changes):
    slot = arena.slot(arena.free_slot())
    fields = {"number": number, "incarnation": incarnation, "generation": 1, "failures": 0, "cpu": None}
    slot.occupy(**(fields | changes), now_ns=now_ns, wall_ns=5)
    return slot


def test_another_mapping_sees_every_field(arena, tmp_path):
    slot = occupy(arena, number=3, incarnation=9, generation=2, failures=4, cpu=0)
    slot.set_process(os.getpid(), host.start_ticks(os.getpid()))
    slot.set_state(2)
    slot.add(Counter.FILES_OK, 5)
    slot.set(Counter.GAUGE_STREAMS, 6)
    slot.raise_to(Counter.MAX_LAG, 7)
    slot.raise_to(Counter.MAX_LAG, 3)
    slot.set_phase(Phase.PAUSED, "no space on /data")
    slot.heartbeat(11)
    arena.wanted = 16
    arena.hung_s = 1.5
    arena.note = "é" * 300
    arena.set_parent(os.getpid(), foreground=True)
    with Arena.open(str(tmp_path / "arena")) as other, read_arena(str(tmp_path / "arena")) as copy:
        for seen in (other, copy):
            (one,) = seen.slots()
            assert (one.number, one.incarnation, one.generation, one.failures, one.cpu) == (3, 9, 2, 4, 0)
            assert (one.pid, one.state, one.alive, one.heartbeat_ns) == (os.getpid(), 2, True, 11)
            assert (one.phase, one.note) == (Phase.PAUSED, "no space on /data")
            counters = (Counter.FILES_OK, Counter.GAUGE_STREAMS, Counter.MAX_LAG)
            assert [one.get(counter) for counter in counters] == [5, 6, 7]
            assert (seen.flow, seen.wanted, seen.hung_s) == ("sarra/ddsr", 16, 1.5)
            assert seen.started_wall_ns == 7
            assert seen.note == "é" * 127
            assert seen.parent_alive
            assert seen.foreground


def test_readers_copy_is_not_changed_by_later_writes_and_cannot_be_written(arena, tmp_path):
    slot = occupy(arena)
    copy = read_arena(str(tmp_path / "arena"))
    slot.add(Counter.FILES_OK)
    assert copy.slots()[0].get(Counter.FILES_OK) == 0
    with pytest.raises(TypeError):
        copy.slots()[0].add(Counter.FILES_OK)


def test_an_incarnation_is_alive_from_before_its_process_until_it_was_reaped(arena):
    slot = occupy(arena, incarnation=4)
    assert arena.alive() == {4}
    slot.set_process(12345, 1)
    deaths = arena.deaths
    arena.retire(slot)
    assert arena.alive() == frozenset()
    assert arena.deaths == deaths + 1


def test_totals_keep_what_ended_instances_counted(arena):
    for incarnation, (files, lag, streams) in enumerate([(3, 10, 2), (4, 5, 1)], start=1):
        slot = occupy(arena, incarnation=incarnation)
        slot.add(Counter.FILES_OK, files)
        slot.raise_to(Counter.MAX_LAG, lag)
        slot.set(Counter.GAUGE_STREAMS, streams)
        if incarnation == 1:
            arena.retire(slot)
    totals = arena.totals()
    assert totals[Counter.FILES_OK] == 7
    assert totals[Counter.MAX_LAG] == 10
    assert totals[Counter.GAUGE_STREAMS] == 1  # a gauge ends with its process
    assert set(totals) == set(Counter)


def test_totals_of_nobody(arena):
    assert set(arena.totals().values()) == {0}


def test_slots_are_used_again_and_those_spoken_for_are_not(arena):
    first, second = occupy(arena, incarnation=1), occupy(arena, incarnation=2)
    assert (first.index, second.index) == (0, 1)
    arena.retire(first)
    assert arena.free_slot() == 0
    assert arena.free_slot(taken={0}) == 2


def test_a_slot_starts_clean_for_its_next_instance(arena):
    slot = occupy(arena, incarnation=1)
    slot.add(Counter.FILES_OK, 5)
    slot.set_phase(Phase.STOPPING, "x")
    arena.retire(slot)
    occupy(arena, incarnation=2)
    assert (slot.get(Counter.FILES_OK), slot.phase, slot.note) == (0, Phase.STARTING, "")


def test_no_more_slots_than_there_are(arena):
    for incarnation in range(1, SLOT_COUNT + 1):
        occupy(arena, incarnation=incarnation)
    with pytest.raises(SupervisorError, match="512"):
        arena.free_slot()


def test_rates_are_means_over_the_last_interval_and_end_with_silence(arena):
    slot = occupy(arena, now_ns=0)
    slot.add(Counter.BYTES_RECEIVED, 1000)
    slot.heartbeat(4 * SECOND)
    assert slot.rate(Counter.BYTES_RECEIVED, 4 * SECOND) == 0  # not long enough yet
    slot.heartbeat(5 * SECOND)
    assert slot.rate(Counter.BYTES_RECEIVED, 6 * SECOND) == pytest.approx(200)
    slot.add(Counter.BYTES_RECEIVED, 100)
    slot.heartbeat(15 * SECOND)
    assert slot.rate(Counter.BYTES_RECEIVED, 15 * SECOND) == pytest.approx(10)
    assert slot.rate(Counter.BYTES_RECEIVED, 200 * SECOND) == 0


def test_the_wake_up_word_changes_with_every_announcement(arena, tmp_path):
    with Arena.open(str(tmp_path / "arena")) as other:
        seen = {arena.work_word, arena.announce_work(), other.announce_work(), arena.work_word}
    assert len(seen) == 3


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 8192])
def test_what_is_no_arena_is_refused(tmp_path, content):
    path = tmp_path / "arena"
    path.write_bytes(content)
    assert read_arena(str(path)) is None
    with pytest.raises(SupervisorError, match="arena"):
        Arena.open(str(path))


def test_an_arena_of_another_layout_is_refused(arena, tmp_path):
    path = tmp_path / "arena"
    data = bytearray(path.read_bytes())
    data[24] ^= 1  # the digest of the counters' names
    path.write_bytes(data)
    with pytest.raises(SupervisorError, match="another version"):
        Arena.open(str(path))


def test_no_directory_is_an_error_that_names_the_path(tmp_path):
    path = str(tmp_path / "missing" / "arena")
    assert read_arena(path) is None
    with pytest.raises(SupervisorError, match="missing"):
        Arena.open(path)
    with pytest.raises(SupervisorError, match="missing"):
        Arena.create(path, "a/b", created_wall_ns=0)


def test_a_new_arena_leaves_readers_of_the_old_one_alone(arena, tmp_path):
    occupy(arena, incarnation=1)
    with Arena.create(str(tmp_path / "arena"), "sarra/other", created_wall_ns=8) as newer:
        assert newer.slots() == []
        assert arena.flow == "sarra/ddsr"
    assert os.listdir(tmp_path) == ["arena"]  # no temporary name is left


@given(st.text(max_size=600))
@settings(max_examples=100)
def test_notes_of_any_text_come_back_cut_at_most(note):
    slot = Slot(0, memoryview(bytearray(SLOT_SIZE)))
    slot.set_note(note)
    kept = slot.note.rstrip("�")
    assert note.encode("utf-8", "replace").decode("utf-8").startswith(kept)
    assert len(note.encode("utf-8", "replace")) > 510 or slot.note == note.encode("utf-8", "replace").decode()


def test_counters_have_distinct_places_within_the_slot():
    slot = Slot(0, memoryview(bytearray(SLOT_SIZE)))
    slot.occupy(number=1, incarnation=2, generation=3, failures=4, cpu=5, now_ns=6, wall_ns=7)
    slot.set_note("n" * 510)
    for counter in Counter:
        slot.set(counter, 1000 + counter)
    slot.heartbeat(10 * SECOND)
    assert [slot.get(counter) for counter in Counter] == [1000 + counter for counter in Counter]
    assert (slot.number, slot.incarnation, slot.cpu, slot.note) == (1, 2, 5, "n" * 510)
    assert set(RATED) <= set(Counter)
    assert not any(is_gauge(counter) for counter in MAXIMA)


@pytest.mark.parametrize(
    ("error", "counter"),
    [
        (errors.MessageError("x"), Counter.MESSAGES_MALFORMED),
        (errors.SourceGone("x"), Counter.ERRORS_GONE),
        (errors.NoSpace("x"), Counter.ERRORS_NO_SPACE),
        (errors.TransferError("x"), Counter.ERRORS_TRANSFER),
        (errors.TopologyError("x"), Counter.ERRORS_TOPOLOGY),
        (type("Own", (errors.AccessDenied,), {})("x"), Counter.ERRORS_ACCESS),
        (ValueError("x"), Counter.ERRORS_OTHER),
    ],
)
def test_errors_are_counted_by_kind(error, counter):
    assert counter_for(error) is counter


def test_every_error_class_that_can_befall_an_item_has_a_counter():
    for name in errors.__all__:
        kind = getattr(errors, name)
        general = (errors.Disposition, errors.SarrapipeError, errors.SupervisorError)
        if kind not in general:
            assert counter_for(kind("x")) is not Counter.ERRORS_OTHER, name


def test_a_heartbeat_and_a_counter_cost_next_to_nothing(arena):
    slot = occupy(arena)
    start = time.perf_counter()
    for _ in range(10_000):
        slot.add(Counter.FILES_OK)
        slot.heartbeat(1)
    assert time.perf_counter() - start < 0.5  # 50 us each: a hundred times what it takes

"""The ring: leases, their end, memory asked for and given back, and files that are no ring."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import servers

from sarrapipe.errors import NoSpace, StorageError
from sarrapipe.shm import slotstates
from sarrapipe.shm.ring import MIN_SLOTS, SLAB_BYTES, Ring, slots_in_use

SIZE = 8 * SLAB_BYTES
ME = 7


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ring")


@pytest.fixture
def ring(path: str) -> Iterator[Ring]:
    with Ring.open(path, SIZE, ME) as opened:
        yield opened


def all_of(ring: Ring) -> list:
    slabs = []
    while (slab := ring.take()) is not None:
        slabs.append(slab)
    return slabs


def held_bytes(path: str) -> int:
    return os.stat(path).st_blocks * 512


def test_every_slot_once_and_then_none(ring: Ring) -> None:
    slabs = all_of(ring)
    assert len(slabs) == ring.slots == 8
    assert ring.in_use == 8
    for number, slab in enumerate(slabs):
        slab.view[:] = bytes([number]) * SLAB_BYTES
    assert [slab.view[0] for slab in slabs] == [slab.view[-1] for slab in slabs] == list(range(8))
    slabs[3].give_back()
    again = ring.take()
    assert again is not None
    assert again.view[0] == 3
    assert ring.take() is None


def test_what_is_in_use_is_seen_without_mapping(path: str, ring: Ring) -> None:
    slabs = [ring.take(), ring.take()]
    assert slots_in_use(path) == 2
    for slab in slabs:
        slab.give_back()
    assert slots_in_use(path) == 0
    assert slots_in_use(path + "-missing") == 0


def test_the_way_of_a_lease(ring: Ring) -> None:
    slab = ring.take()
    assert slab is not None
    slab.full()
    with pytest.raises(StorageError, match="lease is over"):
        slab.full()
    slab.drain()
    slab.refill()
    slab.full()
    slab.drain()
    slab.give_back()
    assert ring.in_use == 0
    for late in (slab.full, slab.drain, slab.refill, slab.give_back):
        with pytest.raises(StorageError, match="lease is over"):
            late()


def test_an_old_lease_does_not_end_a_new_one(ring: Ring) -> None:
    old = ring.take()
    assert old is not None
    old.give_back()
    new = ring.take()
    assert new is not None
    with pytest.raises(StorageError):
        old.give_back()
    new.full()


def test_slots_begin_on_pages_so_that_a_disk_can_be_written_directly(ring: Ring, tmp_path: Path) -> None:
    slab = ring.take()
    assert slab is not None
    slab.view[:] = b"x" * SLAB_BYTES
    try:
        fd = os.open(tmp_path / "direct", os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
    except OSError as error:
        pytest.skip(f"no O_DIRECT here: {error.strerror}")
    assert os.write(fd, slab.view) == SLAB_BYTES
    os.close(fd)


def test_processes_share_the_slots(path: str, ring: Ring) -> None:
    mine = all_of(ring)
    with Ring.open(path, SIZE, 8) as other:
        assert other.take() is None
        assert other.owners() == {ME}
        mine[0].give_back()
        theirs = other.take()
        assert theirs is not None
        assert ring.owners() == {ME, 8}
        assert ring.take() is None
        theirs.give_back()


def test_what_a_dead_process_had_is_reclaimed_with_its_memory(path: str, ring: Ring) -> None:
    dead = Ring.open(path, SIZE, 8)
    lost = [dead.take(), dead.take(), dead.take()]
    for slab, steps in zip(lost, (("view",), ("full",), ("full", "drain")), strict=True):
        assert slab is not None
        slab.view[:] = b"secret.." * (SLAB_BYTES // 8)
        for step in steps[0 if steps[0] == "full" else 1 :]:
            getattr(slab, step)()
        del slab
    lost.clear()
    dead.close()
    before = held_bytes(path)
    assert ring.reclaim({slotstates.owner_of(9)}) == 0
    assert ring.reclaim(ring.owners() - {ME}) == 3
    assert ring.in_use == 0
    assert held_bytes(path) <= before - 3 * SLAB_BYTES
    slabs = all_of(ring)
    assert len(slabs) == 8
    assert not any(slab.view[0] for slab in slabs)


def test_memory_is_held_for_what_is_in_use_at_a_time(path: str, ring: Ring) -> None:
    idle = held_bytes(path)
    assert idle <= 8192
    for _ in range(50):
        slab = ring.take()
        assert slab is not None
        slab.view[:] = b"x" * SLAB_BYTES
        slab.give_back()
    assert held_bytes(path) <= idle + SLAB_BYTES + 4096
    for slab in all_of(ring)[1:]:
        slab.give_back()
    assert held_bytes(path) >= SIZE
    assert ring.trim() == 7
    assert held_bytes(path) <= idle + SLAB_BYTES + 4096
    assert ring.trim() == 0


def test_those_who_wait_are_told_by_others_alone(path: str) -> None:
    told = []
    with Ring.open(path, SIZE, 1, lambda: told.append(1)) as one, Ring.open(path, SIZE, 2) as two:
        mine = all_of(one)
        one.want()
        mine.pop().give_back()
        assert told == []  # it knows itself
        mine.pop().give_back()
        two.want()
        mine.pop().give_back()
        assert told == [1]
        mine.pop().give_back()
        assert told == [1]
        one.want()
        two.want()
        one.want()
        mine.pop().give_back()
        assert told == [1, 1]
        two.want()
        assert one.trim() > 0
        assert told == [1, 1, 1]


def test_another_size_is_another_file_and_both_work(path: str, ring: Ring) -> None:
    mine = ring.take()
    assert mine is not None
    with Ring.open(path, 2 * SIZE, 8) as larger:
        assert larger.slots == 16
        assert larger.in_use == 0
        theirs = larger.take()
        assert theirs is not None
        theirs.view[:2] = b"ab"
        mine.view[:2] = b"cd"
        assert bytes(theirs.view[:2]) == b"ab"
        assert os.listdir(os.path.dirname(path)) == ["ring"]


def test_a_small_size_is_rounded_up(path: str) -> None:
    with Ring.open(path, 1, 1) as ring:
        assert ring.slots == MIN_SLOTS
    with Ring.open(path, MIN_SLOTS * SLAB_BYTES + 1, 1) as ring:
        assert ring.slots == MIN_SLOTS + 1


@pytest.mark.parametrize("content", [b"", b"SARRRING", b"x" * 10_000, b"\0" * (SIZE + 8192)])
def test_a_file_that_is_no_ring_is_replaced(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
    with Ring.open(path, SIZE, 1) as ring:
        assert len(all_of(ring)) == 8


def test_a_link_in_its_place_is_not_followed(path: str, tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"mine")
    os.symlink(tmp_path / "victim", path)
    with pytest.raises(StorageError, match="ring"):
        Ring.open(path, SIZE, 1)
    assert (tmp_path / "victim").read_bytes() == b"mine"


def test_many_open_at_once_and_have_one_ring(path: str) -> None:
    opened: list[Ring] = []
    threads = [
        threading.Thread(target=lambda n=n: opened.append(Ring.open(path, SIZE, n + 1))) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = [slab for ring in opened for slab in all_of(ring)]
    assert len(taken) == 8
    del taken
    for ring in opened:
        ring.close()


def test_a_full_file_system_is_an_error_and_no_signal(tmp_path: Path) -> None:
    """Two slots fit: without asking for memory first, the third would end the process with SIGBUS."""
    options = ("-t", "tmpfs", "-o", f"size={2 * SLAB_BYTES + 16384}", "none", str(tmp_path))
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        servers.missing("the right to mount a tmpfs")
    try:
        with Ring.open(str(tmp_path / "ring"), SIZE, 1) as ring:
            slabs = [ring.take(), ring.take()]
            for _ in range(2):
                with pytest.raises(NoSpace, match="no memory for a slot"):
                    ring.take()
            assert ring.in_use == 2
            slabs[0].give_back()
            assert ring.take() is not None
            slabs.clear()
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)

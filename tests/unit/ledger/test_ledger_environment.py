"""Files of a store that are damaged, foreign, old, of another boot; growth; a full disk; other processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import zlib

import pytest

from sarrapipe.errors import LedgerError, NoSpace
from sarrapipe.ledger import Ledger
from sarrapipe.ledger.environment import FORMAT, Environment, open_environment
from sarrapipe.ledger.kept import KeptMessage
from sarrapipe.ledger.records import FileRow, MessageRow, PathRecord, SeenEntry, SegmentRow
from sarrapipe.ledger.tables import LmdbTables


@pytest.fixture
def directory(tmp_path):
    return str(tmp_path / "ledger")


def opened(directory, **more):
    more = {"incarnation": 1, "instance": 1, "boot": "boot-1", **more}
    return Ledger.open(directory, **more)


def fill(ledger):
    with ledger.transaction() as decide:
        decide.tables.put_seen(b"f" * 16, SeenEntry(2, b"g", "/t", 1, 1, 1, ()))


def is_filled(ledger):
    with ledger.view() as view:
        return view.tables.get_seen(b"f" * 16) is not None


@pytest.mark.parametrize("content", [b"", b"no database" * 2000, b"\0" * 20_000, b"x"])
def test_damaged_data_is_named_with_what_to_do(directory, content):
    opened(directory).close()
    with open(os.path.join(directory, "data.mdb"), "wb") as file:
        file.write(content)
    if not content:  # an empty file is what LMDB itself begins with
        opened(directory).close()
        return
    with pytest.raises(LedgerError, match=rf"{directory}.*move this directory away"):
        opened(directory)


def test_data_that_is_cut_off_is_refused(directory):
    with opened(directory) as ledger, ledger.environment.write() as txn:
        for number in range(4000):
            txn.put(b"%d" % number, b"x" * 400, db=ledger.environment.databases["meta"])
    os.truncate(os.path.join(directory, "data.mdb"), 40_000)
    with pytest.raises(LedgerError, match="cut off"):
        opened(directory)


def test_pages_that_were_given_back_unwritten_are_not_missed(directory):
    """LMDB leaves the file shorter than its index says after some transactions: that is no damage."""
    chance = random.Random(4)
    ledger = opened(directory)
    databases = ledger.environment.databases
    under_way = []
    for _ in range(40):
        with ledger.environment.write() as txn:
            chance.shuffle(under_way)
            settled = chance.choice((0, len(under_way), len(under_way) // 2, 1))
            for key in under_way[:settled]:
                txn.delete(key, db=databases["claims"])
                txn.put(key, b"s" * 70, db=databases["seen"])
                txn.delete(key, db=databases["files"])
                txn.put(b"/data/a/b/c/d/e/f/g/" + key, b"p" * 90, db=databases["paths"])
            del under_way[:settled]
            for _ in range(chance.choice((0, 1, 5, 25, 25))):
                under_way.append(key := chance.randbytes(16))
                txn.put(key, b"c" * 80, db=databases["claims"])
                txn.put(key, b"f" * 330, db=databases["files"])
        assert ledger.environment.usage()[0] <= os.path.getsize(os.path.join(directory, "data.mdb"))
    ledger.close()
    opened(directory).close()


def test_the_file_is_as_long_as_its_map_and_takes_no_room(directory):
    with opened(directory, map_size=1 << 20) as ledger:
        path = os.path.join(directory, "data.mdb")
        assert os.path.getsize(path) == 1 << 20
        assert os.stat(path).st_blocks * 512 < 100_000
        while ledger.environment.usage()[1] == 1 << 20:
            with ledger.environment.write() as txn:
                for _ in range(20):
                    txn.put(os.urandom(16), b"x" * 1000, db=ledger.environment.databases["meta"])
        assert os.path.getsize(path) == 2 << 20


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format": 99}, "format 99, this sarrapipe writes format"),
        ({"kind": "kept"}, "is a kept store, not a ledger"),
        (None, "cannot be read"),
    ],
)
def test_a_foreign_store_is_refused(directory, change, match):
    opened(directory).close()
    path = os.path.join(directory, "store.json")
    with open(path) as file:
        record = json.load(file)
    with open(path, "w") as file:
        file.write(json.dumps({**record, **change}) if change else "{")
    with pytest.raises(LedgerError, match=match):
        opened(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_store_is_refused(directory):
    opened(directory).close()
    os.chown(directory, 12345, 12345)
    with pytest.raises(LedgerError, match=r"belongs to user 12345.*run the flow as the user"):
        opened(directory)


def test_data_without_its_description_is_refused(directory):
    opened(directory).close()
    os.unlink(os.path.join(directory, "store.json"))
    with pytest.raises(LedgerError, match=r"without store\.json"):
        opened(directory)


def test_a_file_in_the_way_is_named(directory):
    with open(directory, "w"):
        pass
    with pytest.raises(LedgerError, match="must own"):
        opened(directory)


@pytest.mark.parametrize("first", ["process", "host"])
@pytest.mark.parametrize("second", ["process", "host"])
def test_after_a_restart_of_the_machine_only_a_synced_ledger_is_trusted(directory, first, second):
    with opened(directory, durability=first) as ledger:
        fill(ledger)
        ledger.sync()
    with opened(directory, durability=second) as ledger:
        assert is_filled(ledger)
    with opened(directory, durability=first, boot="boot-2") as ledger:
        assert is_filled(ledger) == (second == "host")  # all of it is synced when it is opened with host


def test_a_restart_cut_short_starts_over(directory):
    """A kill between unlinking the old data and writing the new description."""
    with opened(directory) as ledger:
        fill(ledger)
    os.unlink(os.path.join(directory, "data.mdb"))
    with opened(directory, boot="boot-2") as ledger:
        assert not is_filled(ledger)


def test_an_instance_number_is_taken_once(directory):
    code = (
        "import sys\nfrom sarrapipe.ledger import Ledger\n"
        f"ledger = Ledger.open({directory!r}, incarnation=7, instance=3, boot='boot-1')\n"
        "print('ready', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "ready\n"
        with pytest.raises(LedgerError, match="instance 3 of this flow is running already"):
            opened(directory, instance=3)
        with opened(directory, instance=4, incarnation=8) as ledger:
            assert ledger.bury_dead() == []
            child.send_signal(signal.SIGKILL)
            child.wait()
            assert ledger.bury_dead() == [7]
            assert ledger.bury_dead() == []


def test_who_was_buried_decides_nothing_more(directory):
    with opened(directory) as ledger:
        with ledger.environment.write() as txn:
            LmdbTables(txn, ledger.environment.databases, LmdbTables.packing()).bury(1)
        with pytest.raises(LedgerError, match="declared dead"), ledger.transaction():
            raise AssertionError("not reached")


def test_the_map_grows_as_it_fills(directory):
    with opened(directory, map_size=2**20) as ledger:
        for _ in range(60):
            with ledger.environment.write() as txn:
                for _ in range(50):
                    txn.put(os.urandom(16), b"x" * 400, db=ledger.environment.databases["meta"])
        used, size = ledger.environment.usage()
        assert used > 2**20
        assert size >= used
    with opened(
        directory, map_size=2**20, incarnation=2
    ) as ledger:  # smaller than the data: LMDB keeps its size
        assert ledger.environment.usage()[0] >= used - 2**20
        fill(ledger)


def test_a_sibling_follows_when_the_map_grows(directory):
    code = (
        "import os, sys\nfrom sarrapipe.ledger import Ledger\n"
        f"ledger = Ledger.open({directory!r}, incarnation=7, instance=3, boot='boot-1', map_size=2**20)\n"
        "for _ in range(80):\n"
        "    with ledger.environment.write() as txn:\n"
        "        for _ in range(50):\n"
        "            txn.put(os.urandom(16), b'x' * 400, db=ledger.environment.databases['meta'])\n"
    )
    with opened(directory, map_size=2**20) as ledger:
        fill(ledger)
        subprocess.run([sys.executable, "-c", code], check=True)
        assert is_filled(ledger)
        fill(ledger)
        assert ledger.environment.usage()[1] > 2**20


def test_a_full_map_is_no_space_and_changes_nothing(directory, monkeypatch):
    monkeypatch.setattr("sarrapipe.ledger.environment.MAX_MAP_SIZE", 2**20)
    with opened(directory, map_size=2**20) as ledger:
        fill(ledger)
        with pytest.raises(NoSpace, match="shorten nodupe_ttl"), ledger.environment.write() as txn:
            while True:
                txn.put(os.urandom(16), b"x" * 400, db=ledger.environment.databases["meta"])
        assert is_filled(ledger)
        fill(ledger)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_full_disk_is_no_space(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(small)], check=False)
    if mounted.returncode:
        pytest.skip("no right to mount here")
    try:
        with opened(str(small / "ledger")) as ledger:
            fill(ledger)
            with pytest.raises(NoSpace, match="make room"):
                for _ in range(100):
                    with ledger.environment.write() as txn:
                        for _ in range(20):
                            txn.put(os.urandom(16), b"x" * 1000, db=ledger.environment.databases["meta"])
            assert is_filled(ledger)
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_transaction_that_raises_is_undone_and_frees_the_lock(directory):
    environment: Environment = open_environment(
        directory, "ledger", ["t"], durability="process", keep_over_boot=True
    )
    table = environment.databases["t"]
    with pytest.raises(KeyError), environment.write() as txn:
        txn.put(b"a", b"b", db=table)
        raise KeyError
    with environment.write() as txn:
        assert txn.get(b"a", db=table) is None
    environment.close()


def test_records_of_another_layout_have_another_format():
    """Whoever changes a record raises FORMAT, and writes both down here."""
    records = (PathRecord, FileRow, MessageRow, SegmentRow, SeenEntry, KeptMessage)
    layout = "; ".join(f"{record.__name__} {' '.join(record._fields)}" for record in records)
    assert (FORMAT, zlib.crc32(layout.encode())) == (3, 2697479564), layout

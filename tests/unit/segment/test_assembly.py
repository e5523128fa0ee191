"""Guarantee 2: a file is visible under its final name only when it is whole."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sarrapipe import native
from sarrapipe.errors import NoSpace, StorageError, TooLarge, UnsafePath
from sarrapipe.segment import assembly
from sarrapipe.segment.assembly import GENERATION_XATTR, create, discard, is_ours, publish, reopen, sync_group
from sarrapipe.segment.destination import Destination
from sarrapipe.segment.place import InflightPlace
from sarrapipe.segment.plan import SegmentPlan

GENERATION = bytes(range(16))
PLACES = [None, ".tmp", ".", "part/", "none"]


@pytest.fixture(params=PLACES, ids=str)
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Destination]:
    opened = Destination(str(tmp_path / "root"), InflightPlace.parse(request.param)).open()
    yield opened
    opened.close()


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Destination]:
    opened = Destination(str(tmp_path / "root")).open()
    yield opened
    opened.close()


def files(root: str) -> list[str]:
    return sorted(
        os.path.relpath(os.path.join(top, f), root) for top, _, names in os.walk(root) for f in names
    )


def deliver(destination: Destination, path: str, data: bytes, nonce: str = "n1", **finish: object) -> None:
    file = create(destination, path, nonce)
    file.sink(0, len(data)).write(data)
    file.finish(**finish)  # type: ignore[arg-type]
    publish(file)


def test_a_file_comes_into_place_whole(destination: Destination, tmp_path: Path) -> None:
    file = create(destination, "a/b/c", "n1")
    assert (files(destination.root) == ["a/b/c"]) == (destination.place == InflightPlace.parse("none"))
    file.sink(0, 5).write(b"hello")
    file.finish(mtime_ns=1_700_000_000_123_456_789, atime_ns=5, mode=0o640, generation=GENERATION)
    inode = file.inode
    publish(file)
    target = tmp_path / "root/a/b/c"
    assert target.read_bytes() == b"hello"
    found = target.stat()
    assert (found.st_mtime_ns, found.st_mode & 0o7777) == (1_700_000_000_123_456_789, 0o640)
    assert found.st_ino == inode
    assert files(destination.root) == ["a/b/c"]
    assert is_ours(destination, "a/b/c", inode, GENERATION)
    assert file.fd == -1


def test_atime_is_kept(plain: Destination, tmp_path: Path) -> None:
    deliver(plain, "x", b"", mtime_ns=9_000_000_000, atime_ns=7_000_000_000)
    assert (tmp_path / "root/x").stat().st_atime_ns == 7_000_000_000


def test_replaces_what_is_there(destination: Destination, tmp_path: Path) -> None:
    deliver(destination, "x", b"an older and longer version", "n1")
    deliver(destination, "x", b"newer", "n2", size=5)
    assert (tmp_path / "root/x").read_bytes() == b"newer"


def test_replaces_a_link_not_what_it_leads_to(plain: Destination, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"untouched")
    os.symlink(tmp_path / "outside", tmp_path / "root/x")
    deliver(plain, "x", b"new")
    assert (tmp_path / "outside").read_bytes() == b"untouched"
    assert not (tmp_path / "root/x").is_symlink()


def test_in_place_does_not_write_through_a_link(tmp_path: Path) -> None:
    destination = Destination(str(tmp_path / "root"), InflightPlace.parse("none")).open()
    (tmp_path / "outside").write_bytes(b"untouched")
    os.symlink(tmp_path / "outside", tmp_path / "root/x")
    with pytest.raises(UnsafePath):
        create(destination, "x", "n1")
    destination.close()


def test_two_transfers_never_share_a_file(plain: Destination) -> None:
    first, second = create(plain, "x", "n1"), create(plain, "x", "n2")
    assert first.inode != second.inode
    with pytest.raises(StorageError, match="root/x: File exists"):
        create(plain, "x", "n1")
    first.close()
    second.close()


def test_reopens_what_another_process_made(destination: Destination) -> None:
    file = create(destination, "a/x", "n1")
    file.sink(0).write(b"half")
    again = reopen(destination, "a/x", "n1", file.inode)
    unrecorded = reopen(destination, "a/x", "n1")
    assert again is not None
    assert unrecorded is not None
    assert os.pread(again.fd, 10, 0) == b"half"
    assert reopen(destination, "a/x", "n1", file.inode + 1) is None
    assert reopen(destination, "a/y", "n9", 1) is None
    for one in (file, again, unrecorded):
        one.close()
        one.close()


def test_discards_and_forgets(plain: Destination) -> None:
    create(plain, "a/x", "n1").close()
    discard(plain, "a/x", "n1")
    discard(plain, "a/x", "n1")
    assert files(plain.root) == []
    assert reopen(plain, "a/x", "n1") is None


def test_what_is_written_in_place_is_not_discarded(tmp_path: Path) -> None:
    destination = Destination(str(tmp_path / "root"), InflightPlace.parse("none")).open()
    create(destination, "x", "n1").close()
    discard(destination, "x", "n1")
    assert files(destination.root) == ["x"]
    destination.close()


def test_is_ours_wants_inode_and_generation(plain: Destination, tmp_path: Path) -> None:
    deliver(plain, "a/x", b"1", generation=GENERATION)
    inode = (tmp_path / "root/a/x").stat().st_ino
    assert is_ours(plain, "a/x", inode, GENERATION)
    assert not is_ours(plain, "a/x", inode, bytes(16))
    assert not is_ours(plain, "a/x", inode + 1, GENERATION)
    assert not is_ours(plain, "a/missing", inode, GENERATION)
    os.removexattr(tmp_path / "root/a/x", GENERATION_XATTR)
    assert not is_ours(plain, "a/x", inode, GENERATION)


def test_a_fifo_in_place_is_not_ours_and_blocks_nobody(plain: Destination, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "root/x")
    assert not is_ours(plain, "x", (tmp_path / "root/x").stat().st_ino, GENERATION)


def test_without_extended_attributes_the_inode_decides(
    plain: Destination, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> bytes:
        raise OSError(errno.ENOTSUP, "no")

    monkeypatch.setattr(os, "setxattr", unsupported)
    monkeypatch.setattr(os, "getxattr", unsupported)
    deliver(plain, "x", b"1", generation=GENERATION)
    assert is_ours(plain, "x", (tmp_path / "root/x").stat().st_ino, GENERATION)


def test_a_directory_that_vanished_is_made_again(plain: Destination, tmp_path: Path) -> None:
    file = create(plain, "a/b/x", "n1")
    os.rmdir(tmp_path / "root/a/b")
    publish(file)
    assert files(plain.root) == ["a/b/x"]


def test_a_hidden_directory_that_vanished_is_made_again(plain: Destination, tmp_path: Path) -> None:
    deliver(plain, "x", b"1")
    os.rmdir(tmp_path / "root/.sarrapipe/flow")
    deliver(plain, "y", b"2")
    assert files(plain.root) == ["x", "y"]


def test_a_link_planted_during_the_transfer_leads_nowhere(plain: Destination, tmp_path: Path) -> None:
    os.mkdir(tmp_path / "outside")
    file = create(plain, "a/x", "n1")
    os.rmdir(tmp_path / "root/a")
    os.symlink(tmp_path / "outside", tmp_path / "root/a")
    with pytest.raises(UnsafePath):
        publish(file)
    assert os.listdir(tmp_path / "outside") == []


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "a\0b"])
def test_refuses_unsafe_targets(destination: Destination, path: str) -> None:
    with pytest.raises(UnsafePath):
        create(destination, path, "n1")


def test_a_directory_of_that_name_stays(plain: Destination, tmp_path: Path) -> None:
    os.makedirs(tmp_path / "root/x/y")
    file = create(plain, "x", "n1")
    with pytest.raises(StorageError, match="root/x"):
        publish(file)
    assert (tmp_path / "root/x/y").is_dir()


def test_the_longest_name_there_is(destination: Destination) -> None:
    name = "ü" * 127
    deliver(destination, f"a/{name}", b"1")
    assert files(destination.root) == [f"a/{name}"]


def test_the_mode_it_was_made_with_may_do(plain: Destination, tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        publish(create(plain, "x", "n1", mode=0o664))
        file = create(plain, "y", "n2", mode=0o664)
        file.finish(mode=0o664)
        publish(file)
    finally:
        os.umask(old)
    assert [(tmp_path / "root" / n).stat().st_mode & 0o777 for n in "xy"] == [0o644, 0o664]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_directory_is_named(tmp_path: Path) -> None:
    destination = Destination(str(tmp_path / "root"), InflightPlace.parse(".tmp")).open()
    os.chmod(tmp_path / "root", 0o500)
    with pytest.raises(StorageError, match="root/x: Permission denied"):
        create(destination, "x", "n1")
    os.chmod(tmp_path / "root", 0o700)
    destination.close()


class TestPreallocate:
    def test_reserves_where_it_can(self, plain: Destination) -> None:
        file = create(plain, "x", "n1")
        file.preallocate(1 << 20)
        file.preallocate(0)
        assert os.fstat(file.fd).st_size in (0, 1 << 20)
        file.finish(size=5)
        publish(file)
        assert os.stat(f"{plain.root}/x").st_size == 5

    def test_more_than_the_disk_can_ever_hold_is_rejected(self, plain: Destination) -> None:
        file = create(plain, "x", "n1")
        with pytest.raises(TooLarge, match="root/x"):
            file.preallocate(1 << 60)
        file.close()

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
    def test_a_small_file_system_is_full(self, tmp_path: Path) -> None:
        mount = tmp_path / "small"
        mount.mkdir()
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)], check=False, capture_output=True
        )
        if made.returncode:
            pytest.skip("mounting is not allowed here")
        try:
            destination = Destination(str(mount)).open()
            file = create(destination, "x", "n1")
            with pytest.raises(TooLarge):
                file.preallocate(2 << 20)
            (mount / "other").write_bytes(bytes(600_000))
            with pytest.raises(NoSpace, match="small/x"):
                file.preallocate(700_000)
            with pytest.raises(NoSpace, match="x"):
                file.sink().write(bytes(2 << 20))
            file.close()
            destination.close()
        finally:
            subprocess.run(["umount", str(mount)], check=True)

    def test_the_type_of_a_file_system(self, tmp_path: Path) -> None:
        assert assembly._file_system(os.stat("/proc").st_dev) == "proc"
        assert assembly._file_system(0xFFFFF) == ""


def test_sync_and_directory_sync(plain: Destination) -> None:
    file = create(plain, "a/x", "n1")
    file.sync()
    publish(file)
    plain.sync_directory("a/x")


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10])
def test_several_are_synced_together(plain: Destination, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    one_by_one: list[int] = []
    together: list[int] = []
    monkeypatch.setattr(os, "fdatasync", one_by_one.append)
    monkeypatch.setattr(native, "sync_file_system", together.append)
    files = [create(plain, f"x{n}", f"n{n}") for n in range(count)]
    sync_group(files)
    assert (len(one_by_one), len(together)) == ((count, 0) if count < 3 else (0, 1))
    monkeypatch.undo()
    sync_group(files)
    for file in files:
        file.close()


def test_what_cannot_be_synced_is_told(plain: Destination) -> None:
    files = [create(plain, f"x{n}", f"n{n}") for n in range(3)]
    for file in files:
        file.close()
    with pytest.raises(StorageError, match="x0"):
        sync_group(files)
    ends = os.pipe()
    files[0].fd = ends[0]
    with pytest.raises(StorageError, match="x0"):
        sync_group(files[:1])
    for end in ends:
        os.close(end)


class Assembling(RuleBasedStateMachine):
    """Segments written in any order, killed and reopened: the final file equals the source, once."""

    SOURCE = bytes(range(256)) * 3

    @initialize(place=st.sampled_from([None, ".tmp", "part/"]), cut=st.integers(50, 800))
    def begin(self, place: str | None, cut: int) -> None:
        import tempfile

        self.temporary = tempfile.TemporaryDirectory()
        self.destination = Destination(self.temporary.name + "/r", InflightPlace.parse(place)).open()
        self.plan = SegmentPlan(len(self.SOURCE), cut)
        self.missing = set(range(len(self.plan)))
        self.file = create(self.destination, "d/x", "n1")
        self.inode = self.file.inode
        self.published = False

    @precondition(lambda self: self.missing)
    @rule(data=st.data(), pieces=st.integers(1, 200), whole=st.booleans())
    def fetch(self, data: st.DataObject, pieces: int, whole: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.missing)))
        segment = self.plan[number]
        end = segment.end if whole else segment.offset + segment.length // 2
        sink = self.file.sink(segment.offset, segment.length)
        for at in range(segment.offset, end, pieces):
            sink.write(self.SOURCE[at : min(at + pieces, end)])
        if whole:
            self.missing.discard(number)

    @precondition(lambda self: not self.published)
    @rule()
    def kill_and_reopen(self) -> None:
        self.file.close()
        again = reopen(self.destination, "d/x", "n1", self.inode)
        assert again is not None
        self.file = again

    @precondition(lambda self: not self.missing and not self.published)
    @rule()
    def finish(self) -> None:
        self.file.finish(mtime_ns=1, generation=GENERATION)
        publish(self.file)
        self.published = True

    @precondition(lambda self: self.published)
    @rule()
    def recover(self) -> None:
        assert is_ours(self.destination, "d/x", self.inode, GENERATION)
        assert reopen(self.destination, "d/x", "n1", self.inode) is None

    @invariant()
    def whole_or_absent(self) -> None:
        if not hasattr(self, "destination"):
            return
        target = Path(self.destination.root, "d/x")
        assert target.exists() == self.published
        if self.published:
            assert target.read_bytes() == self.SOURCE

    def teardown(self) -> None:
        if hasattr(self, "destination"):
            self.file.close()
            self.destination.close()
            self.temporary.cleanup()


TestAssembling = Assembling.TestCase
TestAssembling.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)

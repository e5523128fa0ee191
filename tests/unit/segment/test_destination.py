"""R82, guarantee 4: no path of a message leads out of the directory it is delivered into."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarrapipe.errors import StorageError, UnsafePath
from sarrapipe.segment.destination import Destination, check_relative
from sarrapipe.segment.place import InflightPlace


@pytest.fixture
def destination(tmp_path: Path) -> Iterator[Destination]:
    opened = Destination(str(tmp_path / "root"), owner="sarra/x").open()
    yield opened
    opened.close()
    opened.close()


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../b", "a/..", "..", "./a", "a//b", "a/", "a\0b", "."]
)
def test_refuses_what_is_not_plainly_below(path: str) -> None:
    with pytest.raises(UnsafePath):
        check_relative(path)


@pytest.mark.parametrize("path", ["a", "a/b", "...", "..a/b..", "a b/#%?*", "ü/\udcff"])
def test_takes_odd_names(path: str) -> None:
    check_relative(path)


@given(st.lists(st.sampled_from(["..", "a", "", ".", "b..", "\0"]), max_size=5).map("/".join))
def test_only_plain_components_pass(path: str) -> None:
    try:
        check_relative(path)
    except UnsafePath:
        return
    assert os.path.normpath(f"/root/{path}") == f"/root/{path}"


def test_makes_parents_with_the_bits_asked_for_less_the_umask(
    tmp_path: Path, destination: Destination
) -> None:
    old = os.umask(0o022)
    try:
        with destination.parent("a/b/c", make=True) as (fd, name):
            os.mkdir(name, dir_fd=fd)
    finally:
        os.umask(old)
    for made in ("root/a", "root/a/b"):
        assert stat.S_IMODE((tmp_path / made).stat().st_mode) == 0o755
    assert (tmp_path / "root/a/b/c").is_dir()


def test_makes_nothing_unasked(tmp_path: Path, destination: Destination) -> None:
    with pytest.raises(StorageError, match=r"root/a/b: No such"), destination.parent("a/b"):
        pass
    assert destination.stat("a/b") is None
    assert list((tmp_path / "root").iterdir()) == []


@pytest.mark.parametrize("target", ["/etc", "..", "elsewhere", "real"])
def test_a_planted_link_leads_nowhere(tmp_path: Path, destination: Destination, target: str) -> None:
    os.makedirs(tmp_path / "root/a/real")
    os.symlink(target, tmp_path / "root/a/link")
    for make in (False, True):
        with pytest.raises(UnsafePath, match="a/link/x"), destination.parent("a/link/x", make=make):
            pass
    with pytest.raises(UnsafePath):
        destination.stat("a/link/x")
    with pytest.raises(OSError, match="symbolic links"):
        destination.hidden_directory("a/link/x")


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    os.mkdir(tmp_path / "real")
    os.symlink("real", tmp_path / "root")
    destination = Destination(str(tmp_path / "root")).open()
    with destination.parent("a/b", make=True):
        pass
    destination.close()
    assert (tmp_path / "real/a").is_dir()


def test_stat_does_not_follow_the_last_link(tmp_path: Path, destination: Destination) -> None:
    os.symlink("/etc", tmp_path / "root/link")
    found = destination.stat("link")
    assert found is not None
    assert stat.S_ISLNK(found.st_mode)


def test_a_file_where_a_directory_should_be(tmp_path: Path, destination: Destination) -> None:
    (tmp_path / "root/a").write_bytes(b"")
    assert destination.stat("a/b") is None
    with pytest.raises(StorageError, match="Not a directory"), destination.parent("a/b", make=True):
        pass


def test_a_root_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="file/root"):
        Destination(str(tmp_path / "file/root")).open()


def test_the_hidden_directory_is_the_flows_own_and_private(tmp_path: Path, destination: Destination) -> None:
    fd = destination.hidden_directory("a/b/c")
    assert fd == destination.hidden_directory("a/d")
    hidden = tmp_path / "root/.sarrapipe/sarra_x"
    assert os.fstat(fd).st_ino == hidden.stat().st_ino
    assert stat.S_IMODE(hidden.stat().st_mode) == 0o700


def test_a_hidden_directory_that_was_removed_is_made_again(tmp_path: Path, destination: Destination) -> None:
    destination.hidden_directory("a/b")
    os.rmdir(tmp_path / "root/.sarrapipe/sarra_x")
    destination.forget("a/b")
    fd = destination.hidden_directory("a/b")
    assert os.fstat(fd).st_ino == (tmp_path / "root/.sarrapipe/sarra_x").stat().st_ino


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a second file system")
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_each_file_system_has_its_own(tmp_path: Path, destination: Destination) -> None:
    import subprocess

    os.makedirs(tmp_path / "root/a/other/b")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "tmpfs", str(tmp_path / "root/a/other")], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        os.makedirs(tmp_path / "root/a/other/b/c")
        fd = destination.hidden_directory("a/other/b/c/file")
        assert os.fstat(fd).st_ino == (tmp_path / "root/a/other/.sarrapipe/sarra_x").stat().st_ino
        assert destination.hidden_directory("a/file") != fd
        destination.close()
    finally:
        subprocess.run(["umount", str(tmp_path / "root/a/other")], check=True)


def test_remembers_a_bounded_number_of_directories(destination: Destination) -> None:
    for number in range(5000):
        destination.hidden_directory(f"d{number % 5}/x{number}")
    assert len(destination._places) <= 4096


def test_litter_is_what_lies_in_the_hidden_directory(tmp_path: Path, destination: Destination) -> None:
    destination.hidden_directory("a")
    (tmp_path / "root/.sarrapipe/sarra_x/nonce1").write_bytes(b"")
    found = list(destination.litter())
    assert [name for name, _ in found] == ["nonce1"]
    os.unlink("nonce1", dir_fd=found[0][1])
    assert list(destination.litter()) == []


def test_beside_the_target_there_is_no_telling_litter(tmp_path: Path) -> None:
    destination = Destination(str(tmp_path), InflightPlace.parse(".tmp")).open()
    assert list(destination.litter()) == []
    destination.close()


def test_an_absolute_inflight_directory(tmp_path: Path) -> None:
    destination = Destination(str(tmp_path / "root"), InflightPlace.parse(f"{tmp_path}/part")).open()
    fd = destination.hidden_directory("a/b")
    assert os.fstat(fd).st_ino == (tmp_path / "part").stat().st_ino
    assert destination.hidden_directory("c") == fd
    destination.close()


def test_syncs_the_directory_of_a_target(destination: Destination) -> None:
    with destination.parent("a/b", make=True):
        pass
    destination.sync_directory("a/b")
    with pytest.raises(StorageError):
        destination.sync_directory("missing/b")

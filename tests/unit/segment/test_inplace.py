"""A file that is written under its final name: claimed by a mark, found by it, freed of it at the end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sarrapipe.errors import InflightDamaged
from sarrapipe.segment import inplace
from sarrapipe.segment.destination import Destination


@pytest.fixture
def destination(tmp_path):
    opened = Destination(str(tmp_path / "root")).open()
    yield opened
    opened.close()


@pytest.fixture
def target(destination):
    path = Path(destination.root, "f")
    path.write_bytes(b"old")
    return path


@pytest.fixture
def file(destination, target):
    begun = inplace.begin(destination, "f", "one")
    yield begun
    begun.close()


def test_one_version_at_a_time(destination, target, file):
    assert target.read_bytes() == b"old", "nothing is changed yet"
    assert inplace.is_being_written(str(target))
    assert inplace.begin(destination, "f", "two") is None
    assert inplace.begin(destination, "f", "one") is None, "it is there already: reopen it"


def test_it_is_found_again_by_its_nonce(destination, file):
    again = inplace.reopen(destination, "f", "one", file.inode)
    assert again.inode == file.inode
    assert again.is_there()
    again.close()
    assert inplace.reopen(destination, "f", "two") is None
    assert inplace.reopen(destination, "f", "one", file.inode + 1) is None
    assert inplace.reopen(destination, "nothing", "one") is None


def test_published_it_can_be_written_again(destination, target, file):
    file.sink(0, 3).write(b"new")
    inplace.publish(file)
    assert target.read_bytes() == b"new"
    assert not inplace.is_being_written(str(target))
    again = inplace.begin(destination, "f", "two")
    inplace.unmark(again)
    inplace.unmark(again)
    again.close()
    assert not inplace.is_being_written(str(target))


def test_another_file_in_its_place_is_not_published(destination, target, file):
    target.rename(target.with_name("g"))
    target.write_bytes(b"another")
    assert not file.is_there()
    with pytest.raises(InflightDamaged, match="took its place"):
        inplace.publish(file)
    assert inplace.reopen(destination, "f", "one") is None
    assert not inplace.is_being_written(str(target))


def link(target):
    target.rename(target.with_name("g"))
    target.symlink_to("g")


def another_name(target):
    os.link(target, target.with_name("g"))


def fifo(target):
    target.unlink()
    os.mkfifo(target)


def directory(target):
    target.unlink()
    target.mkdir()


@pytest.mark.parametrize("make", [Path.unlink, link, another_name, fifo, directory])
def test_what_is_not_written_in_place(destination, target, make):
    make(target)
    assert inplace.begin(destination, "f", "one") is None
    for path in target.parent.iterdir():
        assert path.is_dir() or not inplace.is_being_written(str(path))

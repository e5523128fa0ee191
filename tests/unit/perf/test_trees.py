"""Source trees of benchmarks: announced as they are, and every difference is found."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from perf import trees


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    trees.make_small(str(root / "small"), files=3, size_bytes=10)
    (root / "empty").mkdir()
    (root / "link").symlink_to("small/d0000")
    return root


@pytest.fixture
def copy(source: Path) -> Path:
    target = source.parent / "copy"
    shutil.copytree(source, target, symlinks=True)
    return target


def test_announcements_say_what_the_file_is(source: Path) -> None:
    messages = list(trees.announcements(str(source), "small", "http://h/"))
    assert [topic for topic, _body in messages] == ["v03.small.d0000"] * 3
    body = json.loads(messages[1][1])
    data = (source / body["relPath"]).read_bytes()
    digest = base64.b64encode(hashlib.sha512(data).digest()).decode()
    assert body["identity"] == {"method": "sha512", "value": digest}
    assert body["size"] == len(data) == 10
    assert body["baseUrl"] == "http://h/"


def test_an_exact_copy_has_no_differences(source: Path, copy: Path) -> None:
    assert trees.compare_trees(str(source), str(copy)) == []
    assert trees.compare_bytes(str(source), str(copy)) == []


def _wrong_byte(copy: Path) -> None:
    path = copy / "small/d0000/f000001.bin"
    facts = path.stat()
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def _other_target(copy: Path) -> None:
    (copy / "link").unlink()
    (copy / "link").symlink_to("small")


def _directory_for_link(copy: Path) -> None:
    (copy / "link").unlink()
    (copy / "link").mkdir()


@pytest.mark.parametrize(
    ("change", "name", "what"),
    [
        (_wrong_byte, "small/d0000/f000001.bin", "other bytes"),
        (_other_target, "link", "points to"),
        (_directory_for_link, "link", "another kind"),
        (lambda copy: (copy / "empty").rmdir(), "empty", "missing"),
        (lambda copy: (copy / "small/d0000/f000002.bin").unlink(), "small/d0000/f000002.bin", "missing"),
        (lambda copy: (copy / "more").mkdir(), "more", "should not be there"),
        (lambda copy: (copy / "empty/.x.tmp").touch(), "empty/.x.tmp", "should not be there"),
        (lambda copy: (copy / "small/d0000/f000000.bin").chmod(0o600), "small/d0000/f000000.bin", "mode"),
        (lambda copy: (copy / "empty").chmod(0o700), "empty", "mode"),
        (
            lambda copy: os.utime(copy / "small/d0000/f000000.bin", ns=(1, 1)),
            "small/d0000/f000000.bin",
            "mtime",
        ),
    ],
)
def test_each_difference_is_named(source: Path, copy: Path, change: object, name: str, what: str) -> None:
    assert callable(change)
    change(copy)
    differences = trees.compare_trees(str(source), str(copy))
    assert len(differences) == 1
    assert repr(name) in differences[0]
    assert what in differences[0]


def test_the_hidden_directory_may_stay_but_not_a_file_in_it(source: Path, copy: Path) -> None:
    (copy / ".sarrapipe/sarra_x").mkdir(parents=True)
    assert trees.compare_trees(str(source), str(copy)) == []
    (copy / ".sarrapipe/sarra_x/left").touch()
    assert len(trees.compare_trees(str(source), str(copy))) == 1


def test_an_incomplete_copy_may_be_compared_for_what_it_has(source: Path, copy: Path) -> None:
    (copy / "small/d0000/f000002.bin").unlink()
    assert trees.compare_bytes(str(source), str(copy), complete=False) == []
    _wrong_byte(copy)
    assert len(trees.compare_bytes(str(source), str(copy), complete=False)) == 1


def test_a_large_file_repeats_nowhere_within_its_pages(tmp_path: Path) -> None:
    path = tmp_path / "large"
    trees.make_large(str(path), 3_000_001)
    data = path.read_bytes()
    assert len(data) == 3_000_001
    pages = {data[i : i + 4096] for i in range(0, len(data), 4096)}
    assert len(pages) == -(-len(data) // 4096)

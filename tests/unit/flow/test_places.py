"""Where a flow may write."""

from __future__ import annotations

import os
import time

import pytest

from sarrapipe.errors import StorageError, UnsafePath
from sarrapipe.flow.places import Places
from sarrapipe.segment.place import InflightKind


@pytest.fixture
def places_of(flow_config):
    """Returns what makes the places of a configuration."""
    made = []

    def make(lines: str = "") -> Places:
        places = Places(flow_config("sarra", lines))
        made.append(places)
        return places

    yield make
    for places in made:
        places.close()


def test_a_target_below_the_directory(places_of, tmp_path):
    destination, path = places_of().find(f"{tmp_path}/dest/a/b")
    assert (destination.root, path) == (f"{tmp_path}/dest", "a/b")
    assert os.path.isdir(f"{tmp_path}/dest")


@pytest.mark.parametrize("target", ["/etc/passwd", "dest/f", "", "{}/destination/f", "{}/dest"])
def test_anything_else_is_refused(places_of, tmp_path, target):
    with pytest.raises(UnsafePath, match="in no directory of this flow"):
        places_of().find(target.format(tmp_path))


def test_every_accept_line_names_a_directory_and_the_inner_one_is_meant(places_of, tmp_path):
    places = places_of(
        f"""
        directory {tmp_path}/one
        accept .*/a/.*
        directory {tmp_path}/one/inner
        accept .*/b/.*
        directory {tmp_path}/refused
        reject .*/c/.*
        directory {tmp_path}/rest
        """
    )
    found = {
        name: (places.find(f"{tmp_path}/{name}")[0].root, places.find(f"{tmp_path}/{name}")[1])
        for name in ("one/f", "one/inner/f", "rest/f")
    }
    assert found == {
        "one/f": (f"{tmp_path}/one", "f"),
        "one/inner/f": (f"{tmp_path}/one/inner", "f"),
        "rest/f": (f"{tmp_path}/rest", "f"),
    }
    with pytest.raises(UnsafePath):
        places.find(f"{tmp_path}/refused/f")


@pytest.mark.parametrize(
    ("directory", "target"),
    [("{}/data/${{%Y%m%d}}/x", "{}/data/20240101/x/f"), ("{}/data/in-${{SOURCE}}", "{}/data/in-alice/f")],
)
def test_what_a_message_decides_is_below_what_the_configuration_fixes(places_of, tmp_path, directory, target):
    places = places_of(f"directory {directory.format(tmp_path)}")
    destination, path = places.find(target.format(tmp_path))
    assert destination.root == f"{tmp_path}/data"
    assert f"{destination.root}/{path}" == target.format(tmp_path)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("", InflightKind.HIDDEN),
        ("inflight .tmp", InflightKind.SUFFIX),
        ("inflight .", InflightKind.PREFIX),
        ("inflight partial/", InflightKind.DIRECTORY),
        ("inflight none", InflightKind.IN_PLACE),
        ("inflight 60", InflightKind.IN_PLACE),
    ],
)
def test_forms_of_files_under_way(places_of, tmp_path, line, kind):
    assert places_of(line).find(f"{tmp_path}/dest/f")[0].place.kind is kind


def test_a_directory_that_cannot_be_made(places_of, tmp_path):
    (tmp_path / "dest").write_bytes(b"")
    with pytest.raises(StorageError, match="dest"):
        places_of().find(f"{tmp_path}/dest/f")


def test_litter_is_what_is_old_and_unknown(places_of, tmp_path):
    places = places_of()
    assert places.remove_litter(set(), 0) == 0
    destination, _ = places.find(f"{tmp_path}/dest/f")
    assert list(destination.litter()) == []
    (hidden,) = (tmp_path / "dest/.sarrapipe").iterdir()
    for name in ("known", "unknown"):
        (hidden / name).write_bytes(b"")
    (hidden / "planted").mkdir()
    (hidden / "planted/inside").write_bytes(b"")
    now_ns = time.time_ns()
    assert places.remove_litter({"known"}, now_ns - 10**12) == 0
    assert places.remove_litter({"known"}, now_ns + 10**12) == 2
    assert [path.name for path in hidden.iterdir()] == ["known"]


def test_closing_frees_the_descriptors(places_of, tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    places = places_of()
    places.find(f"{tmp_path}/dest/f")
    places.close()
    places.close()
    assert len(os.listdir("/proc/self/fd")) == before

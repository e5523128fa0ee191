"""What the ledger is told of an item, and what is found at a target."""

from __future__ import annotations

import os

import pytest

from sarrapipe.errors import MessageError
from sarrapipe.flow.places import flow_mark
from sarrapipe.flow.task import announce, look_at, raise_pub_time
from sarrapipe.message.model import Message
from sarrapipe.message.worklist import Delivery, WorkItem
from sarrapipe.units import parse_time_ns

IDENTITY = {"method": "md5", "value": "HlAhGgLTZ70yX7dIOOFPSg=="}
FIELDS = {
    "pubTime": "20240101T000001",
    "baseUrl": "http://h/d/",
    "relPath": "a/f",
    "size": 9,
    "mtime": "20230101T000000",
    "identity": IDENTITY,
    "source": "alice",
}


def item_of(target: str = "/dest/a/f", exchange: str = "xs_a", **changes: object) -> WorkItem:
    fields = {name: value for name, value in {**FIELDS, **changes}.items() if value is not None}
    delivery = Delivery(b"", {}, None, exchange, "v03.a", False, 1, "b", 1)
    return WorkItem(Message(fields), delivery, target)


@pytest.fixture
def announced(flow_config):
    """Returns what announces an item to the ledger."""

    def run(lines: str = "", segment_bytes: int = 0, **changes):
        return announce(item_of(**changes), flow_config("sarra", lines), segment_bytes)

    return run


def test_what_is_told(announced):
    a = announced(segment_bytes=4)
    assert (a.target, a.size, a.segment_size) == ("/dest/a/f", 9, 4)
    assert a.pub_ns == parse_time_ns("20240101T000001")
    assert a.mtime_ns == parse_time_ns("20230101T000000")
    assert (a.url, a.source) == ("http://h/d/a/f", "alice")


def test_what_is_not_known(announced):
    a = announced(size=None, mtime=None, source=None)
    assert (a.size, a.mtime_ns, a.source) == (-1, 0, "")


@pytest.mark.parametrize(
    "changes",
    [
        {"target": "/dest/other"},
        {"source": "bob"},
        {"size": 10},
        {"mtime": "20230101T000000.1"},
        {"identity": {**IDENTITY, "value": "AAAAAAAAAAAAAAAAAAAAAA=="}},
        {"segment_bytes": 4},
    ],
)
def test_another_version_is_another_generation(announced, changes):
    assert announced(**changes).generation != announced().generation


@pytest.mark.parametrize(
    "changes",
    [{"baseUrl": "http://mirror/"}, {"pubTime": "20250101T000000"}, {"exchange": "x2"}, {"mode": "600"}],
)
def test_the_same_version_from_elsewhere_is_the_same_generation(announced, changes):
    # design of the ledger: never baseUrl, each mover has its own
    assert announced(**changes).generation == announced().generation


@pytest.mark.parametrize("changes", [{"pubTime": "20250101T000000"}, {"exchange": "x2"}, {"relPath": "b"}])
def test_a_message_is_known_by_where_and_when_it_was_published(announced, changes):
    assert announced(**changes).message_id != announced().message_id
    assert announced().message_id == announced().message_id


@pytest.mark.parametrize(
    ("basis", "same", "other"),
    [
        ("path", [{"target": "/dest/x"}], [{"relPath": "b/f"}, {"relPath": "a/g"}]),
        ("name", [{"relPath": "b/f"}], [{"relPath": "a/g"}]),
        ("data", [{"relPath": "b/f"}, {"relPath": "a/g"}], [{"size": 10}]),
    ],
)
def test_what_duplicate_suppression_compares(announced, basis, same, other):
    # wire.md 3.4
    line = f"nodupe_basis {basis}"
    first = announced(line).fingerprint
    for changes in same:
        assert announced(line, **changes).fingerprint == first
    for changes in other:
        assert announced(line, **changes).fingerprint != first


def test_links_and_removals_without_any_data(announced):
    link = announced(fileOp={"link": "x"}, size=None, identity=None, mtime=None)
    other = announced(fileOp={"link": "y"}, size=None, identity=None, mtime=None)
    assert link.generation != other.generation
    assert link.fingerprint != other.fingerprint


def test_an_escaped_url_is_not_told_to_siblings(announced):
    assert announced(retrievePath="a%20b").url == ""


def test_a_callback_that_made_nonsense_of_a_message(flow_config):
    item = item_of()
    item.message = item.message.replace(pubTime="yesterday")
    with pytest.raises(MessageError, match="pubTime"):
        announce(item, flow_config("sarra"), 0)


def test_what_stands_at_a_target(flow_config, tmp_path):
    config = flow_config("sarra")
    file = tmp_path / "f"
    assert look_at(str(file), config) is None
    assert look_at(str(file / "below"), config) is None
    file.write_bytes(b"")
    os.utime(file, ns=(5, 7))
    assert look_at(str(file), config) == (7, b"")
    os.setxattr(file, "user.sarrapipe.generation", b"ours" + flow_mark(config.state_dir))
    os.utime(file, ns=(5, 7))
    assert look_at(str(file), config) == (7, b"ours")
    for mark in (flow_mark("another flow"), b""):
        os.setxattr(file, "user.sarrapipe.generation", b"theirs" + mark)
        assert look_at(str(file), config) == (7, b"")


def test_what_is_not_compared(flow_config, tmp_path):
    config = flow_config("sarra")
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to("d")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("d", "link", "loop", "loop/f", "a" * 300):
        assert look_at(str(tmp_path / name), config) is None
    (tmp_path / "f").write_bytes(b"")
    assert look_at(str(tmp_path / "f"), flow_config("sarra", "timeCopy off")) is None


def test_the_time_of_an_announcement_is_only_ever_raised():
    item = item_of()
    raise_pub_time(item, parse_time_ns("20230101T000000"))
    assert item.message.pub_time == FIELDS["pubTime"]
    raise_pub_time(item, parse_time_ns("20240101T000001.000000001"))
    assert item.message.pub_time == "20240101T000001.000000001"

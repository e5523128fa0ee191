"""Directories, links, removals and renames: applied safely, in whatever order they come (wire.md 1.4)."""

from __future__ import annotations

import os

import pytest
from flowkit import Site, sha512

from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

DATA = b"some data"


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


def test_a_tree_with_everything_in_it(site):
    tap, flow = site.tap(), site.run()
    site.event("d", directory="")
    site.event("d/empty", directory="")
    site.announce("d/f", DATA)
    site.announce("d/none", b"")
    site.announce("d/naïve name #1 50%.txt", DATA)
    site.event("d/up", link="../top")
    site.event("d/down", link="empty")
    site.event("d/dangling", link="nowhere")
    site.event("d/again", hlink="d/f")
    flow.until_settled(9)
    assert site.files() == {
        "d": None,
        "d/empty": None,
        "d/f": DATA,
        "d/none": b"",
        "d/naïve name #1 50%.txt": DATA,
        "d/up": "../top",
        "d/down": "empty",
        "d/dangling": "nowhere",
        "d/again": DATA,
    }
    assert (site.dest / "d/again").stat().st_ino == (site.dest / "d/f").stat().st_ino
    assert len(tap.take()) == 9
    assert flow.count(Counter.FILES_LINKED) == 4
    assert flow.count(Counter.DIRECTORIES_OK) == 2
    assert flow.count(Counter.FILES_OK) == 3
    site.assert_clean(flow)


def test_a_hard_link_waits_for_its_file(site):
    tap, flow = site.tap(), site.run(lines="attempts 1")
    site.event("again", hlink="f")
    flow.until(flow.kept, "kept")
    assert "f to link to is not here yet" in flow.kept()[0].reason
    site.announce("f", DATA)
    flow.until_settled(1)
    flow.advance(2)
    flow.until_settled(2)
    assert site.files() == {"again": DATA, "f": DATA}
    assert tap.paths() == ["again", "f"]
    site.assert_clean(flow)


def test_a_link_that_would_lead_out_where_it_is_put_is_rejected(site, caplog):
    # As announced it stays inside; placement moves it up.
    tap, flow = site.tap(), site.run(lines="strip 1")
    site.event("a/l", link="../f")
    flow.until_settled(1)
    assert "leads out of the tree" in caplog.text
    assert "code=422" in caplog.text
    assert site.files() == {}
    assert tap.take() == []
    site.assert_clean(flow)


def test_removals(site):
    tap, flow = site.tap(), site.run()
    site.announce("d/f", DATA)
    site.event("d/l", link="f")
    flow.until_settled(2)
    tap.take()
    site.event("d/f", remove="")
    site.event("d/l", remove="")
    flow.until_settled(4)
    site.event("d", remove="", directory="")
    flow.until_settled(5)
    assert site.files() == {}
    announced = tap.take()
    assert [(m.rel_path, m["fileOp"]) for m in announced] == [
        ("d/f", {"remove": ""}),
        ("d/l", {"remove": ""}),
        ("d", {"remove": "", "directory": ""}),
    ]
    assert flow.count(Counter.FILES_REMOVED) == 3
    site.assert_clean(flow)


def test_a_directory_and_what_is_in_it_are_removed_in_any_order(site):
    tap, flow = site.tap(), site.run()
    site.announce("d/f", DATA)
    flow.until_settled(1)
    tap.take()
    # Other instances of a flow would remove the file a little later than this one the directory.
    site.event("d", remove="", directory="")
    flow.until(lambda: flow.flow.in_hand, "the directory's removal is in hand")
    site.event("d/f", remove="")
    flow.until_settled(3)
    assert site.files() == {}
    assert tap.paths() == ["d", "d/f"]
    site.assert_clean(flow)


def test_a_directory_that_is_not_empty_stays(site, caplog):
    tap, flow = site.tap(), site.run()
    site.event("d", directory="")
    flow.until_settled(1)
    (site.dest / "d/mine").write_bytes(b"not announced")
    site.event("d", remove="", directory="")
    flow.until(lambda: flow.flow.in_hand, "in hand")
    flow.advance(6)
    flow.until_settled(2)
    assert site.files() == {"d": None, "d/mine": b"not announced"}
    assert "d is not empty and stays" in caplog.text
    assert len(tap.take()) == 2
    site.assert_clean(flow)


@pytest.mark.parametrize("directory", [True, False], ids=["a directory removed as a file", "and the reverse"])
def test_removal_of_something_of_another_kind(site, directory):
    tap, flow = site.tap(), site.run()
    if directory:
        (site.dest / "x").mkdir()
        site.event("x", remove="")
    else:
        (site.dest / "x").write_bytes(b"")
        site.event("x", remove="", directory="")
    flow.until(flow.kept, "kept")
    assert "x is not what the message removes" in flow.kept()[0].reason
    assert tap.take() == []
    assert "x" in site.files()
    # What failed can be repeated: its names are not held.
    os.rmdir(site.dest / "x") if directory else (site.dest / "x").unlink()
    flow.advance(2)
    flow.until_settled(1)
    assert tap.paths() == ["x"]
    site.assert_clean(flow)


def test_a_removal_that_failed_can_be_repeated(site):
    tap, flow = site.tap(), site.run()
    (site.dest / "x").mkdir()
    site.event("x", remove="")
    flow.until(flow.kept, "kept")
    for _ in range(3):
        flow.advance(700)
        flow.until(lambda: not any(message.lease for message in flow.kept()), "tried again")
    assert flow.kept()[0].attempts >= 3
    os.rmdir(site.dest / "x")
    flow.advance(700)
    flow.until_settled(1)
    assert tap.paths() == ["x"]
    site.assert_clean(flow)


def rename(site, old, new, data=DATA, **changes):
    site.put(new, data)
    site.announce(new, data, fileOp={"rename": old}, **changes)


def count_requests(flow):
    return flow.count(Counter.BYTES_RECEIVED)


def test_a_renamed_file_is_moved_not_fetched(site):
    tap, flow = site.tap(), site.run()
    site.announce("a/old", DATA)
    flow.until_settled(1)
    tap.take()
    inode = (site.dest / "a/old").stat().st_ino
    received = count_requests(flow)
    rename(site, "a/old", "b/new")
    flow.until_settled(2)
    assert site.files() == {"a": None, "b": None, "b/new": DATA}
    assert (site.dest / "b/new").stat().st_ino == inode
    assert count_requests(flow) == received
    message = tap.one()
    assert message["relPath"] == "b/new"
    assert message["fileOp"] == {"rename": "a/old"}
    assert flow.count(Counter.FILES_RENAMED) == 1
    site.assert_clean(flow)


def test_sr3_sends_the_old_name_as_its_host_sees_it(site):
    tap, flow = site.tap(), site.run()
    site.announce("a/old", DATA)
    flow.until_settled(1)
    path_of_base_url = "/" + site.docroot.url.partition("://")[2].partition("/")[2]
    rename(site, f"{path_of_base_url}a/old", "a/new")
    flow.until_settled(2)
    assert site.files() == {"a": None, "a/new": DATA}
    rename(site, "/data/elsewhere/a/new", "a/newer")  # a host whose directories are not known here
    flow.until_settled(3)
    assert site.files() == {"a": None, "a/new": DATA, "a/newer": DATA}
    assert len(tap.take()) == 3
    site.assert_clean(flow)


@pytest.mark.parametrize("there", [None, b"something else"], ids=["missing", "different"])
def test_an_old_name_that_is_not_what_was_renamed_is_fetched_anew(site, there):
    tap, flow = site.tap(), site.run()
    if there is not None:
        (site.dest / "old").write_bytes(there)
        os.utime(site.dest / "old", (1, 1))
    rename(site, "old", "new")
    flow.until_settled(1)
    assert site.files() == {"new": DATA}
    assert count_requests(flow) == len(DATA)
    assert tap.one()["relPath"] == "new"
    site.assert_clean(flow)


def test_a_rename_whose_new_name_is_overtaken_meanwhile_is_announced_all_the_same(site):
    """The next hop has to let go of the old name, whatever becomes of the new one."""
    tap, flow = site.tap(), site.run()
    large = b"x" * 4_000_000
    site.put("elsewhere", large)
    site.announce("new", large, put=False, fileOp={"rename": "old"}, retrievePath="elsewhere")
    site.announce("new", b"newer", mtime="20990101T000000")  # in place long before the large one
    flow.until_settled(2)
    assert site.files() == {"new": b"newer"}
    messages = tap.take()
    assert [message["relPath"] for message in messages] == ["new", "new"]
    assert [message.get("fileOp") for message in messages].count({"rename": "old"}) == 1
    site.assert_clean(flow)


@pytest.mark.parametrize("why", ["gone", "mismatch"])
def test_a_rename_whose_new_name_cannot_be_fetched_still_takes_away_the_old_one(site, caplog, why):
    """The next hop has to let go of the old name; the new one is not announced, it is not to be had."""
    tap, flow = site.tap(), site.run(lines="attempts 1")
    site.announce("a/old", DATA)
    flow.until_settled(1)
    tap.take()
    # Another content than that of the old name, so the new one has to be fetched.
    site.announce(
        "b/new",
        b"something new",
        put=why != "gone",
        mtime="20250101T000000",
        fileOp={"rename": "a/old"},
    )
    if why == "mismatch":
        site.put("b/new", b"something NEW")
    flow.until_settled(2)
    left = {name: data for name, data in site.files().items() if data is not None}
    assert left == {}
    message = tap.one()
    assert (message.rel_path, message["fileOp"]) == ("a/old", {"remove": ""})
    assert not {"size", "identity", "mtime", "mode", "rename"} & set(message)
    assert "the removal of its old name" in caplog.text
    assert flow.count(Counter.ERRORS_GONE if why == "gone" else Counter.ERRORS_IDENTITY) == 1
    site.assert_clean(flow)


def test_a_rename_that_was_carried_out_before_a_kill_is_not_fetched(site):
    tap, flow = site.tap(), site.run()
    site.announce("old", DATA)
    flow.until_settled(1)
    tap.take()
    received = count_requests(flow)
    # What a process leaves that dies between the rename and its announcement.
    (site.dest / "old").rename(site.dest / "new")
    site.announce("new", DATA, put=False, fileOp={"rename": "old"})
    flow.until_settled(2)
    assert site.files() == {"new": DATA}
    assert count_requests(flow) == received
    assert tap.one()["fileOp"] == {"rename": "old"}
    site.assert_clean(flow)


def test_a_renamed_directory(site):
    tap, flow = site.tap(), site.run()
    site.announce("a/f", DATA)
    flow.until_settled(1)
    tap.take()
    site.publish(site.fields("b", fileOp={"rename": "a", "directory": ""}))
    flow.until_settled(2)
    assert site.files() == {"b": None, "b/f": DATA}
    site.publish(site.fields("c", fileOp={"rename": "unknown", "directory": ""}))
    flow.until_settled(3)
    assert site.files() == {"b": None, "b/f": DATA, "c": None}
    assert tap.paths() == ["b", "c"]
    site.assert_clean(flow)


def test_a_renamed_link(site):
    tap, flow = site.tap(), site.run()
    site.event("a", link="f")
    flow.until_settled(1)
    site.publish(site.fields("b", fileOp={"rename": "a", "link": "f"}))
    flow.until_settled(2)
    assert site.files() == {"b": "f"}
    site.publish(site.fields("c", fileOp={"rename": "unknown", "link": "g"}))
    flow.until_settled(3)
    assert site.files() == {"b": "f", "c": "g"}
    assert len(tap.take()) == 3
    site.assert_clean(flow)


@pytest.mark.parametrize("old_accepted", [True, False], ids=["old accepted", "old rejected"])
@pytest.mark.parametrize("new_accepted", [True, False], ids=["new accepted", "new rejected"])
def test_accepted_and_rejected_names(site, old_accepted, new_accepted):
    # The 2x2 table of sr3-surface.md 2.1: rename, fetch, remove, nothing.
    old = "in/old" if old_accepted else "out/old"
    new = "in/new" if new_accepted else "out/new"
    (site.dest / "in").mkdir()
    (site.dest / "out").mkdir()
    (site.dest / "out/old").write_bytes(b"not ours")
    tap, flow = site.tap(), site.run(lines="reject .*/out/.*\naccept .*")
    site.announce(old, DATA)
    flow.until_settled(1)
    received = count_requests(flow)
    tap.take()
    rename(site, old, new)
    flow.until_settled(2)
    left = {name: data for name, data in site.files().items() if data is not None}
    assert left.pop("out/old") == b"not ours"
    messages = tap.take()
    if new_accepted:
        assert left == {"in/new": DATA}
        assert count_requests(flow) - received == (0 if old_accepted else len(DATA))
        assert [m.rel_path for m in messages] == ["in/new"]
    elif old_accepted:
        assert left == {}
        # The next hop learns that the old name is gone; the new one is not to be had from here.
        assert [(m.rel_path, m["fileOp"]) for m in messages] == [("in/old", {"remove": ""})]
        assert not {"size", "identity", "mtime", "mode"} & set(messages[0])
    else:
        assert (left, messages) == ({}, [])
        assert flow.count(Counter.MESSAGES_REJECTED) == 2
    site.assert_clean(flow)


def test_events_that_are_not_wanted(site):
    tap, flow = site.tap(), site.run(lines="fileEvents create,modify")
    site.announce("f", DATA)
    site.event("d", directory="")
    site.event("l", link="f")
    site.event("f", remove="")
    site.event("x", remove="", directory="")
    rename(site, "f", "g")
    flow.until_settled(6)
    assert site.files() == {"f": DATA}
    assert tap.paths() == ["f"]
    assert flow.count(Counter.MESSAGES_REJECTED) == 5
    site.assert_clean(flow)


def test_a_path_ends_in_the_last_state_of_its_source(site):
    """Newer and older versions, removals and renames of one path, in an order nobody wants."""
    tap, flow = site.tap(), site.run()
    v1 = site.fields("f", b"one", mtime="20240101T000000")
    v2 = site.fields("f", b"two", mtime="20240101T000001")
    gone = site.fields("f", fileOp={"remove": ""})
    v3 = site.fields("f", b"three", mtime="20240101T000002")
    moved = site.fields("f", b"three", mtime="20240101T000002", relPath="g", fileOp={"rename": "f"})
    v4 = site.fields("f", b"four", mtime="20240101T000003")
    site.put("f", b"four")
    site.put("g", b"three")
    for count, message in enumerate((v4, gone, v2, moved, v1, v3), start=1):
        site.publish(message)
        flow.until_settled(count)
    assert site.files() == {"f": b"four", "g": b"three"}
    assert tap.paths() == ["f", "g"]
    assert flow.count(Counter.MESSAGES_OVERTAKEN) == 4
    site.assert_clean(flow)


def test_a_removed_file_stays_removed(site):
    tap, flow = site.tap(), site.run()
    late = site.fields("f", DATA)
    site.put("f", DATA)
    site.event("f", remove="")
    flow.until_settled(1)
    site.publish(late)
    flow.until_settled(2)
    assert site.files() == {}
    assert flow.count(Counter.MESSAGES_OVERTAKEN) == 1
    site.announce("f", DATA)  # announced again after the removal: it is there again
    flow.until_settled(3)
    assert site.files() == {"f": DATA}
    assert tap.paths() == ["f", "f"]
    site.assert_clean(flow)


def test_unknown_fields_travel_on_and_local_ones_do_not(site):
    # R64
    tap, flow = site.tap(), site.run()
    extra = {"geometry": {"type": "Point", "coordinates": [1.5, 2]}, "flow": "tag", "x": ["ä", None]}
    site.announce("f", DATA, _secret="s", new_dir="/etc", retrievePath="f", from_cluster="c", **extra)
    flow.until_settled(1)
    message = tap.one()
    assert {name: message[name] for name in extra} == extra
    assert message["from_cluster"] == "c"
    assert message["baseUrl"] == "http://example.com/data/"
    assert message["identity"] == sha512(DATA)
    assert not {"_secret", "new_dir", "retrievePath"} & set(message)
    assert site.files() == {"f": DATA}
    site.assert_clean(flow)

"""Which items are taken, and where each goes."""

from __future__ import annotations

import pytest

from sarrapipe.clock import SystemClock
from sarrapipe.errors import MessageError, TooLarge, UnsafePath
from sarrapipe.flow.filter import OLD_TARGET, Filter
from sarrapipe.message.model import Message
from sarrapipe.message.worklist import WorkItem
from sarrapipe.units import format_time

NOW_NS = 1_700_000_000 * 10**9


class FixedClock(SystemClock):
    def wall_ns(self) -> int:
        return NOW_NS


@pytest.fixture
def judge(flow_config):
    """Returns what judges one message's fields: the item, the list it came out on, the errors counted."""

    def run(lines: str = "", receives: bool = True, **fields: object):
        errors: list[Exception] = []
        config = flow_config("sarra", lines)
        item = WorkItem(
            Message({"pubTime": format_time(NOW_NS), "baseUrl": "http://h/d/", "relPath": "a/f", **fields})
        )
        worklist = Filter(config, FixedClock(), errors.append, receives=receives).apply([item])
        assert list(worklist) == [item]
        name = next(name for name in ("incoming", "ok", "rejected", "failed") if getattr(worklist, name))
        return item, name, errors

    return run


def test_what_is_taken_gets_its_target(judge, tmp_path):
    item, where, errors = judge()
    assert (where, errors, item.report) == ("incoming", [], None)
    assert item.target == f"{tmp_path}/dest/a/f"


def test_masks(judge):
    lines = "reject .*/no/.*\naccept .*/yes/.*\nacceptUnmatched off"
    assert judge(lines, relPath="yes/f")[1] == "incoming"
    item, where, errors = judge(lines, relPath="no/f")
    assert (where, item.report.code, errors) == ("rejected", 404, [])
    assert "refused by" in item.report.message
    item, where, _ = judge(lines, relPath="other/f")
    assert (where, item.report.code) == ("rejected", 404)
    assert "no accept line matches" in item.report.message


@pytest.mark.parametrize(
    ("fields", "code", "kind"),
    [
        ({"relPath": "../f"}, 422, UnsafePath),
        ({"rename": "../f"}, 422, UnsafePath),
        ({"fileOp": {"rename": "../f"}}, 422, UnsafePath),
        ({"fileOp": {"link": "/etc/passwd"}}, 422, UnsafePath),
        ({"size": -1}, 417, MessageError),
        ({"baseUrl": "ftp://h/"}, 417, MessageError),
        ({"size": 2001}, 413, TooLarge),
    ],
)
def test_errors_are_counted_and_reported(judge, fields, code, kind):
    # R82
    item, where, errors = judge("fileSizeMax 2k", **fields)
    assert (where, item.report.code) == ("rejected", code)
    assert [type(error) for error in errors] == [kind]
    assert item.report.message == str(errors[0])


def test_what_this_machine_found_itself_is_not_checked_like_a_strangers_word(judge):
    item, where, _ = judge(receives=False, fileOp={"link": "/etc/passwd"})
    assert (where, item.target) == ("incoming", "")


@pytest.mark.parametrize(
    ("lines", "fields", "where", "code"),
    [
        ("messageAgeMax 60", {"pubTime": format_time(NOW_NS - 61 * 10**9)}, "rejected", 504),
        ("messageAgeMax 60", {"pubTime": format_time(NOW_NS - 59 * 10**9)}, "incoming", None),
        ("fileAgeMax 60", {"mtime": format_time(NOW_NS - 61 * 10**9)}, "rejected", 410),
        ("fileAgeMin 60", {"mtime": format_time(NOW_NS - 59 * 10**9)}, "failed", 425),
        ("fileAgeMin 60", {"mtime": format_time(NOW_NS - 61 * 10**9)}, "incoming", None),
        ("fileAgeMin 60\nfileAgeMax 60", {}, "incoming", None),
    ],
)
def test_ages(judge, lines, fields, where, code):
    item, found, _ = judge(lines, **fields)
    assert found == where
    assert (item.report and item.report.code) == code


@pytest.mark.parametrize(
    ("operation", "event"),
    [
        ({"remove": ""}, "delete"),
        ({"remove": "", "directory": ""}, "rmdir"),
        ({"directory": ""}, "mkdir"),
        ({"link": "f"}, "link"),
        ({"hlink": "f"}, "link"),
        ({"rename": "f"}, "rename"),
        ({"rename": "f", "directory": ""}, "rename"),
        ({"chmod": "1"}, "modify"),
    ],
)
def test_events_by_their_names(judge, operation, event):
    # sr3-surface.md 2.4
    all_events = {"create", "delete", "link", "mkdir", "modify", "rename", "rmdir"}
    assert judge(f"fileEvents {event}", fileOp=operation)[1] == "incoming"
    item, where, errors = judge(f"fileEvents {','.join(all_events - {event})}", fileOp=operation)
    assert (where, item.report.code, errors) == ("rejected", 202, [])
    assert event in item.report.message


@pytest.mark.parametrize(
    ("old", "found"),
    [("a/old", "a/old"), ("/d/a/old", "a/old"), ("/else/where", ""), ("no/old", "")],
)
def test_the_old_name_of_a_rename(judge, tmp_path, old, found):
    # wire.md 1.4: sr3 sends the path on its host
    item, where, _ = judge("reject .*/no/.*\naccept .*", fileOp={"rename": old})
    assert where == "incoming"
    assert item[OLD_TARGET] == (f"{tmp_path}/dest/{found}" if found else "")


def test_base_dir_stands_for_the_tree_too(judge, tmp_path):
    item, _, _ = judge("baseDir /srv/tree", fileOp={"rename": "/srv/tree/a/old"})
    assert item[OLD_TARGET] == f"{tmp_path}/dest/a/old"


@pytest.mark.parametrize("directory", [False, True])
def test_only_the_old_name_is_accepted(judge, tmp_path, directory):
    # sr3-surface.md 2.1, the 2x2 table: delete
    operation = {"rename": "yes/old"} | ({"directory": ""} if directory else {})
    item, where, _ = judge(
        "accept .*/yes/.*\nreject .*", relPath="no/new", size=3, mode="644", fileOp=operation
    )
    assert where == "incoming"
    assert item.target == f"{tmp_path}/dest/yes/old"
    gone = {"remove": "", "directory": ""} if directory else {"remove": ""}
    assert dict(item.message) == {
        "pubTime": format_time(NOW_NS),
        "baseUrl": "http://h/d/",
        "relPath": "yes/old",
        "fileOp": gone,
    }


def test_blocks_go_to_the_file_they_belong_to(judge):
    blocks = {"method": "inplace", "size": 4, "count": 2, "remainder": 1, "number": 0}
    whole, where, _ = judge(size=4, blocks=blocks)
    assert where == "incoming"
    for name in ("§block_0000,4bytes_§", ".4.2.1.0.s.Part"):
        separate = {**blocks, "method": "separate"}
        item, where, _ = judge(size=4, blocks=separate, relPath=f"{whole.message.rel_path}{name}")
        assert (where, item.target) == ("incoming", whole.target)
    assert judge(size=4, blocks={**blocks, "count": 1, "remainder": 0})[0].target == whole.target
    assert judge("download off", size=4, blocks=blocks)[1] == "incoming"


def test_blocks_and_files_that_are_too_large(judge):
    blocks = {"method": "inplace", "size": 4, "count": 2, "remainder": 1, "number": 0}
    for line in ("blockSizeMax 3", "fileSizeMax 4"):
        item, where, _ = judge(line, size=4, blocks=blocks)
        assert (where, item.report.code) == ("rejected", 413)

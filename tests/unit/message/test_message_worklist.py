"""Items, worklists, and what callbacks see of them (R34, R36)."""

from __future__ import annotations

import pytest

from sarrapipe.errors import MessageError
from sarrapipe.message.model import Message
from sarrapipe.message.worklist import Delivery, Report, WorkItem, Worklist


def make_item(name: str = "a/b") -> WorkItem:
    delivery = Delivery(b"{}", {}, None, "xs_alice", "v03.a", False, 7, "amqp://u@h", 1)
    fields = {"pubTime": "20231114T221320", "baseUrl": "http://h", "relPath": name, "size": 3}
    return WorkItem(Message(dict(fields)), delivery)


def test_reads_the_wire_fields():
    item = make_item()
    assert item["relPath"] == "a/b"
    assert item.get("mtime") is None
    assert "size" in item
    assert set(item) == {"pubTime", "baseUrl", "relPath", "size"}
    assert len(item) == 4
    assert item["exchange"] == "xs_alice"
    with pytest.raises(KeyError):
        item["nothing"]
    with pytest.raises(KeyError):
        WorkItem(item.message)["exchange"]


def test_setting_a_wire_field_replaces_the_message():
    item = make_item()
    before = item.message
    item["relPath"] = "c"
    item["PRINTER"] = "lp0"
    assert item.message.rel_path == "c"
    assert item.message["PRINTER"] == "lp0"
    assert before.rel_path == "a/b"
    assert item.local is None


def test_values_are_checked_where_the_callback_sets_them():
    item = make_item()
    item["size"] = "12"
    item["identity"] = "cod,sha512"
    assert item.message.size == 12
    assert item["identity"] == {"method": "cod", "value": "sha512"}
    with pytest.raises(MessageError, match=r"^mode: "):
        item["mode"] = 420
    item["identity"] = None
    assert "identity" not in item


@pytest.mark.parametrize(
    "key", ["_mine", "new_dir", "new_relPath", "old_baseUrl", "subtopic", "nodupe_override"]
)
def test_local_fields_stay_off_the_wire(key):
    item = make_item()
    item[key] = "x"
    item[key] = "y"
    assert item[key] == "y"
    assert key in item
    assert key not in item.message
    assert key in list(item)
    del item[key]
    assert key not in item


def test_a_report_set_by_a_callback_is_how_the_item_ended():
    item = make_item()
    item["report"] = {"code": 304, "message": "not modified"}
    assert item.report == Report(304, "not modified")
    assert item["report"] == {"code": 304, "message": "not modified"}
    assert "report" not in item.message
    item["report"] = Report(201, "done")
    assert item.report == Report(201, "done")
    item["report"] = None
    assert item.report is None
    for value in (3, {}, {"code": "x", "message": "y"}, {"code": 3}):
        with pytest.raises(MessageError, match=r"^report: "):
            item["report"] = value


def test_a_report_that_came_on_the_wire_is_a_field():
    item = WorkItem(make_item().message.replace(report={"code": 201}))
    assert item["report"] == {"code": 201}
    assert item.report is None


def test_subtopic_is_derived_until_a_callback_sets_it():
    item = make_item("a/b/c")
    assert item["subtopic"] == ["a", "b"]
    item["subtopic"] = ["x"]
    assert item["subtopic"] == ["x"]
    assert "subtopic" not in item.message


def test_deleting_a_wire_field():
    item = make_item()
    item["_x"] = 1
    del item["size"]
    assert item.message.size is None
    with pytest.raises(KeyError):
        del item["size"]


def test_items_are_told_apart_by_identity():
    one, two = make_item(), make_item()
    assert one != two
    assert len({one, two}) == 2
    assert "a/b" in repr(one)


def test_every_item_is_on_exactly_one_list():
    worklist = Worklist()
    items = [make_item(str(number)) for number in range(5)]
    worklist.incoming, worklist.ok, worklist.failed = [items[0]], [items[1]], [items[2]]
    worklist.directories_ok = [items[3]]
    worklist.reject(items[4], 404, "no mask matches")
    assert items[4].report == Report(404, "no mask matches")
    assert len(worklist) == 5
    assert set(worklist) == set(items)
    assert worklist.lost(items) == []
    worklist.ok.clear()
    assert worklist.lost(items) == [items[1]]

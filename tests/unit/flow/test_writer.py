"""How announcements look."""

from __future__ import annotations

import pytest

from sarrapipe.clock import SystemClock
from sarrapipe.errors import MessageError
from sarrapipe.flow.post import Writer
from sarrapipe.message import codec_v03
from sarrapipe.message.model import Message
from sarrapipe.message.worklist import Delivery, WorkItem

FIELDS = {
    "pubTime": "20240101T000000.5",
    "baseUrl": "http://source.example/x/",
    "relPath": "a/f",
    "size": 3,
    "mode": "644",
    "retrievePath": "elsewhere",
    "rename": "suggested",
    "mine": {"a": [1, None]},
}


@pytest.fixture
def write(flow_config, tmp_path):
    """Returns what writes one item: what is handed to the broker, and the message in it."""

    def run(component: str = "sarra", lines: str = "", target: str = "a/f", routing_key="v03.x", **changes):
        config = flow_config(component, lines)
        fields = {name: value for name, value in {**FIELDS, **changes}.items() if value is not None}
        delivery = Delivery(b"", {}, None, "xs_a", routing_key, False, 1, "b", 1)
        item = WorkItem(Message(fields), delivery, f"{tmp_path}/dest/{target}" if target else "")
        outgoing = Writer(config, SystemClock(), relays=component == "sarra").outgoing(item)
        assert outgoing.token is item
        return outgoing

    return run


def decoded(outgoing) -> dict[str, object]:
    return dict(codec_v03.decode(outgoing.body))


def test_the_next_hop_fetches_it_here(write):
    # R68; all that is not about this hop goes on as it came (R64)
    outgoing = write()
    assert decoded(outgoing) == {
        "pubTime": "20240101T000000.5",
        "baseUrl": "http://pump.example/data/",
        "relPath": "a/f",
        "size": 3,
        "mode": "644",
        "mine": {"a": [1, None]},
    }
    assert (outgoing.exchange, outgoing.routing_key) == ("xpublic", "v03.a")
    assert (outgoing.headers, outgoing.content_type) == ({}, "application/json")
    assert outgoing.persistent
    assert outgoing.expiration_ms is None


def test_where_it_was_put_is_what_is_announced(write):
    assert decoded(write(target="b/c/g"))["relPath"] == "b/c/g"


def test_what_was_found_here_is_announced_as_it_is(write):
    fields = decoded(write("post"))
    assert fields["baseUrl"] == "http://source.example/x/"
    assert fields["retrievePath"] == "elsewhere"


def test_an_item_without_a_place_keeps_its_path(write):
    assert decoded(write(target=""))["relPath"] == "a/f"


def test_options(write):
    outgoing = write(lines="post_messageAgeMax 1m\npersistent off\npost_topicPrefix v9.x\nrename /new/")
    assert outgoing.expiration_ms == 60_000
    assert not outgoing.persistent
    assert outgoing.routing_key == "v9.x.a"
    assert decoded(outgoing)["rename"] == "new/f"


def test_topics_are_copied_if_asked(write):
    assert write(lines="topicCopy on", routing_key="v03.other").routing_key == "v03.other"


def test_topics_of_files_in_one_directory_are_made_once(flow_config):
    writer = Writer(flow_config("post"), SystemClock(), relays=False)
    keys = [
        writer.outgoing(WorkItem(Message({**FIELDS, "relPath": path}))).routing_key
        for path in ("a/f", "a/g", "b/f", "top", "a/f", "x#y/f")
    ]
    assert keys == ["v03.a", "v03.a", "v03.b", "v03", "v03.a", "v03.x%23y"]


def test_v02(write):
    outgoing = write(lines="post_format v02", rename=None, mine="text", identity=None)
    assert outgoing.body.split()[:3] == [b"20240101000000.5", b"http://pump.example/data/", b"a/f"]
    assert outgoing.routing_key == "v02.post.a"
    assert outgoing.content_type == "text/plain"
    assert outgoing.headers["mine"] == "text"


def test_what_a_dialect_cannot_say(write):
    identity = {"method": "xxh3_128", "value": "AAAAAAAAAAAAAAAAAAAAAA=="}
    with pytest.raises(MessageError, match="xxh3_128"):
        write(lines="post_format v02", identity=identity)

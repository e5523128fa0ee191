"""What should exist on a broker, and the file that remembers what was bound."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe.broker.topology import Binding, BindingStore, QueueSpec, difference, explain_mismatch
from sarrapipe.errors import BrokerError, Disposition

A, B, C = Binding("xpublic", "v03.a.#"), Binding("xpublic", "v03.b.#"), Binding("xs_bob", "v03.#")
BINDINGS = st.builds(Binding, st.sampled_from(["x", "y"]), st.sampled_from(["a", "b", "c"]))


def test_queue_arguments_are_those_of_wire_4():
    spec = QueueSpec(
        name="q_bob.sarra.x",
        expires_ms=300_000,
        message_ttl_ms=3_600_000,
        queue_type="classic",
        arguments={"x-max-length": 10},
    )
    assert spec.declare_arguments() == {
        "x-expires": 300_000,
        "x-message-ttl": 3_600_000,
        "x-queue-type": "classic",
        "x-max-length": 10,
    }
    assert QueueSpec(name="q_bob").declare_arguments() == {}  # nothing expires by default (R49)


@pytest.mark.parametrize(
    ("spec", "shared"),
    [
        (QueueSpec(name="q"), True),
        (QueueSpec(name="q", queue_type="classic"), True),
        (QueueSpec(name="q", queue_type="quorum"), False),
        (QueueSpec(name="q", arguments={"x-queue-type": "stream"}), False),
    ],
)
def test_which_queues_can_change_prefetch_while_consuming(spec, shared):
    assert spec.shared_prefetch is shared


@settings(max_examples=100)
@given(st.lists(BINDINGS, max_size=6), st.lists(BINDINGS, max_size=6))
def test_binding_and_unbinding_the_difference_gives_what_is_wanted(made, wanted):
    bind, unbind = difference(made, wanted)
    assert (set(made) - set(unbind)) | set(bind) == set(wanted)
    assert not set(bind) & set(unbind)
    assert len(bind) == len(set(bind))


def test_a_removed_subtopic_is_unbound():
    assert difference([A, B], [B, C]) == ([B, C], [A])


def test_the_store_keeps_brokers_and_queues_apart(tmp_path):
    store = BindingStore(str(tmp_path / "bindings.json"))
    assert store.load("amqp://h/", "q1") == []
    store.save("amqp://h/", "q1", [B, A])
    store.save("amqp://h/", "q2", [C])
    store.save("amqp://other/", "q1", [C])
    again = BindingStore(str(tmp_path / "bindings.json"))
    assert again.load("amqp://h/", "q1") == [A, B]
    assert again.load("amqp://h/", "q2") == [C]
    again.save("amqp://h/", "q1", [])
    assert store.load("amqp://h/", "q1") == []
    assert store.load("amqp://other/", "q1") == [C]
    assert os.listdir(tmp_path) == ["bindings.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"k": []}', '{"k": {"q": [["x"]]}}', '{"k": {"q": 5}}'])
def test_a_damaged_store_is_named(tmp_path, text):
    path = tmp_path / "bindings.json"
    path.write_text(text)
    with pytest.raises(BrokerError, match=r"bindings\.json"):
        BindingStore(str(path)).load("k", "q")


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "bindings.json"
    store = BindingStore(str(path))
    store.save("k", "q", [A])

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BrokerError, match="No space left"):
        store.save("k", "q", [B])
    assert store.load("k", "q") == [A]
    assert os.listdir(tmp_path) == ["bindings.json"]
    assert json.loads(path.read_text()) == {"k": {"q": [["xpublic", "v03.a.#"]]}}


MISMATCH = (
    "PRECONDITION_FAILED - inequivalent arg 'x-expires' for queue 'q_bob' in vhost '/': "
    "received the value '5000' of type 'long' but current is none"
)


def test_a_mismatch_names_object_property_and_option():
    error = explain_mismatch(MISMATCH, "amqp://bob@h:5672/")
    assert error is not None
    assert error.disposition is Disposition.HALT
    for part in ("queue q_bob", "x-expires", "none", "5000", "set expire", "amqp://bob@h:5672/"):
        assert part in str(error)


def test_another_406_is_not_a_mismatch():
    text = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out"
    assert explain_mismatch(text, "k") is None

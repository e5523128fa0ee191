"""Callbacks get every item, give every item back, and cannot stop the flow (R34-R39)."""

from __future__ import annotations

import threading
import time

import pytest
from servers import MS

from sarrapipe.callbacks.base import FlowCallback
from sarrapipe.callbacks.chain import CallbackChain
from sarrapipe.config.model import FlowConfig
from sarrapipe.message.model import Message
from sarrapipe.message.worklist import WorkItem, Worklist


def make_items(count: int) -> list[WorkItem]:
    fields = {"pubTime": "20231114T221320", "baseUrl": "http://h/"}
    return [WorkItem(Message({**fields, "relPath": f"f{number}"})) for number in range(count)]


class Tagging(FlowCallback):
    def after_accept(self, worklist: Worklist) -> None:
        for item in worklist.incoming:
            item["tag"] = "seen"


class RejectingOdd(FlowCallback):
    def after_accept(self, worklist: Worklist) -> None:
        incoming, worklist.incoming = worklist.incoming, []
        for item in incoming:
            if str(item["relPath"]).endswith(("1", "3")):
                worklist.reject(item, 404, "odd")
            else:
                worklist.incoming.append(item)


class Raising(FlowCallback):
    def after_accept(self, worklist: Worklist) -> None:
        raise RuntimeError("no luck")

    def on_housekeeping(self) -> None:
        raise RuntimeError("no luck either")


class Dropping(FlowCallback):
    def after_accept(self, worklist: Worklist) -> None:
        worklist.incoming.pop()


class Waiting(FlowCallback):
    gate: threading.Event

    def after_accept(self, worklist: Worklist) -> None:
        self.gate.wait(30)


class GatheringAList(FlowCallback):
    def gather(self, message_count_max: int) -> list[WorkItem]:  # type: ignore[override]
        return make_items(2)


class Fetching(FlowCallback):
    answers = (True, False, None)

    def download(self, item: WorkItem) -> bool | None:
        return self.answers[int(str(item["relPath"])[1:])]


@pytest.fixture
def woken():
    return threading.Event()


@pytest.fixture
def make_chain(woken):
    chains = []

    def make(*kinds, timeout_s=20.0):
        config = FlowConfig()
        chain = CallbackChain([kind(config) for kind in kinds], timeout_s, woken.set)
        chains.append(chain)
        return chain

    yield make
    for chain in chains:
        chain.close()


def collect(chain, hook, worklist, woken):
    """Pass a worklist on and wait for it, as the flow's loop does."""
    ready = chain.pass_on(hook, worklist)
    while not ready:
        assert woken.wait(20), "the callback thread never answered"
        woken.clear()
        ready = chain.completed(hook)
    return ready


def test_without_callbacks_a_worklist_comes_straight_back(make_chain):
    worklist = Worklist(incoming=make_items(2))
    assert make_chain().pass_on("after_accept", worklist) == [worklist]


def test_callbacks_run_in_order_on_their_own_thread(make_chain, woken):
    chain = make_chain(Tagging, RejectingOdd)
    (worklist,) = collect(chain, "after_accept", Worklist(incoming=make_items(4)), woken)
    assert [item["relPath"] for item in worklist.incoming] == ["f0", "f2"]
    assert [item["relPath"] for item in worklist.rejected] == ["f1", "f3"]
    assert all(item.message["tag"] == "seen" for item in worklist)


def test_worklists_come_back_in_the_order_they_went_in(make_chain, woken):
    chain = make_chain(Tagging)
    lists = [Worklist(incoming=make_items(1)) for _ in range(20)]
    seen = []
    for worklist in lists:
        seen += chain.pass_on("after_accept", worklist)
    while len(seen) < len(lists):
        assert woken.wait(20)
        woken.clear()
        seen += chain.completed("after_accept")
    assert seen == lists
    assert not chain.busy


def test_items_of_a_callback_that_raises_are_kept_for_another_attempt(make_chain, woken):
    chain = make_chain(Raising)
    (worklist,) = collect(chain, "after_accept", Worklist(incoming=make_items(3)), woken)
    assert len(worklist.failed) == 3
    assert not worklist.incoming
    assert "Raising.after_accept: RuntimeError: no luck" in worklist.failed[0].report.message
    assert chain.errors == 1


def test_an_item_that_a_callback_drops_is_not_lost(make_chain, woken):
    chain = make_chain(Dropping)
    items = make_items(3)
    (worklist,) = collect(chain, "after_accept", Worklist(incoming=list(items)), woken)
    assert worklist.incoming == items[:2]
    assert worklist.failed == items[2:]


def test_a_callback_that_overruns_its_time_fails_its_items_and_not_the_next_ones(make_chain, woken):
    Waiting.gate = threading.Event()
    chain = make_chain(Waiting, timeout_s=0.05)
    assert chain.pass_on("after_accept", Worklist(incoming=make_items(1))) == []
    late = []
    pause = threading.Event()
    while not late:
        pause.wait(0.01)
        late = chain.completed("after_accept")
    assert "overran callbackTimeout" in late[0].failed[0].report.message
    Waiting.gate.set()
    (worklist,) = collect(chain, "after_accept", Worklist(incoming=make_items(1)), woken)
    assert len(worklist.incoming) == 1


def test_download_takes_fails_or_leaves_each_item(make_chain, woken):
    chain = make_chain(Fetching)
    (worklist,) = collect(chain, "download", Worklist(incoming=make_items(3)), woken)
    lists = (worklist.ok, worklist.failed, worklist.incoming)
    assert [[item["relPath"] for item in items] for items in lists] == [["f0"], ["f1"], ["f2"]]


def test_a_hook_without_a_worklist_that_raises_does_not_stop_the_others(make_chain):
    asked = []

    class Asked(FlowCallback):
        def on_housekeeping(self) -> None:
            asked.append(True)

    chain = make_chain(Raising, Asked)
    chain.call("on_housekeeping")
    assert asked == [True]
    assert chain.errors == 1


def test_a_list_alone_is_gathered_too() -> None:
    chain = CallbackChain([GatheringAList(FlowConfig()), GatheringAList(FlowConfig())], 10.0, lambda: None)
    try:
        worklists = chain.pass_on("gather", Worklist(), 10)
        deadline = time.monotonic() + 10 * MS
        while not worklists and time.monotonic() < deadline:
            worklists = chain.completed("gather")
        assert [len(worklist.incoming) for worklist in worklists] == [4]
    finally:
        chain.close()

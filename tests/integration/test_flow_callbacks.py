"""A user's callbacks in a real flow: what each hook can do, and that none can lose or stall anything."""

from __future__ import annotations

import json
import textwrap

import pytest
from blockkit import Posted
from flowkit import Site, leftovers

from sarrapipe.errors import ConfigError
from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

DATA = b"some data"


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


def plugin(site, name, body):
    """A callback module in the plugins directory; its lines go to a file named after it."""
    header = f"""
        from sarrapipe.callbacks.base import FlowCallback
        import os, threading, time
        LINES = {str(site.directory / "lines")!r}
        def say(*words):
            with open(LINES, "a") as file:
                print(*words, file=file)
        class {name.title()}(FlowCallback):
    """
    methods = textwrap.indent(textwrap.dedent(body), "    ")
    site.plugin(name, textwrap.dedent(header) + methods)


def lines(site):
    path = site.directory / "lines"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def test_hooks_are_called_in_order_with_what_they_need(site):
    plugin(
        site,
        "first",
        """
        def on_start(self): say("first on_start", self.o.component)
        def after_accept(self, worklist): say("first after_accept", len(worklist.incoming))
        def after_work(self, worklist): say("first after_work", len(worklist.ok))
        def after_post(self, worklist): say("first after_post", len(worklist.ok))
        def ack(self, items): say("first ack", len(items))
        def please_stop(self): say("first please_stop")
        def on_stop(self): say("first on_stop")
        """,
    )
    plugin(
        site,
        "second",
        """
        def after_accept(self, worklist):
            for item in worklist.incoming: item["seen"] = "by second"
            say("second after_accept")
        """,
    )
    tap = site.tap()
    flow = site.run(lines="callback first\ncallback_prepend second")
    site.announce("f", DATA)
    flow.until_settled(1)
    flow.close()
    assert lines(site) == [
        "first on_start sarra",
        "second after_accept",
        "first after_accept 1",
        "first after_work 1",
        "first after_post 1",
        "first ack 1",
        "first please_stop",
        "first on_stop",
    ]
    assert tap.one()["seen"] == "by second"
    site.assert_clean(flow)


def test_after_accept_may_reject_and_postpone(site):
    plugin(
        site,
        "choose",
        """
        def after_accept(self, worklist):
            incoming, worklist.incoming = worklist.incoming, []
            for item in incoming:
                if item["relPath"] == "bad":
                    worklist.reject(item, 415, "not this one")
                elif item["relPath"] == "later" and not getattr(self, "seen", False):
                    self.seen = True
                    item["report"] = {"code": 499, "message": "not yet"}
                    worklist.failed.append(item)
                elif item["relPath"] == "done":
                    worklist.ok.append(item)
                else:
                    worklist.incoming.append(item)
        """,
    )
    tap = site.tap()
    flow = site.run(lines="callback choose")
    for name in ("bad", "later", "good", "done"):
        site.announce(name, DATA)
    flow.until_settled(3)
    assert tap.paths() == ["done", "good"]
    assert flow.kept()[0].reason == "not yet"
    flow.advance(2)
    flow.until_settled(4)
    assert tap.paths() == ["later"]
    assert sorted(site.files()) == ["good", "later"]
    assert flow.count(Counter.MESSAGES_REJECTED) == 1
    site.assert_clean(flow)


def test_a_callback_that_drops_items_loses_nothing(site):
    plugin(
        site,
        "drop",
        """
        def after_accept(self, worklist):
            if not hasattr(self, "times"):
                self.times = 1
                worklist.incoming = []
        """,
    )
    tap = site.tap()
    flow = site.run(lines="callback drop")
    site.announce("f", DATA)
    flow.until(flow.kept, "kept")
    assert "a callback of after_accept dropped the item" in flow.kept()[0].reason
    flow.advance(2)
    flow.until_settled(1)
    assert tap.paths() == ["f"]
    site.assert_clean(flow)


@pytest.mark.parametrize("hook", ["after_accept", "after_work"])
def test_a_callback_that_raises(site, hook):
    plugin(
        site,
        "boom",
        f"""
        def {hook}(self, worklist):
            if not hasattr(self, "times"):
                self.times = 1
                raise ValueError("boom")
        """,
    )
    tap = site.tap()
    flow = site.run(lines="callback boom\nnodupe_ttl 300")
    site.announce("f", DATA)
    flow.until(flow.kept, "kept")
    assert f"Boom.{hook}: ValueError: boom" in flow.kept()[0].reason
    assert tap.take() == []
    flow.advance(2)
    flow.until_settled(1)
    assert tap.paths() == ["f"]
    assert site.files() == {"f": DATA}
    assert flow.count(Counter.ERRORS_CALLBACK) == 1
    site.assert_clean(flow)


def test_a_callback_that_raises_after_the_announcement_changes_nothing(site):
    plugin(site, "boom", 'def after_post(self, worklist): raise ValueError("boom")')
    tap = site.tap()
    flow = site.run(lines="callback boom")
    site.announce("f", DATA)
    flow.until_settled(1)
    assert tap.paths() == ["f"]
    assert flow.assembled.chain.errors == 1
    site.assert_clean(flow)


@pytest.mark.parametrize("event", ["file", "link", "removal"])
def test_after_work_may_reject_what_is_in_place(site, event):
    # R96: Reject means not forwarded
    plugin(
        site,
        "scan",
        """
        def after_work(self, worklist):
            for item in worklist.ok:
                worklist.reject(item, 415, "infected")
            worklist.ok = []
        """,
    )
    tap = site.tap()
    flow = site.run(lines="callback scan")
    for round_number in (1, 2):  # the second time it is worked on from the beginning, not waited for
        if event == "file":
            site.announce("f", DATA)
        elif event == "link":
            site.event("f", link="g")
        else:
            site.event("f", remove="")
        flow.until_settled(round_number)
    assert tap.take() == []
    assert flow.count(Counter.MESSAGES_REJECTED) == 2
    site.assert_clean(flow)


def test_a_removal_that_after_work_fails_can_be_repeated(site):
    plugin(
        site,
        "boom",
        """
        def after_work(self, worklist):
            if not hasattr(self, "times"):
                self.times = 1
                raise ValueError("boom")
        """,
    )
    tap = site.tap()
    flow = site.run(lines="callback boom")
    (site.dest / "f").write_bytes(DATA)
    site.event("f", remove="")
    flow.until(flow.kept, "kept")
    flow.advance(2)
    flow.until_settled(1)
    assert tap.paths() == ["f"]
    site.assert_clean(flow)


def test_a_callback_that_takes_too_long(site, caplog, tmp_path, monkeypatch):
    plugin(
        site,
        "slow",
        """
        def after_accept(self, worklist):
            if not hasattr(type(self), "times"):
                type(self).times = 1
                while not os.path.exists(os.environ["TEST_CALLBACK_GO"]):
                    time.sleep(0.01)
        """,
    )
    go = tmp_path / "go"
    monkeypatch.setenv("TEST_CALLBACK_GO", str(go))
    tap = site.tap()
    flow = site.run(lines="callback slow\ncallbackTimeout 10")
    site.announce("f", DATA)
    flow.until(lambda: flow.assembled.chain.busy, "it is with the callback")
    flow.advance(11)
    flow.until(flow.kept, "kept while the callback goes on")
    go.touch()
    assert "overran callbackTimeout (10 s)" in flow.kept()[0].reason
    flow.advance(2)
    flow.until_settled(1)
    assert tap.paths() == ["f"]
    site.assert_clean(flow)


def test_a_slow_callback_stalls_no_transfer(site, tmp_path, monkeypatch):
    plugin(
        site,
        "slow",
        """
        def after_work(self, worklist):
            while not os.path.exists(os.environ["TEST_CALLBACK_GO"]):
                time.sleep(0.01)
        """,
    )
    go = tmp_path / "go"
    monkeypatch.setenv("TEST_CALLBACK_GO", str(go))
    tap = site.tap()
    flow = site.run(lines="callback slow\nbatch 5")
    for number in range(20):
        site.announce(f"f{number:02d}", DATA)
    flow.until_counted(Counter.FILES_VERIFIED, 20)
    assert flow.count(Counter.MESSAGES_PUBLISHED) == 0
    go.touch()
    flow.until_settled(20)
    assert len(tap.take()) == 20
    site.assert_clean(flow)


def test_download_in_the_flows_stead(site):
    plugin(
        site,
        "fetch",
        """
        def download(self, item):
            if item["relPath"] == "mine":
                with open(item.target, "w") as file: file.write("made here")
                return True
            if item["relPath"] == "fails" and not hasattr(self, "failed"):
                self.failed = True
                return False
            return None
        """,
    )
    tap = site.tap()
    flow = site.run(lines="callback fetch")
    for name in ("mine", "fails", "yours"):
        site.announce(name, DATA)
    flow.until_settled(2)
    assert tap.paths() == ["mine", "yours"]
    assert "Fetch.download failed" in flow.kept()[0].reason
    flow.advance(2)
    flow.until_settled(3)
    assert site.files() == {"mine": b"made here", "fails": DATA, "yours": DATA}
    assert tap.paths() == ["fails"]
    site.assert_clean(flow)


def test_download_and_after_work_by_callbacks_do_not_mix_up_items(site):
    """What download leaves to the flow is on no list that after_work sees: a failure would keep it twice."""
    plugin(
        site,
        "both",
        """
        def download(self, item):
            return True if item["relPath"] == "mine" else None
        def after_work(self, worklist):
            say("after_work", *sorted(item["relPath"] for item in worklist))
            if any(item["relPath"] == "mine" for item in worklist):
                raise ValueError("boom")
        """,
    )
    tap = site.tap()
    flow = site.run(lines="callback both")
    site.announce("mine", DATA)
    site.announce("yours", DATA)
    flow.until(flow.kept, "kept")
    flow.until_settled(1)
    assert [message.body.count(b'"mine"') for message in flow.kept()] == [1]
    assert tap.paths() == ["yours"]
    assert sorted(lines(site)) == ["after_work mine", "after_work yours"]
    flow.close()


def test_a_callback_of_its_own_that_gathers(site):
    # R35
    plugin(
        site,
        "other",
        """
        def __init__(self, options):
            super().__init__(options)
            self.given = False
        def gather(self, message_count_max):
            if self.given:
                return True, []
            self.given = True
            from sarrapipe.message.codec_v03 import decode
            from sarrapipe.message.worklist import WorkItem
            with open(LINES + ".json", "rb") as file:
                return True, [WorkItem(decode(file.read()))]
        """,
    )
    site.put("gathered", DATA)
    (site.directory / "lines.json").write_text(json.dumps(site.fields("gathered", DATA)))
    tap = site.tap()
    flow = site.run(lines="callback other")
    site.announce("consumed", DATA)
    flow.until_settled(2)
    assert tap.paths() == ["consumed", "gathered"]
    site.assert_clean(flow)


def test_what_callbacks_gathered_is_kept_like_any_message(site):
    plugin(
        site,
        "again",
        """
        def __init__(self, options):
            super().__init__(options)
            self.given = False
        def gather(self, message_count_max):
            if self.given:
                return True, []
            self.given = True
            from sarrapipe.message.codec_v03 import decode
            from sarrapipe.message.worklist import WorkItem
            with open(LINES + ".json", "rb") as file:
                return True, [WorkItem(decode(file.read()))]
        """,
    )
    (site.dest / "gathered").mkdir()
    site.put("gathered", DATA)
    (site.directory / "lines.json").write_text(json.dumps(site.fields("gathered", DATA)))
    tap = site.tap()
    flow = site.run(lines="callback again\nattempts 1")
    flow.until(flow.kept, "kept")
    (site.dest / "gathered").rmdir()
    flow.advance(2)
    flow.until_settled(1)
    assert tap.paths() == ["gathered"]
    site.assert_clean(flow)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("callback nowhere", "callback 'nowhere' not found"),
        ("callback broken", "cannot start: RuntimeError: no"),
        ("import nowhere.at_all", "import nowhere.at_all"),
    ],
)
def test_callbacks_that_cannot_be_loaded_are_named(site, line, text):
    plugin(site, "broken", 'def __init__(self, options): raise RuntimeError("no")')
    with pytest.raises(ConfigError, match=text):
        site.run(lines=line)


def test_subscribe_calls_them_too(site):
    plugin(site, "seen", 'def after_work(self, worklist): say(*[item["relPath"] for item in worklist.ok])')
    flow = site.run("subscribe", "callback seen")
    site.announce("f", DATA)
    flow.until_settled(1)
    assert lines(site) == ["f"]
    assert site.files() == {"f": DATA}
    flow.close()
    assert leftovers(flow.config) == {}


def test_a_callback_says_where_files_go(site):
    plugin(
        site,
        "place",
        """
        def after_accept(self, worklist):
            for item in worklist.incoming:
                if "there" in item["relPath"]:
                    item["new_dir"] = self.o.directory + "/other"
                if "named" in item["relPath"]:
                    item["new_file"] = "another"
                if "out" in item["relPath"]:
                    item["new_dir"] = "/etc"
                if "up" in item["relPath"]:
                    item["new_file"] = "../x"
        """,
    )
    tap = site.tap()
    flow = site.run(lines="callback place")
    for name in ("there", "named", "there.named", "plain", "out", "up"):
        site.announce(name, DATA)
    flow.until_settled(6)
    found = {name for name, content in site.files().items() if content is not None}
    assert found == {"other/there", "another", "other/another", "plain"}
    assert tap.paths() == ["another", "other/another", "other/there", "plain"]
    assert flow.count(Counter.ERRORS_UNSAFE_PATH) == 2
    site.assert_clean(flow)


def test_a_callback_announces_by_other_means(site, tmp_path):
    plugin(
        site,
        "other",
        f"""
        def post(self, worklist):
            with open({str(tmp_path / "posted")!r}, "a") as file:
                file.writelines(item["relPath"] + "\\n" for item in worklist.ok)
        """,
    )
    flow = site.run(lines="flowcb other.Other")
    site.announce("f", DATA)
    flow.until_settled(1)
    assert (tmp_path / "posted").read_text() == "f\n"
    site.assert_clean(flow)


def test_blocks_are_told_of_as_they_are_written(site):
    """Each once, with code 206, before the file is whole; and the announcement carries no such report."""
    plugin(
        site,
        "parts",
        """
        def on_part(self, items):
            for item in items: say(item["relPath"], item["report"]["code"], item["report"]["message"])
        def after_work(self, worklist): say("whole", *(item["relPath"] for item in worklist.ok))
        """,
    )
    tap, flow = site.tap(), site.run(lines="callback parts")
    posted = Posted(site, "d/big", bytes(range(250)) * 10, 1000)
    site.publish_all(posted.messages((0, 2)))
    flow.until_counted(Counter.SEGMENTS_OK, 2)
    flow.until(lambda: len(lines(site)) == 2, "two blocks are told of")
    site.publish(posted.message(1))
    flow.until_settled(3)
    told = lines(site)
    assert sorted(told[:3]) == [f"d/big 206 block {n} of 3 is written" for n in range(3)]
    assert told[3:] == ["whole d/big"]
    assert "report" not in tap.one()

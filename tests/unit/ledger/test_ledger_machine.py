"""A source, a pump's ledger and a real directory, driven at random: the path ends as the source's, once.

The machine plays one instance and its successors (a kill is a new incarnation over the same files), with the
messages of one source: versions, removals, re-creations, redeliveries. Where the exhaustive search has its
dictionaries, here are LMDB and a file system.
"""

from __future__ import annotations

import os
import shutil
import tempfile

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sarrapipe.ledger import (
    ASSEMBLING,
    COMMITTED,
    Admit,
    Announcement,
    Claim,
    Commit,
    Ledger,
    Misplaced,
    Removal,
    Remove,
    Standing,
    generation_of,
    message_id_of,
    seen_key,
)
from sarrapipe.ledger.inspect import inconsistencies

PATHS = ["a", "b"]
SEGMENT = 4
XATTR = "user.sarrapipe.generation"


class Pump(RuleBasedStateMachine):
    """One message in hand at a time for each path; steps of a message are separate rules."""

    def __init__(self):
        super().__init__()
        self.root = tempfile.mkdtemp(
            prefix="ledger-machine-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None
        )
        self.incarnation = 0
        self.now = 0
        self.source: dict[str, bytes] = {}
        self.queue: list[dict] = []  # not acknowledged, not in hand
        self.hand: list[dict] = []  # in hand: message and where it is
        self.announced: list[tuple[str, bytes | None, int]] = []
        self.kills = 0
        for name in ("place", "inflight"):
            os.mkdir(f"{self.root}/{name}")
        self.open()

    def open(self):
        self.incarnation += 1
        self.ledger = Ledger.open(
            f"{self.root}/ledger", incarnation=self.incarnation, instance=1, nodupe_ttl_s=1000
        )

    def teardown(self):
        self.drain()
        for path in PATHS:
            assert self.in_place(path) == self.source.get(path)
        assert os.listdir(f"{self.root}/inflight") == []
        with self.ledger.view() as view:
            assert inconsistencies(view.tables) == []
            assert list(view.tables.files()) == []
        self.check_announcements()
        self.ledger.close()
        shutil.rmtree(self.root)

    def check_announcements(self):
        """The newest state of every path was announced; without a kill nothing twice."""
        for path in PATHS:
            own = [event for event in self.announced if event[0] == path]
            if path in self.source:
                assert own
                assert own[-1][1] == self.source[path]
            elif own:
                assert own[-1][1] is None
            if not self.kills:
                assert len({event[2] for event in own}) == len(own)

    # the source

    @rule(path=st.sampled_from(PATHS), size=st.sampled_from([1, 3, 9]), letter=st.sampled_from(b"xyz"))
    def write(self, path, size, letter):
        self.now += 1
        content = bytes([letter]) * size
        self.source[path] = content
        self.queue.append({"kind": "put", "path": path, "content": content, "pub": self.now})

    @rule(path=st.sampled_from(PATHS))
    def remove(self, path):
        if path in self.source:
            self.now += 1
            del self.source[path]
            self.queue.append({"kind": "remove", "path": path, "pub": self.now})

    # the pump

    @rule(which=st.integers(0, 9))
    def take(self, which):
        if self.queue:
            message = self.queue.pop(which % len(self.queue))
            self.hand.append({"message": message, "at": "begin"})

    @rule(which=st.integers(0, 9))
    def step(self, which):
        if self.hand:
            item = self.hand[which % len(self.hand)]
            getattr(self, "do_" + item["at"])(item)

    @rule()
    def kill(self):
        """What it had in hand comes again."""
        self.kills += 1
        self.queue += [item["message"] for item in self.hand if not item.get("stale")]
        self.hand.clear()
        self.ledger.environment.close()  # as a kill does: nothing is buried, no lock let go of on purpose
        os.close(self.ledger._locks)
        self.open()

    @rule(which=st.integers(0, 9))
    def redeliver(self, which):
        """The broker delivers again what is in hand, while it is in hand."""
        if self.hand:
            item = self.hand[which % len(self.hand)]
            if not item.get("stale"):
                item["stale"] = True
                self.queue.append(item["message"])

    def drain(self):
        for _ in range(400):
            if not self.hand and not self.queue:
                return
            while self.queue:
                self.take(0)
            for item in list(self.hand):
                if item in self.hand:
                    getattr(self, "do_" + item["at"])(item)
        raise AssertionError(f"does not settle: {self.hand}")

    @invariant()
    def whole_files_only(self):
        for path in PATHS:
            content = self.in_place(path)
            assert content is None or len(set(content)) == 1

    # steps of an item

    def announcement(self, m):
        target = f"{self.root}/place/{m['path']}"
        size = len(m["content"])
        fingerprint = seen_key(m["content"], target)
        grid = SEGMENT if size > SEGMENT else 0
        identity = m["content"].hex()
        return Announcement(
            target, generation_of(target, "s", size, m["pub"], grid, identity), fingerprint,
            message_id_of("x", m["path"], str(m["pub"]), fingerprint), m["pub"], m["pub"], size, grid,
        )  # fmt: skip

    def inflight(self, claim: Claim) -> str:
        return f"{self.root}/inflight/{claim.nonce.hex()}"

    def in_place(self, path: str) -> bytes | None:
        try:
            with open(f"{self.root}/place/{path}", "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def do_begin(self, item):
        m = item["message"]
        with self.ledger.transaction() as decide:
            if m["kind"] == "remove":
                target = f"{self.root}/place/{m['path']}"
                message_id = message_id_of("x", m["path"], str(m["pub"]), b"")
                item["removal"] = Removal(message_id, target, m["pub"])
                outcome = decide.begin_removal(item["removal"])
            else:
                outcome = decide.admit(self.announcement(m))
        if (
            outcome.outcome in (Remove.ANSWERED, Remove.OVERTAKEN, Admit.ANSWERED, Admit.OVERTAKEN)
            or outcome.outcome is Admit.DUPLICATE
        ):
            self.hand.remove(item)
        elif outcome.outcome is Remove.REMOVE:
            item["at"] = "remove"
        elif outcome.outcome in (Admit.ADMITTED, Admit.TAKEN_OVER):
            item["claim"] = outcome.claim
            item["at"] = {ASSEMBLING: "fetch", COMMITTED: "recover"}.get(outcome.phase, "drop")
            item["again"] = True
        elif getattr(outcome, "blocker", None) is not None:
            self.free(outcome.blocker)

    def free(self, blocker):
        if blocker.dead:
            with self.ledger.transaction() as decide:
                abandoned = decide.abandon(blocker.holder)
            if abandoned is not None:
                self.unlink(self.inflight(abandoned.claim))
                with self.ledger.transaction() as decide:
                    assert decide.drop(abandoned.claim).closed

    def unlink(self, path):
        if os.path.exists(path):
            os.unlink(path)

    def do_fetch(self, item):
        content = item["message"]["content"]
        claim = item["claim"]
        with open(self.inflight(claim), "ab"):
            pass
        with open(self.inflight(claim), "r+b") as file:
            with self.ledger.transaction() as decide:
                got = decide.claim(claim, 1, inode=os.fstat(file.fileno()).st_ino)
                row = decide.row(claim)
            assert row is not None
            if row.segment_count == 1:
                file.write(content)
                item["at"] = "commit"
                return
            for number in got.numbers:
                file.seek(number * SEGMENT)
                file.write(content[number * SEGMENT :][:SEGMENT])
                file.flush()
                with self.ledger.transaction() as decide:
                    if decide.mark(claim, [(number, b"d" * 16)]).complete:
                        item["at"] = "commit"
            if not row.missing:
                item["at"] = "commit"

    def do_commit(self, item):
        claim = item["claim"]
        os.setxattr(self.inflight(claim), XATTR, claim.generation)
        with self.ledger.transaction() as decide:
            committed = decide.commit(claim, os.stat(self.inflight(claim)).st_ino, self.standing(item))
        if committed.outcome is Commit.COMMITTED:
            item["at"] = "rename"
        elif committed.outcome is Commit.DISCARDED:
            item["at"] = "drop"
            item["again"] = False
        else:
            assert committed.outcome is Commit.WAIT
            self.free(committed.blocker)

    def standing(self, item):
        try:
            target = f"{self.root}/place/{item['message']['path']}"
            return Standing(0, os.getxattr(target, XATTR))
        except FileNotFoundError:
            return None

    def do_rename(self, item):
        os.rename(self.inflight(item["claim"]), f"{self.root}/place/{item['message']['path']}")
        item["at"] = "publish"

    def do_recover(self, item):
        with self.ledger.view() as view:
            row = view.row(item["claim"])
        target = f"{self.root}/place/{item['message']['path']}"
        if os.path.exists(target) and os.stat(target).st_ino == row.inode:
            item["at"] = "publish"
        elif os.path.exists(self.inflight(item["claim"])):
            item["at"] = "rename"
        else:
            with self.ledger.transaction() as decide:
                outcome, item["claim"] = decide.misplaced(item["claim"])
            item["at"] = "fetch" if outcome is Misplaced.RESTART else "drop"

    def do_publish(self, item):
        m = item["message"]
        content = m.get("content")
        assert self.in_place(m["path"]) == content
        self.announced.append((m["path"], content, m["pub"]))
        item["at"] = "settle"

    def do_settle(self, item):
        with self.ledger.transaction() as decide:
            if "removal" in item:
                assert decide.settle_removal(item["removal"])
            else:
                assert decide.settle(item["claim"]).closed
        self.hand.remove(item)

    def do_drop(self, item):
        self.unlink(self.inflight(item["claim"]))
        with self.ledger.transaction() as decide:
            assert decide.drop(item["claim"]).closed
        if item["again"]:
            item["at"] = "begin"
        else:
            self.hand.remove(item)

    def do_remove(self, item):
        self.unlink(f"{self.root}/place/{item['message']['path']}")
        item["at"] = "publish"


TestPump = Pump.TestCase
TestPump.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

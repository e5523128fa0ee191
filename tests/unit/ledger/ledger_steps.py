"""The steps of the exhaustive search: what each thread of each process can do next, and the faults.

This is the protocol that `flow` follows, written small. A decision calls the production function through
`Rules`, so that a test can put a broken one in its place. Merged into one step is only what no fault can tell
apart. A step returns False where it cannot be taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ledger_faults import ENVIRONMENT, Surroundings
from ledger_world import FOREIGN, NODUPE_NS, Event, Move, Put, Remove, State, Thread, World, is_later

from sarrapipe.ledger import admission, blocks, completion, inplace, recovery, removal, segments
from sarrapipe.ledger.admission import Admit
from sarrapipe.ledger.completion import Blocker, Commit, Misplaced, Standing
from sarrapipe.ledger.order import event_is_older, file_is_older
from sarrapipe.ledger.records import ASSEMBLING, COMMITTED, NOBODY, Claim
from sarrapipe.ledger.removal import Remove as Outcome


class Violation(AssertionError):
    """A guarantee does not hold."""


class Rules:
    """The decisions under test; a broken variant replaces one."""

    admit = staticmethod(admission.admit)
    claim = staticmethod(segments.claim)
    mark = staticmethod(segments.mark)
    commit = staticmethod(completion.commit)
    settle = staticmethod(completion.settle)
    drop = staticmethod(completion.drop)
    park = staticmethod(completion.park)
    misplaced = staticmethod(completion.misplaced)
    begin_removal = staticmethod(removal.begin_removal)
    begin_rename = staticmethod(removal.begin_rename)
    not_moved = staticmethod(removal.not_moved)
    settle_removal = staticmethod(removal.settle_removal)
    abandon = staticmethod(recovery.abandon)
    may_write = staticmethod(inplace.may_write)


class Steps(Surroundings):
    """What can happen next in a scenario, under some rules."""

    def __init__(self, rules: type[Rules] = Rules) -> None:
        self.rules = rules

    def successors(self, world: Callable[[], World]) -> Iterator[tuple[str, bool, State]]:
        """Yield name, whether it is a fault, and the state after every step from here.

        Args:
            world: Gives a new `World` of the present state at each call.
        """
        now = world()
        for thread in now.threads:
            for name in ACTIONS[thread.at]:
                if name in OPTIONAL and not OPTIONAL[name](now, thread):
                    continue
                w = world()
                if name in DECIDES and thread.process not in w.alive:
                    self._end(w, thread.process)  # `Ledger.transaction` refuses who was declared dead
                    yield f"{thread.process} finds itself dead", False, w.frozen()
                elif getattr(self, "do_" + name)(w, thread) is not False:
                    w.collect()
                    yield f"{thread.process}/{thread.message} {name}", False, w.frozen()
        for name, fault, moves in ENVIRONMENT:
            for choice in getattr(self, moves)(now):
                w = world()
                if getattr(self, "do_" + name)(w, *choice) is not False:
                    w.collect()
                    yield f"{name} {choice}", fault, w.frozen()

    # a message that announces a file

    def do_admit(self, w: World, t: Thread) -> bool | None:
        admission = self.rules.admit(w, w.announcement(t.message), w.new_nonce(), t.process, 0)
        outcome = admission.outcome
        if outcome in (Admit.ANSWERED, Admit.DUPLICATE, Admit.OVERTAKEN):
            at = "ack" if outcome is Admit.ANSWERED else self._after_refusal(w, t)
            w.swap(t, t._replace(at=at, claim=None, extra=None))
        elif outcome in (Admit.ADMITTED, Admit.JOINED):
            at = "make" if outcome is Admit.ADMITTED else "join"
            w.swap(t, t._replace(at=at, claim=admission.claim))
        elif outcome is Admit.TAKEN_OVER:
            at = {ASSEMBLING: "make", COMMITTED: "check"}.get(admission.phase, "unlink")
            w.swap(t, t._replace(at=at, claim=admission.claim, extra="admit"))
        # RUNNING, FURTHER, WAIT: the thread stays and asks again
        return None

    def _after_refusal(self, w: World, t: Thread) -> str:
        """A rename that was not moved is announced all the same: it tells that the old name is gone."""
        return "publish" if isinstance(w.scenario.messages[t.message], Move) else "ack"

    def do_make(self, w: World, t: Thread) -> None:
        """Open or make the inflight file; what is in a small one is not trusted."""
        message = w.scenario.messages[t.message]
        count = w.announcement(t.message).size
        nonce = t.claim.nonce
        inode = nonce[0]
        if (message.path, nonce) not in w.inflight or count == 1:
            w.inflight = w.inflight.put((message.path, nonce), inode)
            w.content = w.content.put(inode, ("",) * count)
        w.swap(t, t._replace(at="work" if count > 1 else "fetch", extra=None))

    def do_fetch(self, w: World, t: Thread) -> bool | None:
        """Fetch a small file from the first source that has it."""
        if not self._source_exists(w, t):
            w.swap(t, t._replace(at="unlink", extra="reject"))
            return None
        self._write(w, t.claim, 0, self._version(w, t))
        w.swap(t, t._replace(at="stat" if w.scenario.outsider else "commit"))
        return None

    def _version(self, w: World, t: Thread) -> str:
        if t.message >= 0:
            return w.scenario.messages[t.message].version
        return t.claim.generation.decode().partition("=")[2].partition("@")[0]

    def _source_exists(self, w: World, t: Thread) -> bool:
        """Own source first, then those recorded with the row (`View.sources`)."""
        urls = {t.message}
        row = w.get_file(t.claim.generation)
        if row is not None:
            urls.add(int(row.url))
            urls.update(int(m.url) for _, m in w.messages(t.claim.generation))
        return any(not getattr(w.scenario.messages[u], "gone", False) for u in urls if u >= 0)

    def _write(self, w: World, claim: Claim, number: int, version: str) -> None:
        """Write through the descriptor: wherever the file is by now."""
        inode = self._inode(w, claim)
        parts = w.content.get(inode)
        if parts is None:
            return
        parts = (*parts[:number], version, *parts[number + 1 :])
        w.content = w.content.put(inode, parts)
        in_place = any(entry[0] == inode for entry in w.final.values())
        if in_place and len(set(parts)) > 1:
            raise Violation(f"a file in place was written to: {parts}")

    def _entry(self, w: World, path: str) -> Any:
        """What stands under a name."""
        return w.final.get(path)

    def _inode(self, w: World, claim: Claim) -> int:
        """Of the file that is written under a claim."""
        del w
        return claim.nonce[0]

    def do_fail(self, w: World, t: Thread) -> None:
        """A transfer, or the file system, fails for a while."""
        w.spend("fails")
        if t.at == "remove":
            message = w.scenario.messages[t.message]
            name = message.old if isinstance(message, Move) else message.path
            removal.end_adopted(w, name, bytes([t.message]), t.process, 0)
            w.swap(t, t._replace(at="keep"))
        elif t.at == "move":
            self.rules.not_moved(w, w.removal(t.message), t.process, 0)
            w.swap(t, t._replace(at="keep"))
        elif t.at == "work":
            self.rules.park(w, t.claim, t.process, 0)
            w.swap(t, t._replace(at="keep", claim=None))
        else:
            w.swap(t, t._replace(at="unlink", extra="keep"))

    def do_refuse(self, w: World, t: Thread) -> None:
        """What is committed cannot be put in place for a while."""
        w.spend("refusals")
        w.swap(t, t._replace(at="unlink", extra="keep"))

    def do_rest(self, w: World, t: Thread) -> None:
        """A written block is kept until the others have come; its holder needs not remember it."""
        if w.has("rests"):
            w.spend("rests")
        if t.at == "work":
            self.rules.park(w, t.claim, t.process, 0)
        w.swap(t, t._replace(at="keep", claim=None))

    # segments

    def do_join(self, w: World, t: Thread) -> bool | None:
        return self.do_work(w, t)

    def do_work(self, w: World, t: Thread) -> bool | None:
        """Claim a segment; "work" is the owner's, "join" is of others: a block's holder, an idle helper."""
        helper = t.message < 0
        row = w.get_file(t.claim.generation)
        if not helper and row is not None and (row.target, t.claim.nonce) not in w.inflight:
            w.swap(t, t._replace(at="admit", claim=None))  # a block whose file the owner has yet to make
            return None
        message = None if helper else w.scenario.messages[t.message]
        first, count = (0, 0) if helper or not message.block else (message.first, message.block)
        got = self.rules.claim(w, t.claim, 1, t.process, first, count)
        if got is None:
            w.swap(t, None if helper else t._replace(at="admit", claim=None))
        elif got.numbers:
            w.swap(t, t._replace(at="write", extra=(got.numbers[0], t.at)))
        elif helper:
            w.swap(t, None)
        elif t.at == "join":
            w.swap(t, t._replace(at="admit", claim=None))
        elif not got.row.missing:
            w.swap(t, t._replace(at="stat" if w.scenario.outsider else "commit", extra=None))
        return None

    def do_write(self, w: World, t: Thread) -> None:
        """Some bytes of the segment are written."""
        self._write(w, t.claim, t.extra[0], "?")
        w.swap(t, t._replace(at="mark"))

    def do_mark(self, w: World, t: Thread) -> None:
        """The rest is written and verified; mark it."""
        number, back = t.extra
        self._write(w, t.claim, number, self._version(w, t))
        self.rules.mark(w, t.claim, [(number, b"d")], t.process)
        w.swap(t, t._replace(at=back, extra=None))

    # completion

    def do_stat(self, w: World, t: Thread) -> None:
        w.swap(t, t._replace(at="commit", extra=self._standing(w, t)))

    def _standing(self, w: World, t: Thread) -> Standing | None:
        entry = w.final.get(w.scenario.messages[t.message].path)
        return None if entry is None else Standing(entry[2], entry[1])

    def do_commit(self, w: World, t: Thread) -> bool | None:
        standing = t.extra if w.scenario.outsider else self._standing(w, t)
        commit, inode = self.rules.commit, self._inode(w, t.claim)
        answer = commit(w, t.claim, inode, standing, t.process, 0)
        if answer.outcome is Commit.STANDING_NEWER:
            answer = commit(w, t.claim, inode, self._standing(w, t), t.process, 0, sure=True)
        outcome = answer.outcome
        if outcome is Commit.COMMITTED:
            w.swap(t, t._replace(at="rename", extra=None))
        elif outcome is Commit.DISCARDED:
            w.swap(t, t._replace(at="unlink", extra=self._after_refusal(w, t)))
        elif outcome is Commit.LOST:
            w.swap(t, t._replace(at="admit", claim=None, extra=None))
        else:
            again = "stat" if w.scenario.outsider else "commit"
            return self._unblock(w, t, answer.blocker, again)
        return None

    def _unblock(self, w: World, t: Thread, blocker: Blocker, again: str) -> bool | None:
        """Wait for a live blocker; finish off a dead one, which can only be a commit."""
        if not blocker.dead:
            w.swap(t, t._replace(at=again, extra=None))
            return None
        row = self.rules.abandon(w, blocker.holder, t.process, 0)
        if row is None:
            return False
        w.swap(t, t._replace(at="ab_unlink", extra=(row.claim, row.row.target, again)))
        return None

    def do_ab_unlink(self, w: World, t: Thread) -> None:
        claim, target, _ = t.extra
        w.inflight = w.inflight.without((target, claim.nonce))
        w.swap(t, t._replace(at="ab_drop"))

    def do_ab_drop(self, w: World, t: Thread) -> None:
        self.rules.drop(w, t.extra[0], t.process)
        again = t.extra[2]
        w.swap(t, None if again == "end" else t._replace(at=again, extra=None))

    # a removal whose message went to another host

    def do_ad_unlink(self, w: World, t: Thread) -> None:
        for path in t.extra[0].unlink:
            w.final = w.final.without(path)
        w.swap(t, t._replace(at="ad_end"))

    def do_ad_end(self, w: World, t: Thread) -> None:
        adopted, path, again = t.extra
        removal.end_adopted(w, path, adopted.message_id, t.process, 0)
        assert again == "end"
        w.swap(t, None)

    # completion, continued

    def do_rename(self, w: World, t: Thread) -> None:
        message = w.scenario.messages[t.message]
        name = (message.path, t.claim.nonce)
        if name in w.inflight:
            inode = w.inflight[name]
            if set(w.content[inode]) != {message.version}:
                raise Violation(f"{w.content[inode]} put in place as {message.version}")
            self._check_order(w, message.path, w.final.get(message.path), t.message)
            w.inflight = w.inflight.without(name)
            w.final = w.final.put(message.path, (inode, t.claim.generation, message.mtime))
            w.swap(t, t._replace(at="publish"))
        else:
            w.swap(t, t._replace(at="check"))

    def _check_order(self, w: World, path: str, old: Any, new: int) -> None:
        """An older version never replaces a newer one that was not removed in between."""
        if old is None or old[0] == FOREIGN:
            return

        def last_announced(generation: bytes) -> Any:
            own = [
                message
                for index, message in enumerate(w.scenario.messages)
                if not isinstance(message, Remove) and w.announcement(index).generation == generation
            ]
            return max(own, key=lambda message: message.pub)

        before, after = last_announced(old[1]), last_announced(w.announcement(new).generation)
        removed = [
            m.pub
            for m in w.scenario.messages
            if path in (getattr(m, "old", ""), m.path) and not isinstance(m, Put)
        ]
        if is_later(before, after) and not any(pub >= before.pub for pub in removed):
            raise Violation(f"an older version replaced a newer one on {path}")

    def do_check(self, w: World, t: Thread) -> None:
        """Where is the file? A recoverer asks, and a finisher who was interrupted."""
        message = w.scenario.messages[t.message]
        row = w.get_file(t.claim.generation)
        entry = self._entry(w, message.path)
        if row is None or row.nonce != t.claim.nonce or row.owner != t.process:
            w.swap(t, t._replace(at="admit", claim=None, extra=None))
        elif entry is not None and entry[:2] == (row.inode, t.claim.generation):
            w.swap(t, t._replace(at="publish"))
        elif (message.path, t.claim.nonce) in w.inflight:
            w.swap(t, t._replace(at="rename"))
        else:
            nonce = w.new_nonce()
            answer = self.rules.misplaced(w, t.claim, nonce, t.process, 0)
            if answer is Misplaced.RESTART:
                w.swap(t, t._replace(at="make", claim=Claim(t.claim.generation, nonce)))
            elif answer is Misplaced.SUPERSEDED:
                w.swap(t, t._replace(at="unlink", extra=self._after_refusal(w, t)))
            else:
                w.swap(t, t._replace(at="admit", claim=None, extra=None))

    def do_publish(self, w: World, t: Thread) -> None:
        message = w.scenario.messages[t.message]
        removal = t.claim is None
        if not removal:
            entry = self._entry(w, message.path)
            if entry is None or entry[1] != t.claim.generation:
                if not w.scenario.outsider and not w.scenario.false_deaths:
                    raise Violation(f"{message.path} is announced and not in place")
                w.swap(t, t._replace(at="check"))
                return
        row = None if removal else w.get_file(t.claim.generation)
        self._announce(w, w.event(t.message, row.pub_ns if row is not None else 0))
        w.swap(t, t._replace(at="settle_removal" if removal else "settle"))

    def _announce(self, w: World, event: Event) -> None:
        key = event._replace(pub=0, mtime=0)
        same = [e for e in w.heard if e._replace(pub=0, mtime=0) == key]
        times = 1 + sum(w.heard[e] for e in same)
        if times > 1 + w.excused.get((event.path, event.version), 0) and w.scenario.nodupe:
            raise Violation(f"{event} is announced {times} times without excuse")
        w.heard = w.heard.put(event, min(w.heard.get(event, 0) + 1, 3))

    def do_settle(self, w: World, t: Thread) -> None:
        """The confirm has come."""
        nodupe_ns = NODUPE_NS if w.scenario.nodupe else 0
        closed = self.rules.settle(w, t.claim, t.process, 0, nodupe_ns)
        for message_id in closed.answered:
            w.kept = w.kept.without(message_id[0])
        at = "ack" if closed.closed else "admit"
        w.swap(t, t._replace(at=at, claim=None, extra=None))

    def do_unlink(self, w: World, t: Thread) -> None:
        path = w.scenario.messages[t.message].path
        w.inflight = w.inflight.without((path, t.claim.nonce))
        w.swap(t, t._replace(at="drop"))

    def do_drop(self, w: World, t: Thread) -> None:
        self.rules.drop(w, t.claim, t.process)
        at = "ack" if t.extra == "reject" else t.extra
        w.swap(t, t._replace(at=at, claim=None, extra=None, rejected=t.extra == "reject"))

    # removals and renames

    def do_begin(self, w: World, t: Thread) -> bool | None:
        r = w.removal(t.message)
        rename = isinstance(w.scenario.messages[t.message], Move)
        begin = self.rules.begin_rename if rename else self.rules.begin_removal
        answer = begin(w, r, t.process, 0)
        outcome = answer.outcome
        if outcome in (Outcome.ANSWERED, Outcome.OVERTAKEN):
            w.swap(t, t._replace(at="ack"))
        elif outcome is Outcome.REMOVE:
            w.swap(t, t._replace(at="remove"))
        elif outcome is Outcome.MOVE:
            w.swap(t, t._replace(at="move"))
        elif outcome is Outcome.FETCH:
            w.swap(t, t._replace(at="admit"))
        elif outcome is Outcome.WAIT:
            return self._unblock(w, t, answer.blocker, "begin")
        return None

    def do_remove(self, w: World, t: Thread) -> None:
        message = w.scenario.messages[t.message]
        name = message.old if isinstance(message, Move) else message.path
        w.final = w.final.without(name)
        w.swap(t, t._replace(at="publish"))

    def do_move(self, w: World, t: Thread) -> None:
        """Rename if the old name holds what is meant; if the new one does already, it was done before."""
        message = w.scenario.messages[t.message]
        new = w.final.get(message.path)
        if self._holds(w, message.old, message.version):
            inode = w.final[message.old][0]
            self._check_order(w, message.path, new, t.message)
            moved = (inode, w.announcement(t.message).generation, message.mtime)
            w.final = w.final.without(message.old).put(message.path, moved)
            w.swap(t, t._replace(at="publish"))
        elif self._holds(w, message.path, message.version):
            w.swap(t, t._replace(at="publish"))
        else:
            w.final = w.final.without(message.old)
            w.swap(t, t._replace(at="not_moved"))

    def _holds(self, w: World, path: str, version: str) -> bool:
        entry = w.final.get(path)
        return entry is not None and entry[0] != FOREIGN and set(w.content[entry[0]]) == {version}

    def do_not_moved(self, w: World, t: Thread) -> None:
        self.rules.not_moved(w, w.removal(t.message), t.process, 0)
        w.swap(t, t._replace(at="admit"))

    def do_settle_removal(self, w: World, t: Thread) -> None:
        self.rules.settle_removal(w, w.removal(t.message), t.process, 0)
        w.swap(t, t._replace(at="ack"))

    # acknowledgement and the kept store

    def do_ack(self, w: World, t: Thread) -> None:
        """Forget the kept entry first; then acknowledge."""
        self._check_release(w, t)
        if t.kept and w.kept.get(t.message) == t.process:
            w.kept = w.kept.without(t.message)
            w.swap(t, t._replace(kept=False) if t.tag else None)
        else:
            w.swap(t, None)

    def _check_release(self, w: World, t: Thread) -> None:
        """The outcome is durable: announced, overtaken by something recorded or foreign, or rejected."""
        message = w.scenario.messages[t.message]
        if t.rejected or w.scenario.outsider or self._heard(w, t.message):
            return
        record = w.get_path(message.path)
        if record is not None:
            older = (
                file_is_older(message.mtime, message.pub, record)
                if isinstance(message, Put)
                else (event_is_older(message.pub, record))
            )
            if older:
                return
        entry = w.final.get(message.path)
        if entry is not None and entry[2] > getattr(message, "mtime", 0):
            return
        if w.scenario.crossed and any(e.version == message.version for e in w.heard):
            return
        raise Violation(f"{w.event(t.message)} is acknowledged, and nothing came of it")

    def _heard(self, w: World, message: int) -> bool:
        event = w.event(message)
        return any((e.path, e.version) == (event.path, event.version) for e in w.heard)

    def do_keep(self, w: World, t: Thread) -> None:
        """After a failure: keep it for later, unless another worker has it there."""
        if w.kept.get(t.message, NOBODY) in (NOBODY, t.process):
            w.kept = w.kept.put(t.message, NOBODY)
        w.swap(t, t._replace(at="forget", kept=False))

    def do_forget(self, w: World, t: Thread) -> None:
        """Acknowledge what is kept."""
        if t.tag and t.message not in w.kept:  # another process has had it since
            self._check_release(w, t)
        w.swap(t, None)

    def do_early(self, w: World, t: Thread) -> bool | None:
        """Keep a message whose transfer will take long."""
        w.spend("early")
        if w.kept.get(t.message, NOBODY) not in (NOBODY, t.process):
            return False
        w.kept = w.kept.put(t.message, t.process)
        w.swap(t, t._replace(kept=True))
        return None

    def do_ack_early(self, w: World, t: Thread) -> None:
        w.swap(t, t._replace(tag=False))


def _may_rest(w: World, t: Thread) -> bool:
    message = w.scenario.messages[t.message] if t.message >= 0 else None
    if not isinstance(message, Put) or not message.block or t.claim is None:
        return False
    record = w.get_path(message.path)
    overtaken = record is not None and file_is_older(message.mtime, message.pub, record)
    may = w.has("rests") or overtaken  # it rests for ever and again: so it finds out that it is overtaken
    return may and blocks.is_written(w, t.claim.generation, message.first, message.block)


OPTIONAL = {
    "rest": _may_rest,
    "fail": lambda w, t: t.message >= 0 and w.has("fails"),
    "refuse": lambda w, t: w.has("refusals"),
    "early": lambda w, t: t.tag and not t.kept and t.message >= 0 and w.has("early"),
    "ack_early": lambda w, t: t.tag and t.kept,
}

ACTIONS = {
    "admit": ("admit", "early", "ack_early"),
    "make": ("make",),
    "fetch": ("fetch", "fail", "early", "ack_early"),
    "work": ("work", "fail", "early", "ack_early", "rest"),
    "join": ("join", "early", "ack_early", "rest"),
    "write": ("write",),
    "mark": ("mark",),
    "stat": ("stat",),
    "commit": ("commit",),
    "ab_unlink": ("ab_unlink",),
    "ab_drop": ("ab_drop",),
    "ad_unlink": ("ad_unlink",),
    "ad_end": ("ad_end",),
    "rename": ("rename", "refuse"),
    "check": ("check",),
    "publish": ("publish",),
    "settle": ("settle",),
    "unlink": ("unlink",),
    "drop": ("drop",),
    "begin": ("begin",),
    "remove": ("remove", "fail"),
    "move": ("move", "fail"),
    "not_moved": ("not_moved",),
    "settle_removal": ("settle_removal",),
    "ack": ("ack",),
    "keep": ("keep",),
    "forget": ("forget",),
}

DECIDES = frozenset(
    [
        "admit",
        "work",
        "join",
        "mark",
        "commit",
        "settle",
        "drop",
        "begin",
        "not_moved",
        "settle_removal",
        "ab_drop",
        "ad_end",
        "check",
    ]
)
"""Actions that are a write transaction."""

"""The steps of a file in blocks that is written in place (`inplace on`), for the exhaustive search.

A file in place that is being written, or was left half done, bears a mark: in `World.final` its generation
is `*`, the nonce, `?` and what it was; or `!` once somebody was allowed to write. That the mark outlives its
row, moves with its file and goes with it is as on a file system. Once somebody was let in nobody is asked
again, whatever process it is: less than what `flow` asks.
"""

from __future__ import annotations

from typing import Any

from ledger_steps import Steps, Thread, Violation, World
from ledger_world import FOREIGN, Put

from sarrapipe.ledger.inplace import MayWrite
from sarrapipe.ledger.records import COMMITTED, Claim

__all__ = ["InPlaceSteps"]

_MARK = b"*"
_ASKED, _ALLOWED = b"?", b"!"
_FORMER = 3
"""Where in a mark the former generation begins."""


class InPlaceSteps(Steps):
    """As `Steps`; files in blocks are written over what stands there, where that may be."""

    def _marked(self, w: World, claim: Claim) -> tuple[str, Any] | None:
        """Path and entry of the file that is written under a claim, wherever it is by now."""
        mark = _MARK + claim.nonce
        for path, entry in w.final.items():
            if entry[1].startswith(mark):
                return path, entry
        return None

    def _inode(self, w: World, claim: Claim) -> int:
        found = self._marked(w, claim)
        return super()._inode(w, claim) if found is None else found[1][0]

    def _standing(self, w: World, t: Thread) -> Any:
        entry = w.final.get(w.scenario.messages[t.message].path)
        return None if entry is None or entry[1].startswith(_MARK) else super()._standing(w, t)

    def _entry(self, w: World, path: str) -> Any:
        """What is only marked is still what it was."""
        entry = w.final.get(path)
        if entry is None or entry[1][:1] != _MARK or entry[1][2:3] != _ASKED:
            return entry
        return entry[0], entry[1][_FORMER:], entry[2]

    # the file

    def _may_mark(self, w: World, path: str) -> bool:
        entry = w.final.get(path)
        return entry is not None and entry[0] != FOREIGN and not entry[1].startswith(_MARK)

    def do_make(self, w: World, t: Thread) -> None:
        """Open what was begun; begin in place where that may be, else beside it."""
        message = w.scenario.messages[t.message]
        count = w.announcement(t.message).size
        row = w.get_file(t.claim.generation)
        if count == 1 or (message.path, t.claim.nonce) in w.inflight:
            super().do_make(w, t)
        elif self._is_there(w, t.claim, message.path):
            w.swap(t, t._replace(at="work", extra=None))
        elif row is not None and row.nonce == t.claim.nonce and row.missing < count:
            w.swap(t, t._replace(at="check", extra=None))  # what was written is gone
        elif getattr(message, "block", 0) and self._may_mark(w, message.path):
            inode, former, mtime = w.final[message.path]
            w.final = w.final.put(message.path, (inode, _MARK + t.claim.nonce + _ASKED + former, mtime))
            w.content = w.content.put(inode, (w.content[inode] * count)[:count])
            w.swap(t, t._replace(at="work", extra=None))
        else:
            super().do_make(w, t)

    def _is_there(self, w: World, claim: Claim, path: str) -> bool:
        found = self._marked(w, claim)
        return found is not None and found[0] == path

    def do_work(self, w: World, t: Thread) -> bool | None:
        """Before the first segment is claimed ask whether the file in place may be written."""
        row = w.get_file(t.claim.generation)
        if row is None or row.nonce != t.claim.nonce or (row.target, t.claim.nonce) in w.inflight:
            return super().do_work(w, t)
        there = self._is_there(w, t.claim, row.target)
        found = self._marked(w, t.claim)
        allowed = found is not None and found[1][1][2:3] == _ALLOWED
        asks = not allowed
        if asks:
            answer, blocker = self.rules.may_write(w, t.claim, is_there=there)
            if answer is MayWrite.WAIT:
                return self._unblock(w, t, blocker, t.at)
            if found is not None and answer in (MayWrite.YES, MayWrite.OVERTAKEN):
                allowed = answer is MayWrite.YES
                path, (inode, mark, mtime) = found
                now = mark[:2] + _ALLOWED if allowed else mark[_FORMER:]
                w.final = w.final.put(path, (inode, now, mtime))
        if not allowed or not (there or asks):  # else an owner that was let in finds out later
            w.swap(
                t,
                t._replace(at="check", extra=None) if t.at == "work" else t._replace(at="admit", claim=None),
            )
            return None
        return self._claim_own(w, t)

    def _claim_own(self, w: World, t: Thread) -> None:
        message = w.scenario.messages[t.message]
        got = self.rules.claim(w, t.claim, 1, t.process, message.first, message.block)
        if got is None:
            w.swap(t, t._replace(at="admit", claim=None))
        elif got.numbers:
            w.swap(t, t._replace(at="write", extra=(got.numbers[0], t.at)))
        elif t.at == "join":
            w.swap(t, t._replace(at="admit", claim=None))
        elif not got.row.missing:
            w.swap(t, t._replace(at="commit", extra=None))

    def _write(self, w: World, claim: Claim, number: int, version: str) -> None:
        found = self._marked(w, claim)
        if found is None:
            super()._write(w, claim, number, version)
            return
        path, (inode, _, _) = found
        row = w.get_file(claim.generation)
        if row is not None and row.target != path:
            raise Violation(f"a file that was moved to {path} was written to")
        parts = w.content[inode]
        w.content = w.content.put(inode, (*parts[:number], version, *parts[number + 1 :]))

    # into place

    def do_rename(self, w: World, t: Thread) -> None:
        """Take the mark away; what is put together beside is renamed."""
        message = w.scenario.messages[t.message]
        if not self._is_there(w, t.claim, message.path):
            super().do_rename(w, t)
            return
        inode = w.final[message.path][0]
        if set(w.content[inode]) != {message.version}:
            raise Violation(f"{w.content[inode]} is whole as {message.version}")
        w.final = w.final.put(message.path, (inode, t.claim.generation, message.mtime))
        w.swap(t, t._replace(at="publish"))

    def do_check(self, w: World, t: Thread) -> None:
        row = w.get_file(t.claim.generation)
        path = w.scenario.messages[t.message].path
        mine = row is not None and row.nonce == t.claim.nonce and row.owner == t.process
        if mine and row.phase == COMMITTED and self._is_there(w, t.claim, path):
            w.swap(t, t._replace(at="rename"))
        else:
            super().do_check(w, t)

    def _check_order(self, w: World, path: str, old: Any, new: int) -> None:
        known = {
            w.announcement(n).generation for n, m in enumerate(w.scenario.messages) if isinstance(m, Put)
        }
        if old is not None and old[1] in known:
            super()._check_order(w, path, old, new)

    # renames: a look, then the call, which moves whatever stands there by then

    def _holds(self, w: World, path: str, version: str) -> bool:
        entry = w.final.get(path)
        return super()._holds(w, path, version) and not entry[1].startswith(_MARK)

    def do_move(self, w: World, t: Thread) -> None:
        message = w.scenario.messages[t.message]
        if t.extra is None and self._holds(w, message.old, message.version):
            w.swap(t, t._replace(extra="meant"))
            return
        there = w.final.get(message.old)
        if t.extra is None or there is None:
            super().do_move(w, t._replace(extra=None)) if t.extra is None else w.swap(
                t, t._replace(extra=None)
            )
            return
        mark = there[1] if there[1].startswith(_MARK) else w.announcement(t.message).generation
        w.final = w.final.without(message.old).put(message.path, (there[0], mark, message.mtime))
        w.swap(t, t._replace(at="publish", extra=None))

"""The decisions, searched exhaustively; and the search itself, tried on broken decisions it must catch.

Covers design section 4 (every instant at which a process can die) and the guarantees of section 2: nothing
acknowledged is lost, the final file is the newest state, nothing is announced that is not in place, at most
one announcement without a kill or restart, no litter, and from every state all ends well.
"""

from __future__ import annotations

import pytest
from ledger_scenarios import QUICK, SLOW, Case, by_name
from ledger_search import search
from ledger_steps import Rules, Steps, Violation
from ledger_world import DEAD, World

from sarrapipe.ledger import admission, completion, removal, segments
from sarrapipe.ledger.admission import Admission, Admit
from sarrapipe.ledger.records import CLAIMED, MISSING, Pending, SegmentRow


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.scenario.name)
def test_no_interleaving_breaks_a_guarantee(case: Case):
    found = search(case.scenario)
    assert found.states >= case.states
    assert found.ends > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", SLOW, ids=lambda case: case.scenario.name)
def test_no_longer_interleaving_breaks_a_guarantee(case: Case):
    found = search(case.scenario, limit=3_000_000)
    assert found.states >= case.states
    assert found.ends > 0


class Seen:
    """A world that shows one function something else than what is there."""

    def __init__(self, world: World, **instead: object) -> None:
        self._world = world
        self._instead = instead

    def __getattr__(self, name: str) -> object:
        return self._instead.get(name) or getattr(self._world, name)


def _nothing_pending(world: World) -> Seen:
    def get_path(path: str):
        record = world.get_path(path)
        return record and record._replace(pending=Pending.NONE, generation=b"")

    return Seen(world, get_path=get_path)


def _rules(**broken: object) -> Steps:
    functions = {name: staticmethod(function) for name, function in broken.items()}
    return Steps(type("Broken", (Rules,), functions))


def commit_without_pending(w, *args, **more):
    return completion.commit(_nothing_pending(w), *args, **more)


def removal_without_pending(w, *args):
    return removal.begin_removal(_nothing_pending(w), *args)


def commit_forgets_removals(w, held, inode, standing, me, now, **more):
    answer = completion.commit(w, held, inode, standing, me, now, **more)
    row = w.get_file(held.generation)
    record = row and w.get_path(row.target)
    if record:
        w.put_path(row.target, record._replace(removed_ns=0))
    return answer


def own_redelivery_is_a_duplicate(w, a, nonce, me, now):
    entry = w.get_seen(a.fingerprint)
    if entry is not None and entry.state == CLAIMED:
        return Admission(Admit.DUPLICATE)
    return admission.admit(w, a, nonce, me, now)


def done_for_ever(w, a, nonce, me, now):
    entry = w.get_seen(a.fingerprint)
    if entry is not None and entry.state != CLAIMED:
        return Admission(Admit.DUPLICATE)
    return admission.admit(w, a, nonce, me, now)


def take_over_the_living(w, a, nonce, me, now):
    return admission.admit(Seen(w, is_alive=lambda incarnation: False), a, nonce, me, now)


def nobody_is_dead(w, a, nonce, me, now):
    return admission.admit(Seen(w, is_alive=lambda incarnation: True), a, nonce, me, now)


def claims_of_the_dead_stay(w, held, limit, me, *args):
    return segments.claim(Seen(w, is_alive=lambda incarnation: incarnation > 0), held, limit, me, *args)


def claims_of_others_are_free(w, held, limit, me, *args):
    return segments.claim(Seen(w, is_alive=lambda incarnation: False), held, limit, me, *args)


def every_mark_counts(w, held, done, me):
    row = w.get_file(held.generation)
    if row is not None:
        for number, digest in done:
            w.put_segment(held.generation, number, SegmentRow(1, 0, digest))
        w.put_file(held.generation, row._replace(missing=row.missing - len(done)))
    return segments.Marked(accepted=True, complete=False, owner=0)


def removals_in_any_order(w, r, me, now):
    def get_path(path: str):
        record = w.get_path(path)
        return record and record._replace(removed_ns=0, known_ns=0)

    return removal.begin_removal(Seen(w, get_path=get_path), r, me, now)


def a_drop_answers(w, held, me):
    row = w.get_file(held.generation)
    if row is not None:
        w.put_file(held.generation, row._replace(phase=2))
        return completion.settle(w, held, me, 0, 10**12)
    return completion.drop(w, held, me)


def a_drop_leaves_the_record(w, held, me):
    """What was committed and not put in place counts as what its path holds."""
    paths = w.t_paths
    answer = completion.drop(w, held, me)
    w.t_paths = paths
    return answer


def blocks_of_the_dead_run(w, a, nonce, me, now):
    """A block's redelivery waits for a holder that is not there any more."""
    answer = admission.admit(w, a, nonce, me, now)
    own = w.get_message(a.generation, a.message_id) is not None
    segment = w.get_segment(a.generation, a.first_segment)
    if answer.outcome is Admit.JOINED and own and segment.state == MISSING and segment.claim == DEAD:
        return answer._replace(outcome=Admit.RUNNING)
    return answer


def repeated_blocks_begin_anew(w, a, nonce, me, now):
    """What is in place already is assembled once more, from the one block that was announced again."""

    def get_path(path: str):
        record = w.get_path(path)
        return record and record._replace(generation=b"")

    there = w.get_file(a.generation) is not None
    return admission.admit(w if there else Seen(w, get_path=get_path), a, nonce, me, now)


def duplicates_do_not_raise(w, a, nonce, me, now):
    before = w.get_path(a.target)
    answer = admission.admit(w, a, nonce, me, now)
    if answer.outcome is Admit.DUPLICATE and before is not None:
        w.put_path(a.target, before)
    return answer


class SettleFirst(Steps):
    """Records the outcome before it is announced."""

    def do_publish(self, w, t):
        if t.claim is None:
            super().do_publish(w, t)
            return
        completion.settle(w, t.claim, t.process, 0, 10**12)
        w.swap(t, t._replace(at="settle"))

    def do_settle(self, w, t):
        self._announce(w, w.event(t.message))
        w.swap(t, t._replace(at="ack", claim=None))


class DropFirst(Steps):
    """Forgets a row before its file is unlinked."""

    def do_unlink(self, w, t):
        self.rules.drop(w, t.claim, t.process)
        w.swap(t, t._replace(at="drop"))

    def do_drop(self, w, t):
        super().do_unlink(w, t)
        super().do_drop(w, t._replace(at="drop"))


class FileFirst(Steps):
    """Makes the inflight file before its row."""

    def do_admit(self, w, t):
        if t.extra is None:
            nonce = w.new_nonce()
            w.inflight = w.inflight.put((w.scenario.messages[t.message].path, nonce), nonce[0])
            w.content = w.content.put(nonce[0], ("",))
            w.swap(t, t._replace(extra="made"))
        else:
            super().do_admit(w, t)


class OwnPubTime(Steps):
    """Announces with the message's pubTime, although the file answers for a later one."""

    def do_publish(self, w, t):
        if t.claim is None:
            super().do_publish(w, t)
            return
        self._announce(w, w.event(t.message))
        w.swap(t, t._replace(at="settle"))


class AckFirst(Steps):
    """Acknowledges when the file is in place, before its announcement."""

    def do_publish(self, w, t):
        super().do_publish(w, t)
        (after,) = [o for o in w.threads if o.process == t.process and o.message == t.message]
        w.swap(after, after._replace(tag=False))


class ForgetFirst(Steps):
    """Deletes the kept entry when the transfer begins."""

    def do_ack_early(self, w, t):
        super().do_ack_early(w, t)
        w.kept = w.kept.without(t.message)


class BlindRecovery(Steps):
    """Announces a dead process's commit without looking where the file is."""

    def do_check(self, w, t):
        w.swap(t, t._replace(at="publish"))


BROKEN = [
    ("two versions k1", _rules(commit=commit_without_pending)),
    ("remove k1 r1", _rules(begin_removal=removal_without_pending)),
    ("remove, put again k1", _rules(commit=commit_forgets_removals)),
    ("small k2 r1", _rules(admit=own_redelivery_is_a_duplicate)),
    ("remove, put again k1", _rules(admit=done_for_ever)),
    ("two sources k1 r1", _rules(admit=take_over_the_living)),
    ("small k2 r1", _rules(admit=nobody_is_dead)),
    ("segments k2", _rules(claim=claims_of_the_dead_stay)),
    ("segments k2", _rules(claim=claims_of_others_are_free)),
    ("segments k2", _rules(claim=claims_of_others_are_free, mark=every_mark_counts)),
    ("remove, put again k1", _rules(begin_removal=removals_in_any_order)),
    ("small early fail k2 r1", _rules(drop=a_drop_answers)),
    ("blocks, one refused", _rules(drop=a_drop_leaves_the_record)),
    ("blocks k1", _rules(admit=blocks_of_the_dead_run)),
    ("blocks, one twice, nodupe off", _rules(admit=repeated_blocks_begin_anew)),
    ("remove, put again k1", _rules(admit=duplicates_do_not_raise)),
    ("small k2 r1", SettleFirst()),
    ("small early fail k2 r1", DropFirst()),
    ("small k2 r1", FileFirst()),
    ("remove, put again k1", OwnPubTime()),
    ("small k2 r1", AckFirst()),
    ("small early fail k2 r1", ForgetFirst()),
    ("small k2 r1", BlindRecovery()),
]


def _broken_id(value: object) -> str | None:
    if not isinstance(value, Steps):
        return None
    changed = [n for n, f in vars(value.rules).items() if isinstance(f, staticmethod)]
    names = [getattr(value.rules, name).__name__ for name in changed] if value.rules is not Rules else []
    return " ".join(names) or type(value).__name__


@pytest.mark.parametrize(("name", "steps"), BROKEN, ids=_broken_id)
def test_the_search_catches_broken_decisions(name: str, steps: Steps):
    with pytest.raises(Violation):
        search(by_name(name), steps)

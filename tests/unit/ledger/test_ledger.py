"""The ledger over real LMDB files: one instance, several, restarts, and files that are not right."""

from __future__ import annotations

import os

import pytest

from sarrapipe.ledger import (
    ASSEMBLING,
    COMMITTED,
    Admit,
    Announcement,
    Commit,
    Ledger,
    Misplaced,
    Removal,
    Remove,
    Standing,
    completion,
    generation_of,
    message_id_of,
    seen_key,
)
from sarrapipe.ledger.admission import MAX_FURTHER

S = 10**9
D = b"d" * 16


class Clock:
    """Goes when it is told to."""

    now_ns = 10**18

    def wall_ns(self):
        return self.now_ns


def announcement(target="/d/a", mtime=1, pub=1, size=10, content=None, source="src", **more):
    content = content or f"{target} {mtime}"
    fingerprint = seen_key(content.encode("utf-8", "surrogateescape"), target)
    return Announcement(
        target=target,
        generation=generation_of(target, source, size, mtime * S, more.get("segment_size", 0), content),
        fingerprint=fingerprint,
        message_id=message_id_of("xs_src", target, str(pub), fingerprint),
        pub_ns=pub * S,
        mtime_ns=mtime * S,
        size=size,
        url=f"http://h{pub}/{target}",
        source=source,
        **more,
    )


@pytest.fixture
def ledger(tmp_path):
    with Ledger.open(str(tmp_path / "ledger"), incarnation=1, instance=1, nodupe_ttl_s=300) as ledger:
        yield ledger


def one(ledger, name, *args):
    with ledger.transaction() as decide:
        return getattr(decide, name)(*args)


def deliver(ledger, a, inode=7):
    admission = one(ledger, "admit", a)
    assert admission.outcome is Admit.ADMITTED
    assert one(ledger, "commit", admission.claim, inode, None).outcome is Commit.COMMITTED
    assert one(ledger, "settle", admission.claim).closed
    return admission.claim


def test_a_small_file_takes_three_decisions(ledger):
    a = announcement()
    admission = one(ledger, "admit", a)
    assert (admission.outcome, admission.phase, admission.missing) == (Admit.ADMITTED, ASSEMBLING, 1)
    assert one(ledger, "commit", admission.claim, 7, None).outcome is Commit.COMMITTED
    with ledger.view() as view:
        assert (view.row(admission.claim).phase, view.row(admission.claim).inode) == (COMMITTED, 7)
    assert one(ledger, "settle", admission.claim).closed
    with ledger.view() as view:
        assert view.row(admission.claim) is None
        assert list(view.tables.files()) == []
        assert list(view.tables.claims()) == []
    assert one(ledger, "admit", a).outcome is Admit.ANSWERED  # its own redelivery, never its own duplicate
    assert one(ledger, "admit", announcement(pub=2)).outcome is Admit.DUPLICATE


def test_an_older_version_is_overtaken(ledger):
    deliver(ledger, announcement(mtime=5, pub=5))
    assert one(ledger, "admit", announcement(mtime=4, pub=6)).outcome is Admit.OVERTAKEN
    assert one(ledger, "admit", announcement(mtime=6, pub=6)).outcome is Admit.ADMITTED


def test_a_removed_file_comes_back_only_by_a_later_announcement(ledger):
    deliver(ledger, announcement(mtime=5, pub=5))
    removal = Removal(b"r" * 16, "/d/a", 7 * S)
    assert one(ledger, "begin_removal", removal).outcome is Remove.REMOVE
    assert one(ledger, "settle_removal", removal)
    assert one(ledger, "begin_removal", removal).outcome is Remove.ANSWERED
    assert one(ledger, "admit", announcement(mtime=9, pub=6)).outcome is Admit.OVERTAKEN
    assert one(ledger, "admit", announcement(mtime=5, pub=8)).outcome is Admit.ADMITTED


@pytest.mark.parametrize("length", [400, 510, 511, 512, 700, 3000])
def test_long_and_odd_paths_are_keys(ledger, length):
    name = "/d/" + ("é" * length)[: length - 3] + "\udcff"
    deliver(ledger, announcement(target=name, mtime=3, pub=3))
    deliver(ledger, announcement(target=name[:-1] + "b", mtime=1, pub=1))
    with ledger.view() as view:
        assert view.tables.get_path(name).mtime_ns == 3 * S
        assert name in {path for _, path, _ in view.tables.paths()}


def test_a_transaction_that_raises_changes_nothing(ledger):
    a = announcement()
    with pytest.raises(RuntimeError), ledger.transaction() as decide:
        decide.admit(a)
        raise RuntimeError
    with ledger.view() as view:
        assert list(view.tables.files()) == []


def test_rows_of_a_former_life_are_taken_over(tmp_path):
    directory = str(tmp_path / "ledger")
    a = announcement()
    with Ledger.open(directory, incarnation=1, instance=1) as ledger:
        first = one(ledger, "admit", a)
    with Ledger.open(directory, incarnation=2, instance=1) as ledger:
        again = one(ledger, "admit", a)
        assert (again.outcome, again.claim) == (Admit.TAKEN_OVER, first.claim)
    assert os.stat(directory).st_mode & 0o777 == 0o700


def test_segments_are_shared_and_the_owner_is_told(tmp_path, ledger):
    claim = one(ledger, "admit", announcement(size=95, segment_size=10)).claim
    with ledger.transaction() as decide:
        assert decide.claim(claim, 3, inode=5).numbers == [0, 1, 2]
        assert decide.claim(claim, 2).numbers == [3, 4]
        assert decide.row(claim).inode == 5
        assert decide.pin(claim, '"v1"')
        assert not decide.pin(claim, '"v2"')
        decide.unclaim(claim, [1])
        assert decide.mark(claim, [(0, D), (2, D)]).accepted
        assert not decide.mark(claim, [(0, D)]).accepted  # given back by its mark
        assert not decide.mark(claim, [(1, D)]).accepted  # given back
        assert decide.written(claim) == [0, 2]
    with ledger.transaction() as decide:
        rest = decide.claim(claim, 99).numbers
        assert rest == [5, 6, 7, 8, 9, 1]
        assert not decide.mark(claim, [(n, D) for n in rest]).complete
        marked = decide.mark(claim, [(3, D), (4, D)])
        assert (marked.complete, marked.owner) == (True, 1)
        assert decide.claim(claim, 9).numbers == []
    assert one(ledger, "commit", claim, 5, None).outcome is Commit.COMMITTED
    assert one(ledger, "mark", claim, [(0, D)]) == (False, False, 0, 0)
    assert one(ledger, "claim", claim, 1) is None
    assert one(ledger, "written", claim) is None


def test_a_claim_with_another_nonce_is_refused_everywhere(ledger):
    claim = one(ledger, "admit", announcement(size=95, segment_size=10)).claim
    stale = claim._replace(nonce=b"12345678")
    assert one(ledger, "claim", stale, 1) is None
    assert not one(ledger, "mark", stale, [(0, D)]).accepted
    assert not one(ledger, "pin", stale, "v")
    assert one(ledger, "commit", stale, 1, None).outcome is Commit.LOST
    for name in ("settle", "drop", "park"):
        assert not one(ledger, name, stale).closed
    assert one(ledger, "misplaced", stale)[0] is Misplaced.LOST
    with ledger.view() as view:
        assert view.row(stale) is None
        assert view.row(claim).owner == 1


def test_only_synced_segments_survive_a_loss_of_power(tmp_path):
    directory = str(tmp_path / "host")
    with Ledger.open(directory, incarnation=1, instance=1, durability="host", boot="1") as ledger:
        a = announcement(size=50, segment_size=10)
        claim = one(ledger, "admit", a).claim
        with ledger.transaction() as decide:
            decide.mark(claim, [(n, D) for n in decide.claim(claim, 3).numbers])
            decide.make_durable(claim, [0, 2])
        ledger.sync()
    with Ledger.open(directory, incarnation=2, instance=1, durability="host", boot="2") as ledger:
        again = one(ledger, "admit", a)
        assert (again.outcome, again.missing) == (Admit.TAKEN_OVER, 3)
        assert one(ledger, "claim", claim, 9).numbers == [3, 4, 1]


def test_further_sources_are_recorded_and_woken(ledger):
    claim = one(ledger, "admit", announcement(pub=1)).claim
    second = announcement(pub=2)
    assert one(ledger, "admit", second).outcome is Admit.FURTHER
    assert one(ledger, "admit", second).outcome is Admit.RUNNING
    with ledger.view() as view:
        assert [url for _, url in view.sources(claim)] == ["http://h1//d/a", "http://h2//d/a"]
    committed = one(ledger, "commit", claim, 7, None)
    assert committed.pub_ns == 2 * S  # the announcement stands for the later message, too
    assert one(ledger, "admit", announcement(pub=3)).outcome is Admit.WAIT
    assert one(ledger, "settle", claim).wake == (1,)
    assert one(ledger, "admit", second).outcome is Admit.ANSWERED


def test_every_source_pins_its_own_version(ledger):
    claim = one(ledger, "admit", announcement(pub=1, size=50, segment_size=10)).claim
    one(ledger, "admit", announcement(pub=2, size=50, segment_size=10))
    urls = ["http://h1//d/a", "http://h2//d/a"]
    assert one(ledger, "whole_sources", claim) == [(url, "") for url in urls]
    assert one(ledger, "pin", claim, '"one"', urls[0])
    assert one(ledger, "pin", claim, '"two"', urls[1])
    assert not one(ledger, "pin", claim, '"three"', urls[0])
    assert not one(ledger, "pin", claim, '"three"', urls[1])
    assert one(ledger, "pin", claim, '"three"', "http://nobody/recorded/it")
    assert one(ledger, "whole_sources", claim) == list(zip(urls, ['"one"', '"two"'], strict=True))


def test_a_file_that_is_fetched_alone_has_no_further_sources(ledger):
    claim = one(ledger, "admit", announcement(pub=1, alone=True)).claim
    second = announcement(pub=2)
    assert one(ledger, "admit", second).outcome is Admit.WAIT
    assert one(ledger, "whole_sources", claim) == [("http://h1//d/a", "")]
    assert one(ledger, "drop", claim).closed
    assert one(ledger, "admit", second).outcome is Admit.ADMITTED


def test_whoever_takes_over_is_told_how_the_file_was_cut(tmp_path, ledger):
    a = announcement(size=50, segment_size=10)
    claim = one(ledger, "admit", a).claim
    assert one(ledger, "park", claim).closed
    again = one(ledger, "admit", a)
    assert (again.outcome, again.segment_size) == (Admit.TAKEN_OVER, 10)


def test_more_than_so_many_sources_wait_unrecorded(ledger):
    one(ledger, "admit", announcement(pub=1))
    outcomes = [one(ledger, "admit", announcement(pub=pub)).outcome for pub in range(2, 13)]
    assert outcomes.count(Admit.FURTHER) == MAX_FURTHER
    assert outcomes[-1] is Admit.WAIT


def test_what_others_put_there_is_not_replaced_by_something_older(ledger):
    theirs = Standing(9 * S, b"")
    ours = Standing(9 * S, b"g" * 16)
    looks = []

    def look_again(what):
        looks.append(what)
        return what

    claim = one(ledger, "admit", announcement(mtime=5)).claim
    assert one(ledger, "commit", claim, 7, theirs).outcome is Commit.STANDING_NEWER
    assert one(ledger, "commit", claim, 7, theirs, lambda: look_again(None)).outcome is Commit.COMMITTED
    assert one(ledger, "settle", claim).closed
    claim = one(ledger, "admit", announcement(mtime=6, pub=6)).claim
    assert one(ledger, "commit", claim, 7, ours).outcome is Commit.COMMITTED  # the record has judged it
    assert one(ledger, "settle", claim).closed
    claim = one(ledger, "admit", announcement(mtime=7, pub=7)).claim
    assert one(ledger, "commit", claim, 7, theirs, lambda: look_again(theirs)).outcome is Commit.DISCARDED
    assert looks == [None, theirs]
    assert one(ledger, "drop", claim).closed


def test_housekeeping_forgets_what_is_old_a_little_at_a_time(tmp_path):
    clock = Clock()
    with Ledger.open(str(tmp_path / "l"), incarnation=1, instance=1, nodupe_ttl_s=1, clock=clock) as ledger:
        for number in range(30):
            deliver(ledger, announcement(f"/d/{number}"))
        gone = Removal(b"r" * 16, "/d/gone", 5)
        one(ledger, "begin_removal", gone)
        one(ledger, "settle_removal", gone)
        under_way = one(ledger, "admit", announcement("/d/under way")).claim
        assert one(ledger, "sweep", clock.now_ns, clock.now_ns).forgotten == 0
        clock.now_ns += 10_000 * S
        rounds = [one(ledger, "sweep", clock.now_ns, 0, 8).forgotten for _ in range(6)]
        assert max(rounds) == 16
        with ledger.view() as view:
            assert [path for _, path, _ in view.tables.paths()] == ["/d/gone"]  # tombstones longer
            assert list(view.tables.seen()) == []
            assert view.row(under_way) is not None
            assert len(list(view.tables.claims())) == 1
        one(ledger, "sweep", clock.now_ns, clock.now_ns)
        with ledger.view() as view:
            assert list(view.tables.paths()) == []


def test_a_dead_removal_nobody_comes_back_for_is_found(tmp_path):
    clock = Clock()
    directory = str(tmp_path / "l")
    with Ledger.open(directory, incarnation=1, instance=1, clock=clock) as ledger:
        one(ledger, "begin_removal", Removal(b"r" * 16, "/d/gone", 5))
    with Ledger.open(directory, incarnation=2, instance=1, clock=clock) as ledger:
        assert one(ledger, "sweep", clock.now_ns, clock.now_ns).dead_removals == ()
        clock.now_ns += S
        assert one(ledger, "sweep", clock.now_ns, clock.now_ns).dead_removals == ("/d/gone",)
        adopted = one(ledger, "adopt", "/d/gone")
        assert adopted.unlink == ("/d/gone",)
        assert one(ledger, "adopt", "/d/gone") is None
        one(ledger, "end_adopted", "/d/gone", adopted.message_id)
        assert one(ledger, "begin_removal", Removal(b"r" * 16, "/d/gone", 5)).outcome is Remove.REMOVE


def test_parked_rows_are_taken_up_and_orphans_dropped(tmp_path):
    clock = Clock()
    with Ledger.open(str(tmp_path / "l"), incarnation=1, instance=1, clock=clock) as ledger:
        a = announcement(size=95, segment_size=10)
        claim = one(ledger, "admit", a).claim
        with ledger.transaction() as decide:
            decide.mark(claim, [(n, D) for n in decide.claim(claim, 4).numbers])
            assert decide.park(claim).closed
            assert not decide.park(claim).closed
        again = one(ledger, "admit", a)
        assert (again.outcome, again.missing) == (Admit.TAKEN_OVER, 6)
        one(ledger, "park", claim)
        assert one(ledger, "orphans", clock.now_ns) == []
        (orphan,) = one(ledger, "orphans", clock.now_ns + 1)
        assert one(ledger, "abandon", orphan.claim.generation).claim == claim
        assert one(ledger, "abandon", orphan.claim.generation) is None
        assert one(ledger, "drop", claim).closed
        assert one(ledger, "admit", a).outcome is Admit.ADMITTED


def test_without_duplicate_suppression_only_the_own_redelivery_is_answered(tmp_path):
    with Ledger.open(str(tmp_path / "l"), incarnation=1, instance=1, nodupe_ttl_s=0) as ledger:
        deliver(ledger, announcement(pub=1))
        assert one(ledger, "admit", announcement(pub=1)).outcome is Admit.ANSWERED
        assert one(ledger, "admit", announcement(pub=2)).outcome is Admit.ADMITTED


def test_what_a_source_puts_back_after_another_version_is_no_duplicate(ledger):
    """A path ends in the source's last state: v1, v2, v1 again (with a newer time) is v1."""
    deliver(ledger, announcement(mtime=1, pub=1, content="v1"))
    deliver(ledger, announcement(mtime=2, pub=2, content="v2"))
    assert one(ledger, "admit", announcement(mtime=3, pub=3, content="v1")).outcome is Admit.ADMITTED


def test_only_the_owner_finishes(ledger):
    """Cannot be asked for while deaths are true; the check stands all the same (the search leaves it out)."""
    claim = one(ledger, "admit", announcement()).claim
    with ledger.transaction() as decide:
        assert completion.commit(decide.tables, claim, 7, None, 2, 0).outcome is Commit.LOST
        assert decide.commit(claim, 7, None).outcome is Commit.COMMITTED
        assert not completion.settle(decide.tables, claim, 2, 0, 0).closed
        assert not completion.drop(decide.tables, claim, 2).closed
        assert not completion.park(decide.tables, claim, 2, 0).closed
        assert completion.misplaced(decide.tables, claim, b"n" * 8, 2, 0) is Misplaced.LOST
        assert decide.settle(claim).closed

"""Blocks that do not come, over real LMDB files: sources that are asked, and files that are given up."""

from __future__ import annotations

import pytest

from sarrapipe.ledger import Admit, Announcement, Commit, Ledger
from sarrapipe.ledger import blocks as ledger_blocks

S = 10**9
GENERATION = b"g" * 16


class Clock:
    """Goes when it is told to."""

    now_ns = 10**18

    def wall_ns(self):
        return self.now_ns


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ledger(tmp_path, clock):
    with Ledger.open(str(tmp_path / "ledger"), incarnation=1, instance=1, clock=clock) as ledger:
        yield ledger


def block(number, *, ranged=True, size=30, name=b"", pub=1):
    return Announcement(
        target="/d/a",
        generation=GENERATION,
        fingerprint=b"f%015d" % number,
        message_id=name or b"m%015d" % number,
        pub_ns=pub * S,
        mtime_ns=S,
        size=size,
        segment_size=10,
        url="http://h/a" if ranged else "",
        first_segment=number,
        segment_count=1,
        total_segments=3,
        ranged=ranged,
    )


def fetched(ledger, number, **more):
    """Admit a block, write it and park its file; return the claim."""
    with ledger.transaction() as decide:
        claim = decide.admit(block(number, **more)).claim
        assert decide.claim(claim, 1, first=number, count=1, inode=5).numbers == [number]
        decide.mark(claim, [(number, b"d" * 16)])
        decide.park(claim)
    return claim


def test_only_what_was_announced_can_be_claimed(ledger):
    fetched(ledger, 1)
    with ledger.transaction() as decide:
        claim = decide.admit(block(1)).claim
        assert decide.claim(claim, 9).numbers == []
        assert ledger_blocks.is_written(decide.tables, GENERATION, 1, 1)
        assert not ledger_blocks.is_written(decide.tables, GENERATION, 0, 2)


def test_the_rest_is_opened_once_for_sources_of_the_whole_file(ledger, clock):
    claim = fetched(ledger, 1)
    clock.now_ns += 10 * S
    with ledger.transaction() as decide:
        assert decide.incomplete(clock.now_ns - 20 * S) == []
        (work,) = decide.incomplete(clock.now_ns - 5 * S)
        assert decide.open_rest(claim)
        assert decide.incomplete(clock.now_ns - 5 * S) == [], "it has as long again"
        assert not decide.open_rest(claim)
        assert ledger_blocks.ranged_sources(decide.tables, GENERATION) == ["http://h/a"]
        taken = decide.admit(block(1))
        assert taken.outcome is Admit.TAKEN_OVER
        assert decide.claim(taken.claim, 9).numbers == [0, 2]
    assert work.row.missing == 2


def test_without_such_a_source_it_is_given_up(ledger, clock):
    claim = fetched(ledger, 1, ranged=False)
    clock.now_ns += 10 * S
    with ledger.transaction() as decide:
        (work,) = decide.incomplete(clock.now_ns)
        assert not decide.open_rest(claim)
        assert ledger_blocks.is_hopeless(decide.tables, work)
        abandoned, messages = decide.give_up(claim)
        assert messages == (b"m%015d" % 1,)
        assert decide.drop(abandoned.claim).closed
        assert list(decide.tables.files()) == []
        assert list(decide.tables.all_segments()) == []
        assert list(decide.tables.claims()) == []


def test_blocks_that_are_being_tried_again_are_waited_for(ledger, clock):
    """All are announced: who has their messages goes on."""
    for number in range(3):
        with ledger.transaction() as decide:
            claim = decide.admit(block(number, ranged=False)).claim
            decide.park(claim)
    clock.now_ns += 10 * S
    with ledger.transaction() as decide:
        (work,) = decide.incomplete(clock.now_ns)
        assert not decide.open_rest(claim)
        assert not ledger_blocks.is_hopeless(decide.tables, work)


def test_what_somebody_owns_or_fetches_is_not_given_up(ledger, clock):
    with ledger.transaction() as decide:
        claim = decide.admit(block(0)).claim
        assert decide.give_up(claim) is None
        decide.claim(claim, 1, first=0, count=1)
        decide.park(claim)
        assert ledger_blocks.is_fetched_by_somebody(decide.tables, GENERATION)
        assert decide.give_up(claim) is None
        clock.now_ns += S
        assert decide.incomplete(clock.now_ns)


def test_the_size_is_learnt_from_a_block_that_tells_it(ledger):
    with ledger.transaction() as decide:
        claim = decide.admit(block(0, size=-1)).claim
        assert decide.row(claim).size == -1
        assert decide.admit(block(2)).outcome is Admit.JOINED
        assert decide.row(claim).size == 30


def test_settling_answers_all_blocks_and_their_repetitions(ledger):
    with ledger.transaction() as decide:
        claim = decide.admit(block(0)).claim
        for number in (1, 2):
            assert decide.admit(block(number)).outcome is Admit.JOINED
        again = decide.admit(block(2, name=b"another message!"))
        assert again.outcome is Admit.FURTHER
        decide.mark(claim, [(n, b"d" * 16) for n in decide.claim(claim, 9).numbers])
        assert decide.commit(claim, 5, None).outcome is Commit.COMMITTED
        answered = decide.settle(claim).answered
        assert sorted(answered) == sorted([b"another message!", *(b"m%015d" % n for n in range(3))])
        for number in range(3):
            assert decide.admit(block(number)).outcome is Admit.ANSWERED
        late = decide.admit(block(1, name=b"a late message!!", pub=9))
        assert late.outcome is Admit.DUPLICATE
        assert decide.tables.get_path("/d/a").pub_ns == 9 * S


def test_what_was_committed_and_could_not_be_put_in_place_is_no_original(ledger):
    """A directory of that name, say: its blocks come again from the kept store, and are not duplicates."""
    with ledger.transaction() as decide:
        claim = decide.admit(block(0)).claim
        for number in (1, 2):
            decide.admit(block(number))
        decide.mark(claim, [(n, b"d" * 16) for n in decide.claim(claim, 9).numbers])
        assert decide.commit(claim, 5, None).outcome is Commit.COMMITTED
        assert decide.drop(claim).closed
        assert decide.admit(block(1)).outcome is Admit.ADMITTED

"""Blocks that do not come, over real LMDB files: sources that are asked, and files that are given up."""

from __future__ import annotations

import pytest

from sarrapipe.ledger import Admit, Announcement, Commit, Ledger
from sarrapipe.ledger import blocks as ledger_blocks
from sarrapipe.ledger.inplace import MayWrite

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
        sibling = 2
        assert ledger_blocks.give_up(decide.tables, claim, sibling, clock.now_ns) is None
        assert ledger_blocks.incomplete(decide.tables, clock.now_ns + 1, sibling) == []
        assert decide.incomplete(clock.now_ns + 1), "its owner may"
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


def test_the_version_of_a_source_is_pinned_for_all(ledger):
    """By the row for the first source, by one of their messages for others; whoever asks gets it."""
    with ledger.transaction() as decide:
        claim = decide.admit(block(0)).claim
        decide.admit(block(1)._replace(url="http://other/a"))
        decide.admit(block(2)._replace(url="http://other/a"))
        for url in ("http://h/a", "http://other/a"):
            assert decide.pinned(claim, url) == ""
            assert decide.pin(claim, "v1" + url, url)
            assert decide.pin(claim, "v1" + url, url)
            assert not decide.pin(claim, "v2", url)
            assert decide.pinned(claim, url) == "v1" + url
        assert [m.etag for _, m in decide.tables.messages(GENERATION)].count("v1http://other/a") == 1
        assert decide.pin(claim, "v3", "http://nobody/a"), "what is not recorded pins nothing"
        assert decide.pinned(claim, "http://nobody/a") == ""
        decide.admit(block(1, name=b"announced again!", pub=2)._replace(url="http://other/a"))
        assert not decide.pin(claim, "v2", "http://other/a")


def test_a_block_that_contradicts_the_others_is_refused(ledger):
    """What is written holds; another cut of the same version is refused unless it is announced later."""
    version = {"version": b"v"}
    with ledger.transaction() as decide:
        claim = decide.admit(block(0)._replace(**version)).claim
        assert decide.admit(block(1, size=29)._replace(**version)).outcome is Admit.WAIT
        assert ledger_blocks.is_untouched(decide.tables, GENERATION)
        decide.claim(claim, 1)
        assert not ledger_blocks.is_untouched(decide.tables, GENERATION), "somebody fetches it"
        decide.mark(claim, [(0, b"d" * 16)])
        assert not ledger_blocks.is_untouched(decide.tables, GENERATION)
        other = decide.admit(block(1, size=29)._replace(**version))
        assert other.outcome is Admit.CONTRADICTS
        assert other.contradiction == "blocks: a file of 29 bytes, another block said 30"
        cut = block(1)._replace(**version, generation=b"h" * 16, segment_size=15, total_segments=2)
        assert decide.admit(cut).contradiction == "blocks.size: 15 bytes, another block said 10"
        more = cut._replace(segment_size=10, total_segments=4, size=-1)
        assert decide.admit(more).contradiction == "blocks.count: 4, another block said 3"
        assert decide.admit(cut._replace(pub_ns=2 * S, size=31)).outcome is Admit.CONTRADICTS
        assert decide.row(claim).further == 1, "nothing is recorded of them"
        assert decide.admit(cut._replace(version=b"w", size=99)).outcome is Admit.ADMITTED
        later = cut._replace(pub_ns=2 * S, generation=b"i" * 16, fingerprint=b"F" * 16)
        assert decide.admit(later).outcome is Admit.ADMITTED


def test_what_was_committed_and_given_up_is_not_taken_for_in_place(ledger):
    """Its blocks, announced again, begin it anew."""
    with ledger.transaction() as decide:
        claim = decide.admit(block(0)).claim
        for number in (1, 2):
            decide.admit(block(number))
        decide.mark(claim, [(n, b"d" * 16) for n in decide.claim(claim, 9).numbers])
        assert decide.commit(claim, 5, None).outcome is Commit.COMMITTED
        assert decide.drop(claim).closed
        assert decide.admit(block(0)).outcome is Admit.ADMITTED


def test_the_file_in_place_is_written_when_nothing_about_it_is_pending(ledger):
    with ledger.transaction() as decide:
        whole = Announcement("/d/a", b"w" * 16, b"w", b"w", pub_ns=1, mtime_ns=1, size=3)
        former = decide.admit(whole).claim
        claim = decide.admit(block(0, pub=2)).claim
        assert decide.may_write(claim, is_there=True).answer is MayWrite.YES
        assert decide.commit(former, 7, None).outcome is Commit.COMMITTED
        found = decide.may_write(claim, is_there=True)
        assert found.answer is MayWrite.WAIT
        assert not found.blocker.dead
        decide.settle(former)
        assert decide.may_write(claim, is_there=True).answer is MayWrite.YES
        assert decide.may_write(claim, is_there=False).answer is MayWrite.LOST
        newer = decide.admit(whole._replace(generation=b"n" * 16, fingerprint=b"n", mtime_ns=9 * S)).claim
        decide.commit(newer, 8, None)
        decide.settle(newer)
        assert decide.may_write(claim, is_there=True).answer is MayWrite.OVERTAKEN
        decide.drop(claim)
        assert decide.may_write(claim, is_there=True).answer is MayWrite.LOST

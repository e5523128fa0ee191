"""Which event is the later one, and the keys that events are known by."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sarrapipe.ledger import generation_of, message_id_of, new_incarnation, seen_key
from sarrapipe.ledger.keys import Nonces
from sarrapipe.ledger.order import event_is_older, file_is_older
from sarrapipe.ledger.records import NOBODY, PathRecord

times = st.integers(0, 5)
texts = st.text(max_size=6).filter(lambda text: "\0" not in text)


def record(mtime=0, pub=0, removed=0, known=None, present=True):
    known = pub if known is None else known
    return PathRecord(mtime, pub, known, b"g", removed, present, 0, b"", NOBODY, "", 0)


@given(times, times, times, times)
def test_of_two_files_at_most_one_is_older(mtime, pub, other_mtime, other_pub):
    first = file_is_older(mtime, pub, record(other_mtime, other_pub))
    second = file_is_older(other_mtime, other_pub, record(mtime, pub))
    assert not (first and second)
    same = (mtime, pub) == (other_mtime, other_pub) or (0 in (mtime, other_mtime) and pub == other_pub)
    assert same == (not first and not second)


@given(times, times)
def test_nothing_is_overtaken_by_itself(mtime, pub):
    assert not file_is_older(mtime, pub, record(mtime, pub))
    assert not event_is_older(pub, record(mtime, pub))
    assert not event_is_older(pub, record(removed=pub, present=False))


@given(times, times, times)
def test_against_a_removal_only_pubtime_counts(mtime, pub, removed):
    assert file_is_older(mtime, pub, record(removed=removed, present=False)) == (pub < removed)
    assert event_is_older(pub, record(removed=removed, present=False)) == (pub < removed)


def test_what_has_no_modification_time_is_compared_by_pubtime():
    link = record(mtime=0, pub=5)
    assert not file_is_older(mtime_ns=1, pub_ns=6, record=link)
    assert file_is_older(mtime_ns=9, pub_ns=4, record=link)
    assert not file_is_older(mtime_ns=0, pub_ns=6, record=record(mtime=9, pub=5))


def test_a_removal_outlives_the_next_version():
    created_again = record(mtime=1, pub=5, removed=4)
    assert file_is_older(mtime_ns=9, pub_ns=3, record=created_again)
    assert event_is_older(3, created_again)


def test_a_removal_between_two_announcements_does_not_take_the_file_that_is_left():
    assert event_is_older(2, record(mtime=9, pub=1, known=3))


fields = st.tuples(texts, texts, st.integers(0, 3) | st.none(), times, times, texts)


@given(fields, fields)
def test_other_fields_give_other_generations(one, other):
    assert (generation_of(*one) == generation_of(*other)) == (one == other)
    assert len(generation_of(*one)) == 16


@given(st.tuples(texts, texts, texts, st.integers(-1, 3)), st.tuples(texts, texts, texts, st.integers(-1, 3)))
def test_other_messages_have_other_ids(one, other):
    ids = [message_id_of(m[0], m[1], m[2], b"f" * 16, m[3]) for m in (one, other)]
    assert (ids[0] == ids[1]) == (one == other)


def test_keys_take_any_path():
    odd = "/d/\udcff\udc80é"
    assert seen_key(b"f" * 16, odd) != seen_key(b"f" * 16, odd[:-1])
    assert generation_of(odd, "", None, 0, 0, "") != generation_of(odd, "", 0, 0, 0, "")


def test_nonces_and_incarnations_do_not_repeat():
    nonces = Nonces()
    assert len({nonces.new() for _ in range(1000)}) == 1000
    assert all(len(nonces.new()) == 8 for _ in range(10))
    assert nonces.new() != Nonces().new()
    assert 0 < new_incarnation() < 2**63

"""What becomes of a task that met an error, for every error there is."""

from __future__ import annotations

import pytest

from sarrapipe import errors
from sarrapipe.flow.closing import End, next_step, pause_s

RETRIED = [
    errors.TransferError,
    errors.RangeNotHonoured,
    errors.HostUntrusted,
    errors.NoSpaceThere,
    errors.StorageError,
    errors.InflightDamaged,
    errors.CallbackError,
]
REJECTED = [
    errors.AccessDenied,
    errors.Unsupported,
    errors.AlreadyThere,
    errors.SourceChanged,
    errors.TooLarge,
    errors.TooLargeThere,
    errors.UnsafePath,
    errors.MessageError,
]
GIVEN_UP = [errors.SourceGone, errors.IdentityMismatch]


@pytest.mark.parametrize("kind", RETRIED + GIVEN_UP)
def test_there_is_another_attempt(kind):
    assert next_step(kind("x"), 1, 3) is End.AGAIN
    assert next_step(kind("x"), 2, 3) is End.AGAIN


@pytest.mark.parametrize("kind", RETRIED)
def test_after_the_last_attempt_it_waits_for_better_times(kind):
    assert next_step(kind("x"), 3, 3) is End.KEEP
    assert next_step(kind("x"), 3, 3, keeps=True) is End.PARK


@pytest.mark.parametrize("kind", GIVEN_UP)
@pytest.mark.parametrize("keeps", [True, False])
def test_what_no_later_attempt_would_find_is_given_up(kind, keeps):
    assert next_step(kind("x"), 3, 3, keeps=keeps) is End.REJECT


@pytest.mark.parametrize("kind", REJECTED)
@pytest.mark.parametrize("in_segments", [True, False])
def test_what_is_final_is_rejected_at_once(kind, in_segments):
    assert next_step(kind("x"), 1, 3, in_segments=in_segments, keeps=True) is End.REJECT


def test_a_full_disk_is_waited_for_without_another_attempt():
    assert next_step(errors.NoSpace("x"), 1, 3) is End.KEEP
    assert next_step(errors.NoSpace("x"), 1, 3, in_segments=True, keeps=True) is End.PARK


def test_which_segment_was_wrong_nobody_knows():
    assert next_step(errors.IdentityMismatch("x"), 1, 3, in_segments=True) is End.ANEW


@pytest.mark.parametrize("attempts", [1, 3, 100])
def test_what_cannot_be_had_in_segments_is_fetched_in_one_piece(attempts):
    error = errors.RangeNotHonoured("x")
    assert next_step(error, attempts, 3, in_segments=True, one_piece=True) is End.ANEW


def test_every_error_of_a_transfer_is_decided():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    for kind in kinds:
        if issubclass(kind, errors.TransferError | errors.StorageError):
            assert kind in [*RETRIED, *REJECTED, *GIVEN_UP, errors.NoSpace], kind


def test_pauses_grow_and_end():
    pauses = [pause_s(attempts) for attempts in range(1, 40)]
    assert pauses[:3] == [0.2, 0.4, 0.8]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 5.0

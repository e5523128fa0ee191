"""Whole files hashed behind the writes."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import threading

import pytest

from sarrapipe.errors import StorageError
from sarrapipe.flow.verify import Verifier

DATA = random.Random(1).randbytes(3_500_000)
VALUE = base64.b64encode(hashlib.sha512(DATA).digest()).decode()
STEP = 500_000


class Waked:
    """Counts wake-ups and lets a test wait for one."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def __call__(self) -> None:
        self.event.set()

    def wait(self) -> None:
        assert self.event.wait(20)
        self.event.clear()


@pytest.fixture
def waked():
    return Waked()


@pytest.fixture
def verifier(waked):
    made = Verifier(waked)
    yield made
    made.close()


@pytest.fixture
def fd(tmp_path):
    descriptor = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled"])
def test_the_digest_does_not_depend_on_the_order_of_segments(verifier, waked, fd, order):
    verification = verifier.follow("mine", fd, len(DATA), "sha512")
    offsets = list(range(0, len(DATA), STEP))
    if order == "backwards":
        offsets.reverse()
    elif order == "shuffled":
        random.Random(2).shuffle(offsets)
    for offset in offsets:
        os.pwrite(fd, DATA[offset : offset + STEP], offset)
        verifier.wrote(verification, offset, STEP)
    waked.wait()
    assert verifier.has_completed
    (done,) = verifier.completed()
    assert (done.owner, done.value, done.error) == ("mine", VALUE, None)
    assert not verifier.has_completed


def test_it_never_runs_ahead_of_what_is_written(verifier, fd):
    verification = verifier.follow("mine", fd, len(DATA), "sha512")
    os.pwrite(fd, DATA[STEP:], STEP)
    verifier.wrote(verification, STEP, len(DATA) - STEP)
    assert verification.written == 0
    assert verifier.completed() == []
    assert verification.hashed == 0


def test_a_file_that_others_wrote(verifier, waked, fd):
    os.pwrite(fd, DATA, 0)
    verification = verifier.follow("mine", fd, len(DATA), "md5")
    verifier.wrote_all(verification)
    waked.wait()
    assert verifier.completed()[0].value == base64.b64encode(hashlib.md5(DATA).digest()).decode()


def test_several_files_at_a_time_and_descriptors_of_its_own(verifier, waked, tmp_path):
    before = open_fds()
    followed = []
    for number in range(5):
        descriptor = os.open(tmp_path / f"f{number}", os.O_RDWR | os.O_CREAT)
        os.pwrite(descriptor, DATA, 0)
        followed.append(verifier.follow(number, descriptor, len(DATA), "sha512"))
        os.close(descriptor)
    for verification in followed:
        verifier.wrote_all(verification)
    done = []
    while len(done) < 5:
        waked.wait()
        done += verifier.completed()
    assert sorted(verification.owner for verification in done) == list(range(5))
    assert {verification.value for verification in done} == {VALUE}
    assert open_fds() == before


def test_what_is_forgotten_is_not_completed(verifier, waked, fd, tmp_path):
    os.pwrite(fd, DATA, 0)
    forgotten = verifier.follow("forgotten", fd, len(DATA), "sha512")
    wanted = verifier.follow("wanted", fd, len(DATA), "sha512")
    verifier.forget(forgotten)
    verifier.wrote_all(forgotten)
    verifier.wrote_all(wanted)
    waked.wait()
    assert [verification.owner for verification in verifier.completed()] == ["wanted"]


def test_a_file_that_became_shorter(verifier, waked, fd):
    os.pwrite(fd, DATA[:1000], 0)
    verifier.wrote_all(verifier.follow("mine", fd, len(DATA), "sha512"))
    waked.wait()
    (done,) = verifier.completed()
    assert done.value is None
    assert isinstance(done.error, StorageError)
    assert "shorter" in str(done.error)


def test_closing_in_the_middle_frees_everything(waked, fd):
    before = open_fds()
    verifier = Verifier(waked)
    os.pwrite(fd, DATA, 0)
    for _ in range(3):
        verifier.wrote_all(verifier.follow("mine", fd, len(DATA), "sha512"))
    verifier.follow("unwritten", fd, len(DATA), "sha512")
    verifier.close()
    assert open_fds() == before


def test_no_thread_where_nothing_is_followed(waked):
    before = threading.active_count()
    verifier = Verifier(waked)
    verifier.close()
    assert threading.active_count() == before

"""Whether messages are taken, for several reasons at once."""

from __future__ import annotations

import pytest

from sarrapipe.flow.intake import Intake, Reason


class RecordingConsumer:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pause(self):
        self.told.append("pause")

    def resume(self):
        self.told.append("resume")


@pytest.fixture
def consumers():
    return [RecordingConsumer(), RecordingConsumer()]


@pytest.fixture
def intake(consumers):
    return Intake(consumers)


def test_every_consumer_is_told_once(intake, consumers):
    intake.stop(Reason.NO_SPACE)
    intake.stop(Reason.NO_SPACE)
    intake.go_on(Reason.NO_SPACE)
    intake.go_on(Reason.NO_SPACE)
    assert [consumer.told for consumer in consumers] == [["pause", "resume"]] * 2


def test_it_goes_on_when_the_last_reason_is_gone(intake, consumers):
    intake.stop(Reason.ENOUGH_BYTES)
    intake.stop(Reason.NO_SPACE)
    intake.go_on(Reason.ENOUGH_BYTES)
    assert consumers[0].told == ["pause"]
    assert intake.stopped_for(Reason.NO_SPACE)
    assert not intake.stopped_for(Reason.ENOUGH_BYTES)
    intake.go_on(Reason.NO_SPACE)
    assert consumers[0].told == ["pause", "resume"]


def test_a_reason_that_was_none_changes_nothing(intake, consumers):
    intake.go_on(Reason.STOP)
    assert consumers[0].told == []

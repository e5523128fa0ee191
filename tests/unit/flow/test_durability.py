"""Syncing beside the loop: in order, and what cannot be synced is told."""

from __future__ import annotations

import os
import threading

import pytest

from sarrapipe.errors import NoSpace, StorageError
from sarrapipe.flow.closing import Turn
from sarrapipe.flow.download import SingleDownload
from sarrapipe.flow.durability import Durability
from sarrapipe.flow.handover import Handover
from sarrapipe.flow.places import Places
from sarrapipe.flow.removals import LocalRemoval
from sarrapipe.flow.task import announce
from sarrapipe.ledger.admission import Admission, Admit
from sarrapipe.ledger.records import ASSEMBLING, Claim
from sarrapipe.message.model import Message
from sarrapipe.message.worklist import WorkItem


class NoTransfers:
    """What a task asks of the transfers when it is closed."""

    def __init__(self, config, places):
        self.config = config
        self.places = places

    def forget(self, task):
        """Nothing is fetched here."""


class Stage:
    """A handover with a durability whose ledger waits for the test."""

    def __init__(self, config):
        self.config = config
        self.places = Places(config)
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.waked = threading.Event()
        self.durability = Durability(self.places, self.sync_ledger, self.waked.set)
        self.handover = Handover(self.durability)
        self.number = 0

    def sync_ledger(self):
        assert self.gate.wait(20)
        if self.error is not None:
            raise self.error

    def item(self, **fields) -> WorkItem:
        self.number += 1
        name = f"f{self.number}"
        message = Message({"pubTime": "20240101T000000", "baseUrl": "http://h/", "relPath": name, **fields})
        return WorkItem(message, None, f"{self.config.directory}/{name}")

    def file_task(self) -> SingleDownload:
        item = self.item()
        admission = Admission(Admit.ADMITTED, Claim(b"g%d" % self.number, os.urandom(8)), ASSEMBLING)
        task = SingleDownload(
            item, announce(item, self.config, 0), admission, NoTransfers(self.config, self.places)
        )
        task.open_file().sink(0, 4).write(b"data")
        return task

    def step(self) -> tuple[Turn, list, list]:
        """Wait until something was synced, and let it go on."""
        assert self.waked.wait(20)
        self.waked.clear()
        turn = Turn()
        ready, broken = self.handover.step(turn)
        return turn, ready, broken

    def close(self):
        self.gate.set()
        self.durability.close()
        self.places.close()


@pytest.fixture
def stage(flow_config):
    made = Stage(flow_config("sarra", "durability host"))
    yield made
    made.close()


def test_without_it_everything_goes_on_at_once(stage):
    handover = Handover(None)
    task, turn = stage.file_task(), Turn()
    handover.verified([task])
    assert handover.step(turn) == ([task], [])
    handover.placed(task)
    handover.answered([task.item])
    handover.hand_over(turn)
    assert (turn.worklist.ok, turn.answered) == ([task.item], [task.item])
    assert not handover.busy
    task.release()


def test_data_names_and_decisions_each_wait_for_the_disk(stage):
    tasks = [stage.file_task() for _ in range(5)]
    stage.handover.verified(tasks)
    turn = Turn()
    assert stage.handover.step(turn) == ([], [])
    _, ready, broken = stage.step()
    assert (ready, broken) == (tasks, [])
    for task in tasks:
        task.place()
        stage.handover.placed(task)
    stage.handover.hand_over(turn)
    assert turn.worklist.ok == []
    turn, _, _ = stage.step()
    assert turn.worklist.ok == [task.item for task in tasks]
    stage.gate.clear()
    stage.handover.answered([task.item for task in tasks])
    turn = Turn()
    stage.handover.hand_over(turn)
    assert turn.answered == []
    assert stage.handover.held == 5
    stage.gate.set()
    turn, _, _ = stage.step()
    assert turn.answered == [task.item for task in tasks]
    assert stage.handover.held == 0


def test_removals_wait_for_their_directories(stage):
    (removed := stage.item(fileOp={"remove": ""})).target = f"{stage.config.directory}/d/f"
    os.makedirs(f"{stage.config.directory}/d")
    task = LocalRemoval(removed, stage.config, stage.places)
    stage.handover.placed(task)
    stage.handover.hand_over(Turn())
    turn, _, _ = stage.step()
    assert turn.worklist.ok == [removed]
    assert stage.handover.take_back(removed) is task


def test_data_that_cannot_be_synced_breaks_its_tasks(stage):
    task = stage.file_task()
    fd = task.file.fd
    os.close(fd)
    task.file.fd = os.open("/proc/self/mem", os.O_RDONLY)  # a file that knows no fdatasync
    stage.handover.verified([task])
    stage.handover.step(Turn())
    _, ready, broken = stage.step()
    assert (ready, broken) == ([], [task])
    assert isinstance(task.error, StorageError)
    task.release()


def test_names_that_cannot_be_synced_are_not_announced(stage):
    task = stage.file_task()
    task.item.target = f"{stage.config.directory}/missing/f"
    stage.handover.placed(task)
    stage.handover.hand_over(Turn())
    turn, _, broken = stage.step()
    assert (turn.worklist.ok, broken) == ([], [task])
    assert not stage.handover.is_announced(task.item)
    task.release()


def test_a_ledger_that_cannot_be_synced_ends_the_flow(stage):
    stage.error = NoSpace("full")
    stage.handover.answered([stage.item()])
    stage.handover.hand_over(Turn())
    with pytest.raises(NoSpace, match="full"):
        stage.step()


def test_stopping_waits_until_descriptors_may_be_closed(stage):
    task = stage.file_task()
    stage.handover.verified([task])
    stage.handover.step(Turn())
    stage.handover.stop()
    assert stage.durability.has_completed
    task.release()

"""A queue that was renamed: what is in the old one is still done, then it is deleted."""

from __future__ import annotations

from pathlib import Path

import pytest
from killkit import Mover, Place
from servers import DocRoot, Vhost

pytestmark = [pytest.mark.broker, pytest.mark.nginx]

OLD = "q_feeder.old"
NEW = "q_feeder.new"


@pytest.fixture
def place(vhost: Vhost, docroot: DocRoot, tmp_path: Path) -> Place:
    return Place(vhost, docroot, tmp_path)


def mover(place: Place, queue: str) -> Mover:
    made = Mover(place, instances=2, housekeeping=1, queueName=queue)
    made.queue = queue
    return made


def test_what_the_old_queue_holds_is_done_and_then_it_goes(place: Place) -> None:
    with mover(place, OLD) as first:
        first.wait(first.is_bound, 20, "the old queue is bound")
    before = [place.write(f"before{n}", b"x" * n) for n in range(20)]
    place.send(before)  # nobody runs: they wait in the old queue
    with mover(place, NEW) as second:
        second.wait(second.is_bound, 20, "the new queue is bound")
        after = [place.write(f"after{n}", b"y" * n) for n in range(20)]
        place.send(after)
        second.settle(40)
        second.wait(lambda: OLD not in place.vhost.queues(), 20, "the old queue is deleted")
        later = place.write("later", b"z")
        place.send([later])
        second.settle(41)
    place.check()
    second.check_nothing_left()


def test_renamed_under_load_by_a_reload(place: Place) -> None:
    running = mover(place, OLD)
    with running:
        running.wait(running.is_bound, 20, "the old queue is bound")
        sent = [place.write(f"a{n}", b"x" * n) for n in range(60)]
        place.send(sent)
        running.options["queueName"] = running.queue = NEW
        running.configure()
        running.reload()
        running.wait(lambda: NEW in place.vhost.queues() and running.is_bound(), 20, "the new queue is bound")
        sent += [place.write(f"b{n}", b"y" * n) for n in range(60)]
        place.send(sent[60:])
        running.wait(lambda: OLD not in place.vhost.queues(), 30, "the old queue is deleted")
        running.wait(lambda: running.status().totals["files_ok"] >= len(sent), 30, "all files came")
    place.check()


def test_killed_while_the_old_queue_is_read(place: Place) -> None:
    with mover(place, OLD) as first:
        first.wait(first.is_bound, 20, "the old queue is bound")
    place.send([place.write(f"f{n}", b"x" * n) for n in range(20)])
    second = mover(place, NEW)
    second.crash_at = "committed"
    with second:
        second.wait(lambda: second.crashed() == {"committed"}, 20, "an instance was killed")
        second.settle(20)
        second.wait(lambda: OLD not in place.vhost.queues(), 20, "the old queue is deleted")
    place.check()
    second.check_nothing_left()

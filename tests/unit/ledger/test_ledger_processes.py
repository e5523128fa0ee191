"""Several real processes on one ledger, killed at random: what is left is consistent and usable."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

from sarrapipe.ledger import Ledger
from sarrapipe.ledger.inspect import inconsistencies

# One worker: admits, commits and settles small and large files of a few names for ever, in batches.
WORKER = """
import itertools, random, sys
from sarrapipe.ledger import *
directory, incarnation, instance = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ledger = Ledger.open(directory, incarnation=incarnation, instance=instance, nodupe_ttl_s=0.5)
chance = random.Random(incarnation)
held = []
print("ready", flush=True)
for n in itertools.count():
    with ledger.transaction() as decide:
        for claim in held:
            row = decide.row(claim)
            if row is None:
                continue
            if row.segment_count > 1 and row.missing:
                got = decide.claim(claim, 2)
                decide.mark(claim, [(number, b"d" * 16) for number in got.numbers])
            elif decide.commit(claim, 7, None).outcome is Commit.COMMITTED and chance.random() < 0.8:
                decide.settle(claim)
            elif chance.random() < 0.5:
                decide.drop(claim)
        for work in decide.open_work(2):
            got = decide.claim(work.claim, 1)
            if got is not None:
                decide.mark(work.claim, [(number, b"d" * 16) for number in got.numbers])
        held = []
        for _ in range(8):
            name, version = chance.randrange(20), chance.randrange(6)
            target = "/d/%d" % name
            if chance.random() < 0.1:
                removal = Removal(b"r%03d%012d" % (incarnation, n), target, n * 1000 + version)
                if decide.begin_removal(removal).outcome is Remove.REMOVE and chance.random() < 0.8:
                    decide.settle_removal(removal)
                continue
            size = 10 if version % 2 else 50
            fingerprint = seen_key(b"%d" % version, target)
            answer = decide.admit(Announcement(
                target, generation_of(target, "s", size, version, 10, str(version)), fingerprint,
                message_id_of("x", target, str(n), fingerprint), n * 1000, version, size, 10))
            if answer.outcome in (Admit.ADMITTED, Admit.TAKEN_OVER):
                held.append(answer.claim)
            elif answer.outcome in (Admit.WAIT, Admit.FURTHER, Admit.RUNNING) and answer.claim:
                pass
"""


def test_kills_at_random_leave_the_ledger_consistent(tmp_path):
    directory = str(tmp_path / "ledger")
    chance = random.Random(4)
    workers: dict[int, subprocess.Popen[str]] = {}
    incarnation = 0

    def start(instance: int) -> None:
        nonlocal incarnation
        incarnation += 1
        command = [sys.executable, "-c", WORKER, directory, str(incarnation), str(instance)]
        workers[instance] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert workers[instance].stdout.readline() == "ready\n"

    def end(instance: int) -> None:
        worker = workers.pop(instance)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker.stdout.close()

    try:
        for instance in range(3):
            start(instance)
        with Ledger.open(directory, incarnation=1000, instance=9) as ledger:
            commits = ledger.environment.last_transaction()
            until = time.monotonic() + 10.0
            kills = 0
            while kills < 10 and time.monotonic() < until:
                instance = chance.randrange(3)
                time.sleep(chance.random() * 0.1)
                end(instance)
                kills += 1
                dead = ledger.bury_dead()
                assert len(dead) == 1
                with ledger.view() as view:
                    assert inconsistencies(view.tables) == []
                start(instance)
            for instance in list(workers):
                end(instance)
            ledger.bury_dead()
            with ledger.view() as view:
                assert inconsistencies(view.tables) == []
                assert view.tables.alive() == {1000: 9}
            with ledger.transaction() as decide:
                for work in decide.orphans(2**63):
                    assert decide.abandon(work.claim.generation) is not None
                    assert decide.drop(work.claim).closed
            with ledger.view() as view:
                tables = view.tables
                left = [tables.files(), tables.claims(), tables.all_segments(), tables.all_messages()]
                assert [list(rows) for rows in left] == [[], [], [], []]
            assert kills >= 5
            assert ledger.environment.last_transaction() - commits > 100
    finally:
        for instance in list(workers):
            end(instance)
    assert os.path.exists(directory)

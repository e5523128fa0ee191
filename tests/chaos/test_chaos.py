"""Everything that can die is killed at random moments while a mixed load comes, for as long as it is wanted.

Instances, fork servers, parents and the broker's node; sixteen instances become two and sixteen again. In the
end every file is byte-exact, everything is announced, repeated at most where a kill allows it (design:
guarantee 1), and nothing is left: no message, no row, no kept message, no inflight file.

SARRAPIPE_CHAOS_S is how many seconds each load lasts (10 by default: a test takes some 30 seconds);
SARRAPIPE_CHAOS_SEED begins another run of chances.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import servers
from chaosload import Killer, Load, after
from flowkit import Clock, Running
from killkit import Mover, Place, Wire, counted, tree_after
from servers import MS, DocRoot, PumpGuard, Vhost, wait_until

from perf import trees
from sarrapipe.config.load import ConfigHome, load_flow, read_environment
from sarrapipe.flow.components import Place as Standing
from sarrapipe.ledger.keys import new_incarnation
from sarrapipe.pump.localpump import LocalPump, PumpInfo
from sarrapipe.shm.slots import SLOT_SIZE, Slot

LOAD_S = float(os.environ.get("SARRAPIPE_CHAOS_S", "10"))
SEED = int(os.environ.get("SARRAPIPE_CHAOS_SEED", "1"))
KILLS = 500
KILLS_WITHIN_S = 400.0
BATCH = 20
"""Announcements that an instance has on their way at a time: so many may each death repeat."""

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.broker,
    pytest.mark.nginx,
    pytest.mark.timeout((max(LOAD_S * 4, KILLS_WITHIN_S) + 240) * MS),
]


@pytest.fixture(scope="module")
def node() -> Iterator[PumpInfo]:
    """A pump of this module's own, whose broker is killed."""
    servers.pump_or_skip()
    guard = PumpGuard()
    try:
        yield guard.start()
    finally:
        guard.stop()


@pytest.fixture
def vhost(node: PumpInfo) -> Iterator[Vhost]:
    made = servers.make_vhost(node)
    yield made
    servers.drop_vhost(made)


@pytest.fixture
def place(node: PumpInfo, vhost: Vhost, tmp_path: Path) -> Place:
    docroot: DocRoot = servers.make_docroot(node)
    return Place(vhost, docroot, tmp_path, confirms=True)


class Broker:
    """The node, which somebody kills now and then."""

    def __init__(self, node: PumpInfo) -> None:
        self._pump = LocalPump(node.directory)
        self.killed = 0

    def kill(self) -> None:
        """SIGKILL the node, and start it again."""
        pid = self._pump.status().running["rabbitmq"]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: self._pump.status().running["rabbitmq"] is None, 10, "the broker is dead")
        self._pump.up()
        self.killed += 1


class Scaler:
    """Changes the number of instances: sixteen, two, and in between."""

    def __init__(self, movers: list[Mover], seed: int) -> None:
        self._movers = movers
        self._chance = random.Random(seed)

    def scale(self) -> None:
        """Give one mover another number of instances."""
        mover = self._chance.choice(self._movers)
        count = self._chance.choice((2, 16, 5))
        # Refused while the parent is gone; what is wanted then counts from the next time.
        mover.command("scale", f"sarra/{mover.name}", str(count))


def upset(movers: list[Mover], killers: list[Killer], broker: Broker, seed: int) -> Iterator[None]:
    """Do something terrible each time it is asked, in a mixture in which nothing is left out."""
    chance = random.Random(seed)
    scaler = Scaler(movers, seed)
    acts = ["kill"] * 6 + ["scale"] * 2 + ["broker"]
    while True:
        chance.shuffle(acts)
        for act in acts:
            killer = chance.choice(killers)
            killer.pause(0.4)
            if act == "kill":
                killer.kill()
            elif act == "scale":
                scaler.scale()
            else:
                broker.kill()
            yield


def an_hour_later(mover: Mover) -> None:
    """Let one instance work when rows whose messages went to the other host have got old enough to go."""
    clock = Clock()
    home = ConfigHome(f"{mover.home}/config", f"{mover.home}/state")
    config = load_flow(home, "sarra", mover.name, (), read_environment())
    slot = Slot(0, memoryview(bytearray(SLOT_SIZE)))
    running = Running(
        config, Standing(instance=1, incarnation=new_incarnation(), slot_number=1, slot=slot), clock
    )
    try:
        for _ in range(4):
            running.advance(3700)
    finally:
        running.close()


def history(names: set[str], sent: list[Wire], announced: list[Wire]) -> str:
    """What was sent and announced of some paths, for whoever has to find out why."""
    lines = []
    for name in sorted(names):
        for what, messages in (("sent", sent), ("announced", announced)):
            lines += [
                f"{name} {what} {message['pubTime']} {message['relPath']} {message.get('fileOp') or ''}"
                for message in messages
                if name in (message["relPath"], (message.get("fileOp") or {}).get("rename"))
            ]
    return "\n".join(lines)


def check_repetitions(announced: list[Wire], deaths: int) -> None:
    """What a death may have repeated is bounded by what was on its way."""
    counts = counted(announced)
    repeated = sum(counts.values()) - len(counts)
    assert repeated <= BATCH * deaths, {what: count for what, count in counts.items() if count > 1}
    if not deaths:
        assert repeated == 0


def deaths_of(movers: list[Mover], killers: list[Killer], broker: Broker) -> int:
    """How many instances lost what they knew: a broker's end is that of all of them."""
    return sum(deaths_of_instances(killer) for killer in killers) + broker.killed * len(movers) * 16


def deaths_of_instances(killer: Killer) -> int:
    """How many instances a killer ended: a parent takes all of its own with it."""
    killed: Counter[str] = Counter(killer.killed)
    return killed["instance"] + killed["instances"] + killed["parent"] * 16


def options() -> dict[str, object]:
    return {"segmentSize": "1Mi", "housekeeping": 1, "batch": BATCH, "prefetch": BATCH}


@pytest.mark.parametrize("staging", ["none", "slots"])
def test_one_host(node: PumpInfo, place: Place, staging: str) -> None:
    """Newer versions, removals and renames too: the tree ends as the source's, as does the next hop's."""
    load = Load(place, SEED, large_bytes=(3_000_000, 12_000_000))
    mover = Mover(place, instances=16, staging=staging, stagingBytes="2Mi", **options())
    killer, broker = Killer(mover, SEED), Broker(node)
    terror = upset([mover], [killer], broker, SEED)
    with mover:
        load.for_seconds(LOAD_S, 40, lambda: next(terror))
        broker.kill()
        load.send(40)
        mover.settle_trees(120)
    place.check()
    mover.check_nothing_left()
    assert sum(killer.killed.values()) >= 3
    announced = place.announced()
    check_repetitions(announced, deaths_of([mover], [killer], broker))
    heard = tree_after(announced)
    there = {name: trees.sha512(str(place.source / name)) for name in trees.files_below(str(place.source))}
    differing = {name for name in heard.keys() | there if heard.get(name) != there.get(name)}
    assert not differing, history(differing, load.sent, announced)


def test_five_hundred_kills(place: Place) -> None:
    """Large files through slots beside small ones, while half of all instances die again and again."""
    load = Load(place, SEED, large_bytes=(3_000_000, 12_000_000), large_share=0.1)
    mover = Mover(place, instances=16, staging="slots", stagingBytes="2Mi", **options())
    killer = Killer(mover, SEED)
    over = after(KILLS_WITHIN_S)
    with mover:
        while sum(killer.killed.values()) < KILLS:
            assert not over(), f"not within {KILLS_WITHIN_S:g} s: {killer.killed}"
            load.send(10)
            killer.pause(0.4)
            killer.kill()
        mover.settle_trees(180)
    place.check()
    mover.check_nothing_left()
    check_repetitions(place.announced(), deaths_of_instances(killer))
    print(f"{killer.killed} killed, {load.done} done")


def test_two_hosts(node: PumpInfo, place: Place) -> None:
    """They share the queue and nothing else: each file is on one of them at least, and announced."""
    movers = [Mover(place, instances=8, host=host, **options()) for host in ("one", "two")]
    killers = [Killer(mover, SEED + number) for number, mover in enumerate(movers)]
    broker = Broker(node)
    terror = upset(movers, killers, broker, SEED + 2)
    sent: list[Wire] = []
    chance = random.Random(SEED)

    def send() -> None:
        batch = [place.write(f"d{n % 5}/small{n}", chance.randbytes(16 + n % 3000)) for n in numbers(38)]
        batch += [
            place.write_large(f"large{n}", chance.randint(3_000_000, 12_000_000), seed=n) for n in numbers(2)
        ]
        place.send(batch)
        sent.extend(batch)

    def numbers(count: int) -> range:
        return range(len(sent), len(sent) + count)

    one, two = movers
    with one, two:
        over = after(LOAD_S)
        while not over():
            send()
            next(terror)
        broker.kill()
        send()
        announced: list[Wire] = []

        def all_announced() -> bool:
            announced.extend(place.announced())
            return set(counted(announced)) == set(counted(sent))

        one.wait(all_announced, 120, "everything is announced")
        for mover in movers:
            mover.wait(mover.is_quiet, 60, "it has nothing in hand")
    for mover in movers:
        an_hour_later(mover)
        mover.check_nothing_left()
    announced += place.announced()
    assert set(counted(announced)) == set(counted(sent))
    check_repetitions(announced, deaths_of(movers, killers, broker))
    held = [
        [tree for tree in (one.pump, two.pump) if (tree / message["relPath"]).exists()] for message in sent
    ]
    for message, where in zip(sent, held, strict=True):
        name = message["relPath"]
        assert where, name
        assert all(trees.same_bytes(str(place.source / name), str(tree / name)) for tree in where)
    assert all(any(tree is mover.pump for where in held for tree in where) for mover in movers)

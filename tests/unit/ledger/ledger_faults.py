"""What happens around the threads of the exhaustive search: broker, kept store, lives and deaths, faults."""

from __future__ import annotations

from collections.abc import Iterator

from ledger_world import DEAD, FOREIGN, Frozen, Put, Thread, World

from sarrapipe.ledger import recovery, removal
from sarrapipe.ledger.records import ASSEMBLING, NOBODY, Claim, Pending

__all__ = ["ENVIRONMENT", "Surroundings"]


class Surroundings:
    """Steps that belong to no thread. A `do_` method takes one; the generators say which can be taken."""

    def deliveries(self, w: World) -> Iterator[tuple[int, int]]:
        return ((m, p) for m in w.queue for p in w.running if p)

    def do_deliver(self, w: World, message: int, process: int) -> None:
        w.queue -= {message}
        self._take(w, message, process, tag=True)

    def _take(self, w: World, message: int, process: int, *, tag: bool = False, kept: bool = False) -> None:
        """A message that this process is working on is attached to its thread; another gets a thread."""
        for t in w.threads:
            if t.process == process and t.message == message and t.at != "forget":
                w.swap(t, t._replace(tag=t.tag or tag, kept=t.kept or kept))
                return
        put = isinstance(w.scenario.messages[message], Put)
        w.swap(None, Thread(process, message, "admit" if put else "begin", tag=tag, kept=kept))

    def leases(self, w: World) -> Iterator[tuple[int, int]]:
        return ((m, p) for m, lease in w.kept.items() if not lease for p in w.running if p)

    def do_lease(self, w: World, message: int, process: int) -> None:
        w.kept = w.kept.put(message, process)
        self._take(w, message, process, kept=True)

    def dead_leases(self, w: World) -> Iterator[tuple[int]]:
        return ((m,) for m, lease in w.kept.items() if lease == DEAD)

    def do_reclaim(self, w: World, message: int) -> None:
        w.kept = w.kept.put(message, NOBODY)

    def unburied(self, w: World) -> Iterator[tuple[int]]:
        return ((i,) for i in w.alive if i not in w.running)

    def do_bury(self, w: World, incarnation: int) -> None:
        w.bury(incarnation)

    def down(self, w: World) -> Iterator[tuple[int]]:
        return ((slot,) for slot, incarnation in enumerate(w.running) if not incarnation)

    def do_start(self, w: World, slot: int) -> None:
        life = slot + 1
        w.bury(life)  # its former one
        w.running = (*w.running[:slot], life, *w.running[slot + 1 :])
        w.alive |= {life}

    def joinable(self, w: World) -> Iterator[tuple[int, bytes]]:
        if w.has("helpers"):
            for generation, row in w.t_files.items():
                if row.phase == ASSEMBLING and row.segment_count > 1 and row.missing:
                    yield from ((p, generation) for p in w.running if p and p != row.owner)

    def do_help(self, w: World, process: int, generation: bytes) -> bool | None:
        row = w.get_file(generation)
        if (row.target, row.nonce) not in w.inflight:
            return False
        w.spend("helpers")
        w.swap(None, Thread(process, -1, "join", Claim(generation, row.nonce)))
        return None

    def orphaned(self, w: World) -> Iterator[tuple[int, bytes]]:
        """In production after a time without a message; it must be safe at any time."""
        if w.scenario.elsewhere:
            for generation, row in w.t_files.items():
                if row.owner not in w.alive:
                    yield from ((p, generation) for p in w.running if p)

    def do_abandon(self, w: World, process: int, generation: bytes) -> None:
        row = recovery.abandon(w, generation, process, 0)
        w.swap(None, Thread(process, -1, "ab_unlink", extra=(row.claim, row.row.target, "end")))

    def dead_removals(self, w: World) -> Iterator[tuple[int, str]]:
        if w.scenario.elsewhere:
            for path, record in w.t_paths.items():
                if record.pending == Pending.REMOVAL and record.incarnation not in w.alive:
                    yield from ((p, path) for p in w.running if p)

    def do_adopt(self, w: World, process: int, path: str) -> None:
        adopted = removal.adopt(w, path, process, 0)
        w.swap(None, Thread(process, -1, "ad_unlink", extra=(adopted, path, "end")))

    # faults

    def strayed(self, w: World) -> Iterator[tuple[int]]:
        return ((m,) for m in w.queue if w.has("elsewhere"))

    def do_stray(self, w: World, message: int) -> None:
        """Another host does it all, and announces it."""
        w.spend("elsewhere")
        w.queue -= {message}
        event = w.event(message)
        w.heard = w.heard.put(event, w.heard.get(event, 0) + 1)
        key = (event.path, event.version)
        w.excused = w.excused.put(key, w.excused.get(key, 0) + 1)

    def victims(self, w: World) -> Iterator[tuple[int]]:
        return ((p,) for p in w.running if p and w.has("kills"))

    def do_kill(self, w: World, process: int) -> None:
        w.spend("kills")
        self._end(w, process)

    def _end(self, w: World, process: int) -> None:
        for t in w.threads:
            if t.process == process:
                self._lose(w, t)
                w.swap(t, None)
        w.running = tuple(0 if p == process else p for p in w.running)

    def _lose(self, w: World, t: Thread) -> None:
        """The broker takes the message back; an announcement on its way may be repeated."""
        if t.tag:
            w.queue |= {t.message}
        if t.at in ("settle", "settle_removal"):
            self._excuse(w, t)

    def _excuse(self, w: World, t: Thread) -> None:
        event = w.event(t.message)
        key = (event.path, event.version)
        w.excused = w.excused.put(key, w.excused.get(key, 0) + 1)

    def broker_restarts(self, w: World) -> Iterator[tuple[()]]:
        return iter(((),) if w.threads and w.has("restarts") else ())

    def do_restart_broker(self, w: World) -> None:
        w.spend("restarts")
        for t in w.threads:
            self._lose(w, t)
            at = {"settle": "check", "settle_removal": "publish"}.get(t.at, t.at)
            w.swap(t, t._replace(tag=False, at=at))

    def power_losses(self, w: World) -> Iterator[tuple[()]]:
        return iter(((),) if w.has("power") else ())

    def do_lose_power(self, w: World) -> None:
        """The ledger is thrown away; what is inflight is litter and swept at the start."""
        w.spend("power")
        for t in w.threads:
            self._lose(w, t)
        empty = Frozen()
        w.t_paths = w.t_files = w.t_seen = w.t_segments = w.t_messages = w.inflight = empty
        w.threads, w.alive, w.running = frozenset(), frozenset(), (0,) * len(w.running)
        w.kept = Frozen(dict.fromkeys(w.kept, NOBODY))
        events = [w.event(m) for m in range(len(w.scenario.messages))]
        w.excused = Frozen({(e.path, e.version): 9 for e in events})

    def meddling(self, w: World) -> Iterator[tuple[str]]:
        there = w.scenario.messages[0].path in w.final
        return iter((("remove",) if there else ("newer",),) if w.has("outsider") else ())

    def do_meddle(self, w: World, how: str) -> None:
        path = w.scenario.messages[0].path
        w.spend("outsider")
        w.final = w.final.without(path) if how == "remove" else w.final.put(path, (FOREIGN, b"", 99))

    def mistaken(self, w: World) -> Iterator[tuple[int]]:
        """Only who writes to no file any more: that deaths are true is what makes writing safe."""
        if w.has("false_deaths"):
            for p in w.alive & set(w.running):
                if all(t.at in HARMLESS for t in w.threads if t.process == p):
                    yield (p,)

    def do_false_death(self, w: World, process: int) -> None:
        w.spend("false_deaths")
        w.alive -= {process}
        for t in w.threads:
            if t.process == process:
                self._excuse(w, t)


HARMLESS = ("commit", "rename", "check", "publish", "settle", "ack")


ENVIRONMENT = (
    ("deliver", False, "deliveries"),
    ("lease", False, "leases"),
    ("reclaim", False, "dead_leases"),
    ("bury", False, "unburied"),
    ("start", False, "down"),
    ("help", False, "joinable"),
    ("abandon", False, "orphaned"),
    ("adopt", False, "dead_removals"),
    ("stray", True, "strayed"),
    ("kill", True, "victims"),
    ("restart_broker", True, "broker_restarts"),
    ("lose_power", True, "power_losses"),
    ("meddle", True, "meddling"),
    ("false_death", True, "mistaken"),
)

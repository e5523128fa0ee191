"""A source that never rests, and somebody who kills processes at random moments; both from one seed each."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable

from killkit import Mover, Place, Wire
from servers import MS


def after(seconds: float) -> Callable[[], bool]:
    """Return what tells whether so much time is over, which is longer on a slow machine."""
    end = time.monotonic() + seconds * MS
    return lambda: time.monotonic() > end


class Load:
    """Writes, rewrites, renames and removes files of a source's tree, and announces each step.

    Args:
        place: Whose source.
        seed: Of what happens.
        large_bytes: Smallest and largest size of a large file.
        large_share: Part of the files that are large.
    """

    def __init__(
        self, place: Place, seed: int, *, large_bytes: tuple[int, int], large_share: float = 0.02
    ) -> None:
        self._place = place
        self._chance = random.Random(seed)
        self._large_bytes = large_bytes
        self._large_share = large_share
        self._names: list[str] = []
        self._made = 0
        self.sent: list[Wire] = []
        self.done: dict[str, int] = {}
        """Steps by kind."""

    def send(self, steps: int) -> None:
        """Do so many steps and announce them together."""
        messages = [self._step() for _ in range(steps)]
        self._place.send(messages)
        self.sent += messages

    def for_seconds(self, seconds: float, steps: int, meanwhile: Callable[[], None]) -> None:
        """Send `steps` at a time, and do something else in between, until the time is over."""
        over = after(seconds)
        while not over():
            self.send(steps)
            meanwhile()

    def _step(self) -> Wire:
        kinds = {"new": 50, "newer": 25, "remove": 10, "rename": 10, "again": 5}
        kind = self._chance.choices(list(kinds), list(kinds.values()))[0] if len(self._names) > 20 else "new"
        self.done[kind] = self.done.get(kind, 0) + 1
        match kind:
            case "new":
                return self._write(self._new_name())
            case "newer":
                return self._write(self._chance.choice(self._names))
            case "again":
                return self._place.announce(self._chance.choice(self._names))
            case "remove":
                return self._place.remove(self._take())
            case _:
                old, new = self._take(), self._new_name()
                self._names.append(new)
                return self._place.rename(old, new)

    def _write(self, name: str) -> Wire:
        if name not in self._names:
            self._names.append(name)
        if "large" in name:
            size = self._chance.randint(*self._large_bytes)
            return self._place.write_large(name, size, seed=self._chance.getrandbits(32))
        # Never the same content again: that would be a duplicate, which changes nothing at the pump.
        size = self._chance.choice((0, 1, 700, 20_000))
        return self._place.write(name, self._chance.randbytes(16 + size))

    def _new_name(self) -> str:
        self._made += 1
        kind = "large" if self._chance.random() < self._large_share else "small"
        return f"d{self._made % 7}/{kind}{self._made}"

    def _take(self) -> str:
        return self._names.pop(self._chance.randrange(len(self._names)))


class Killer:
    """Ends processes of a flow with SIGKILL.

    Args:
        mover: Whose.
        seed: Of who and when.
    """

    def __init__(self, mover: Mover, seed: int) -> None:
        self._mover = mover
        self._chance = random.Random(seed)
        self.killed: dict[str, int] = {}
        """Processes killed, by kind."""

    def pause(self, longest_s: float) -> None:
        """Let a random time pass."""
        time.sleep(self._chance.random() * longest_s)

    def kill(self, *, parent: bool = True) -> None:
        """Kill an instance, several, the fork server, or the parent, which is then started again."""
        kinds = {"instance": 60, "instances": 20, "fork server": 10, "parent": 10 if parent else 0}
        kind = self._chance.choices(list(kinds), list(kinds.values()))[0]
        pids = self._mover.pids()
        match kind:
            case "instance" if pids:
                self._end(kind, [self._chance.choice(pids)])
            case "instances" if pids:
                self._end(kind, self._chance.sample(pids, max(1, len(pids) // 2)))
            case "fork server":
                server = self._mover.fork_server()
                self._end(kind, [server] if server else [])
            case "parent":
                self._mover.kill_parent()
                self._mover.start()
                self.killed[kind] = self.killed.get(kind, 0) + 1

    def kill_one_instance(self) -> None:
        """Kill an instance that runs."""
        self._end("instance", [self._chance.choice(self._mover.pids())])

    def _end(self, kind: str, pids: list[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.killed[kind] = self.killed.get(kind, 0) + 1

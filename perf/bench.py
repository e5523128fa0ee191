"""The place where a scenario runs: a temporary directory, a private pump, a hand on its broker."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from perf.link.farweb import FarWeb
from perf.link.spec import LinkSpec
from perf.link.tunlink import NEAR, Link
from perf.meter import Pids
from perf.probe import Probe
from perf.pumpsite import open_site
from perf.side import Site
from perf.tlsweb import TlsWeb, open_tls_web

__all__ = ["MEMORY_DIR", "Bench", "RunOptions", "Say"]

MEMORY_DIR: Final = "/dev/shm"
_PROBE_FILES: Final = 300
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the command line asked for.

    Args:
        runs: How many turns.
        files: How many small files.
        size_bytes: Size of each file.
        only: Names of the sides to run; all if empty.
        until_s: Monotonic seconds by which the last turn is to be over; the first one is run in any case.
    """

    runs: int
    files: int
    size_bytes: int
    only: tuple[str, ...] = ()
    until_s: float = math.inf

    def wants(self, side: str) -> bool:
        """Tell whether a side is to be run."""
        return not self.only or side in self.only


class Bench:
    """A private pump in a directory of its own; everything is gone when the context ends.

    Args:
        place: Where to make a directory for everything, the document root and the broker's data too.
        say: Where progress goes, line by line.
        tls: Whether what is to be fetched is offered over HTTPS, by a second web server on loopback.
        link: A network to put between the bench and a second web server, the far one. The bench, its broker
            and everything it starts are then at the near end.
    """

    def __init__(self, place: str, *, say: Say, link: LinkSpec | None = None, tls: bool = False) -> None:
        self._place = place
        self._link_spec = link
        self._link: Link | None = None
        self._far: FarWeb | None = None
        self._wants_tls = tls
        self._tls: TlsWeb | None = None
        self.say = say
        self._directory = ""
        self._fresh = 0
        self._stack = contextlib.ExitStack()
        self._site: Site | None = None
        self._probe: Probe | None = None

    def __enter__(self) -> Self:
        self._directory = tempfile.mkdtemp(prefix="sarrapipe-perf-", dir=self._place)
        self._stack.callback(shutil.rmtree, self._directory, ignore_errors=True)
        try:
            if self._link_spec is not None:
                self._open_link(self._link_spec)
            self._site = self._stack.enter_context(open_site(os.path.join(self._directory, "pump"), self.say))
            if self._wants_tls:
                self._tls = self._stack.enter_context(open_tls_web(self.path("tls"), self.site.docroot))
            self._probe = self._stack.enter_context(Probe(self._site.secrets["feeder"]))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def in_memory(self) -> bool:
        """Whether everything lives in memory."""
        return self._place.startswith(MEMORY_DIR)

    @property
    def site(self) -> Site:
        """The broker and web server."""
        assert self._site is not None, "enter the context first"
        return self._site

    @property
    def probe(self) -> Probe:
        """A connection to the broker as feeder."""
        assert self._probe is not None, "enter the context first"
        return self._probe

    @property
    def source_root(self) -> str:
        """Where what is to be fetched lies: the document root, the far server's if there is one."""
        return self._far.document_root if self._far is not None else self.site.docroot

    @property
    def source_url(self) -> str:
        """Base URL of `source_root`."""
        if self._tls is not None:
            return self._tls.url
        return self._far.url if self._far is not None else self.site.http_url

    @property
    def flow_settings(self) -> tuple[str, ...]:
        """Lines that a flow needs to fetch from `source_url`."""
        return (f"caFile {self._tls.authority}",) if self._tls is not None else ()

    def roles(self) -> dict[str, Pids]:
        """Return whose CPU is counted beside the tool's: `server`, `broker`, and `link` if there is one."""
        roles = dict(self.site.processes)
        if self._far is not None and self._link is not None:
            roles |= {"server": self._far.pids, "link": self._link.pids}
        if self._tls is not None:
            roles["server"] = self._tls.pids
        return roles

    def path(self, *parts: str) -> str:
        """Return a path inside the bench's directory."""
        return os.path.join(self._directory, *parts)

    def fresh(self, name: str) -> str:
        """Return a path inside the bench's directory that no run has used; nothing is removed until the end.

        ext4 without a journal does not use an inode again for a minute after it was deleted, five while its
        block is dirty (RECENTCY_MIN and RECENTCY_DIRTY in Linux, fs/ext4/ialloc.c), but looks at every one of
        them for each new file: after 16,000 deletions making one was seen to take 184 us of CPU and not 49.
        """
        self._fresh += 1
        return self.path(f"{name}-{self._fresh}")

    def make_file_us(self) -> float:
        """Return how long this file system takes at the moment to make, fill and rename a small file."""
        directory = self.fresh("probe")
        os.mkdir(directory)
        started_s = time.monotonic()
        for number in range(_PROBE_FILES):
            path = os.path.join(directory, str(number))
            with open(f"{path}.tmp", "wb") as file:
                file.write(b"x" * 1024)
            os.rename(f"{path}.tmp", path)
        return (time.monotonic() - started_s) / _PROBE_FILES * 1e6

    def _open_link(self, spec: LinkSpec) -> None:
        """Bring up the link and its far end, and go to the near one."""
        self.say(f"link: {spec.described()}")
        self._link = self._stack.enter_context(Link(spec, self.path("link")))
        self._far = self._stack.enter_context(FarWeb(self._link, self.path("far")))
        self._stack.enter_context(self._link.at(NEAR))

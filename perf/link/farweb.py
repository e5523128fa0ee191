"""A real nginx at the far end of a link."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Final, Self

from perf import procstat
from perf.link.tunlink import FAR, FAR_ADDRESS, Link
from sarrapipe.pump.processes import ServerProcess, stop
from sarrapipe.pump.webserver import WebServer, WebSettings

__all__ = ["FarWeb"]

_PORT: Final = 8080  # nobody else is there
_WORKERS: Final = 2


class FarWeb:
    """A web server with a directory of its own, reached over the link only.

    Args:
        link: What lies between.
        directory: Made if missing.
    """

    def __init__(self, link: Link, directory: str) -> None:
        self._link = link
        self._directory = directory
        self._process: ServerProcess | None = None

    def __enter__(self) -> Self:
        os.makedirs(self.document_root)
        server = WebServer(
            WebSettings(
                directory=os.path.join(self._directory, "web"),
                port=_PORT,
                document_root=self.document_root,
                workers=_WORKERS,
                host=FAR_ADDRESS,
            )
        )
        with self._link.at(FAR):
            self._process = server.start()
            server.wait_ready(self._process)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            stop(self._process, 0.0)

    @property
    def document_root(self) -> str:
        """What it serves."""
        return os.path.join(self._directory, "data")

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://{FAR_ADDRESS}:{_PORT}/"

    def pids(self) -> list[int]:
        """Return its processes."""
        return [self._process.pid, *procstat.tree(self._process.pid)] if self._process is not None else []

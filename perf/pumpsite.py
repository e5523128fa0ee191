"""A private pump for a bench: `sarrapipe.pump.localpump`, up for as long as the context lasts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

from perf import procstat
from perf.side import Site
from sarrapipe.pump.localpump import LocalPump

__all__ = ["open_site"]

_HOST = "127.0.0.1"


@contextlib.contextmanager
def open_site(directory: str, say: Callable[[str], None] | None = None) -> Iterator[Site]:
    """Start a broker and a web server below `directory`; end them with the context.

    Args:
        directory: Made if missing; the document root is in it.
        say: Told what is waited for.
    """
    pump = LocalPump(directory, say)
    try:
        info = pump.up()
        yield Site(
            directory=directory,
            docroot=info.document_root,
            http_url=info.http_url,
            host=_HOST,
            amqp_port=info.amqp_port,
            secrets={user: info.url(user) for user in info.users if user != "anonymous"},
            processes=_roles(pump),
        )
    finally:
        pump.down(graceful=False)


def _roles(pump: LocalPump) -> dict[str, Callable[[], list[int]]]:
    """Return who is the server and who the broker; both stay the same processes while the pump is up."""
    pids = {name: pid for name, pid in pump.status().running.items() if pid is not None}
    return {
        role: partial(_family, pids[name])
        for role, name in (("server", "nginx"), ("broker", "rabbitmq"))
        if name in pids
    }


def _family(pid: int) -> list[int]:
    return [pid, *procstat.tree(pid)]

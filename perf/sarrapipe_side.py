"""sarrapipe itself, driven by its command line like the peer."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import Final

from perf.cage import Cage, Completed
from perf.programs import Program
from perf.side import Flow, Posting, Site

__all__ = ["Sarrapipe", "command"]

_START_LIMIT_S: Final = 60.0
_STOP_LIMIT_S: Final = 60.0
_POST_LIMIT_S: Final = 1800.0


def command() -> list[str]:
    """Return how to call sarrapipe: the script installed beside this interpreter, else the package."""
    script = os.path.join(os.path.dirname(sys.executable), "sarrapipe")
    return [script] if os.access(script, os.X_OK) else [sys.executable, "-m", "sarrapipe"]


class Sarrapipe(Program):
    """sarrapipe with one set of settings.

    Args:
        site: Broker and web server to use.
        home: Directory of its own.
        name: How figures call it.
        settings: Configuration lines added to each flow.
    """

    def __init__(
        self, site: Site, home: str, *, name: str = "sarrapipe", settings: tuple[str, ...] = ()
    ) -> None:
        super().__init__(site, home)
        self.name = name
        self.settings = settings
        self.isolated = False

    def environment(self) -> dict[str, str]:
        """Point it to its trees."""
        homes = {"SARRA_CONFIG_HOME": self.config_dir, "SARRA_STATE_HOME": self.state_dir}
        return {**super().environment(), **homes}

    def write_flow(self, flow: Flow) -> None:
        """Write the flow's configuration with this side's settings."""
        super().write_flow(replace(flow, settings=flow.settings + self.settings))

    def post(self, cage: Cage, posting: Posting, paths: list[str]) -> Completed:
        """Run `sarrapipe post`; it returns when the broker has confirmed every message."""
        return self._run(cage, [*command(), "post", f"post/{posting.name}", *paths], _POST_LIMIT_S)

    def start(self, cage: Cage, flow: Flow) -> Completed:
        """Run `sarrapipe start`."""
        return self._run(cage, [*command(), "start", f"{flow.component}/{flow.name}"], _START_LIMIT_S)

    def stop(self, cage: Cage, flow: Flow) -> Completed:
        """Run `sarrapipe stop`."""
        return self._run(cage, [*command(), "stop", f"{flow.component}/{flow.name}"], _STOP_LIMIT_S)

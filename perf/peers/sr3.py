"""MetPX Sarracenia 3 from the package index, driven by its own commands.

`sr3 declare` is not used: it wants the management API at port 15672. It is not needed either: the scenario
declares exchanges and queue, and instance 1 declares them again. `sr3 stop` ends every process of the user
that looks like its own, so this side runs in a pid namespace where one can be made, and otherwise only on a
host without any other sr3 process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from typing import Final

from perf import cage as cages
from perf.cage import Cage, CageError, Completed
from perf.programs import Program
from perf.side import Flow, Posting, Site

__all__ = ["TUNED", "Sr3", "Sr3Missing", "executable"]

# What its documentation and its users recommend for many small files (shared measurements; wire.md 4).
TUNED: Final = ("amqp_consumer on", "prefetch 100", "batch 100", "sleep 0")
_START_LIMIT_S: Final = 120.0
_STOP_LIMIT_S: Final = 90.0
_POST_LIMIT_S: Final = 1800.0


class Sr3Missing(RuntimeError):
    """The peer is not installed."""


def executable(name: str = "sr3") -> str:
    """Return the path of one of the peer's commands: from `.venv-sr3` beside the package, or from PATH.

    Raises:
        Sr3Missing: It is in neither.
    """
    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    beside = os.path.join(top, ".venv-sr3", "bin", name)
    found = beside if os.access(beside, os.X_OK) else shutil.which(name)
    if found is None:
        raise Sr3Missing(f"{name} is not installed: run .ci/setup sr3")
    return found


def version() -> str:
    """Return the peer's version as it prints it, or `absent`."""
    try:
        program = executable()
    except Sr3Missing:
        return "absent"
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().splitlines()[-1]


class Sr3(Program):
    """The peer with one set of settings.

    Args:
        site: Broker and web server to use.
        home: Directory of its own.
        name: How figures call it.
        settings: Configuration lines added to each flow.
    """

    def __init__(self, site: Site, home: str, *, name: str = "sr3", settings: tuple[str, ...] = ()) -> None:
        super().__init__(site, home)
        self.name = name
        self.settings = settings
        self.isolated = cages.can_isolate()

    @property
    def config_dir(self) -> str:
        """Its tree below XDG_CONFIG_HOME."""
        return os.path.join(self._home, "config", "sr3")

    @property
    def state_dir(self) -> str:
        """Its tree below XDG_CACHE_HOME."""
        return os.path.join(self._home, "state", "sr3")

    def environment(self) -> dict[str, str]:
        """Point it to its trees."""
        return {
            **super().environment(),
            "XDG_CONFIG_HOME": os.path.join(self._home, "config"),
            "XDG_CACHE_HOME": os.path.join(self._home, "state"),
        }

    def write_flow(self, flow: Flow) -> None:
        """Write the flow's configuration with this side's settings, and the directory its start expects."""
        super().write_flow(replace(flow, settings=flow.settings + self.settings))
        os.makedirs(os.path.join(self.state_dir, flow.component, flow.name))

    def post(self, cage: Cage, posting: Posting, paths: list[str]) -> Completed:
        """Run `sr3_post`; it returns when the broker has committed every message."""
        arguments = [argument for path in paths for argument in ("-p", path)]
        return self._run(cage, [executable("sr3_post"), "-c", posting.name, *arguments], _POST_LIMIT_S)

    def start(self, cage: Cage, flow: Flow) -> Completed:
        """Run `sr3 start`."""
        self._refuse_others()
        return self._run(cage, [executable(), "start", f"{flow.component}/{flow.name}"], _START_LIMIT_S)

    def stop(self, cage: Cage, flow: Flow) -> Completed:
        """Run `sr3 stop`."""
        return self._run(cage, [executable(), "stop", f"{flow.component}/{flow.name}"], _STOP_LIMIT_S)

    def _refuse_others(self) -> None:
        """Without a namespace of its own, see to it that `sr3 stop` cannot end anybody else's processes.

        Raises:
            CageError: There is another sr3 on this machine.
        """
        if self.isolated:
            return
        listing = subprocess.run(["ps", "-e", "-o", "args="], capture_output=True, text=True, check=False)
        if "sarracenia/instance.py" in listing.stdout:
            raise CageError(
                "another sr3 is running here and 'sr3 stop' would end it: be root, or stop it first"
            )

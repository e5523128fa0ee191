"""What both programs under test share: a configuration tree, a state tree, commands run in a cage."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Sequence
from typing import Final

from perf.cage import Cage, CageError, Completed
from perf.side import Flow, Posting, Site

__all__ = ["Program"]

_TAIL_LINES: Final = 25
_PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "HOME", "TMPDIR")


class Program:
    """Common part of the two sides.

    Args:
        site: Broker and web server to use.
        home: Directory of its own; made if missing.
    """

    def __init__(self, site: Site, home: str) -> None:
        self._site = site
        self._home = home

    @property
    def config_dir(self) -> str:
        """Where credentials.conf and the components' directories are."""
        return os.path.join(self._home, "config")

    @property
    def state_dir(self) -> str:
        """Where state and logs are."""
        return os.path.join(self._home, "state")

    @property
    def log_path(self) -> str:
        """Where the output of commands goes."""
        return os.path.join(self._home, "commands.log")

    def environment(self) -> dict[str, str]:
        """Return the environment of every command: nothing of the caller's configuration."""
        passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        # sr3 finds its processes by the user's name, and needs one to make names of queues.
        return {**passed, "USER": pwd.getpwuid(os.getuid()).pw_name}

    def write_posting(self, posting: Posting) -> None:
        """Write `post/NAME.conf`."""
        self._write("post", posting.name, posting.lines(self._site))

    def write_flow(self, flow: Flow) -> None:
        """Write `COMPONENT/NAME.conf` and forget the state that an earlier run left."""
        shutil.rmtree(self.state_dir, ignore_errors=True)
        os.makedirs(self.state_dir)
        self._write(flow.component, flow.name, flow.lines(self._site))

    def log_tail(self) -> str:
        """Return the last lines of the commands' output and of every log."""
        logs = [self.log_path]
        for directory, _names, files in os.walk(self.state_dir):
            logs += [os.path.join(directory, name) for name in files if name.endswith(".log")]
        tails = []
        for path in sorted(logs):
            if os.path.exists(path):
                with open(path, encoding="utf-8", errors="replace") as file:
                    tails.append(f"{path}:\n" + "".join(file.readlines()[-_TAIL_LINES:]))
        return "\n".join(tails)

    def _write(self, component: str, name: str, lines: Sequence[str]) -> None:
        directory = os.path.join(self.config_dir, component)
        os.makedirs(directory, exist_ok=True)
        self._site.write_credentials(os.path.join(self.config_dir, "credentials.conf"))
        with open(os.path.join(directory, f"{name}.conf"), "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)

    def _run(self, cage: Cage, command: Sequence[str], timeout_s: float) -> Completed:
        """Run one command; a failure is an error with the end of what it printed.

        Raises:
            CageError: It failed or took too long.
        """
        done = cage.run(command, env=self.environment(), log=self.log_path, timeout_s=timeout_s)
        if done.code:
            raise CageError(f"{' '.join(command)} ended with {done.code}\n{self.log_tail()}")
        return done

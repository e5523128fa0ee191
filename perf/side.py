"""What a pump under test looks like to a scenario, and the flows it is asked to run.

Both programs read the same configuration language, so both get the same lines; a side adds only what its own
setting needs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from perf.cage import Cage, Completed

__all__ = ["Flow", "FlowSide", "Posting", "Site"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The private broker and web server that every side of a scenario uses.

    `secrets` holds broker URLs with password by user name; nothing prints it. `processes` names the live
    processes of each role, `server` and `broker`.
    """

    directory: str
    docroot: str
    http_url: str
    host: str
    amqp_port: int
    secrets: dict[str, str] = field(repr=False)
    processes: Mapping[str, Callable[[], list[int]]] = field(default_factory=dict, repr=False)

    def broker(self, user: str) -> str:
        """Return the broker URL of an account as configurations write it, without password."""
        return f"amqp://{user}@{self.host}:{self.amqp_port}/"

    def write_credentials(self, path: str) -> None:
        """Write a credentials.conf with every account, mode 600."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(f"{url}\n" for url in self.secrets.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """A `post` configuration."""

    name: str
    user: str
    exchange: str
    base_dir: str
    base_url: str
    identity: str = "sha512"
    settings: tuple[str, ...] = ()

    def lines(self, site: Site) -> list[str]:
        """Return the configuration."""
        return [
            f"post_broker {site.broker(self.user)}",
            f"post_exchange {self.exchange}",
            f"post_baseUrl {self.base_url}",
            f"post_baseDir {self.base_dir}",
            f"identity {self.identity}",
            *self.settings,
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A `sarra` or `subscribe` configuration: fetch what `exchange` announces, announce it again.

    Without `post_exchange` nothing is announced.
    """

    component: str
    name: str
    user: str
    instances: int
    exchange: str
    destination: str
    post_exchange: str = ""
    post_base_dir: str = ""
    post_base_url: str = ""
    settings: tuple[str, ...] = ()
    queue_name: str = ""

    @property
    def queue(self) -> str:
        """The queue all instances share."""
        return self.queue_name or f"q_{self.user}.{self.component}.{self.name}"

    def lines(self, site: Site) -> list[str]:
        """Return the configuration; options stand before the lines that they bear upon."""
        lines = [
            f"broker {site.broker(self.user)}",
            f"exchange {self.exchange}",
            f"queueName {self.queue}",
            f"instances {self.instances}",
            *self.settings,
            "mirror on",
            f"directory {self.destination}",
            "subtopic #",
        ]
        if self.post_exchange:
            lines += [
                f"post_broker {site.broker(self.user)}",
                f"post_exchange {self.post_exchange}",
                f"post_baseUrl {self.post_base_url}",
                f"post_baseDir {self.post_base_dir or self.destination}",
            ]
        return lines


class FlowSide(Protocol):
    """One program under test, with a configuration and state tree of its own."""

    @property
    def name(self) -> str:
        """How figures and ratios call it."""

    @property
    def isolated(self) -> bool:
        """Whether it must have a pid namespace of its own."""

    def write_posting(self, posting: Posting) -> None:
        """Write the configuration of a `post`."""

    def write_flow(self, flow: Flow) -> None:
        """Write the configuration of a flow and forget its state."""

    def post(self, cage: Cage, posting: Posting, paths: list[str]) -> Completed:
        """Announce everything below `paths`; return when every announcement is confirmed."""

    def start(self, cage: Cage, flow: Flow) -> Completed:
        """Start a flow in the background."""

    def stop(self, cage: Cage, flow: Flow) -> Completed:
        """Stop a flow; return when the command says it has stopped."""

    def log_tail(self) -> str:
        """Return the last lines that the program logged, for a message about a failed run."""

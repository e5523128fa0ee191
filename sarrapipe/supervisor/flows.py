"""Which flows a command means: configured ones, and ones that run though their configuration is gone."""

from __future__ import annotations

import fnmatch
import os
import socket
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from sarrapipe.errors import UsageError
from sarrapipe.supervisor.paths import FlowPaths
from sarrapipe.supervisor.plan import DEFAULT_ENTRY, FlowRequest

if TYPE_CHECKING:
    from sarrapipe.config.load import ConfigHome

__all__ = ["ENTRY_VARIABLE", "find", "paths_of", "requests", "with_state"]

ENTRY_VARIABLE: Final = "SARRAPIPE_INSTANCE"
"""Environment variable that names another `module:function` as the work of instances (`context`)."""


def requests(
    home: ConfigHome, patterns: Sequence[str], overrides: Sequence[tuple[str, str]]
) -> list[FlowRequest]:
    """Return what to run: the enabled flows that patterns name.

    A component without any configuration runs from the command line alone, if that says how.

    Args:
        home: Where configurations and states are.
        patterns: As `config.load.find_flows` takes them; none means every enabled flow.
        overrides: Options of the command line.

    Raises:
        UsageError: Nothing of that name, or nothing enabled.
    """
    from sarrapipe.config.components import COMPONENTS
    from sarrapipe.config.load import find_flows

    try:
        flows = find_flows(home, patterns, enabled_only=True)
    except UsageError:
        if not (overrides and len(patterns) == 1 and patterns[0] in COMPONENTS):
            raise
        flows = [(patterns[0], "")]
    if not flows:
        if not patterns:
            raise UsageError(f"no enabled configuration in {home.config_dir}")
        raise UsageError(f"{' '.join(patterns)}: every configuration of that name is disabled")
    entry = os.environ.get(ENTRY_VARIABLE) or DEFAULT_ENTRY
    return [
        FlowRequest(
            component=component,
            name=name,
            config_home=home.config_dir,
            state_home=home.state_dir,
            overrides=tuple(overrides),
            entry=entry,
        )
        for component, name in flows
    ]


def find(home: ConfigHome, patterns: Sequence[str]) -> list[FlowPaths]:
    """Return the flows that patterns name, as `config.load.find_flows`, and those only their state tells of.

    Raises:
        UsageError: A pattern names neither.
    """
    from sarrapipe.config.load import find_flows, qualified

    leftover = list(with_state(home))
    if not patterns:
        flows = [paths_of(home, *flow) for flow in find_flows(home)]
        return _unique([*flows, *leftover])
    found: list[FlowPaths] = []
    for pattern in qualified(patterns):
        ours = [paths for paths in leftover if _matches(paths, pattern)]
        try:
            found += [paths_of(home, *flow) for flow in find_flows(home, [pattern])]
        except UsageError:
            if not ours:
                raise
        found += ours
    return _unique(found)


def paths_of(home: ConfigHome, component: str, name: str) -> FlowPaths:
    """Return where a flow's state is, without reading its configuration.

    With `statehost` the state is below a directory named after this host: that is taken if it is there.
    """
    here = home.flow_state_dir(component, name, _host())
    state_dir = here if os.path.isdir(here) else home.flow_state_dir(component, name)
    return FlowPaths(component, name, state_dir)


def with_state(home: ConfigHome) -> Iterator[FlowPaths]:
    """Yield every flow that was ever started here, whether its configuration is still there or not."""
    for base in (home.state_dir, os.path.join(home.state_dir, _host())):
        for component in _directories(base):
            for name in _directories(os.path.join(base, component)):
                state_dir = os.path.join(base, component, name)
                if os.path.exists(os.path.join(state_dir, "arena")):
                    yield FlowPaths(component, "" if name == "command-line" else name, state_dir)


def _unique(flows: Sequence[FlowPaths]) -> list[FlowPaths]:
    by_flow = {paths.flow: paths for paths in reversed(flows)}
    return [by_flow[flow] for flow in sorted(by_flow)]


def _matches(paths: FlowPaths, pattern: str) -> bool:
    pattern = pattern.strip("/").removesuffix(".conf")
    names = (paths.flow, paths.component, paths.name)
    return any(fnmatch.fnmatchcase(name, pattern) for name in names if name)


def _directories(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except OSError:
        return []


def _host() -> str:
    return socket.gethostname().partition(".")[0]

"""The only module of this package that touches the file system: finds and reads configurations.

    home = ConfigHome.from_environment()
    config = load_flow(home, "sarra", "ddsr", [("instances", "16")])

Order: defaults, admin.conf, default.conf, the component's defaults, component/config.conf; what the command
line says wins over all. Source: sr3-surface.md 3.3, 4; design.md 9; R115, R132, R133.
"""

from __future__ import annotations

import fnmatch
import getpass
import os
import re
import socket
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from sarrapipe.config.build import build, initial_draft
from sarrapipe.config.components import COMPONENTS, KNOWN_COMPONENTS
from sarrapipe.config.credentials import Credentials, parse_credentials
from sarrapipe.config.draft import Draft
from sarrapipe.config.evaluate import Evaluator
from sarrapipe.config.model import FlowConfig
from sarrapipe.config.parse import COMMAND_LINE, Line
from sarrapipe.config.problems import ConfigErrors
from sarrapipe.config.substitute import Environment
from sarrapipe.config.synonyms import nearest
from sarrapipe.config.urls import BrokerUrl
from sarrapipe.config.values import Role
from sarrapipe.errors import ConfigError, UsageError
from sarrapipe.log import get_logger

__all__ = [
    "AdminConfig",
    "ConfigHome",
    "Overrides",
    "find_flows",
    "is_enabled",
    "load_admin",
    "load_credentials",
    "load_flow",
    "qualified",
    "read_environment",
]

_log = get_logger(__name__)

Overrides = Sequence[tuple[str, str]]
"""Options of the command line in order: name as in configuration files, and text of the value."""

_NAME_RE: Final = re.compile(r"[A-Za-z0-9_%+@=-][A-Za-z0-9_.%+@=-]{0,199}", re.ASCII)
_MAX_FILE: Final = 4 << 20
_NOT_FLOWS: Final = ("admin.conf", "default.conf", "credentials.conf")


@dataclass(frozen=True, slots=True)
class ConfigHome:
    """Where configurations and state are.

    Attributes:
        config_dir: Holds admin.conf, default.conf, credentials.conf and a directory for each component.
        state_dir: Holds the state of each flow.
    """

    config_dir: str
    state_dir: str

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] | None = None) -> ConfigHome:
        """Return ~/.config/sarra and ~/.cache/sarra, or what SARRA_CONFIG_HOME and SARRA_STATE_HOME say."""
        variables = os.environ if variables is None else variables
        home = variables.get("HOME") or os.path.expanduser("~")
        return cls(
            os.path.abspath(variables.get("SARRA_CONFIG_HOME") or os.path.join(home, ".config", "sarra")),
            os.path.abspath(variables.get("SARRA_STATE_HOME") or os.path.join(home, ".cache", "sarra")),
        )

    @classmethod
    def default(cls) -> ConfigHome:
        """Return what this process's environment says."""
        return cls.from_environment()

    def config_file(self, component: str, name: str) -> str:
        """Return the path of a flow's configuration."""
        return os.path.join(self.config_dir, component, f"{name}.conf")

    def flow_state_dir(self, component: str, name: str, host: str = "") -> str:
        """Return the path of a flow's state; `host` sets apart the hosts that share a home (`statehost`)."""
        return os.path.join(self.state_dir, *([host] if host else []), component, name or "command-line")

    @property
    def credentials_file(self) -> str:
        """The path of credentials.conf."""
        return os.path.join(self.config_dir, "credentials.conf")


@dataclass(frozen=True, slots=True)
class AdminConfig:
    """What admin.conf says of the pump (R132).

    Attributes:
        cluster: Name of the cluster.
        admin: Administrator's account, with password where credentials.conf has one.
        feeder: The pump's own account.
        users: Declared accounts; those of `admin` and `feeder` included.
        exchanges: Declared exchanges.
        credentials: All of credentials.conf.
    """

    cluster: str | None
    admin: BrokerUrl | None
    feeder: BrokerUrl | None
    users: Mapping[str, Role]
    exchanges: tuple[str, ...]
    credentials: Credentials


def read_environment(variables: Mapping[str, str] | None = None) -> Environment:
    """Return what this process's surroundings say."""
    variables = dict(os.environ if variables is None else variables)
    home = variables.get("HOME") or os.path.expanduser("~")
    try:
        user = variables.get("USER") or getpass.getuser()
    except (KeyError, OSError):  # no such account: containers run as bare numbers
        user = str(os.getuid())
    return Environment(
        variables=MappingProxyType(variables),
        user=user,
        hostname=socket.gethostname(),
        seed=_machine_id(),
        cwd=os.getcwd(),
        home=home,
    )


def _machine_id() -> str:
    try:
        with open("/etc/machine-id", encoding="ascii", errors="replace") as file:
            return file.read(64).strip()
    except OSError:
        return ""


def load_flow(
    home: ConfigHome,
    component: str,
    name: str,
    overrides: Overrides = (),
    environment: Environment | None = None,
) -> FlowConfig:
    """Read one flow's configuration.

    Args:
        home: Where to look.
        component: post, sarra, subscribe ...
        name: Name of the configuration; "" takes the command line alone.
        overrides: What the command line says; wins over every file.
        environment: What variables stand for; by default this process's surroundings.

    Raises:
        ConfigErrors: Everything that is wrong with it, each with file, line and column.
        UsageError: There is no such component or configuration.
    """
    _require_component(component)
    if name and not _NAME_RE.fullmatch(name):
        raise UsageError(f"{name!r} is no name of a configuration")
    file = home.config_file(component, name) if name else ""
    if file and not os.path.isfile(file):
        raise UsageError(_no_such_flow(home, component, name))
    environment = environment or read_environment()
    environment = replace(environment, seed=f"{environment.seed} {home.config_dir}")
    files = [os.path.join(home.config_dir, "admin.conf"), os.path.join(home.config_dir, "default.conf")]
    reader = _Reader(home, component, name, environment, overrides)
    draft = reader.read(files, file, "native")
    if draft.values["defaults"] == "sr3":
        draft = reader.read(files, file, "sr3")
    try:
        credentials = load_credentials(home, environment)
    except ConfigErrors as error:
        raise ConfigErrors([*draft.errors, *error.errors]) from error
    host = environment.hostname.partition(".")[0] if draft.values["statehost"] else ""
    state_dir = home.flow_state_dir(component, name, host)
    return build(
        draft,
        environment,
        credentials,
        component,
        name,
        file=file,
        config_dir=home.config_dir,
        state_dir=state_dir,
    )


def load_admin(home: ConfigHome, environment: Environment | None = None) -> AdminConfig:
    """Read admin.conf alone (R132).

    Raises:
        ConfigErrors: Everything that is wrong with it, or with credentials.conf.
    """
    environment = environment or read_environment()
    reader = _Reader(home, "", "", environment, ())
    draft = reader.read([os.path.join(home.config_dir, "admin.conf")], "", "native")
    if draft.errors:
        raise ConfigErrors(draft.errors)
    credentials = load_credentials(home, environment)
    users, accounts = dict(draft.users), {}
    for attribute, role in (("admin", Role.ADMIN), ("feeder", Role.FEEDER)):
        broker = draft.values[attribute]
        if isinstance(broker, BrokerUrl):
            users.setdefault(broker.user, role)
            accounts[attribute] = _completed_if_known(credentials, broker)
    return AdminConfig(
        cluster=draft.values["cluster"],
        admin=accounts.get("admin"),
        feeder=accounts.get("feeder"),
        users=MappingProxyType(users),
        exchanges=tuple(draft.exchanges),
        credentials=credentials,
    )


def _completed_if_known(credentials: Credentials, broker: BrokerUrl) -> BrokerUrl:
    try:
        return credentials.complete(broker)
    except ValueError:  # whoever uses the account says that its password is missing
        return broker


def load_credentials(home: ConfigHome, environment: Environment | None = None) -> Credentials:
    """Read credentials.conf; give it mode 600 if others may read it, and say so (R115).

    Raises:
        ConfigErrors: Lines that are wrong, or a file that is not ours and that others can read.
    """
    environment = environment or read_environment()
    path = home.credentials_file
    if not os.path.exists(path):
        return Credentials()
    _force_private(path)
    credentials, errors = parse_credentials(_read(path), path, environment.variables, environment.home)
    if errors:
        raise ConfigErrors(errors)
    return credentials


def _force_private(path: str) -> None:
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if not mode & 0o077:
        return
    try:
        os.chmod(path, 0o600)
    except OSError as error:
        raise ConfigErrors(
            [
                ConfigError(
                    f"mode {mode:03o} lets others read passwords, and it cannot be changed: {error}", path
                )
            ]
        ) from error
    _log.warning(
        "%s had mode %03o, so others could read it: changed to 600; change the passwords", path, mode
    )


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise ConfigErrors([ConfigError(f"cannot be read: {error.strerror}", path)]) from error
    if len(data) > _MAX_FILE:
        raise ConfigErrors([ConfigError(f"more than {_MAX_FILE} bytes: no configuration", path)])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        raise ConfigErrors([ConfigError("not UTF-8", path, line, column)]) from error


class _Reader:
    """Reads the files of one flow into a draft."""

    def __init__(
        self, home: ConfigHome, component: str, name: str, environment: Environment, overrides: Overrides
    ) -> None:
        self._home = home
        self._component = component
        self._name = name
        self._environment = environment
        self._overrides = [Line(key, value, COMMAND_LINE, 0, 0, 0) for key, value in overrides]

    def read(self, shared: Sequence[str], own: str, defaults: str) -> Draft:
        """Read shared files, component's defaults and the flow's own file, with these general defaults."""
        draft = initial_draft(defaults)
        evaluator = Evaluator(draft, self._environment, self._component, self._name, self._find_include)
        evaluator.command_line(self._overrides)
        for path in shared:
            if os.path.exists(path):
                self._file(evaluator, draft, path)
        evaluator.component_defaults()
        if own:
            self._file(evaluator, draft, own)
        evaluator.command_line_statements(self._overrides)
        evaluator.finish()
        return draft

    def _file(self, evaluator: Evaluator, draft: Draft, path: str) -> None:
        try:
            text = _read(path)
        except ConfigErrors as error:
            draft.errors += error.errors
            return
        evaluator.text(text, path)

    def _find_include(self, name: str, including: str) -> tuple[str, str]:
        name = os.path.join(self._environment.home, name[2:]) if name.startswith("~/") else name
        places = dict.fromkeys((
            os.path.dirname(including) if os.path.isabs(including) else self._environment.cwd,
            os.path.join(self._home.config_dir, self._component),
            self._home.config_dir,
            self._environment.cwd,
        ))  # fmt: skip
        for place in places:
            path = os.path.normpath(os.path.join(place, name))
            if os.path.isfile(path):
                try:
                    return path, _read(path)
                except ConfigErrors as error:
                    raise ConfigError(f"{error.file}: {error.what}") from error
        raise ConfigError(f"include {name}: no such file in {', '.join(places)}")


def _require_component(component: str) -> None:
    if component in COMPONENTS:
        return
    if component in KNOWN_COMPONENTS:
        raise UsageError(f"component {component} is not supported yet; there is {', '.join(COMPONENTS)}")
    near = nearest(component, COMPONENTS)
    raise UsageError(f"no such component {component!r}" + (f"; did you mean {near!r}?" if near else ""))


def _no_such_flow(home: ConfigHome, component: str, name: str) -> str:
    near = nearest(name, _names(home, component))
    hint = f"; did you mean {component}/{near}?" if near else ""
    return f"no configuration {component}/{name}: there is no {home.config_file(component, name)}{hint}"


def _names(home: ConfigHome, component: str) -> list[str]:
    try:
        entries = os.listdir(os.path.join(home.config_dir, component))
    except (FileNotFoundError, NotADirectoryError):
        return []
    names = (entry.removesuffix(".conf") for entry in entries if entry.endswith(".conf"))
    return sorted(name for name in names if _NAME_RE.fullmatch(name))


def is_enabled(home: ConfigHome, component: str, name: str, host: str = "") -> bool:
    """Return whether a flow is started with the others: it has no state file `disabled`."""
    return not os.path.exists(os.path.join(home.flow_state_dir(component, name, host), "disabled"))


def find_flows(
    home: ConfigHome, patterns: Sequence[str] = (), *, enabled_only: bool = False
) -> list[tuple[str, str]]:
    """Return the flows that patterns name.

    Args:
        home: Where to look.
        patterns: `sarra`, `sarra/ddsr`, `sarra/ddsr.conf`, `*/dd*`, or `ddsr` in any component; names that
            follow a component are its configurations (`sarra ddsr mesh`). None means every flow.
        enabled_only: Leave out flows that are disabled, unless their pattern names just one.

    Returns:
        Pairs (component, name), sorted, each once.

    Raises:
        UsageError: A pattern names no flow; the nearest name is told.
    """
    every = [(component, name) for component in sorted(COMPONENTS) for name in _names(home, component)]
    if not patterns:
        return [flow for flow in every if not enabled_only or is_enabled(home, *flow)]
    found: set[tuple[str, str]] = set()
    for pattern in qualified(patterns):
        matches = _matching(every, pattern)
        if not matches:
            raise UsageError(_nothing_found(home, every, pattern))
        exact = len(matches) == 1 and not re.search(r"[*?\[]", pattern) and pattern not in COMPONENTS
        found.update(flow for flow in matches if exact or not enabled_only or is_enabled(home, *flow))
    return sorted(found)


def qualified(patterns: Sequence[str]) -> list[str]:
    """Read `sarra ddsr mesh` as `sarra/ddsr sarra/mesh`: a name after a component is one of it."""
    found: list[str] = []
    component = ""
    for pattern in patterns:
        if pattern in COMPONENTS:
            component = pattern
            found.append(pattern)
        elif component and "/" not in pattern:
            if found[-1] == component:
                found.pop()
            found.append(f"{component}/{pattern}")
        else:
            component = ""
            found.append(pattern)
    return found


def _matching(every: Sequence[tuple[str, str]], pattern: str) -> list[tuple[str, str]]:
    component, slash, name = pattern.strip("/").removesuffix(".conf").partition("/")
    matches: Callable[[str, str], bool] = fnmatch.fnmatchcase
    if slash:
        return [flow for flow in every if matches(flow[0], component) and matches(flow[1], name)]
    if component in COMPONENTS:
        return [flow for flow in every if flow[0] == component]
    return [flow for flow in every if matches(flow[1], component)]


def _nothing_found(home: ConfigHome, every: Sequence[tuple[str, str]], pattern: str) -> str:
    component = pattern.partition("/")[0]
    if component in KNOWN_COMPONENTS - COMPONENTS.keys():
        return f"component {component} is not supported yet; there is {', '.join(COMPONENTS)}"
    near = nearest(pattern.removesuffix(".conf"), [f"{c}/{n}" for c, n in every] + [n for _, n in every])
    hint = f"; did you mean {near}?" if near else ""
    return f"no configuration matches {pattern!r} in {home.config_dir}{hint}"

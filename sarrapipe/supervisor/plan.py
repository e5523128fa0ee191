"""What a parent is asked to run, and what it has to know of the configuration to do so.

The configuration is read in the fork server, once for each start or reload, and inherited by the instances:
the parent holds only a `FlowPlan`. Who reads it is named by a string, so that this package depends on no
flow.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

from sarrapipe.errors import ConfigError
from sarrapipe.supervisor.fingerprint import fingerprint

__all__ = ["DEFAULT_ENTRY", "DEFAULT_LOADER", "FlowPlan", "FlowRequest", "load_from_config", "resolve"]

DEFAULT_ENTRY: Final = "sarrapipe.instance:main"
DEFAULT_LOADER: Final = "sarrapipe.supervisor.plan:load_from_config"

# Options that a running flow takes over without new processes.
_NOT_IN_FINGERPRINT: Final = frozenset({"environment", "instances", "origins", "warnings"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRequest:
    """One flow to run.

    Attributes:
        component: Such as `sarra`.
        name: Of the configuration.
        config_home: Directory of the configurations.
        state_home: Directory of the states of all flows.
        overrides: Options of the command line, in order.
        entry: `module:function`, the work of an instance (see `context`).
        loader: `module:function`, called with this request, returns a `FlowPlan` and what instances find in
            `InstanceContext.config`.
    """

    component: str
    name: str
    config_home: str
    state_home: str
    overrides: tuple[tuple[str, str], ...] = ()
    entry: str = DEFAULT_ENTRY
    loader: str = DEFAULT_LOADER

    @property
    def flow(self) -> str:
        """`component/name`."""
        return f"{self.component}/{self.name}" if self.name else self.component

    def to_wire(self) -> dict[str, object]:
        """Return this as msgpack can carry it."""
        return asdict(self)

    @classmethod
    def from_wire(cls, data: dict[str, object]) -> FlowRequest:
        """Return what `to_wire` was called on."""
        pairs = data.pop("overrides")
        assert isinstance(pairs, list)
        return cls(overrides=tuple((key, value) for key, value in pairs), **data)  # type: ignore[arg-type]
        # our own


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowPlan:
    """What the parent knows of a flow's configuration.

    Attributes:
        state_dir: Of the flow.
        instances: How many are wanted.
        pin: `core`, `numa` or `off`.
        log_level: For parent and instances.
        log_mode: Permission bits of their log files.
        stop_s: Time an instance has to stop.
        hung_s: Silence after which an instance is aborted; 0 never.
        fingerprint: Of everything that takes new instances to change.
        warnings: For the log.
    """

    state_dir: str
    instances: int = 1
    pin: str = "off"
    log_level: str = "info"
    log_mode: int = 0o600
    stop_s: float = 10.0
    hung_s: float = 120.0
    fingerprint: str = ""
    warnings: tuple[str, ...] = ()

    def to_wire(self) -> dict[str, object]:
        """Return this as msgpack can carry it."""
        return asdict(self)

    @classmethod
    def from_wire(cls, data: dict[str, object]) -> FlowPlan:
        """Return what `to_wire` was called on."""
        warnings = data.pop("warnings")
        assert isinstance(warnings, list)
        return cls(warnings=tuple(warnings), **data)  # type: ignore[arg-type]  # our own fork server wrote it


def resolve(name: str) -> Callable[..., object]:
    """Return the function that `module:function` names.

    Raises:
        ConfigError: There is no such thing.
    """
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{name}: cannot be imported: {error}") from error
    assert callable(function)
    return function  # type: ignore[no-any-return]  # what it is called with is up to its caller


def load_from_config(request: FlowRequest) -> tuple[FlowPlan, object]:
    """Read and validate a flow's configuration.

    Raises:
        ConfigError: It has problems.
    """
    from sarrapipe.config.load import ConfigHome, load_flow

    home = ConfigHome(request.config_home, request.state_home)
    config = load_flow(home, request.component, request.name, request.overrides)
    plan = FlowPlan(
        state_dir=config.state_dir,
        instances=config.instances,
        pin=config.pin,
        log_level=config.log_level,
        log_mode=config.perm_log,
        stop_s=config.stop_timeout,
        hung_s=config.hung_after,
        fingerprint=fingerprint(config, _NOT_IN_FINGERPRINT),
        warnings=tuple(map(str, config.warnings)),
    )
    return plan, config

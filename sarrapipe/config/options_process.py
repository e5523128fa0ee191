"""Options about processes, logs and state. Source: sr3-surface.md 2.4; design.md 3, 9."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sarrapipe.config.kinds import broker_url, choice, duration, flag, natural, octal
from sarrapipe.config.option import option
from sarrapipe.config.urls import BrokerUrl

__all__ = ["ProcessOptions"]

_SECTION: Final = "Processes, logs and state"
_PUMP: Final = "Pump"
LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True, init=False, repr=False, eq=False)
class ProcessOptions:
    """How a flow runs."""

    defaults: str = option(
        choice("native", "sr3"),
        "native",
        section=_SECTION,
        help="Whose defaults hold where no line sets a value: native follows the pump's design, sr3 follows "
        "MetPX sr3 3.03.01 where the two differ.",
    )
    instances: int = option(
        natural,
        1,
        section=_SECTION,
        common=True,
        help="Processes that share the work of the flow.",
    )
    pin: str = option(
        choice("core", "numa", "off"),
        "core",
        section=_SECTION,
        help="Bind each instance to one CPU (core), to the CPUs of one memory node (numa), or not (off).",
    )
    housekeeping: float = option(
        duration,
        300.0,
        section=_SECTION,
        help="Seconds between turns of housekeeping: expired entries go, callbacks are asked.",
    )
    hung_after: float = option(
        duration,
        120.0,
        sr3=450.0,
        key="runStateThreshold_hung",
        section=_SECTION,
        help="Seconds without a sign of life after which an instance is ended and started again.",
    )
    stop_timeout: float = option(
        duration,
        10.0,
        section=_SECTION,
        help="Seconds an instance may take to stop; then it is killed, and what it had goes back.",
    )
    callback_timeout: float = option(
        duration,
        300.0,
        section=_SECTION,
        help="Seconds a callback may take for one call; then its items have failed and it is started anew.",
    )
    log_level: str = option(
        choice(*LOG_LEVELS, none="critical", warn="warning"),
        "info",
        section=_SECTION,
        common=True,
        help="Least severity that is logged.",
    )
    perm_log: int = option(
        octal,
        0o600,
        section=_SECTION,
        help="Permissions of log files.",
    )
    statehost: bool = option(
        flag,
        default=False,
        section=_SECTION,
        help="Keep the state in a directory named after this host, for a home directory shared by several.",
    )
    admin: BrokerUrl | None = option(  # noqa: RUF009 - option() makes a dataclass field
        broker_url,
        None,
        section=_PUMP,
        help="Administrator's account of this pump's broker (admin.conf, R131).",
    )
    feeder: BrokerUrl | None = option(  # noqa: RUF009 - option() makes a dataclass field
        broker_url,
        None,
        section=_PUMP,
        help="Account that this pump's own processes use at its broker (admin.conf, R130).",
    )

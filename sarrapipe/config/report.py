"""What `check`, `show` and `list options` print: problems, values with their origin, and every option."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sarrapipe.config.components import COMPONENTS, KNOWN_COMPONENTS
from sarrapipe.config.load import ConfigHome, Overrides, find_flows, load_admin, load_flow, read_environment
from sarrapipe.config.masks import Mask
from sarrapipe.config.model import FlowConfig, option_specs
from sarrapipe.config.problems import ConfigErrors
from sarrapipe.config.statements import STATEMENTS
from sarrapipe.config.substitute import Environment
from sarrapipe.config.urls import mask_password
from sarrapipe.config.values import Origin, Problem

__all__ = ["Finding", "OptionRow", "Shown", "check_flows", "option_rows", "show_flow"]


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One problem of a configuration.

    Attributes:
        file: Path of the file, or "command line".
        line: Number from 1; 0 where it is about the file.
        column: Number from 1; 0 where it is about the line.
        severity: error or warning.
        what: The problem, with the nearest name.
        flow: The flow it was found in, as component/name.
    """

    file: str
    line: int
    column: int
    severity: str
    what: str
    flow: str

    def __str__(self) -> str:
        warning = "warning: " if self.severity == "warning" else ""
        return f"{Origin(self.file, self.line, self.column)}: {warning}{self.what}"


@dataclass(frozen=True, slots=True)
class Shown:
    """One value of a configuration, as a file could hold it, and where it comes from."""

    key: str
    value: str
    origin: Origin
    is_set: bool


def check_flows(home: ConfigHome, patterns: Sequence[str] = (), overrides: Overrides = ()) -> list[Finding]:
    """Return everything wrong or strange with configurations; each line's problem once.

    Args:
        home: Where to look.
        patterns: As `find_flows`; none means all there is, admin.conf included.
        overrides: Options of the command line.

    Raises:
        UsageError: A pattern names no flow.
    """
    environment = read_environment()
    found: dict[tuple[str, int, int, str], Finding] = {}
    flows = [tuple(flow) for flow in find_flows(home, patterns)]
    checks = [_check_flow(home, component, name, overrides, environment) for component, name in flows]
    if not patterns:
        checks += [_check_admin(home, environment), _foreign(home)]
    for findings in checks:
        for finding in findings:
            found.setdefault((finding.file, finding.line, finding.column, finding.what), finding)
    return sorted(found.values())


def _check_flow(
    home: ConfigHome, component: str, name: str, overrides: Overrides, environment: Environment
) -> Iterator[Finding]:
    flow = f"{component}/{name}"
    try:
        config = load_flow(home, component, name, overrides, environment)
    except ConfigErrors as errors:
        yield from _errors(errors, flow)
        yield from _warnings(errors.warnings, flow)
        return
    yield from _warnings(config.warnings, flow)


def _warnings(problems: Sequence[Problem], flow: str) -> Iterator[Finding]:
    for problem in problems:
        origin = problem.origin
        yield Finding(origin.file, origin.line, origin.column, "warning", mask_password(problem.what), flow)


def _check_admin(home: ConfigHome, environment: Environment) -> Iterator[Finding]:
    try:
        load_admin(home, environment)
    except ConfigErrors as errors:
        yield from _errors(errors, "admin")


def _errors(errors: ConfigErrors, flow: str) -> Iterator[Finding]:
    for error in errors.errors:
        yield Finding(error.file, error.line, error.column, "error", mask_password(error.what), flow)


def _foreign(home: ConfigHome) -> Iterator[Finding]:
    """Name the configurations of components that are not there yet: they would be overlooked silently."""
    for component in sorted(KNOWN_COMPONENTS - COMPONENTS.keys()):
        directory = os.path.join(home.config_dir, component)
        if os.path.isdir(directory):
            for entry in sorted(os.listdir(directory)):
                if entry.endswith(".conf"):
                    what = f"component {component} is not supported yet: this flow does not run"
                    flow = f"{component}/{entry.removesuffix('.conf')}"
                    yield Finding(os.path.join(directory, entry), 0, 0, "warning", what, flow)


def show_flow(config: FlowConfig) -> list[Shown]:
    """Return every value of a configuration: options, then masks and bindings in their order.

    Brokers are shown without password, and so is any URL in a text.
    """
    shown = []
    for spec in option_specs():
        value = spec.kind.format(getattr(config, spec.attribute))
        origin = config.origin(spec.key)
        shown.append(
            Shown(spec.key, mask_password(value), origin, is_set=bool(origin.line) or _typed(origin))
        )
    for subscription in config.subscriptions:
        where = f"{subscription.broker} {subscription.queue_name}"
        bound = [f"{binding.exchange} {binding.routing_key}" for binding in subscription.bindings]
        shown += [
            Shown("subscription", f"{where} {text}", subscription.origin, is_set=True)
            for text in bound or ["-"]
        ]
    shown += [_shown_mask(mask) for mask in config.masks.masks]
    shown += [Shown(call.statement, call.name, call.origin, is_set=True) for call in config.callbacks]
    return shown


def _typed(origin: Origin) -> bool:
    return not origin.file.endswith("default")


def _shown_mask(mask: Mask) -> Shown:
    rule = mask.rule
    text = mask.regex.pattern
    if mask.accept:
        text += f"  into {rule.directory.text} mirror={'on' if rule.mirror else 'off'} strip={rule.strip}"
        text += f" flatten={rule.flatten}" if rule.flatten != "/" else ""
        text += f" filename={rule.filename.text}" if rule.filename is not None else ""
    return Shown("accept" if mask.accept else "reject", mask_password(text), mask.origin, is_set=True)


class OptionRow(NamedTuple):
    """One line of `list options`; statements have no flag and no default."""

    section: str
    key: str
    metavar: str
    default: str
    sr3_default: str
    flag: str
    help: str


def option_rows(words: Sequence[str] = ()) -> list[OptionRow]:
    """Return every option and statement, or those whose name or help holds one of `words`, in any case."""
    rows = [
        OptionRow(
            spec.section, spec.key, spec.kind.metavar, spec.kind.format(spec.default),
            spec.kind.format(spec.sr3), spec.flag, spec.help,
        )
        for spec in option_specs()
    ]  # fmt: skip
    rows += [
        OptionRow(
            "Statements", word.key, word.syntax, "", "", f"--{word.key}" if word.flag else "", word.help
        )
        for word in STATEMENTS.values()
    ]
    return [
        row for row in rows if not words or any(w.lower() in f"{row.key} {row.help}".lower() for w in words)
    ]

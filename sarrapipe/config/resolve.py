"""The variables that are known once everything has been read, and what is wrong with those that are not."""

from __future__ import annotations

import os.path
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from sarrapipe.config.draft import Draft
from sarrapipe.config.names import find
from sarrapipe.config.option import OptionSpec
from sarrapipe.config.parse import Line
from sarrapipe.config.substitute import Environment, expand, is_message_variable, variables
from sarrapipe.config.synonyms import nearest
from sarrapipe.config.urls import BrokerUrl
from sarrapipe.config.variables import static_variable
from sarrapipe.errors import ConfigError

__all__ = ["Resolver"]

_SHORT: Final = {
    "BD": "base_dir", "DR": "base_dir", "PBD": "post_base_dir", "PDR": "post_base_dir",
    "QUEUESHARE": "queue_share",
}  # fmt: skip
_NAMES: Final = (
    "BROKER_USER", "POST_BROKER_USER", "PROGRAM", "COMPONENT", "CONFIG", "HOSTNAME", "USER", "RANDID",
    "RAND8", "QUEUESHARE", "SOURCE", "BD", "PBD", "BUP", "BUPL", "YYYYMMDD", "YYYY", "MM", "DD", "HH", "JJJ",
)  # fmt: skip
_SLASHES_RE: Final = re.compile(r"(?<!:)/{2,}")


class Resolver:
    """Replaces variables by their final values.

    Args:
        draft: Everything read; errors are added to it.
        environment: What the world says.
        component: Component of the flow.
        name: Name of the configuration.
    """

    def __init__(self, draft: Draft, environment: Environment, component: str, name: str) -> None:
        self._draft = draft
        self._environment = environment
        self._component = component
        self._name = name

    def lookup(self, name: str, broker: BrokerUrl | None) -> str | None:
        """Return what a variable stands for; None for those of messages and for unknown ones."""
        draft, values = self._draft, self._draft.values
        if name in draft.env:
            return draft.env[name]
        if is_message_variable(name):
            return None
        static = static_variable(name, self._environment, self._component, self._name)
        if static is not None:
            return static
        if name in ("BROKER_USER", "POST_BROKER_USER"):
            asked = values["post_broker"] if name.startswith("POST") else broker or values["broker"]
            return asked.user if isinstance(asked, BrokerUrl) else None
        if name in _SHORT:
            found = values[_SHORT[name]]
            return found if isinstance(found, str) else None
        return self._option(name)

    def _option(self, name: str) -> str | None:
        spec = find(name)
        if isinstance(spec, OptionSpec) and spec.kind.metavar != "KEY=VALUE":
            value = self._draft.values[spec.attribute]
            return None if value is None else spec.kind.format(value)
        return self._environment.variables.get(name)

    def text(self, text: str, line: Line | None, *, template: bool, broker: BrokerUrl | None = None) -> str:
        """Return a text with every variable replaced that is known.

        Args:
            text: The text.
            line: Where it was written, for errors; None for a default.
            template: Variables that a message decides may stay in it.
            broker: Whose user `${BROKER_USER}` is.
        """
        if "${" not in text:
            return text
        try:
            replaced = expand(text, lambda name: self.lookup(name, broker))
        except ValueError as error:
            self._error(str(error), line)
            return text
        for _, name in variables(replaced):
            if not (template and is_message_variable(name)):
                self._unknown(name, line)
        return replaced

    def path(self, path: str) -> str:
        """Return an absolute path without `.`, `..` and doubled slashes; a leading variable is left alone."""
        if path == "~" or path.startswith("~/"):
            path = self._environment.home + path[1:]
        if path.startswith("${"):
            return _SLASHES_RE.sub("/", path)
        return os.path.normpath(os.path.join(self._environment.cwd, path)).replace("//", "/", 1)

    def options(self, specs: tuple[OptionSpec, ...]) -> None:
        """Replace the variables in the values of all options, queue names excepted."""
        for spec in specs:
            if not spec.kind.literal:
                value = self._draft.values[spec.attribute]
                resolved = self._value(spec, value)
                if resolved is not value:
                    self._draft.values[spec.attribute] = resolved

    def _value(self, spec: OptionSpec, value: Any) -> Any:  # noqa: ANN401 - the value of any option
        line = self._draft.lines.get(spec.attribute)
        if isinstance(value, str):
            text = self.text(value, line, template=spec.kind.template)
            return self.path(text) if spec.kind.path and text else text
        if isinstance(value, tuple):
            texts = tuple(self.text(part, line, template=False) for part in value)
            return tuple(self.path(text) for text in texts) if spec.kind.path else texts
        if isinstance(value, Mapping):
            return MappingProxyType({k: self.text(v, line, template=False) for k, v in value.items()})
        return value

    def _unknown(self, name: str, line: Line | None) -> None:
        if is_message_variable(name):
            self._error(f"${{{name}}} is known for each message only, and cannot be used here", line, name)
            return
        near = nearest(name, _NAMES)
        hint = f"; did you mean ${{{near}}}?" if near else ""
        self._error(
            f"${{{name[:60]}}} has no value: no such variable, option or 'declare env'{hint}", line, name
        )

    def _error(self, what: str, line: Line | None, name: str = "") -> None:
        if line is None:
            self._draft.errors.append(ConfigError(what, "default"))
            return
        self._draft.errors.append(line.error(what, max(line.value.find("${" + name), 0)))

"""The configuration language, second step: lines carried out in order, from top to bottom, into a Draft.

What a line captures is what stood above it: accept and reject take the placement, subtopic takes broker,
exchange, topicPrefix and queueName. The command line is read first and pins what it sets, so that files do
not change it; its own masks are looked at before the files' ones. Every problem is collected, none ends the
reading. Source: sr3-surface.md 3.3, 3.4.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from sarrapipe.config.components import COMPONENTS
from sarrapipe.config.draft import Draft, DraftBinding, DraftMask, DraftRule
from sarrapipe.config.kinds import NONE_WORDS
from sarrapipe.config.names import find, unknown_name
from sarrapipe.config.option import OptionSpec
from sarrapipe.config.parse import COMMAND_LINE, Line, parse
from sarrapipe.config.regexes import RegexError, compile_regex
from sarrapipe.config.substitute import Environment, expand, is_message_variable, variables
from sarrapipe.config.synonyms import LATER, NEEDLESS, REWRITES, nearest
from sarrapipe.config.urls import BrokerUrl
from sarrapipe.config.values import CallbackSpec, Origin, Role
from sarrapipe.config.variables import static_variable
from sarrapipe.errors import ConfigError

__all__ = ["MAX_INCLUDE_DEPTH", "Evaluator", "FindInclude"]

FindInclude = Callable[[str, str], tuple[str, str]]
"""Takes the name on an `include` line and the including file; returns path and text, or raises."""

MAX_INCLUDE_DEPTH: Final = 20
MAX_INCLUDES: Final = 500
_MAX_PROBLEMS: Final = 1000
_USER_RE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_SUNDEW_RE: Final = re.compile(
    r"(None|NONE|WHATFN|HEADFN|SENDER|NONESENDER|TIME|SATNET=.*|DESTFN=.*)(:.*)?", re.DOTALL
)
_ENV_WORDS: Final = frozenset({"env", "envvar", "var", "value"})
_ROLES: Final = {
    "source": Role.SOURCE, "subscriber": Role.SUBSCRIBER, "subscribe": Role.SUBSCRIBER,
    "feeder": Role.FEEDER, "admin": Role.ADMIN,
}  # fmt: skip
# Statements that the command line adds once the files have been read.
_LATE: Final = frozenset({"accept", "reject", "subtopic", "topic", "callback", "flowcb", "import"})


class Evaluator:
    """Carries out lines.

    Args:
        draft: Where the results go.
        environment: What variables stand for.
        component: Component of the flow, "" for admin.conf alone.
        name: Name of the configuration.
        find_include: Finds and reads the files of include lines.
    """

    def __init__(
        self, draft: Draft, environment: Environment, component: str, name: str, find_include: FindInclude
    ) -> None:
        self.draft = draft
        self._environment = environment
        self._component = component
        self._name = name
        self._find_include = find_include
        self._including: list[str] = []
        self._included = 0
        self._pinning = False
        self._cli_subtopics = False
        self._statements: dict[str, Callable[[Line, str], None]] = {
            "accept": self._mask,
            "reject": self._mask,
            "subtopic": self._subtopic,
            "topic": self._subtopic,
            "include": self._include,
            "declare": self._declare,
            "callback": self._callback,
            "callback_prepend": self._callback,
            "flowcb": self._callback,
            "flowcb_prepend": self._callback,
            "import": self._callback,
            "set": self._set,
        }

    def command_line(self, lines: Sequence[Line]) -> None:
        """Carry out the options of the command line, and pin them against the files that follow."""
        self._pinning = True
        self._cli_subtopics = any(line.option in ("subtopic", "topic") for line in lines)
        self.run(line for line in lines if line.option not in _LATE)
        self._pinning = False

    def command_line_statements(self, lines: Sequence[Line]) -> None:
        """Carry out the rest of the command line, after the files: its masks come before the files' ones."""
        self._cli_subtopics = False
        files_masks, self.draft.masks = self.draft.masks, []
        self.run(line for line in lines if line.option in _LATE)
        self.draft.masks += files_masks
        pairs = [line for line in lines if isinstance(find(line.option), OptionSpec) and self._is_pairs(line)]
        self.run(pairs)

    def _is_pairs(self, line: Line) -> bool:
        spec = find(line.option)
        return isinstance(spec, OptionSpec) and spec.kind.metavar == "KEY=VALUE"

    def component_defaults(self) -> None:
        """Put the component's defaults over what default.conf says (sr3-surface.md 3.3, the order)."""
        spec = COMPONENTS.get(self._component)
        for attribute, value in (spec.defaults if spec else {}).items():
            if attribute not in self.draft.pinned:
                self.draft.values[attribute] = value
                self.draft.origins[attribute] = Origin(f"{self._component} default")
                self.draft.lines.pop(attribute, None)

    def text(self, text: str, file: str) -> None:
        """Carry out the text of a file."""
        lines, errors = parse(text, file)
        self.draft.errors += errors
        self._including.append(file)
        self.run(lines)
        self._including.pop()

    def run(self, lines: Iterable[Line]) -> None:
        """Carry out lines in order."""
        for line in lines:
            if len(self.draft.errors) >= _MAX_PROBLEMS:
                return
            try:
                self._carry_out(line)
            except ConfigError as error:
                self.draft.errors.append(error)

    def _carry_out(self, line: Line) -> None:
        if line.option in REWRITES:
            key, value = REWRITES[line.option](line.value)
            line = Line(key, value, line.file, line.line, line.column, line.value_column)
        if line.option in self.draft.options:
            self.draft.settings[line.option] = self._expanded(line, None)
            return
        found = find(line.option)
        if isinstance(found, OptionSpec):
            self._option(line, found)
        elif found is not None:
            self._statements[found](line, found)
        elif line.option in LATER:
            self.draft.warn(f"{line.option} is not supported yet: the line has no effect", line)
        elif line.option in NEEDLESS:
            self.draft.warn(f"{line.option} has nothing to switch here: {NEEDLESS[line.option]}", line)
        else:
            self.draft.unknown.append(line)

    def finish(self) -> None:
        """Say what is to be said of unknown names: a callback may know them, unless they are slips."""
        for line in self.draft.unknown:
            what, slip = unknown_name(line.option)
            if slip or not self.draft.callbacks:
                self.draft.errors.append(line.error(what))
            else:
                self.draft.settings[line.option] = line.value
                self.draft.warn(
                    f"{line.option!r} is no option: kept for the callbacks, 'declare option' it", line
                )

    # Options

    def _option(self, line: Line, spec: OptionSpec) -> None:
        draft = self.draft
        if spec.attribute in draft.pinned and not self._pinning and line.file != COMMAND_LINE:
            return
        text = line.value or (spec.kind.bare or "")
        if not text:
            raise line.error(f"{spec.key} needs a value: {spec.kind.metavar}")
        text = self._expanded(line, spec) if line.value else text
        if spec.attribute == "exchange" and draft.values["exchange"] is None:
            self._warn_of_earlier_subtopics(line)
        try:
            value = spec.kind.parse(text, draft.values[spec.attribute])
        except ValueError as error:
            raise line.error(f"{spec.key}: {error}", 0) from error
        draft.values[spec.attribute] = value
        draft.origins[spec.attribute] = line.origin
        draft.lines[spec.attribute] = line
        if self._pinning and not self._is_pairs(line):
            draft.pinned.add(spec.attribute)

    def _warn_of_earlier_subtopics(self, line: Line) -> None:
        broker = self.draft.values["broker"]
        if any(binding.broker == broker and binding.exchange is None for binding in self.draft.bindings):
            self.draft.warn(
                "exchange holds for the subtopic lines below it; those above have the default", line
            )

    def _expanded(self, line: Line, spec: OptionSpec | None) -> str:
        """Return the value with the variables replaced that are known now."""
        if "${" not in line.value:
            return line.value
        late = spec is not None and (spec.kind.template or spec.kind.literal or spec.kind.name == "text")
        try:
            text = expand(line.value, lambda name: self._known_now(name, spec, late=late))
        except ValueError as error:
            raise line.error(str(error), 0) from error
        if spec is not None and not late:
            for _, name in variables(text):
                raise line.error(
                    f"{spec.key}: ${{{name[:60]}}} has no value here", max(line.value.find("${" + name), 0)
                )
        return text

    def _known_now(self, name: str, spec: OptionSpec | None, *, late: bool) -> str | None:
        if name in self.draft.env:
            return self.draft.env[name]
        if is_message_variable(name):
            return None
        static = static_variable(name, self._environment, self._component, self._name)
        if static is not None:
            return static
        if not late or (spec is not None and find(name) is spec):  # adding to its own value
            return self._option_now(name)
        return None

    def _option_now(self, name: str) -> str | None:
        values = self.draft.values
        for user, attribute in (("BROKER_USER", "broker"), ("POST_BROKER_USER", "post_broker")):
            if name == user:
                broker = values[attribute]
                return broker.user if isinstance(broker, BrokerUrl) else None
        spec = find(name)
        if isinstance(spec, OptionSpec) and values[spec.attribute] not in (None, "", ()):
            return spec.kind.format(values[spec.attribute])
        return self._environment.variables.get(name)

    # Statements

    def _rule(self) -> DraftRule:
        values: dict[str, Any] = self.draft.values
        return DraftRule(
            directory=values["directory"],
            mirror=values["mirror"],
            strip=values["strip"],
            flatten=values["flatten"],
            filename=values["filename"],
            line=self.draft.lines.get("directory"),
        )

    def _mask(self, line: Line, statement: str) -> None:
        words = line.value.split()
        if not words:
            raise line.error(f"{statement} needs a regular expression")
        regex = self._expanded(
            Line(statement, words[0], line.file, line.line, line.column, line.value_column), None
        )
        left = next((name for _, name in variables(regex) if name.isidentifier()), None)
        if left is not None:
            raise line.error(f"{statement}: ${{{left}}} has no value here", line.value.find("${" + left))
        try:
            compile_regex(regex)
        except RegexError as error:
            raise line.error(f"{statement}: {error}", error.position) from error
        rule, arguments = self._rule(), words[1:]
        if arguments and _SUNDEW_RE.fullmatch(arguments[0]):
            filename = None if arguments[0] == "None" else arguments.pop(0)
            rule = DraftRule(rule.directory, rule.mirror, rule.strip, rule.flatten, filename, rule.line)
        self.draft.masks.append(DraftMask(statement == "accept", regex, rule, tuple(arguments), line))

    def _subtopic(self, line: Line, statement: str) -> None:
        if self._cli_subtopics:
            return
        text = self._expanded(line, None)
        if not text or len(text.split()) != 1:
            raise line.error(f"{statement} needs one pattern of words, without blanks")
        values = self.draft.values
        queue_line = self.draft.lines.get("queue_name")
        binding = DraftBinding(
            broker=values["broker"],
            broker_origin=self.draft.origins.get("broker", line.origin),
            exchange=values["exchange"],
            exchange_suffix=values["exchange_suffix"],
            queue_name=values["queue_name"] if queue_line else None,
            topic_prefix=values["topic_prefix"],
            subtopic=None if text.lower() in NONE_WORDS else text.strip("./").replace("/", "."),
            whole=statement == "topic",
            line=line,
        )
        self.draft.bindings.append(binding)

    def _include(self, line: Line, _statement: str) -> None:
        name = self._expanded(line, None)
        if not name:
            raise line.error("include needs a file")
        self._included += 1
        if len(self._including) > MAX_INCLUDE_DEPTH or self._included > MAX_INCLUDES:
            raise line.error(f"include {name}: files include each other too deeply", 0)
        try:
            path, text = self._find_include(name, line.file)
        except ConfigError as error:
            raise line.error(error.what, 0) from error
        if path in self._including:
            raise line.error(
                f"include {name}: {path} includes itself: {' -> '.join([*self._including, path])}", 0
            )
        self.text(text, path)

    def _declare(self, line: Line, _statement: str) -> None:
        kind, _, rest = line.value.partition(" ")
        rest = rest.strip()
        if kind in _ENV_WORDS:
            self._declare_variable(line, rest)
        elif kind in ("option", "o") and rest:
            self.draft.options.add(rest.split()[0])
        elif kind in _ROLES:
            self._declare_user(line, kind, self._declared_word(line, rest))
        elif kind == "exchange":
            self.draft.exchanges.append(self._declared_word(line, rest))
        else:
            known = sorted({*_ROLES, "env", "option", "exchange"})
            near = nearest(kind, known) if kind else None
            hint = f"did you mean {near!r}?" if near else f"use one of {', '.join(known)}"
            raise line.error(f"declare {kind[:60]!r}: {hint}", 0)

    def _declare_variable(self, line: Line, rest: str) -> None:
        name, equals, value = rest.partition("=")
        if not equals or not name.strip():
            raise line.error("declare env: write NAME=VALUE", 0)
        shifted = Line("declare", value.strip(), line.file, line.line, line.column, line.value_column)
        self.draft.env[name.strip()] = self._expanded(shifted, None)

    def _declared_word(self, line: Line, rest: str) -> str:
        shifted = Line("declare", rest, line.file, line.line, line.column, line.value_column)
        word = self._expanded(shifted, None)
        if not _USER_RE.fullmatch(word):
            # R126: names public, static, unique, understandable
            raise line.error(f"declare: {word[:60]!r} is not a name: use letters, digits, _ and -", 0)
        return word

    def _declare_user(self, line: Line, kind: str, user: str) -> None:
        role = _ROLES[kind]
        earlier = self.draft.users.get(user)
        if earlier is not None and earlier is not role:
            raise line.error(f"{user} is declared as {earlier.value} already", 0)
        self.draft.users[user] = role

    def _callback(self, line: Line, statement: str) -> None:
        name = self._expanded(line, None)
        if not name or len(name.split()) != 1:
            raise line.error(f"{statement} needs one name")
        name = name.removesuffix(".py")
        prepend = statement.endswith("_prepend")
        kind = statement.removesuffix("_prepend")
        if any((known.name, known.statement) == (name, kind) for known in self.draft.callbacks):
            return
        spec = CallbackSpec(name, kind, prepend, line.origin)
        self.draft.callbacks.insert(0 if prepend else len(self.draft.callbacks), spec)

    def _set(self, line: Line, _statement: str) -> None:
        target, _, value = self._expanded(line, None).partition(" ")
        if "." not in target:
            raise line.error("set needs CLASS.OPTION and a value", 0)
        self.draft.settings[target] = value.strip()

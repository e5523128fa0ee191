"""The configuration language, last step: a Draft becomes a FlowConfig, or a list of what is wrong with it."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

from sarrapipe.config.checks import check
from sarrapipe.config.components import COMPONENTS
from sarrapipe.config.credentials import Credentials
from sarrapipe.config.draft import Draft, DraftBinding, DraftMask, DraftRule
from sarrapipe.config.masks import Mask, Masks, PlacementRule
from sarrapipe.config.model import FlowConfig, option_specs
from sarrapipe.config.parse import Line
from sarrapipe.config.problems import ConfigErrors
from sarrapipe.config.regexes import compile_regex
from sarrapipe.config.resolve import Resolver
from sarrapipe.config.substitute import Environment, Template
from sarrapipe.config.urls import BrokerUrl, split_url
from sarrapipe.config.values import Binding, InflightMode, Origin, Subscription
from sarrapipe.errors import ConfigError

__all__ = ["build", "initial_draft"]

_OWN_SHARE: Final = "${USER}_${HOSTNAME}_${RAND8}"
_MAX_NAME: Final = 255  # bytes of an AMQP short string: names of queues and exchanges, routing keys


def initial_draft(defaults: str) -> Draft:
    """Return a draft with the defaults of `native` or `sr3`."""
    specs = option_specs()
    values = {spec.attribute: spec.sr3 if defaults == "sr3" else spec.default for spec in specs}
    origins = {
        spec.attribute: Origin("sr3 default" if defaults == "sr3" and spec.sr3 != spec.default else "default")
        for spec in specs
    }
    return Draft(values | {"defaults": defaults}, origins)


def build(
    draft: Draft,
    environment: Environment,
    credentials: Credentials,
    component: str,
    name: str,
    *,
    file: str,
    config_dir: str,
    state_dir: str,
) -> FlowConfig:
    """Make a draft final.

    Args:
        draft: Everything read; used up.
        environment: What variables stand for.
        credentials: Passwords of brokers.
        component: Component of the flow.
        name: Name of the configuration.
        file: The configuration's own file, "" for the command line alone.
        config_dir: Directory of all configurations.
        state_dir: Directory of the flow's state.

    Raises:
        ConfigErrors: Everything that is wrong.
    """
    builder = _Builder(draft, environment, credentials, component, name)
    builder.brokers()
    builder.derived()
    builder.resolver.options(option_specs())
    if draft.errors:
        builder.subscriptions()  # for its errors
        builder.masks()
        raise ConfigErrors(draft.errors, draft.warnings)
    config = FlowConfig(
        **draft.values,
        component=component,
        name=name,
        file=file,
        config_dir=config_dir,
        state_dir=state_dir,
        subscriptions=builder.subscriptions(),
        masks=builder.masks(),
        callbacks=tuple(spec for spec in draft.callbacks if spec.statement != "import"),
        imports=tuple(spec.name for spec in draft.callbacks if spec.statement == "import"),
        callback_settings=MappingProxyType(dict(draft.settings)),
        users=MappingProxyType(dict(draft.users)),
        exchanges=tuple(draft.exchanges),
        credentials=credentials,
        environment=environment,
        warnings=tuple(draft.warnings),
        origins=MappingProxyType(dict(draft.origins)),
    )
    errors, warnings = check(config)
    if draft.errors or errors:
        raise ConfigErrors([*draft.errors, *errors], [*draft.warnings, *warnings])
    return FlowConfig(**{**vars(config), "warnings": (*config.warnings, *warnings)}) if warnings else config


class _Builder:
    """The steps of `build`, in the order of its calls."""

    def __init__(
        self, draft: Draft, environment: Environment, credentials: Credentials, component: str, name: str
    ) -> None:
        self._draft = draft
        self._values: dict[str, Any] = draft.values
        self._credentials = credentials
        self._component = component
        self._environment = environment
        self._default_directory = environment.cwd
        self._default_directory_line: Line | None = None
        self.resolver = Resolver(draft, environment, component, name)

    def brokers(self) -> None:
        """Give every broker its password, and fill in the brokers that follow from others."""
        values = self._values
        for attribute in ("admin", "feeder", "broker", "post_broker"):
            self._warn_of_password(attribute)
        for attribute in ("admin", "feeder"):  # whoever uses them says that a password is missing
            if isinstance(values[attribute], BrokerUrl):
                values[attribute] = self._completed(values[attribute], None)
        if self._component == "sarra":  # the pump's own processes speak as its feeder (R130)
            self._fall_back("broker", "feeder")
            self._fall_back("post_broker", "feeder")
        if self._component == "post":  # v2's post wrote `broker` and `exchange`
            self._fall_back("post_broker", "broker")
            self._fall_back("post_exchange", "exchange")
        elif values["post_exchange"] or values["post_exchange_suffix"]:
            self._fall_back("post_broker", "feeder")
            self._fall_back("post_broker", "broker")
        for attribute in ("broker", "post_broker"):
            if isinstance(values[attribute], BrokerUrl):
                values[attribute] = self._completed(values[attribute], self._draft.origins[attribute])

    def _warn_of_password(self, attribute: str) -> None:
        broker, line = self._values[attribute], self._draft.lines.get(attribute)
        if line is not None and broker is not None and broker.password and broker.user != "anonymous":
            self._draft.warn("a password stands here: move it to credentials.conf", line)

    def _fall_back(self, attribute: str, other: str) -> None:
        if self._values[attribute] is None and self._values[other] is not None:
            self._values[attribute] = self._values[other]
            self._draft.origins[attribute] = self._draft.origins[other]
            if other in self._draft.lines:
                self._draft.lines[attribute] = self._draft.lines[other]

    def _completed(self, broker: BrokerUrl, origin: Origin | None) -> BrokerUrl:
        try:
            return self._credentials.complete(broker)
        except ValueError as error:
            if origin is not None:
                what = ConfigError(str(error), origin.file, origin.line, origin.column)
                self._draft.errors.append(what)
            return broker

    def derived(self) -> None:
        """Fill in the defaults that follow from other options."""
        values, origins = self._values, self._draft.origins
        post_broker = values["post_broker"]
        if values["post_exchange"] is None and isinstance(post_broker, BrokerUrl):
            suffix = values["post_exchange_suffix"]
            values["post_exchange"] = f"xs_{post_broker.user}" + (f"_{suffix}" if suffix else "")
        if not values["post_topic_prefix"]:
            values["post_topic_prefix"] = ("v02", "post") if values["post_format"] == "v02" else ("v03",)
        if values["post_base_dir"] is None:
            values["post_base_dir"] = self._served_directory()
        self._derive_directory()
        if values["queue_share"] and values["defaults"] == "native" and "queue_name" not in self._draft.lines:
            values["queue_name"] += ".${QUEUESHARE}"
        age_s = values["inflight"].age_s
        if values["inflight"].mode is InflightMode.AGE and "file_age_min" not in self._draft.lines:
            values["file_age_min"], origins["file_age_min"] = age_s, origins["inflight"]
        if values["source"] is None and (self._component == "post" or values["defaults"] == "sr3"):
            account = post_broker or values["broker"]
            if isinstance(account, BrokerUrl) and not values["source_from_exchange"]:
                values["source"] = account.user

    def _derive_directory(self) -> None:
        """Where files go: as told, else the directory of `sendTo`, else what is served, else where we are."""
        values, origins, lines = self._values, self._draft.origins, self._draft.lines
        leader = "post_base_dir"
        if values["send_to"] is not None:  # a directory of that server
            leader = "send_to"
            self._default_directory = split_url(values["send_to"]).path.rstrip("/") or "/"
            self._default_directory_line = lines.get("send_to")
        else:
            self._default_directory = values["post_base_dir"] or self._environment.cwd
            self._default_directory_line = lines.get("post_base_dir", lines.get("base_dir"))
        if not values["directory"]:
            values["directory"] = self._default_directory
            origins["directory"] = origins[leader] if values[leader] else Origin("default")
            if self._default_directory_line is not None:
                lines["directory"] = self._default_directory_line

    def _served_directory(self) -> str | None:
        """Return the directory that a file: or sftp: post_baseUrl names, else that of sendTo, or baseDir."""
        url = self._values["post_base_url"]
        if isinstance(url, str) and url.startswith(("file:", "sftp:")) and "${" not in url:
            return split_url(url).path or "/"
        if self._values["send_to"] is not None:
            return split_url(self._values["send_to"]).path or "/"
        base_dir = self._values["base_dir"]
        return base_dir if isinstance(base_dir, str) else None

    def subscriptions(self) -> tuple[Subscription, ...]:
        """Return the queues and what is bound to each, in the order of the lines."""
        spec = COMPONENTS.get(self._component)
        if spec is None or not spec.reads:
            return ()
        bindings = self._draft.bindings or self._default_bindings()
        found: dict[tuple[str, str], Subscription] = {}
        for binding in bindings:
            broker = binding.broker or self._values["broker"]
            if not isinstance(broker, BrokerUrl):
                continue  # checks.py says that a broker is missing
            origin = binding.broker_origin if binding.broker else self._draft.origins["broker"]
            broker = self._completed(broker, origin)
            queue_name = self._queue_name(binding, broker)
            bound = self._binding(binding, broker)
            earlier = found.get((broker.key, queue_name))
            if earlier is None:
                earlier = Subscription(broker, queue_name, (), origin)
            if bound is not None and bound not in earlier.bindings:
                earlier = Subscription(broker, queue_name, (*earlier.bindings, bound), earlier.origin)
            found[broker.key, queue_name] = earlier
        return tuple(found.values())

    def _default_bindings(self) -> list[DraftBinding]:
        values = self._values
        line = self._draft.lines.get("broker") or Line("broker", "", "default", 0, 0, 0)
        return [
            DraftBinding(
                broker=values["broker"],
                broker_origin=self._draft.origins["broker"],
                exchange=values["exchange"],
                exchange_suffix=values["exchange_suffix"],
                queue_name=None,
                topic_prefix=values["topic_prefix"],
                subtopic="#",
                whole=False,
                line=line,
            )
        ]

    def _queue_name(self, binding: DraftBinding, broker: BrokerUrl) -> str:
        template = binding.queue_name or self._values["queue_name"]
        if broker.user == "anonymous" and self._values["defaults"] == "native" and self._shares_by_default():
            # Half the world is anonymous: who names a configuration alike must not get our messages.
            template += f".{_OWN_SHARE}"
        line = self._draft.lines.get("queue_name")
        name = self.resolver.text(template, line, template=False, broker=broker)
        self._short(name, "queueName", line or binding.line)
        return name

    def _shares_by_default(self) -> bool:
        return "queue_name" not in self._draft.lines and not self._values["queue_share"]

    def _binding(self, binding: DraftBinding, broker: BrokerUrl) -> Binding | None:
        if binding.subtopic is None:
            return None
        exchange = binding.exchange
        if exchange is None:
            exchange = self._default_exchange(binding, broker)
        line = binding.line
        exchange_line = self._draft.lines.get("exchange", line)
        exchange = self.resolver.text(exchange, exchange_line, template=False, broker=broker)
        subtopic = self.resolver.text(binding.subtopic, line, template=False, broker=broker)
        prefix = () if binding.whole else binding.topic_prefix
        bound = Binding(
            exchange, tuple(self.resolver.text(p, line, template=False) for p in prefix), subtopic
        )
        self._short(exchange, "exchange", exchange_line)
        self._short(bound.routing_key, "topic pattern", line)
        return bound

    def _default_exchange(self, binding: DraftBinding, broker: BrokerUrl) -> str:
        if binding.exchange_suffix:
            return f"xs_{broker.user}_{binding.exchange_suffix}"
        if self._values["defaults"] == "sr3" and broker.user != "anonymous":
            return f"xs_{broker.user}"
        return "xpublic"  # R50

    def _short(self, name: str, what: str, line: Line) -> None:
        if not name or len(name.encode(errors="replace")) > _MAX_NAME:
            self._draft.errors.append(
                ConfigError(
                    f"{what} {name[:60]!r}: 1 to {_MAX_NAME} bytes", line.file, line.line, line.column
                )
            )

    def masks(self) -> Masks:
        """Return the accept and reject lines with their placements made final."""
        values, lines = self._values, self._draft.lines
        last = DraftRule(
            values["directory"], values["mirror"], values["strip"], values["flatten"], values["filename"],
            lines.get("directory"),
        )  # fmt: skip
        rules: dict[DraftRule, PlacementRule] = {}
        masks = tuple(self._mask(mask, rules) for mask in self._draft.masks)
        return Masks(masks, self._rule(last, rules), accept_unmatched=values["accept_unmatched"])

    def _mask(self, mask: DraftMask, rules: dict[DraftRule, PlacementRule]) -> Mask:
        rule = self._rule(mask.rule, rules)
        finished = Mask(mask.accept, compile_regex(mask.regex), rule, mask.arguments, mask.line.origin)
        if mask.accept:
            self._check_groups(finished, mask.line)
        return finished

    def _check_groups(self, mask: Mask, line: Line) -> None:
        used = max((t.highest_group for t in (mask.rule.directory, mask.rule.filename) if t), default=0)
        if used > mask.regex.groups:
            what = (
                f"accept: the placement above uses ${{{used}}}, the expression has {mask.regex.groups} groups"
            )
            self._draft.errors.append(line.error(what, 0))

    def _rule(self, rule: DraftRule, rules: dict[DraftRule, PlacementRule]) -> PlacementRule:
        known = rules.get(rule)
        if known is None:
            offset_s = self._values["var_time_offset"]
            line = rule.line if rule.directory else self._default_directory_line
            directory = rule.directory or self._default_directory
            directory = self.resolver.path(self.resolver.text(directory, line, template=True))
            filename = rule.filename
            if filename is not None:
                filename = self.resolver.text(filename, self._draft.lines.get("filename"), template=True)
            known = rules[rule] = PlacementRule(
                directory=Template(directory, offset_s),
                mirror=rule.mirror,
                strip=rule.strip,
                flatten=rule.flatten,
                filename=None if filename is None else Template(filename, offset_s),
            )
        return known

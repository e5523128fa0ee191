"""`FlowConfig`: everything one flow was told, validated, frozen; each value knows the line that set it.

    config = load_flow(home, "sarra", "ddsr", overrides=[])
    config.prefetch, config.origin("prefetch")

Options are declared in the options_*.py modules; what several lines make together (masks, subscriptions,
callbacks, declared accounts) are the fields below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from sarrapipe.config.credentials import Credentials
from sarrapipe.config.masks import Masks, PlacementRule
from sarrapipe.config.option import OptionSpec, declared
from sarrapipe.config.options_broker import BrokerOptions
from sarrapipe.config.options_posting import PostingOptions
from sarrapipe.config.options_process import ProcessOptions
from sarrapipe.config.options_selection import SelectionOptions
from sarrapipe.config.options_sending import SendingOptions
from sarrapipe.config.options_sftp import SftpOptions
from sarrapipe.config.options_transfer import PlacementOptions, TransferOptions
from sarrapipe.config.substitute import Environment, Template
from sarrapipe.config.values import CallbackSpec, Origin, Problem, Role, Strip, Subscription

__all__ = ["FlowConfig", "Options", "option_specs"]

_DEFAULT: Final = Origin("default")


def _empty() -> Mapping[str, Any]:
    return MappingProxyType({})


def _no_masks() -> Masks:
    rule = PlacementRule(Template("/"), mirror=True, strip=Strip(), flatten="/", filename=None)
    return Masks((), rule, accept_unmatched=True)


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Options(
    ProcessOptions,
    SendingOptions,
    SftpOptions,
    TransferOptions,
    PlacementOptions,
    SelectionOptions,
    PostingOptions,
    BrokerOptions,
):
    """Every declared option.

    Like the groups it is made of it is never instantiated, so no methods are made for it: start-up time.
    """


def option_specs() -> tuple[OptionSpec, ...]:
    """Return every declared option, broker options first."""
    return declared(Options)


@dataclass(frozen=True, kw_only=True, eq=False)
class FlowConfig(Options):
    """One flow's configuration.

    Attributes:
        component: post, sarra, subscribe ...
        name: Name of the configuration, without `.conf`; "" for a component run from the command line alone.
        file: The configuration's own file; "" for a component run from the command line alone.
        config_dir: Directory of all configurations; a user's callbacks are in its `plugins`.
        state_dir: Directory of the flow's state (ledger, kept store, control socket, logs).
        subscriptions: Queues and their bindings, one for each broker.
        masks: The accept and reject lines in order.
        callbacks: Callbacks in the order in which they run.
        imports: Python modules to import before callbacks are loaded.
        callback_settings: What `set` and declared options say, for callbacks to read.
        users: Accounts declared for the pump, with their roles.
        exchanges: Exchanges declared for the pump.
        credentials: What credentials.conf says; asked by transfers.
        environment: What variables stand for.
        warnings: What a person should know though the flow can run.
        origins: The line that set each option, by field name; ask `origin`.
    """

    component: str = ""
    name: str = ""
    file: str = ""
    config_dir: str = ""
    state_dir: str = ""
    subscriptions: tuple[Subscription, ...] = ()
    masks: Masks = field(default_factory=_no_masks)
    callbacks: tuple[CallbackSpec, ...] = ()
    imports: tuple[str, ...] = ()
    callback_settings: Mapping[str, str] = field(default_factory=_empty)
    users: Mapping[str, Role] = field(default_factory=_empty)
    exchanges: tuple[str, ...] = ()
    credentials: Credentials = field(default_factory=Credentials, repr=False)
    environment: Environment = field(default_factory=Environment, repr=False)
    warnings: tuple[Problem, ...] = ()
    origins: Mapping[str, Origin] = field(default_factory=_empty, repr=False)

    @property
    def flow(self) -> str:
        """`component/name`, what commands, titles and logs call this flow."""
        return f"{self.component}/{self.name}" if self.name else self.component

    def origin(self, option: str) -> Origin:
        """Return the line, or the kind of default, that a value comes from.

        Args:
            option: Field name or name in configuration files: `post_base_url` or `post_baseUrl`.

        Raises:
            KeyError: No such option.
        """
        for spec in option_specs():
            if option in (spec.attribute, spec.key):
                return self.origins.get(spec.attribute, _DEFAULT)
        raise KeyError(option)

    @property
    def flow_byte_rate(self) -> int:
        """Bytes per second of the whole flow; 0 without limit (design.md 9: rates per flow)."""
        return self.byte_rate_max * (self.instances if self.defaults == "sr3" else 1)

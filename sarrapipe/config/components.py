"""Components: one engine, told apart by tables of defaults (R33), and what each cannot do without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sarrapipe.config.values import Fetching

__all__ = ["COMPONENTS", "KNOWN_COMPONENTS", "ComponentSpec"]


@dataclass(frozen=True, slots=True)
class ComponentSpec:
    """What makes a component.

    Attributes:
        help: What it does, one sentence.
        defaults: Field names of options and their values, over the general defaults.
        reads: It reads notification messages from a broker, and so needs one.
        posts: It cannot work without announcing.
    """

    help: str
    defaults: Mapping[str, object]
    reads: bool
    posts: bool


COMPONENTS: Final[Mapping[str, ComponentSpec]] = MappingProxyType({
    "post": ComponentSpec(
        help="Announces files and trees of this machine.",
        defaults=MappingProxyType({}),
        reads=False,
        posts=True,
    ),
    "sarra": ComponentSpec(
        help="Fetches announced files and announces them again, from here.",
        defaults=MappingProxyType({"download": Fetching.ON}),
        reads=True,
        posts=False,
    ),
    "sender": ComponentSpec(
        help="Sends announced files to another server, and announces them there.",
        defaults=MappingProxyType({"download": Fetching.ON}),
        reads=True,
        posts=False,
    ),
    "flow": ComponentSpec(
        help="Passes messages on as its callbacks make them; fetches nothing unless told to.",
        defaults=MappingProxyType({}),
        reads=True,
        posts=False,
    ),
    "subscribe": ComponentSpec(
        help="Fetches announced files.",
        defaults=MappingProxyType({"download": Fetching.ON, "mirror": False}),
        reads=True,
        posts=False,
    ),
})  # fmt: skip

# Directories of these names hold configurations in sr3's and v2's trees.
KNOWN_COMPONENTS: Final = frozenset({
    "audit", "cpost", "cpump", "flow", "poll", "post", "report", "sarra", "sender", "shovel", "subscribe",
    "watch", "winnow",
})  # fmt: skip
